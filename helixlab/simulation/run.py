"""`simulate`: a placement serves a workload."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.errors import SchedulingError, SimulationError
from helixlab.execution import Execution, get_execution
from helixlab.flow import Flow, max_flow
from helixlab.model import Model
from helixlab.placement import Placement, check_placement
from helixlab.scheduling import Scheduler, get_scheduler
from helixlab.simulation.drive import Recording, drive
from helixlab.simulation.kv_cache import stored_kv
from helixlab.simulation.metrics import latency_figures, peak_rss_mb
from helixlab.simulation.provenance import provenance
from helixlab.simulation.result import Result
from helixlab.simulation.setup import loading_time_s, new_state
from helixlab.workload import Workload
from helixlab.workload import offline as offline_workload

__all__ = ["simulate"]

KV_RULES = {"offline": (0.85, 1.0), "online": (0.9, 0.6)}
"""The paper's part of a KV cache that may fill, and part of the mean output that is expected."""
OUTCOMES = np.array(["finished", "dropped", "refused"])
REASONS = np.array(
    [
        "",
        "no pipeline has room for it, though nothing else is served",
        "it needs more KV cache than a node on its way has",
        "it exceeds the batch limits of a node on its way",
    ]
)


def simulate(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    scheduler: str | Scheduler = "helix",
    workload: Workload | None = None,
    execution: str | Execution = "greedy",
    on_full: str = "wait",
    kv_high_water_mark: float | None = None,
    expected_output_ratio: float | None = None,
    sample_step_s: float = 5.0,
    keep_iterations: bool = True,
    keep_batches: bool = False,
    progress: bool = False,
) -> Result:
    """Simulate serving a workload.

    Parameters
    ----------
    cluster, model, placement
        The placement must be for this cluster (or part of it) and this model.
    scheduler : str or Scheduler
        ``"helix"``, ``"swarm"``, ``"random"``, ``"shortest-queue"``, or one of your own.
    workload : Workload, optional
        Made by `offline` or `online`; the paper's offline run by default.
    execution : str or Execution
        How nodes form batches.
    on_full : str
        What happens to a query for which a scheduler that plans ahead finds no room: ``"wait"`` at
        the coordinator, in order of arrival, or ``"drop"``, as the reference simulator does. Dropping
        favours short queries.
    kv_high_water_mark : float, optional
        Part of a node's KV cache that the helix scheduler may expect to fill; the paper's by default
        (0.85 offline, 0.9 online).
    expected_output_ratio : float, optional
        Part of the mean output of 240 tokens it expects of a query; the paper's by default (1 offline,
        0.6 online).
    sample_step_s : float
        Step of the timelines in simulated seconds; 0 for none.
    keep_iterations : bool
        Keep one row for every iteration. Without them latencies are not known.
    keep_batches : bool
        Keep one row for every batch, of which there are many: for pictures of short spans.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    Result

    Raises
    ------
    PlacementError, SchedulingError, SimulationError, UnknownNameError
        Something does not fit; the message says what and how to mend it.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=60, rng=0))
    >>> bool(result.summary["decode_tokens_per_s"].item() > 10)
    True
    """
    started = time.perf_counter()
    scheduler, execution = get_scheduler(scheduler), get_execution(execution)
    workload = offline_workload() if workload is None else workload
    if not isinstance(workload, Workload):
        raise SimulationError(f"workload must come from offline(...) or online(...), got {workload!r}")
    for thing, kind, loader in ((cluster, Cluster, "load_cluster"), (model, Model, "load_model")):
        if not isinstance(thing, kind):
            what = kind.__name__
            raise SimulationError(f"{what.lower()} must be a {what}, got {thing!r}; load it with {loader}")
    if not isinstance(placement, Placement):
        raise SimulationError(
            f"placement must be a Placement, got {placement!r}; load it with load_placement"
        )
    if on_full not in ("wait", "drop"):
        raise SimulationError(f"on_full must be 'wait' or 'drop', got {on_full!r}")
    number = isinstance(sample_step_s, int | float) and not isinstance(sample_step_s, bool)
    if not (number and 0 <= sample_step_s < float("inf")):
        raise SimulationError(f"sample_step_s must be 0 (no timeline) or more, got {sample_step_s!r}")
    check_placement(placement, cluster, model)
    cluster = placement.on(cluster)
    flow = max_flow(cluster, model, placement)
    if scheduler.follows_flow and not flow.value_tokens_per_s > 0:
        raise SchedulingError(
            f"scheduler {scheduler.name!r} follows the maximum flow, which is 0 for placement"
            f" {placement.name!r}; use another scheduler or give its fullest nodes fewer layers"
        )
    mark, ratio = KV_RULES[workload.mode]
    mark = mark if kv_high_water_mark is None else kv_high_water_mark
    ratio = ratio if expected_output_ratio is None else expected_output_ratio
    if not (0 < mark <= 1 and 0 <= ratio <= 1e6):
        raise SimulationError(
            f"kv_high_water_mark must be above 0 and at most 1 (got {mark!r}), expected_output_ratio 0 or"
            f" more (got {ratio!r})"
        )
    state = new_state(
        cluster,
        model,
        placement,
        scheduler,
        execution,
        flow.on_link if scheduler.follows_flow else None,
        query_rows=1024,
    )
    run = state.run[0]
    run["scheduler_kv_high_water_mark"], run["scheduler_output_ratio"] = mark, ratio
    run["drop_on_full"] = on_full == "drop"
    start_s = loading_time_s(cluster, model, placement)
    span_s = workload.duration_s + (0 if workload.online else workload.warmup_s)
    with tqdm(total=round(span_s), unit="s", desc="simulating", disable=not progress, leave=False) as bar:
        recording = drive(
            state,
            workload,
            scheduler,
            execution,
            start_s,
            sample_step_s=sample_step_s,
            keep_iterations=keep_iterations,
            keep_batches=keep_batches,
            progress=lambda now_s: bar.update(max(0, min(round(now_s - start_s), bar.total) - bar.n)),
        )
    settings = {
        "on_full": on_full,
        "kv_high_water_mark": mark,
        "expected_output_ratio": ratio,
        "sample_step_s": sample_step_s,
    }
    source = provenance(cluster, model, placement, scheduler, execution, workload, settings)
    return _result(
        recording, cluster, placement, flow, workload, source, start_s, time.perf_counter() - started
    )


