"""Measures of a run that its diagnosis starts from, all of the measured window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import networkx as nx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis.steady_state import GROWS, load_of
from helixlab.engine.constants import PARTS
from helixlab.errors import SimulationError
from helixlab.simulation import Result

__all__ = [
    "HELD_OFTEN",
    "SATURATED_ABOVE",
    "STEPS",
    "Facts",
    "binding_cut",
    "facts_of",
    "gini",
    "has_breakdown",
    "held_fraction",
    "load_label",
    "max_over_mean",
    "mean_of",
    "node_means",
    "node_samples",
    "queued_s",
    "samples",
    "time_breakdown",
]


def gini(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The Gini coefficient: 0 where all are equal, near 1 where one has everything; 0 of nothing.

    Examples
    --------
    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 1])
    (0.0, 0.75)
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    total, count = float(ordered.sum()), len(ordered)
    if total <= 0:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float(2 * (ranks * ordered).sum() / (count * total) - (count + 1) / count)


def max_over_mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The largest over the mean: 1 where all are equal; 1 of nothing.

    Examples
    --------
    >>> max_over_mean([1, 2, 3])
    1.5
    """
    known = np.asarray(values, dtype=float)
    mean = float(known.mean()) if len(known) else 0.0
    return float(known.max()) / mean if mean > 0 else 1.0


STEPS: Final = "steps"
"""Column of the samples of a window: how many sample times in it a row stands for."""


def samples(result: Result, table: pd.DataFrame, until_s: float = np.inf) -> pd.DataFrame:
    """Rows of the timeline, or of that of nodes, that stand for part of the window, with `STEPS`.

    Parameters
    ----------
    result : Result
        Of `simulate`.
    table : DataFrame
        Its timeline or node_timeline.
    until_s : float
        Where the window is taken to end, if that is earlier.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> requests = pd.DataFrame({"arrival_s": [0, 99], "input_tokens": 9, "output_tokens": 1})
    >>> result = hx.simulate(*system, workload=hx.online(requests=requests, duration_s=99))
    >>> samples(result, result.timeline)["steps"].tolist()
    [1, 1, 17, 1]
    """
    first_s, last_s = (float(result.summary[f"window_{end}_s"].item()) for end in ("start", "end"))
    times = result.timeline["time_s"].to_numpy(float)
    steps = _steps(result, times)
    step_s = float(result.provenance["settings"]["sample_step_s"])
    if len(times):
        before = np.ceil(np.maximum(first_s - times, 0.0) / step_s)
        up_to_end = np.floor((min(last_s, until_s) - times) / step_s) + 1
        steps = np.maximum(np.minimum(up_to_end, steps) - before, 0).astype(np.int64)
    weighed = table.assign(**{STEPS: steps[np.searchsorted(times, table["time_s"])]})
    return weighed[weighed[STEPS] > 0]


