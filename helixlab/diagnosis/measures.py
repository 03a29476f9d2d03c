"""Measures of a run that its diagnosis starts from, all of the measured window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import networkx as nx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis.steady_state import Load, load_of
from helixlab.engine.constants import PARTS
from helixlab.errors import SimulationError
from helixlab.flow import links_left_out
from helixlab.flow.small_links import table_of_links
from helixlab.placement.placement import End
from helixlab.simulation import Result

__all__ = [
    "PAPER",
    "SATURATED_ABOVE",
    "STEPS",
    "Facts",
    "binding_cut",
    "facts_of",
    "follows_flow",
    "gini",
    "has_breakdown",
    "left_out_flow",
    "left_out_links",
    "max_over_mean",
    "node_samples",
    "node_time_means",
    "passing_tokens_per_s",
    "queued_fraction",
    "queued_s",
    "small_links_rule",
    "time_breakdown",
    "time_mean",
    "window_samples",
]

SATURATED_ABOVE: Final = 0.9
"""Busy fraction from which on a node counts as one that the run waits for."""
QUEUED_OFTEN: Final = 0.1
"""Fraction of the window with queued requests from which on more requests would only be queued too."""
PREEMPTED_OFTEN: Final = 0.1
"""Preemptions per request from which on more requests bring more of them; below, they bring more tokens."""
FEED_STOPS_AT: Final = 0.7
"""Expected KV use of the bottleneck layer near the one at which the helix scheduler stops feeding."""
PAPER: Final = "paper"
"""Rule for small links of results that name none."""
STEPS: Final = "steps"
"""Column of the samples of a window: number of sample times in it that a row stands for."""


@dataclass(frozen=True)
class Facts:
    """Measures of a run in its window.

    Parameters
    ----------
    result : Result
        Result that was measured.
    window_length_s : float
        Length of the window.
    processed_tokens_per_s : float
        Prompt and decode tokens of the iterations that ended.
    served_tokens_per_s : float
        The same, with no more prompts than belong to the decodes or to finished requests: while a system
        fills up, or more is asked for than it can serve, prompts run ahead.
    max_flow_tokens_per_s, upper_bound_tokens_per_s : float
        Maximum flow of the placement, and the upper bound for any placement.
    offered_tokens_per_s : float
        Tokens of the requests that arrived, online, or what was processed of earlier ones too, if that is
        more; infinite offline, where requests are fed as they fit.
    rejected_tokens_per_s : float
        Tokens of the requests that arrived and were dropped or refused.
    requests_in_service : float
        Mean number of requests in flight that were not queued at the coordinator.
    active_nodes : int
        Number of nodes that were at work.
    part_s : dict of str to float
        Seconds of all iterations together, by part of the latency; empty unless the breakdown was kept.
    saturated_wait_fraction : float
        Fraction of the waiting for batches that took place at saturated nodes.
    demand_fraction : float
        Fraction of the window in which there were requests: below 1 where the given requests ran out.
    all_rejected : bool
        True where nodes did nothing because each request that came was dropped or refused.
    nothing_ended : bool
        True where there were requests in the window, and no iteration of theirs came to its end.
    queued_fraction : float
        Fraction of the window in which KV caches, or what the scheduler expects of them, kept requests out.
    load : Load, optional
        Trend of the queue, online; None where it is not known.
    preemptions_per_request : float
        Mean number of times that a request lost its KV cache to another.
    preempted_tokens_per_s : float
        Upper limit for the tokens of the requests that were preempted.
    flow_cut : DataFrame
        Nodes and links that bind the maximum flow, with capacity_tokens_per_s, and used_tokens_per_s and
        busy_fraction of the run.
    """

    result: Result
    window_length_s: float
    processed_tokens_per_s: float
    served_tokens_per_s: float
    max_flow_tokens_per_s: float
    upper_bound_tokens_per_s: float
    offered_tokens_per_s: float
    rejected_tokens_per_s: float
    requests_in_service: float
    active_nodes: int
    part_s: dict[str, float]
    saturated_wait_fraction: float
    demand_fraction: float
    all_rejected: bool
    nothing_ended: bool
    queued_fraction: float
    load: Load | None
    preemptions_per_request: float
    preempted_tokens_per_s: float
    flow_cut: pd.DataFrame

    @property
    def is_online(self) -> bool:
        """True where requests arrive by the clock."""
        return bool(self.result.metrics["mode"] == "online")

    @property
    def has_given_requests(self) -> bool:
        """True where the workload is a table of requests and not drawn from a trace."""
        return bool(self.result.provenance["workload"]["requests_hash"])

    @property
    def follows_flow(self) -> bool:
        """True where the scheduler follows the maximum flow."""
        return follows_flow(self.result)

    @property
    def cuts_prompts(self) -> bool:
        """True where the execution policy cuts prompts into chunks."""
        return bool(self.result.provenance["execution"]["parameters"].get("chunk_tokens"))

    @property
    def queue_grows(self) -> bool:
        """True where, online, more is asked for than can be served, so that requests pile up."""
        return self.load is not None and self.load.grows

    @property
    def preempts_often(self) -> bool:
        """True where requests often lose their KV cache to others."""
        return self.preemptions_per_request > PREEMPTED_OFTEN

    @property
    def has_free_kv_cache(self) -> bool:
        """True where KV caches suffice for what is asked for now."""
        return self.queued_fraction < QUEUED_OFTEN and not self.preempts_often

    @property
    def more_would_help(self) -> bool:
        """True where more requests could be served: those of now are, and KV caches are not full."""
        return not self.queue_grows and self.has_free_kv_cache

    @property
    def lost_tokens_per_s(self) -> float:
        """Distance from the upper bound to what was served; losses add up to it."""
        return self.upper_bound_tokens_per_s - self.served_tokens_per_s

    @property
    def recomputed_tokens_per_s(self) -> float:
        """Tokens that went through the cut and did not end, as they were computed again after a preemption.

        Tokens may pass a cut more than once for other reasons too, so no more than the preempted had.
        """
        beyond = float(self.flow_cut["used_tokens_per_s"].sum()) - self.processed_tokens_per_s
        return min(max(beyond, 0.0), self.preempted_tokens_per_s)

    @cached_property
    def passing_tokens_per_s(self) -> float:
        """Maximum flow without the links that the scheduler leaves out."""
        return passing_tokens_per_s(self.result)

    @cached_property
    def run_cut(self) -> pd.DataFrame:
        """Binding cut of the run."""
        return binding_cut(self.result)

    def latency_fraction(self, *parts: str) -> float:
        """Fraction of the latency of all iterations that these parts take; 0 where that is not known."""
        whole_s = sum(self.part_s.values())
        return sum(self.part_s[each] for each in parts) / whole_s if whole_s else 0.0


def facts_of(result: Result) -> Facts:
    """Measure a run.

    Parameters
    ----------
    result : Result
        Result of `simulate`.
    """
    row, nodes = result.metrics, result.nodes
    first_s, last_s = result.window_s
    length_s = last_s - first_s
    processed = float(row["decode_tokens_per_s"] + row["prompt_tokens_per_s"])
    arrived, rejected = _arrived_and_rejected_tokens(result)
    all_rejected = _all_rejected(result)
    demand = 1.0 if all_rejected else _demand_fraction(result)
    wait_s = nodes["batch_wait_s"].to_numpy(dtype=float)
    saturated = (nodes["busy_fraction"] >= SATURATED_ABOVE).to_numpy()
    whole_wait_s = float(np.nansum(wait_s))
    part_s = {}
    if has_breakdown(result):
        sums = result.in_window(result.iterations)[list(PARTS)].sum()
        part_s = {part: float(sums[part]) for part in PARTS}
    return Facts(
        result=result,
        window_length_s=length_s,
        processed_tokens_per_s=processed,
        served_tokens_per_s=min(processed, _tokens_per_s_with_decodes(result)),
        max_flow_tokens_per_s=float(row["max_flow_tokens_per_s"]),
        upper_bound_tokens_per_s=float(row["upper_bound_tokens_per_s"]),
        offered_tokens_per_s=max(arrived / length_s, processed) if row["mode"] == "online" else float("inf"),
        rejected_tokens_per_s=rejected / length_s,
        requests_in_service=_requests_in_service(result, part_s, demand * length_s),
        active_nodes=int(((nodes["tokens"] > 0) | (nodes["busy_fraction"] > 0)).sum()),
        part_s=part_s,
        saturated_wait_fraction=float(wait_s[saturated].sum()) / whole_wait_s if whole_wait_s > 0 else 0.0,
        demand_fraction=demand,
        all_rejected=all_rejected,
        nothing_ended=processed == 0 and demand > 0 and not all_rejected and _any_in_system(result),
        queued_fraction=queued_fraction(result),
        load=_load(result),
        preemptions_per_request=float(row["requests_preempted"]) / max(int(row["requests_fed"]), 1),
        preempted_tokens_per_s=_preempted_tokens(result) / length_s,
        flow_cut=_flow_cut(result),
    )


def follows_flow(result: Result) -> bool:
    """Tell whether the scheduler of a run follows the maximum flow."""
    return bool(result.provenance["scheduler"].get("follows_flow", False))


def has_breakdown(result: Result) -> bool:
    """Tell whether the run noted where time goes, and anything ended in its window."""
    return "compute_s" in result.iterations and not result.in_window(result.iterations).empty


# Demand and service


def _arrived_and_rejected_tokens(result: Result) -> tuple[float, float]:
    """Count the tokens of the requests that arrived in the window, and of those that were turned away."""
    row, requests = result.metrics, result.requests
    tokens = requests["input_tokens"] + requests["output_tokens"]
    inside = requests["arrival_s"].between(*result.window_s)
    served = requests["outcome"] == "finished"
    arrived = float(tokens[inside].sum())
    if row["requests_in_flight"]:
        # Those in flight where the run was stopped are in no table, but in the means.
        let_in = int(served.sum()) + int(row["requests_in_flight"])
        arrived += max(_mean_accepted_tokens(result) * let_in - float(tokens[served].sum()), 0.0)
    return arrived, float(tokens[inside & ~served].sum())


def _mean_accepted_tokens(result: Result) -> float:
    """Return the mean input and output tokens of a request that was let in."""
    row = result.metrics
    return float(row["input_tokens_mean_accepted"] + row["output_tokens_mean_accepted"])


def _preempted_tokens(result: Result) -> float:
    preempted = result.metrics["requests_preempted"]
    return float(preempted * _mean_accepted_tokens(result)) if preempted else 0.0


def _tokens_per_s_with_decodes(result: Result) -> float:
    """Return the decode tokens/s, and those of the prompts that belong to them.

    By the mean lengths of all requests, or by those that finished in the window, if that is more: where
    lengths change during a run, the means are of other requests than those that are served.
    """
    row = result.metrics
    first_s, last_s = result.window_s
    decoded = row["decode_tokens_per_s"]
    inputs, outputs = row["input_tokens_mean_accepted"], row["output_tokens_mean_accepted"]
    by_means = decoded * inputs / outputs if outputs > 0 else 0.0
    ended = result.in_window(result.requests)
    finished = ended[ended["outcome"] == "finished"]
    return float(decoded + max(by_means, finished["input_tokens"].sum() / (last_s - first_s)))


def _demand_fraction(result: Result) -> float:
    """Return the fraction of the window with requests: 1, unless given ones have all ended."""
    row, (first_s, last_s) = result.metrics, result.window_s
    given = row["mode"] == "offline" or result.provenance["workload"]["requests_hash"]
    if not given or row["partial"] or row["requests_in_flight"] > 0:
        return 1.0
    # A request that is turned away ends too, and there was one until then.
    done_s = max(row["last_finish_s"], float(result.requests["end_s"].max()))
    if not (row["requests_fed"] > 0 and done_s < last_s):
        return 1.0
    return float(max(done_s - first_s, 0.0) / (last_s - first_s))


def _all_rejected(result: Result) -> bool:
    """Tell whether nothing was computed, and all requests that ended were rejected."""
    if result.nodes["tokens"].sum() > 0:
        return False
    inside = result.in_window(result.requests)
    ended = result.requests if inside.empty else inside
    return bool(len(ended) and (ended["outcome"] != "finished").all())


def _any_in_system(result: Result) -> bool:
    """Tell whether some request was in the system in the window."""
    requests, (first_s, last_s) = result.requests, result.window_s
    inside = (requests["arrival_s"] < last_s) & (requests["end_s"] > first_s)
    return bool(result.metrics["requests_in_flight"] > 0 or inside.any())


def _requests_in_service(result: Result, part_s: dict[str, float], span_s: float) -> float:
    """Return the mean number of requests in service over the part of the window in which there were any."""
    first_s, _ = result.window_s
    inside = window_samples(result, result.timeline, first_s + span_s)
    if len(inside):
        return time_mean(inside, inside["in_flight"] - inside["queued"])
    # By the iterations that ended, which are few where the window is short.
    return (sum(part_s.values()) - part_s["queued_s"]) / span_s if part_s and span_s > 0 else float("nan")


def _load(result: Result) -> Load | None:
    """Return the trend of the queue of an online run; None of one that was stopped or had no requests."""
    row, (first_s, last_s) = result.metrics, result.window_s
    if row["mode"] != "online" or row["partial"] or result.requests.empty or last_s <= first_s:
        return None
    return load_of(result)


# Queueing at the coordinator


def queued_s(result: Result) -> float:
    """Return the seconds that all requests of the run together were queued at the coordinator.

    NaN where that is not known.
    """
    if "queued_s" in result.iterations and not result.metrics["requests_in_flight"]:
        return float(result.iterations["queued_s"].sum())
    timeline = result.timeline
    if timeline.empty:
        return float("nan")
    steps = _steps(result, timeline["time_s"].to_numpy(float))
    return float((timeline["queued"] * steps).sum() * _sample_step_s(result))


def queued_fraction(result: Result) -> float:
    """Return the fraction of the window in which full KV caches kept requests queued, or out altogether."""
    if _feeding_stopped(result):
        return 1.0
    row, inside = result.metrics, window_samples(result, result.timeline)
    if len(inside):
        return time_mean(inside, inside["queued"] > 0)
    if "queued_s" in result.iterations and (has_breakdown(result) or not row["requests_in_flight"]):
        return _queued_fraction_of_iterations(result)
    return float(row["requests_queued"] / row["requests_fed"]) if row["requests_fed"] else 0.0


def _queued_fraction_of_iterations(result: Result) -> float:
    """Return the fraction of the window in which one request or more was queued, by the iterations.

    A request is queued when it arrives. For one queued again after a preemption the time is put too early.
    """
    first_s, last_s = result.window_s
    queued = result.iterations[result.iterations["queued_s"] > 0].sort_values("start_s")
    begin_s = np.clip(queued["start_s"].to_numpy(float), first_s, last_s)
    end_s = np.clip((queued["start_s"] + queued["queued_s"]).to_numpy(float), first_s, last_s)
    counted_to_s = np.maximum.accumulate(np.append(first_s, end_s))[:-1]
    return float(np.maximum(end_s - np.maximum(begin_s, counted_to_s), 0.0).sum() / (last_s - first_s))


def _feeding_stopped(result: Result) -> bool:
    """Tell whether the helix scheduler fed no more because KV caches were expected to be full."""
    if result.metrics["mode"] != "offline" or not result.provenance["scheduler"].get("feeds_by_kv"):
        return False
    inside = window_samples(result, result.timeline)
    return bool(len(inside) and time_mean(inside, inside["bottleneck_kv_expected_fraction"]) >= FEED_STOPS_AT)


# Samples of the window


def window_samples(result: Result, table: pd.DataFrame, until_s: float = np.inf) -> pd.DataFrame:
    """Return the samples that stand for part of the window, with `STEPS`.

    Parameters
    ----------
    result : Result
        Result of `simulate`.
    table : DataFrame
        Its timeline or node_timeline.
    until_s : float
        Time at which the window is taken to end, if that is earlier.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> requests = pd.DataFrame({"arrival_s": [0, 99], "input_tokens": 9, "output_tokens": 1})
    >>> result = hx.simulate(*system, workload=hx.online(requests=requests, duration_s=99))
    >>> window_samples(result, result.timeline)["steps"].tolist()
    [1, 1, 17, 1]
    """
    first_s, last_s = result.window_s
    times = result.timeline["time_s"].to_numpy(float)
    steps = _steps(result, times)
    step_s = _sample_step_s(result)
    if len(times):
        before = np.ceil(np.maximum(first_s - times, 0.0) / step_s)
        up_to_end = np.floor((min(last_s, until_s) - times) / step_s) + 1
        steps = np.maximum(np.minimum(up_to_end, steps) - before, 0).astype(np.int64)
    weighed = table.assign(**{STEPS: steps[np.searchsorted(times, table["time_s"])]})
    return weighed[weighed[STEPS] > 0]


def node_samples(result: Result) -> pd.DataFrame:
    """Return the samples of the window of the nodes that hold layers."""
    inside = window_samples(result, result.node_timeline)
    return inside[inside["node"].isin(result.serving_nodes["node"])]


def time_mean(samples: pd.DataFrame, values: pd.Series) -> float:
    """Return the mean of values over the time that their samples stand for; NaN of none."""
    if (samples[STEPS] == 1).all():
        return float(values.mean())
    return float((values * samples[STEPS]).sum() / samples[STEPS].sum())


def node_time_means(samples: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return the mean of each node over the time that its samples stand for."""
    sums = samples[columns].mul(samples[STEPS], axis=0).groupby(samples["node"]).sum()
    return sums.div(samples.groupby("node")[STEPS].sum(), axis=0)