def _result(
    recording: Recording,
    cluster: Cluster,
    placement: Placement,
    flow: Flow,
    workload: Workload,
    source: dict[str, Any],
    start_s: float,
    wall_s: float,
) -> Result:
    first_s, last_s = recording.window_s
    iterations = _frame(recording.iterations)
    latency_s = (iterations["end_s"] - iterations["start_s"]).to_numpy()
    iterations["latency_s"] = latency_s
    in_window = iterations["end_s"].between(first_s, last_s).to_numpy()
    is_prompt = (iterations["iteration"] == 0).to_numpy()
    prompt_latency_s, decode_latency_s = latency_s[in_window & is_prompt], latency_s[in_window & ~is_prompt]
    queries = _frame(recording.query_logs)
    queries["outcome"] = OUTCOMES[queries["outcome"].to_numpy(np.int64)]
    queries["reason"] = REASONS[queries["reason"].to_numpy(np.int64)]
    run = recording.state.run[0]
    accepted = np.concatenate(
        [
            queries.loc[queries["outcome"] == "finished", "input_tokens"].to_numpy(),
            _in_flight(recording)["input_tokens"],
        ]
    )
    # Counted by the engine too, for runs whose iterations are not kept.
    before, after = (counters[0] for counters in recording.runs_at_window[:2])
    decoded = int(after["decode_tokens"] - before["decode_tokens"])
    prompts = int(after["prompts_finished"] - before["prompts_finished"])
    if len(iterations):
        decoded, prompts = len(decode_latency_s), len(prompt_latency_s)
    total_tokens = int(run["prompt_tokens"] + run["decode_tokens"])
    summary = {
        "cluster": cluster.name,
        "model": placement.model,
        "placement": placement.name,
        "placement_hash": source["placement"]["hash"],
        "scheduler": source["scheduler"]["name"],
        "execution": source["execution"]["name"],
        "mode": workload.mode,
        "on_full": source["settings"]["on_full"],
        "seed": workload.seed,
        "decode_tokens_per_s": decoded / (last_s - first_s),
        **latency_figures(prompt_latency_s, "prompt"),
        **latency_figures(decode_latency_s, "decode"),
        "prompts_finished_in_window": prompts,
        "total_tokens": total_tokens,
        "total_tokens_per_s": total_tokens / run["last_finish_s"] if run["last_finish_s"] > 0 else 0.0,
        "start_s": float(start_s),
        "window_start_s": float(first_s),
        "window_end_s": float(last_s),
        "last_finish_s": float(run["last_finish_s"]),
        "queries_fed": int(run["fed"]),
        "queries_finished": int(run["finished"]),
        "queries_in_flight": int(run["in_flight"]),
        "queries_dropped": int(run["dropped"]),
        "queries_refused": int(run["refused"]),
        "queries_waited": int(run["waited"]),
        "queries_preempted": int(run["preempted"]),
        "prompts_waited_for_kv": int(run["kv_waits"]),
        "input_tokens_mean_accepted": float(accepted.mean()) if len(accepted) else float("nan"),
        "max_flow_tokens_per_s": flow.value_tokens_per_s,
        "events": int(run["events_done"]),
        "wall_s": wall_s,
        "peak_rss_mb": peak_rss_mb(),
    }
    return Result(
        summary=pd.DataFrame([summary]),
        iterations=iterations,
        queries=queries,
        batches=_frame(recording.batches),
        nodes=_nodes(recording, cluster, placement),
        links=_links(recording, flow),
        timeline=_timeline(recording),
        node_timeline=_node_timeline(recording, cluster),
        provenance=source,
    )