def _steps(result: Result, times: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many sample times each row of the timeline stands for."""
    step_s = float(result.provenance["settings"]["sample_step_s"])
    if not len(times):
        return np.zeros(0, np.int64)
    return np.append(np.maximum(np.rint(np.diff(times) / step_s), 1), 1).astype(np.int64)


def node_samples(result: Result) -> pd.DataFrame:
    """Samples of the measured window of the nodes that hold layers."""
    nodes = result.nodes
    holding = nodes.loc[nodes["end_layer"] > nodes["first_layer"], "node"]
    inside = samples(result, result.node_timeline)
    return inside[inside["node"].isin(holding)]


def mean_of(rows: pd.DataFrame, values: pd.Series) -> float:
    """Mean over the time that samples stand for; NaN of none."""
    if (rows[STEPS] == 1).all():
        return float(values.mean())
    return float((values * rows[STEPS]).sum() / rows[STEPS].sum())


def node_means(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Mean of each node over the time that its samples stand for."""
    sums = rows[columns].mul(rows[STEPS], axis=0).groupby(rows["node"]).sum()
    return sums.div(rows.groupby("node")[STEPS].sum(), axis=0)


def queued_s(result: Result) -> float:
    """Seconds that all requests of the run together were queued at the coordinator; NaN if not known."""
    if "queued_s" in result.iterations and not result.summary["requests_in_flight"].item():
        return float(result.iterations["queued_s"].sum())
    timeline = result.timeline
    if timeline.empty:
        return float("nan")
    steps = _steps(result, timeline["time_s"].to_numpy(float))
    return float((timeline["queued"] * steps).sum() * result.provenance["settings"]["sample_step_s"])


SATURATED_ABOVE = 0.9
"""Part of the time that a node is busy from which on it counts as one that the run waits for."""

HELD_OFTEN = 0.1
"""Part of the window in which requests are held from which on more of them would only be held too."""

PREEMPTED_OFTEN = 0.1
"""Preemptions a request from which on more requests bring more of them; before, they bring more tokens."""


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
        The same, with no more prompts than belong to the decodes or to finished requests: while a system
        fills up, or more is asked for than it can serve, prompts run ahead.
    flow_tokens_per_s, bound_tokens_per_s : float
        The maximum flow of the placement, and the upper bound for any.
    offered_tokens_per_s : float
        Tokens of the requests that arrived, online, or what was processed of earlier ones too, if that is
        more; infinite offline, where requests are fed as they fit.
    rejected_tokens_per_s : float
        Tokens of those that arrived and were dropped or refused.
    serving : float
        Mean number of requests that were being served: not those held at the coordinator.
    active : int
        Nodes that were at work.
    time : dict of str to float
        Seconds of all iterations together, by part; empty unless the breakdown was kept.
    wait_at_saturated : float
        Part of the waiting for batches that took place at saturated nodes.
    asked_fraction : float
        Part of the window in which there were requests: below 1 where the given requests ran out.
    only_turned_away : bool
        Nodes did nothing because each request that came was dropped or refused.
    nothing_ended : bool
        There were requests in the window, and no iteration of theirs came to its end.
    held_fraction : float
        Part of the window in which KV caches, or what the scheduler expects of them, kept requests out.
    load : str
        Online: what the queue does, see `helixlab.diagnosis.steady_state`; empty where that is not known.
    preemptions : float
        How often, on the mean, a request lost its KV cache to another.
    preempted_tokens_per_s : float
        Tokens of the requests that did, at the most.
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
        """Whether requests often lose their KV cache to others."""
        return self.preemptions > PREEMPTED_OFTEN

    @property
    def saturated(self) -> bool:
        """Whether, online, more is asked for than can be served, so that requests pile up."""
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
        preemptions=summary["requests_preempted"] / max(summary["requests_fed"], 1),
        preempted_tokens_per_s=_preempted_tokens(result) / span_s,
        cut=_cut(result),
    )


def _arrived_tokens(result: Result) -> tuple[float, float]:
    """Tokens of the requests that arrived in the window, and of those that were turned away."""
    row, requests = result.summary.iloc[0], result.requests
    tokens = requests["input_tokens"] + requests["output_tokens"]
    inside = requests["arrival_s"].between(row["window_start_s"], row["window_end_s"])
    served = requests["outcome"] == "finished"
    arrived = float(tokens[inside].sum())
    if row["requests_in_flight"]:
        # Those in flight where the run was stopped are in no table, but in the means.
        mean = row["input_tokens_mean_accepted"] + row["output_tokens_mean_accepted"]
        let_in = int(served.sum()) + int(row["requests_in_flight"])
        arrived += max(float(mean) * let_in - float(tokens[served].sum()), 0.0)
    return arrived, float(tokens[inside & ~served].sum())


def _preempted_tokens(result: Result) -> float:
    row = result.summary.iloc[0]
    length = row["input_tokens_mean_accepted"] + row["output_tokens_mean_accepted"]
    return float(row["requests_preempted"] * length) if row["requests_preempted"] else 0.0


def _with_decodes(result: Result) -> float:
    """Decode tokens/s, and those of the prompts that belong to them.

    By the mean lengths of all requests, or by those that finished in the window, if that is more: where
    lengths change on the way, the means are of other requests than those that are served.
    """
    row, requests = result.summary.iloc[0], result.requests
    first_s, last_s = row["window_start_s"], row["window_end_s"]
    decoded = row["decode_tokens_per_s"]
    inputs, outputs = row["input_tokens_mean_accepted"], row["output_tokens_mean_accepted"]
    by_means = decoded * inputs / outputs if outputs > 0 else 0.0
    finished = requests[(requests["outcome"] == "finished") & requests["end_s"].between(first_s, last_s)]
    return float(decoded + max(by_means, finished["input_tokens"].sum() / (last_s - first_s)))


