"""The figures of a run that its diagnosis starts from, all of the measured window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helixlab.cluster import SOURCE
from helixlab.diagnosis.pressure import held_fraction, load_label
from helixlab.diagnosis.sampled import mean_of, samples
from helixlab.diagnosis.steadiness import GROWS
from helixlab.diagnosis.times import has_breakdown, in_window
from helixlab.simulation import Result
from helixlab.simulation.breakdown import PARTS

__all__ = ["HELD_OFTEN", "SATURATED_ABOVE", "Facts", "facts_of"]

SATURATED_ABOVE = 0.9
"""Part of the time that a node is busy from which on it counts as one that the run waits for."""

HELD_OFTEN = 0.1
"""Part of the window in which queries are held from which on more of them would only be held too."""

PREEMPTED_OFTEN = 0.1
"""Preemptions a query from which on more queries bring more of them; before, they bring more tokens."""


@dataclass(frozen=True)
class Facts:
    """Figures of the window.

    Parameters
    ----------
    window_s : float
        Its length.
    processed_tokens_per_s : float
        Prompt and decode tokens of the iterations that ended.
    served_tokens_per_s : float
        The same, with no more prompts than belong to the decodes, or to queries that finished: while a system
        fills up, or more is asked for than it can serve, prompts run ahead.
    flow_tokens_per_s, bound_tokens_per_s : float
        The maximum flow of the placement, and the upper bound for any.
    offered_tokens_per_s : float
        Tokens of the queries that arrived, online, or what was processed of earlier ones too, if that is
        more; infinite offline, where queries are fed as they fit.
    rejected_tokens_per_s : float
        Tokens of those that arrived and were dropped or refused.
    serving : float
        Mean number of queries that were being served: not those held at the coordinator.
    active : int
        Nodes that were at work.
    time : dict of str to float
        Seconds of all iterations together, by part; empty unless the breakdown was kept.
    wait_at_saturated : float
        Part of the waiting for batches that took place at saturated nodes.
    asked_fraction : float
        Part of the window in which there were queries: below 1 where the given requests ran out.
    only_turned_away : bool
        Nodes did nothing because each query that came was dropped or refused.
    nothing_ended : bool
        There were queries in the window, and no iteration of theirs came to its end.
    held_fraction : float
        Part of the window in which KV caches, or what the scheduler expects of them, kept queries out.
    load : str
        Online: what the queue does, see `helixlab.diagnosis.steadiness`; empty where that is not known.
    preemptions : float
        How often, on the mean, a query lost its KV cache to another.
    preempted_tokens_per_s : float
        Tokens of the queries that did, at the most.
    cut : DataFrame
        What binds the maximum flow: capacity_tokens_per_s, used_tokens_per_s, busy_fraction.
    """

    window_s: float
    processed_tokens_per_s: float
    served_tokens_per_s: float
    flow_tokens_per_s: float
    bound_tokens_per_s: float
    offered_tokens_per_s: float
    rejected_tokens_per_s: float
    serving: float
    active: int
    time: dict[str, float]
    wait_at_saturated: float
    asked_fraction: float
    only_turned_away: bool
    nothing_ended: bool
    held_fraction: float
    load: str
    preemptions: float
    preempted_tokens_per_s: float
    cut: pd.DataFrame

    @property
    def preempted(self) -> bool:
        """Whether queries often lose their KV cache to others."""
        return self.preemptions > PREEMPTED_OFTEN

    @property
    def saturated(self) -> bool:
        """Whether, online, more is asked for than can be served, so that queries pile up."""
        return self.load in GROWS

    @property
    def more_would_help(self) -> bool:
        """Whether there is a point in asking for more: what is asked for now is served, and has room."""
        return not self.saturated and self.has_room

    @property
    def again_tokens_per_s(self) -> float:
        """What went through the cut and did not end, computed again after a preemption.

        Tokens may pass a cut more than once for other reasons too, so no more than the preempted had.
        """
        beyond = float(self.cut["used_tokens_per_s"].sum()) - self.processed_tokens_per_s
        return min(max(beyond, 0.0), self.preempted_tokens_per_s)

    @property
    def has_room(self) -> bool:
        """Whether KV caches have room for what is asked for now."""
        return self.held_fraction < HELD_OFTEN and not self.preempted

    @property
    def lost_tokens_per_s(self) -> float:
        """Between the upper bound and what was served; losses add up to it."""
        return self.bound_tokens_per_s - self.served_tokens_per_s


def facts_of(result: Result) -> Facts:
    """Gather the figures of a result."""
    summary: dict[str, Any] = result.summary.to_dict("records")[0]  # type: ignore[assignment]
    first_s, last_s = summary["window_start_s"], summary["window_end_s"]
    span_s = last_s - first_s
    online = summary["mode"] == "online"
    nodes = result.nodes
    processed = summary["decode_tokens_per_s"] + summary["prompt_tokens_per_s"]
    asked_for, refused = _arrived_tokens(result)
    turned_away = _only_turned_away(result)
    asked = 1.0 if turned_away else _asked_fraction(result)
    waits = nodes["batch_wait_s"].to_numpy(dtype=float)
    all_busy = (nodes["busy_fraction"] >= SATURATED_ABOVE).to_numpy()
    whole_wait_s = float(np.nansum(waits))
    time = {}
    if has_breakdown(result):
        sums = in_window(result)[list(PARTS)].sum()
        time = {part: float(sums[part]) for part in PARTS}
    return Facts(
        window_s=span_s,
        processed_tokens_per_s=processed,
        served_tokens_per_s=min(processed, _with_decodes(result)),
        flow_tokens_per_s=summary["max_flow_tokens_per_s"],
        bound_tokens_per_s=summary["upper_bound_tokens_per_s"],
        offered_tokens_per_s=max(asked_for / span_s, processed) if online else float("inf"),
        rejected_tokens_per_s=refused / span_s,
        serving=_serving(result, time, asked * span_s),
        active=int(((nodes["tokens"] > 0) | (nodes["busy_fraction"] > 0)).sum()),
        time=time,
        wait_at_saturated=float(waits[all_busy].sum()) / whole_wait_s if whole_wait_s > 0 else 0.0,
        asked_fraction=asked,
        only_turned_away=turned_away,
        nothing_ended=processed == 0 and asked > 0 and not turned_away and _any_came(result),
        held_fraction=held_fraction(result),
        load=load_label(result),
        preemptions=summary["queries_preempted"] / max(summary["queries_fed"], 1),
        preempted_tokens_per_s=_preempted_tokens(result) / span_s,
        cut=_cut(result),
    )


def _arrived_tokens(result: Result) -> tuple[float, float]:
    """Tokens of the queries that arrived in the window, and of those that were turned away."""
    row, queries = result.summary.iloc[0], result.queries
    tokens = queries["input_tokens"] + queries["output_tokens"]
    inside = queries["arrival_s"].between(row["window_start_s"], row["window_end_s"])
    served = queries["outcome"] == "finished"
    arrived = float(tokens[inside].sum())
    if row["queries_in_flight"]:
        # Those in flight where the run was stopped are in no table, but in the means.
        mean = row["input_tokens_mean_accepted"] + row["output_tokens_mean_accepted"]
        let_in = int(served.sum()) + int(row["queries_in_flight"])
        arrived += max(float(mean) * let_in - float(tokens[served].sum()), 0.0)
    return arrived, float(tokens[inside & ~served].sum())


def _preempted_tokens(result: Result) -> float:
    row = result.summary.iloc[0]
    length = row["input_tokens_mean_accepted"] + row["output_tokens_mean_accepted"]
    return float(row["queries_preempted"] * length) if row["queries_preempted"] else 0.0


def _with_decodes(result: Result) -> float:
    """Decode tokens/s, and those of the prompts that belong to them.

    By the mean lengths of all queries, or by the queries that finished in the window, if that is more: where
    lengths change on the way, the means are of other queries than those that are served.
    """
    row, queries = result.summary.iloc[0], result.queries
    first_s, last_s = row["window_start_s"], row["window_end_s"]
    decoded = row["decode_tokens_per_s"]
    inputs, outputs = row["input_tokens_mean_accepted"], row["output_tokens_mean_accepted"]
    by_means = decoded * inputs / outputs if outputs > 0 else 0.0
    finished = queries[(queries["outcome"] == "finished") & queries["end_s"].between(first_s, last_s)]
    return float(decoded + max(by_means, finished["input_tokens"].sum() / (last_s - first_s)))


def _asked_fraction(result: Result) -> float:
    """Queries never run out, unless they were given and the last one has ended."""
    summary = result.summary.iloc[0]
    first_s, end_s = summary["window_start_s"], summary["window_end_s"]
    given = summary["mode"] == "offline" or result.provenance["workload"]["requests_hash"]
    if not given or summary["partial"] or summary["queries_in_flight"] > 0:
        return 1.0
    # One that is turned away ends too, and there was one until then.
    done_s = max(summary["last_finish_s"], float(result.queries["end_s"].max()))
    if not (summary["queries_fed"] > 0 and done_s < end_s):
        return 1.0
    return float(max(done_s - first_s, 0.0) / (end_s - first_s))


def _only_turned_away(result: Result) -> bool:
    """Whether nothing was computed in the window, and the queries that ended there, or at all, tell why."""
    queries, summary = result.queries, result.summary.iloc[0]
    if result.nodes["tokens"].sum() > 0:
        return False
    inside = queries[queries["end_s"].between(summary["window_start_s"], summary["window_end_s"])]
    ended = queries if inside.empty else inside
    return bool(len(ended) and (ended["outcome"] != "finished").all())


def _any_came(result: Result) -> bool:
    """Whether some query was in the system in the window."""
    summary, queries = result.summary.iloc[0], result.queries
    inside = (queries["arrival_s"] < summary["window_end_s"]) & (queries["end_s"] > summary["window_start_s"])
    return bool(summary["queries_in_flight"] > 0 or inside.any())


def _serving(result: Result, time: dict[str, float], span_s: float) -> float:
    """Queries at a time, over the part of the window in which there were any."""
    until_s = float(result.summary["window_start_s"].item()) + span_s
    inside = samples(result, result.timeline, until_s)
    if len(inside):
        return mean_of(inside, inside["in_flight"] - inside["held"])
    # By the iterations that ended, which are few where the window is short.
    return (sum(time.values()) - time["held_s"]) / span_s if time and span_s > 0 else float("nan")


def _cut(result: Result) -> pd.DataFrame:
    """How far the run used what binds the maximum flow."""
    nodes, links = result.nodes.set_index("node"), result.links.set_index(["sender", "receiver"])
    span_s = (result.summary["window_end_s"] - result.summary["window_start_s"]).item()
    used, busy = [], []
    for row in result.bottlenecks.to_dict("records"):
        if row["kind"] == "link":
            link = links.loc[(row["sender"], row["receiver"])]
            used.append(float(link["tokens_per_s"]))
            busy.append(float(link["busy_fraction"]))
        elif row["kind"] == "compute":
            node = nodes.loc[row["sender"]]
            used.append(float(node["tokens"]) / span_s)
            busy.append(float(node["busy_fraction"]))
        else:  # a network card, of the coordinator or a node, which sends what it received
            sent = result.links.loc[result.links["sender"] == row["sender"], "tokens_per_s"].sum()
            if row["sender"] != SOURCE and not sent:
                sent = result.links.loc[result.links["receiver"] == row["sender"], "tokens_per_s"].sum()
            used.append(float(sent))
            busy.append(float(sent) / row["capacity_tokens_per_s"])
    table = result.bottlenecks.copy()
    table["used_tokens_per_s"] = np.array(used, dtype=float)
    table["busy_fraction"] = np.minimum(np.array(busy, dtype=float), 1.0)
    return table