def _frame(pieces: list[NDArray[np.void]]) -> pd.DataFrame:
    """Log pieces as a table, column by column so that no second copy of the whole is made."""
    return pd.DataFrame(
        {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0].dtype.names or ()}
    )


def _in_flight(recording: Recording) -> NDArray[np.void]:
    queries = recording.state.queries
    return queries[queries["in_use"] == 1]


def _nodes(recording: Recording, cluster: Cluster, placement: Placement) -> pd.DataFrame:
    before, after = recording.nodes_at_window[:2]
    first_s, last_s = recording.window_s
    stored = stored_kv(recording.state, max(last_s, float(recording.state.run["now_s"][0])))
    rows = []
    for node in cluster.nodes:
        held = placement.layers_of(node.index)
        at_end = recording.state.nodes[node.index]
        capacity = int(at_end["kv_capacity_token_layers"])
        busy_s = _busy_s(after[node.index], last_s) - _busy_s(before[node.index], first_s)
        rows.append(
            {
                "node": node.index,
                "machine": node.machine,
                "region": node.region,
                "first_layer": held.first_layer if held else 0,
                "end_layer": held.end_layer if held else 0,
                "kv_capacity_token_layers": capacity,
                "kv_used_token_layers": int(stored[node.index]),
                "kv_used_fraction": int(stored[node.index]) / capacity if capacity else 0.0,
                "busy_fraction": busy_s / (last_s - first_s),
                "batches": int(after[node.index]["batches"] - before[node.index]["batches"]),
                "tokens": int(after[node.index]["tokens"] - before[node.index]["tokens"]),
            }
        )
    return pd.DataFrame(rows)


def _busy_s(node: np.void, now_s: float) -> float:
    return float(node["busy_s"]) + (now_s - float(node["busy_since_s"]) if node["busy"] else 0.0)


def _links(recording: Recording, flow: Flow) -> pd.DataFrame:
    before, after = recording.links_at_window[:2]
    span_s = recording.window_s[1] - recording.window_s[0]
    coordinator = len(recording.state.nodes) - 1
    senders = [SOURCE if end == coordinator else end for end in after["sender"].tolist()]
    receivers = [SINK if end == coordinator else end for end in after["receiver"].tolist()]
    return pd.DataFrame(
        {
            "sender": pd.Series(senders, dtype=object),
            "receiver": pd.Series(receivers, dtype=object),
            "flow_tokens_per_s": [flow.on_link[pair] for pair in zip(senders, receivers, strict=True)],
            "tokens_per_s": (after["sent_tokens"] - before["sent_tokens"]) / span_s,
            "busy_fraction": (_sent_s(after, recording.window_s[1]) - _sent_s(before, recording.window_s[0]))
            / span_s,
        }
    )


def _sent_s(links: NDArray[np.void], now_s: float) -> NDArray[np.float64]:
    """Seconds each link has been sending until now; what it has begun counts as a whole in ``busy_s``."""
    return links["busy_s"] - np.maximum(links["free_at_s"] - now_s, 0)


def _timeline(recording: Recording) -> pd.DataFrame:
    table = _frame(recording.samples)
    step_s = table["time_s"].diff()
    for tokens in ("prompt_tokens", "decode_tokens"):
        table[f"{tokens}_per_s"] = table[tokens].diff() / step_s
    return table


def _node_timeline(recording: Recording, cluster: Cluster) -> pd.DataFrame:
    times = np.concatenate([piece["time_s"] for piece in recording.samples])
    samples = np.concatenate(recording.node_samples)  # [sample, what, node]
    capacity = np.maximum(recording.state.nodes["kv_capacity_token_layers"][:-1], 1)
    busy = np.full((len(times), len(cluster.nodes)), np.nan)
    busy[1:] = np.diff(samples[:, 2], axis=0) / np.diff(times)[:, None]
    nodes = np.arange(len(cluster.nodes))
    return pd.DataFrame(
        {
            "time_s": np.repeat(times, len(nodes)),
            "node": np.tile(nodes, len(times)),
            "kv_used_fraction": (samples[:, 0] / capacity).ravel(),
            "kv_expected_fraction": (samples[:, 1] / capacity).ravel(),
            "busy_fraction": busy.ravel(),
        }
    )