def _asked_fraction(result: Result) -> float:
    """Requests never run out, unless they were given and the last one has ended."""
    summary = result.summary.iloc[0]
    first_s, end_s = summary["window_start_s"], summary["window_end_s"]
    given = summary["mode"] == "offline" or result.provenance["workload"]["requests_hash"]
    if not given or summary["partial"] or summary["requests_in_flight"] > 0:
        return 1.0
    # One that is turned away ends too, and there was one until then.
    done_s = max(summary["last_finish_s"], float(result.requests["end_s"].max()))
    if not (summary["requests_fed"] > 0 and done_s < end_s):
        return 1.0
    return float(max(done_s - first_s, 0.0) / (end_s - first_s))


def _only_turned_away(result: Result) -> bool:
    """Whether nothing was computed in the window, and the requests that ended there, or at all, tell why."""
    requests, summary = result.requests, result.summary.iloc[0]
    if result.nodes["tokens"].sum() > 0:
        return False
    inside = requests[requests["end_s"].between(summary["window_start_s"], summary["window_end_s"])]
    ended = requests if inside.empty else inside
    return bool(len(ended) and (ended["outcome"] != "finished").all())


def _any_came(result: Result) -> bool:
    """Whether some request was in the system in the window."""
    summary, requests = result.summary.iloc[0], result.requests
    inside = (requests["arrival_s"] < summary["window_end_s"]) & (
        requests["end_s"] > summary["window_start_s"]
    )
    return bool(summary["requests_in_flight"] > 0 or inside.any())


def _serving(result: Result, time: dict[str, float], span_s: float) -> float:
    """Requests at a time, over the part of the window in which there were any."""
    until_s = float(result.summary["window_start_s"].item()) + span_s
    inside = samples(result, result.timeline, until_s)
    if len(inside):
        return mean_of(inside, inside["in_flight"] - inside["queued"])
    # By the iterations that ended, which are few where the window is short.
    return (sum(time.values()) - time["queued_s"]) / span_s if time and span_s > 0 else float("nan")


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


FEED_STOPS_AT: Final = 0.7
"""Expected KV use of the bottleneck layer near the one at which the helix scheduler's feeding stops."""


def held_fraction(result: Result) -> float:
    """Part of the window in which requests were held at the coordinator, or fed no more, for want of room."""
    if _feeding_stopped(result):
        return 1.0
    row, inside = result.summary.iloc[0], samples(result, result.timeline)
    if len(inside):
        return mean_of(inside, inside["queued"] > 0)
    if "queued_s" in result.iterations and (has_breakdown(result) or not row["requests_in_flight"]):
        return _held_part(result)
    return float(row["requests_queued"] / row["requests_fed"]) if row["requests_fed"] else 0.0


def _held_part(result: Result) -> float:
    """Part of the window in which one request or more was held, by the iterations.

    A request is queued when it arrives. For one queued again after a preemption the time is put too early.
    """
    first_s, last_s = (float(result.summary[f"window_{end}_s"].item()) for end in ("start", "end"))
    held = result.iterations[result.iterations["queued_s"] > 0].sort_values("start_s")
    begin_s = np.clip(held["start_s"].to_numpy(float), first_s, last_s)
    end_s = np.clip((held["start_s"] + held["queued_s"]).to_numpy(float), first_s, last_s)
    counted_to_s = np.maximum.accumulate(np.append(first_s, end_s))[:-1]
    return float(np.maximum(end_s - np.maximum(begin_s, counted_to_s), 0.0).sum() / (last_s - first_s))


def _feeding_stopped(result: Result) -> bool:
    """Whether the helix scheduler fed no more because KV caches were expected to be full."""
    if result.summary["mode"].item() != "offline" or not result.provenance["scheduler"].get("feeds_by_kv"):
        return False
    inside = samples(result, result.timeline)
    return bool(len(inside) and mean_of(inside, inside["bottleneck_kv_expected_fraction"]) >= FEED_STOPS_AT)


def load_label(result: Result) -> str:
    """What the queue of an online run does, see `load_of`; empty for one that was stopped."""
    row = result.summary.iloc[0]
    if row["mode"] != "online" or row["partial"] or result.requests.empty:
        return ""
    return load_of(result).label if row["window_end_s"] > row["window_start_s"] else ""