def _steps(result: Result, times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count the sample times that each row of the timeline stands for."""
    if not len(times):
        return np.zeros(0, np.int64)
    return np.append(np.maximum(np.rint(np.diff(times) / _sample_step_s(result)), 1), 1).astype(np.int64)


def _sample_step_s(result: Result) -> float:
    return float(result.provenance["settings"]["sample_step_s"])


# Balance over nodes


def gini(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the Gini coefficient: 0 where all are equal, near 1 where one has everything; 0 of nothing.

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
    """Return the largest value over the mean: 1 where all are equal; 1 of nothing.

    Examples
    --------
    >>> max_over_mean([1, 2, 3])
    1.5
    """
    known = np.asarray(values, dtype=float)
    mean = float(known.mean()) if len(known) else 0.0
    return float(known.max()) / mean if mean > 0 else 1.0


# Cuts and flows


def _flow_cut(result: Result) -> pd.DataFrame:
    """Return what binds the maximum flow, with the use that the run made of it."""
    nodes, links = result.nodes.set_index("node"), result.links.set_index(["sender", "receiver"])
    first_s, last_s = result.window_s
    used, busy = [], []
    for row in result.bottlenecks.to_dict("records"):
        if row["kind"] == "link":
            link = links.loc[(row["sender"], row["receiver"])]
            used.append(float(link["tokens_per_s"]))
            busy.append(float(link["busy_fraction"]))
        elif row["kind"] == "compute":
            node = nodes.loc[row["sender"]]
            used.append(float(node["tokens"]) / (last_s - first_s))
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


def binding_cut(result: Result) -> pd.DataFrame:
    """Find the binding cut of a run: the cut with the least spare capacity over all paths together.

    `Result.bottlenecks` is the same of the maximum flow, in which all of a cut is used up. In a run hardly
    anything is; its binding cut is the minimum cut where the capacity of each node and link is its spare
    capacity: that of the time in which it had nothing to do.

    Parameters
    ----------
    result : Result
        Result of `simulate`.

    Returns
    -------
    DataFrame
        One row per node or link: kind (``"compute"`` or ``"link"``), sender, receiver,
        capacity_tokens_per_s, busy_fraction, spare_tokens_per_s.

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
    nodes = result.serving_nodes
    parts = [
        nodes.assign(kind="compute", sender=nodes["node"], receiver=nodes["node"]),
        result.links.assign(kind="link"),
    ]
    columns = ["kind", "sender", "receiver", "capacity_tokens_per_s", "busy_fraction"]
    table = pd.concat([part[columns] for part in parts], ignore_index=True)
    table["busy_fraction"] = table["busy_fraction"].clip(0.0, 1.0)
    table["spare_tokens_per_s"] = table["capacity_tokens_per_s"] * (1 - table["busy_fraction"])
    for at, row in enumerate(table.to_dict("records")):
        sender, receiver = row["sender"], row["receiver"]
        into = (sender, "in") if row["kind"] == "compute" else (sender, "out")
        graph.add_edge(
            SOURCE if sender == SOURCE else into,
            SINK if receiver == SINK else (receiver, "out" if row["kind"] == "compute" else "in"),
            spare=row["spare_tokens_per_s"],
            at=at,
        )
    _, (before, after) = nx.minimum_cut(graph, SOURCE, SINK, capacity="spare")
    crossing = [at for tail, head, at in graph.edges(data="at") if tail in before and head in after]
    return table.loc[sorted(crossing)].reset_index(drop=True)


def left_out_links(result: Result) -> set[tuple[End, End]]:
    """Find the links that the scheduler left out for their flow; none where it does not follow the flow.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> left_out_links(hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=20, rng=0)))
    set()
    """
    return links_left_out(_flow_on_links(result), small_links_rule(result)) if follows_flow(result) else set()


def left_out_flow(result: Result) -> pd.DataFrame:
    """Return the left-out links that carry more than a rounding error, with flow_tokens_per_s and share."""
    return table_of_links(_flow_on_links(result), left_out_links(result))


def small_links_rule(result: Result) -> str:
    """Return the rule by which links were left out, one of `helixlab.flow.small_links.RULES`."""
    return str(result.provenance["settings"].get("small_links", PAPER))


def passing_tokens_per_s(result: Result) -> float:
    """Return the maximum flow without the left-out links; network cards are ignored."""
    whole = float(result.metrics["max_flow_tokens_per_s"])
    left_out = left_out_links(result)
    if not len(table_of_links(_flow_on_links(result), left_out)):
        return whole
    graph = nx.DiGraph()
    for row in result.nodes.to_dict("records"):
        graph.add_edge((row["node"], "in"), (row["node"], "out"), capacity=row["capacity_tokens_per_s"])
    for row in result.links.to_dict("records"):
        ends = row["sender"], row["receiver"]
        if ends not in left_out:
            graph.add_edge((ends[0], "out"), (ends[1], "in"), capacity=row["capacity_tokens_per_s"])
    start, end = (SOURCE, "out"), (SINK, "in")
    if start not in graph or end not in graph:
        return 0.0
    return min(whole, float(nx.maximum_flow_value(graph, start, end)))


def _flow_on_links(result: Result) -> dict[tuple[End, End], float]:
    links = result.links
    return dict(
        zip(zip(links["sender"], links["receiver"], strict=True), links["flow_tokens_per_s"], strict=True)
    )


# Parts of the latency


def time_breakdown(result: Result) -> pd.DataFrame:
    """Return the mean seconds of each part of the latency, of prompts and of decodes in the window.

    Parameters
    ----------
    result : Result
        Result of ``simulate(..., keep_breakdown=True)``.

    Returns
    -------
    DataFrame
        One row per phase, ``"prompt"`` and ``"decode"``: iterations, latency_s and its parts (see `Result`),
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
    window = result.in_window(result.iterations)
    rows = []
    for phase, chosen in (("prompt", window["iteration"] == 0), ("decode", window["iteration"] > 0)):
        means = window.loc[chosen, ["latency_s", *PARTS]].mean()
        rows.append({"phase": phase, "iterations": int(chosen.sum()), **means})
    table = pd.DataFrame(rows)
    table.attrs["origin"] = result.origin
    return table
