"""The tables of a Result, from what a run recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from helixlab._memory import peak_rss_mb
from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.engine.constants import PARTS, Outcome, Reason
from helixlab.engine.kv_cache import compute_stored_kv
from helixlab.flow import Flow, upper_bound
from helixlab.model import Model, machine_throughput
from helixlab.placement import Placement
from helixlab.simulation.driver import Recording
from helixlab.simulation.metrics import REQUEST_PERCENTILES, distribution, latency_metrics
from helixlab.simulation.provenance import library_in_words
from helixlab.simulation.result import Result
from helixlab.workload import Workload

__all__ = ["build_result"]

OUTCOMES = np.array([outcome.text for outcome in Outcome])
REASONS = np.array([reason.text for reason in Reason])


def build_result(
    recording: Recording,
    cluster: Cluster,
    model: Model,
    placement: Placement,
    flow: Flow,
    workload: Workload,
    source: dict[str, Any],
    start_s: float,
    wall_s: float,
) -> Result:
    """Build the Result of a finished recording."""
    iterations, requests = _iterations(recording), _requests(recording)
    summary = {
        **_settings(source, workload),
        "partial": recording.partial,
        **_window_metrics(recording, iterations),
        **_request_metrics(recording, requests),
        **_run_metrics(recording, start_s),
        **_request_counts(recording, requests, workload),
        "max_flow_tokens_per_s": flow.value_tokens_per_s,
        "upper_bound_tokens_per_s": max(upper_bound(cluster, model), flow.value_tokens_per_s),
        "events": int(recording.state.run["events_done"][0]),
        "wall_s": wall_s,
        "peak_rss_mb": peak_rss_mb(),
    }
    return Result(
        summary=pd.DataFrame([summary]),
        iterations=iterations,
        requests=requests,
        batches=_frame(recording.batches),
        nodes=_nodes(recording, cluster, model, placement, flow),
        links=_links(recording, flow),
        bottlenecks=flow.bottlenecks,
        timeline=_timeline(recording),
        node_timeline=_node_timeline(recording, cluster),
        provenance=source,
    )


def _iterations(recording: Recording) -> pd.DataFrame:
    """Return the iterations that ended, with their latency and, where it was recorded, its parts."""
    table = _frame(recording.iterations)
    table["latency_s"] = (table["end_s"] - table["start_s"]).to_numpy()
    if recording.state.run["keep_breakdown"][0]:
        parts = np.concatenate(recording.iteration_parts)
        for column, name in enumerate(PARTS):
            table[name] = parts[:, column]
    return table


def _requests(recording: Recording) -> pd.DataFrame:
    """Return the requests that ended; times are NaN where a request did not get that far."""
    table = _frame(recording.request_logs)
    table["outcome"] = OUTCOMES[table["outcome"].to_numpy(np.int64)]
    table["reason"] = REASONS[table["reason"].to_numpy(np.int64)]
    finished = table["outcome"] == Outcome.FINISHED.text
    decoding_s = (table["end_s"] - table["prompt_done_s"]).where(finished)
    table["ttft_s"] = table["prompt_done_s"] - table["arrival_s"]
    table["tpot_s"] = decoding_s / table["output_tokens"]
    table["e2e_s"] = (table["end_s"] - table["arrival_s"]).where(finished)
    return table


def _settings(source: dict[str, Any], workload: Workload) -> dict[str, Any]:
    """Return the columns of the summary that say what ran."""
    return {
        "cluster": source["cluster"]["name"],
        "model": source["model"]["name"],
        "placement": source["placement"]["name"],
        "placement_hash": source["placement"]["hash"],
        "scheduler": source["scheduler"]["name"],
        "execution": source["execution"]["name"],
        "mode": workload.mode,
        "trace": workload.source,
        "initial_requests": workload.initial_requests,
        "rate_tokens_per_s": workload.rate_tokens_per_s,
        "warmup_s": float(workload.warmup_s),
        "duration_s": float(workload.duration_s),
        "on_full": source["settings"]["on_full"],
        "seed": workload.seed,
        "helixlab": library_in_words(source["versions"]),
    }


def _window_metrics(recording: Recording, iterations: pd.DataFrame) -> dict[str, Any]:
    """Return throughput and latencies of the iterations that ended in the window."""
    first_s, last_s = recording.window_s
    in_window = iterations["end_s"].between(first_s, last_s).to_numpy()
    is_prompt = (iterations["iteration"] == 0).to_numpy()
    latency_s = iterations["latency_s"].to_numpy()
    prompt_latency_s, decode_latency_s = latency_s[in_window & is_prompt], latency_s[in_window & ~is_prompt]
    # Counted by the engine too, for runs whose iterations are not kept.
    before, after = (counters[0] for counters in recording.runs_at_window[:2])
    decodes = int(after["decode_tokens"] - before["decode_tokens"])
    prompts = int(after["prompts_finished"] - before["prompts_finished"])
    prompt_tokens = int(after["prompt_tokens"] - before["prompt_tokens"])
    if len(iterations):
        decodes, prompts = len(decode_latency_s), len(prompt_latency_s)
        prompt_tokens = int(iterations["tokens"].to_numpy()[in_window & is_prompt].sum())
    return {
        "decode_tokens_per_s": decodes / (last_s - first_s),
        "prompt_tokens_per_s": prompt_tokens / (last_s - first_s),
        **latency_metrics(prompt_latency_s, "prompt"),
        **latency_metrics(decode_latency_s, "decode"),
        "prompts_finished_in_window": prompts,
    }


def _request_metrics(recording: Recording, requests: pd.DataFrame) -> dict[str, float]:
    """Return TTFT, TPOT and end-to-end latency of the finished requests that ended in the window."""
    finished = requests["outcome"] == Outcome.FINISHED.text
    ended = requests[finished & requests["end_s"].between(*recording.window_s)]
    metrics: dict[str, float] = {}
    for name in ("ttft", "tpot", "e2e"):
        metrics |= distribution(ended[f"{name}_s"].to_numpy(), name, REQUEST_PERCENTILES)
    return metrics


def _run_metrics(recording: Recording, start_s: float) -> dict[str, Any]:
    """Return tokens and times of the whole run."""
    run, (first_s, last_s) = recording.state.run[0], recording.window_s
    total_tokens = int(run["prompt_tokens"] + run["decode_tokens"])
    return {
        "total_tokens": total_tokens,
        "total_tokens_per_s": total_tokens / run["last_finish_s"] if run["last_finish_s"] > 0 else 0.0,
        "start_s": float(start_s),
        "window_start_s": float(first_s),
        "window_end_s": float(last_s),
        "last_finish_s": float(run["last_finish_s"]),
    }


def _request_counts(recording: Recording, requests: pd.DataFrame, workload: Workload) -> dict[str, Any]:
    """Return counts of requests, and the mean lengths of those accepted."""
    run = recording.state.run[0]
    finished = requests[requests["outcome"] == Outcome.FINISHED.text]
    inputs, outputs = (
        np.concatenate([finished[name].to_numpy(), _in_flight(recording)[name]])
        for name in ("input_tokens", "output_tokens")
    )
    return {
        "requests_fed": int(run["fed"]),
        "requests_finished": int(run["finished"]),
        "requests_in_flight": int(run["in_flight"]),
        "requests_dropped": int(run["dropped"]),
        "requests_refused": int(run["refused"]),
        "requests_queued": int(run["ever_queued"]),
        "requests_preempted": int(run["preemptions"]),
        "requests_outside_window": _outside_window(recording, requests) if workload.online else 0,
        "prompts_waited_for_kv": int(run["kv_waits"]),
        "input_tokens_mean_accepted": float(inputs.mean()) if len(inputs) else float("nan"),
        "output_tokens_mean_accepted": float(outputs.mean()) if len(outputs) else float("nan"),
    }


def _frame(pieces: list[NDArray[np.void]]) -> pd.DataFrame:
    """Join the pieces of a log to a table, column by column so that no second copy of the whole is made."""
    return pd.DataFrame(
        {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0].dtype.names or ()},
        copy=False,
    )


def _in_flight(recording: Recording) -> NDArray[np.void]:
    requests: NDArray[np.void] = recording.state.requests
    in_flight: NDArray[np.void] = requests[requests["in_use"] == 1]
    return in_flight


def _outside_window(recording: Recording, requests: pd.DataFrame) -> int:
    """Count the requests that arrived before or after the measured window."""
    first_s, last_s = recording.window_s
    arrival_s = np.concatenate([requests["arrival_s"], _in_flight(recording)["arrival_s"]])
    return int(((arrival_s < first_s) | (arrival_s > last_s)).sum())


def _nodes(
    recording: Recording, cluster: Cluster, model: Model, placement: Placement, flow: Flow
) -> pd.DataFrame:
    """Return the nodes: their layers and maximum flow, KV cache at the end, and work in the window."""
    before, after = recording.nodes_at_window[:2]
    through = flow.nodes.set_index("node")
    throughput = machine_throughput(model, cluster.machine_counts())
    # Without the breakdown it is not known how long requests waited.
    unknown = 0.0 if recording.state.run["keep_breakdown"][0] else np.nan
    first_s, last_s = recording.window_s
    stored = compute_stored_kv(recording.state, max(last_s, float(recording.state.run["now_s"][0])))
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
                "potential_tokens_per_s": _potential(throughput[node.machine], model.layers),
                "capacity_tokens_per_s": float(through["capacity_tokens_per_s"][node.index]) if held else 0.0,
                "flow_tokens_per_s": float(through["flow_tokens_per_s"][node.index]) if held else 0.0,
                "kv_capacity_token_layers": capacity,
                "kv_used_token_layers": int(stored[node.index]),
                "kv_used_fraction": int(stored[node.index]) / capacity if capacity else 0.0,
                "busy_fraction": busy_s / (last_s - first_s),
                "batches": int(after[node.index]["batches"] - before[node.index]["batches"]),
                "tokens": int(after[node.index]["tokens"] - before[node.index]["tokens"]),
                **{
                    name: float(after[node.index][name] - before[node.index][name]) + unknown
                    for name in ("batch_wait_s", "kv_wait_s")
                },
            }
        )
    return pd.DataFrame(rows)


def _potential(throughput: NDArray[np.float64], layers: int) -> float:
    """Return the most tokens/s that a node can add to its cluster, with the best number of layers."""
    return float(np.max(np.arange(len(throughput)) * throughput)) / layers


def _busy_s(node: np.void, now_s: float) -> float:
    """Return the seconds that a node has computed until now."""
    return float(node["busy_s"]) + (now_s - float(node["busy_since_s"]) if node["busy"] else 0.0)


def _links(recording: Recording, flow: Flow) -> pd.DataFrame:
    """Return the links: their maximum flow, and what was sent in the window."""
    before, after = recording.links_at_window[:2]
    span_s = recording.window_s[1] - recording.window_s[0]
    coordinator = len(recording.state.nodes) - 1
    senders = [SOURCE if end == coordinator else end for end in after["sender"].tolist()]
    receivers = [SINK if end == coordinator else end for end in after["receiver"].tolist()]
    pairs = list(zip(senders, receivers, strict=True))
    capacity = dict(zip(flow.on_link, flow.links["capacity_tokens_per_s"], strict=True))
    unknown = 0.0 if recording.state.run["keep_breakdown"][0] else np.nan
    return pd.DataFrame(
        {
            "sender": pd.Series(senders, dtype=object),
            "receiver": pd.Series(receivers, dtype=object),
            "flow_tokens_per_s": [flow.on_link[pair] for pair in pairs],
            "capacity_tokens_per_s": [capacity[pair] for pair in pairs],
            "tokens_per_s": (after["sent_tokens"] - before["sent_tokens"]) / span_s,
            "busy_fraction": (_sent_s(after, recording.window_s[1]) - _sent_s(before, recording.window_s[0]))
            / span_s,
            "wait_s": after["wait_s"] - before["wait_s"] + unknown,
            **{name: after[name] - before[name] for name in ("considered", "kv_masked", "batch_masked")},
        }
    )


def _sent_s(links: NDArray[np.void], now_s: float) -> NDArray[np.float64]:
    """Return the seconds that each link has sent until now; ``busy_s`` includes all that it has begun."""
    return links["busy_s"] - np.maximum(links["free_at_s"] - now_s, 0)


def _timeline(recording: Recording) -> pd.DataFrame:
    table = _frame(recording.samples)
    step_s = table["time_s"].diff()
    for tokens in ("prompt_tokens", "decode_tokens"):
        table[f"{tokens}_per_s"] = table[tokens].diff() / step_s
    return table


def _node_timeline(recording: Recording, cluster: Cluster) -> pd.DataFrame:
    times = np.concatenate([piece["time_s"] for piece in recording.samples])
    samples = np.concatenate(recording.node_samples)  # [sample, quantity, node]
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
        },
        copy=False,
    )