def binding_cut(result: Result) -> pd.DataFrame:
    """The binding cut of a run: where on all ways through together least room was left.

    `Result.bottlenecks` is the same of the maximum flow, in which all of a cut is used up. In a run hardly
    anything is; its binding cut is the minimum cut where the capacity of each node and link is the part of
    it that was left, by the time in which it had nothing to do.

    Parameters
    ----------
    result : Result
        Of `simulate`.

    Returns
    -------
    DataFrame
        One row a node or link: kind (``"compute"`` or ``"link"``), sender, receiver, capacity_tokens_per_s,
        busy_fraction, room_tokens_per_s.

    Raises
    ------
    SimulationError
        `result` is not a Result.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=60, rng=0))
    >>> binding_cut(result)[["kind", "sender"]]
          kind sender
    0  compute      4
    """
    if not isinstance(result, Result):
        raise SimulationError(f"binding_cut needs a Result, got {result!r:.60}; load one with load_result")
    graph = nx.DiGraph()
    nodes = result.nodes[result.nodes["end_layer"] > result.nodes["first_layer"]]
    parts = [
        nodes.assign(kind="compute", sender=nodes["node"], receiver=nodes["node"]),
        result.links.assign(kind="link"),
    ]
    columns = ["kind", "sender", "receiver", "capacity_tokens_per_s", "busy_fraction"]
    table = pd.concat([part[columns] for part in parts], ignore_index=True)
    table["busy_fraction"] = table["busy_fraction"].clip(0.0, 1.0)
    table["room_tokens_per_s"] = table["capacity_tokens_per_s"] * (1 - table["busy_fraction"])
    for at, row in enumerate(table.to_dict("records")):
        sender, receiver = row["sender"], row["receiver"]
        into = (sender, "in") if row["kind"] == "compute" else (sender, "out")
        graph.add_edge(
            SOURCE if sender == SOURCE else into,
            SINK if receiver == SINK else (receiver, "out" if row["kind"] == "compute" else "in"),
            room=row["room_tokens_per_s"],
            at=at,
        )
    _, (before, after) = nx.minimum_cut(graph, SOURCE, SINK, capacity="room")
    crossing = [at for tail, head, at in graph.edges(data="at") if tail in before and head in after]
    return table.loc[sorted(crossing)].reset_index(drop=True)


def has_breakdown(result: Result) -> bool:
    """Whether the run noted where time goes, and anything ended in its window."""
    return "compute_s" in result.iterations and not in_window(result).empty


def in_window(result: Result) -> pd.DataFrame:
    """The iterations that ended in the measured window."""
    first_s, last_s = (result.summary[f"window_{end}_s"].item() for end in ("start", "end"))
    return result.iterations[result.iterations["end_s"].between(first_s, last_s)]


def time_breakdown(result: Result) -> pd.DataFrame:
    """Mean seconds of each part of the latency, of prompts and of decodes in the measured window.

    Parameters
    ----------
    result : Result
        Of ``simulate(..., keep_breakdown=True)``.

    Returns
    -------
    DataFrame
        One row a phase, ``"prompt"`` and ``"decode"``: iterations, latency_s and its parts (see `Result`),
        which add up to it.

    Raises
    ------
    SimulationError
        The run has not noted where time goes.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> workload = hx.offline(duration_s=20, rng=0)
    >>> result = hx.simulate(cluster, model, placement, workload=workload, keep_breakdown=True)
    >>> table = time_breakdown(result).set_index("phase")
    >>> parts = table.drop(columns=["iterations", "latency_s"]).sum(axis=1)
    >>> bool((abs(parts - table["latency_s"]) < 1e-9).all())
    True
    """
    if "compute_s" not in result.iterations:
        raise SimulationError("the run has not noted where time goes; simulate with keep_breakdown=True")
    window = in_window(result)
    rows = []
    for phase, chosen in (("prompt", window["iteration"] == 0), ("decode", window["iteration"] > 0)):
        means = window.loc[chosen, ["latency_s", *PARTS]].mean()
        rows.append({"phase": phase, "iterations": int(chosen.sum()), **means})
    table = pd.DataFrame(rows)
    table.attrs["origin"] = result.origin
    return table
