"""The columns of a result's tables, described as data: type, unit and meaning of each."""

from __future__ import annotations

from typing import Final, NamedTuple

from helixlab.simulation.metrics import PERCENTILES, REQUEST_PERCENTILES

__all__ = ["COLUMNS", "TABLES", "Column"]


class Column(NamedTuple):
    """A column of a table.

    Parameters
    ----------
    name : str
        Name of the column.
    type : str
        Type of its values: ``"int"``, ``"float"``, ``"bool"``, ``"str"`` or ``"int or str"``.
    unit : str
        Unit of its values; empty for names, counts and fractions.
    description : str
        Meaning of the column.
    """

    name: str
    type: str
    unit: str
    description: str


def _distribution(name: str, subject: str, percents: tuple[int, ...]) -> tuple[Column, ...]:
    """Describe the mean and the percentiles of a time, as `helixlab.simulation.metrics` names them."""
    return (
        Column(f"{name}_mean_s", "float", "s", f"mean {subject}"),
        *(Column(f"{name}_p{p}_s", "float", "s", f"{p}th percentile of the {subject}") for p in percents),
    )


_PARTS: Final = {
    "queued_s": "time in the queue of the coordinator, while no KV cache is free",
    "lost_s": "time lost to a preemption: work that was thrown away, and its repetition",
    "link_wait_s": "time waiting for links",
    "sending_s": "time being sent over links",
    "link_latency_s": "latency of the links",
    "batch_wait_s": "time waiting at nodes for a batch",
    "kv_wait_s": "time waiting at nodes since no KV cache was free",
    "overhead_s": "time to bring activations together, at the first layer of each node",
    "compute_s": "time computing",
}
"""Parts of the latency of an iteration, as `helixlab.engine.constants.PARTS` names them."""

_FINISHED: Final = "over the requests that finished in the window"

COLUMNS: Final[dict[str, tuple[Column, ...]]] = {
    "summary": (
        Column("cluster", "str", "", "name of the cluster"),
        Column("model", "str", "", "name of the model"),
        Column("placement", "str", "", "name of the placement"),
        Column("placement_hash", "str", "", "hash of the content of the placement"),
        Column("scheduler", "str", "", "name of the scheduler"),
        Column("execution", "str", "", "name of the execution policy"),
        Column("mode", "str", "", "offline or online"),
        Column("trace", "str", "", "source of the requests"),
        Column("initial_requests", "int", "requests", "requests at the start of an offline run"),
        Column("rate_tokens_per_s", "float", "tokens/s", "rate at which tokens arrive in an online run"),
        Column("warmup_s", "float", "s", "warm-up before the window"),
        Column("duration_s", "float", "s", "duration: of the window offline, of warm-up and window online"),
        Column("on_full", "str", "", "what happens to requests while the KV caches are full: wait or drop"),
        Column("seed", "int", "", "seed of all random draws"),
        Column("helixlab", "str", "", "version of helixlab, with a hash of its code"),
        Column("partial", "bool", "", "true if the run was stopped before its end"),
        Column("decode_tokens_per_s", "float", "tokens/s", "tokens generated in the window, per second"),
        Column(
            "prompt_tokens_per_s", "float", "tokens/s", "prompt tokens processed in the window, per second"
        ),
        *_distribution("prompt_latency", "latency of the prompts that ended in the window", PERCENTILES),
        *_distribution("decode_latency", "latency of the decodes that ended in the window", PERCENTILES),
        Column("prompts_finished_in_window", "int", "", "prompts that ended in the window"),
        *_distribution("ttft", f"time to first token {_FINISHED}", REQUEST_PERCENTILES),
        *_distribution("tpot", f"time per output token {_FINISHED}", REQUEST_PERCENTILES),
        *_distribution("e2e", f"end-to-end latency {_FINISHED}", REQUEST_PERCENTILES),
        Column("total_tokens", "int", "tokens", "prompt and decode tokens of the whole run"),
        Column(
            "total_tokens_per_s",
            "float",
            "tokens/s",
            "total_tokens over last_finish_s, as the reference simulator prints it",
        ),
        Column("start_s", "float", "s", "time when the models are loaded and the run starts"),
        Column("window_start_s", "float", "s", "start of the measured window"),
        Column("window_end_s", "float", "s", "end of the measured window"),
        Column("last_finish_s", "float", "s", "end of the last iteration"),
        Column("requests_fed", "int", "requests", "requests that arrived"),
        Column("requests_finished", "int", "requests", "requests that finished"),
        Column("requests_in_flight", "int", "requests", "requests that had not ended when the run did"),
        Column("requests_dropped", "int", "requests", "requests dropped because the KV caches were full"),
        Column("requests_refused", "int", "requests", "requests refused because they can never be served"),
        Column(
            "requests_queued", "int", "requests", "requests that were queued at the coordinator at least once"
        ),
        Column("requests_preempted", "int", "", "preemptions: how often a request lost its KV cache"),
        Column(
            "requests_outside_window",
            "int",
            "requests",
            "requests of an online run that arrived before or after the window, for instance in the warm-up",
        ),
        Column("prompts_waited_for_kv", "int", "", "prompts that waited at a node for free KV cache"),
        Column(
            "input_tokens_mean_accepted",
            "float",
            "tokens",
            "mean prompt of finished requests and those in flight",
        ),
        Column(
            "output_tokens_mean_accepted",
            "float",
            "tokens",
            "mean output of finished requests and those in flight",
        ),
        Column("max_flow_tokens_per_s", "float", "tokens/s", "maximum flow of the placement"),
        Column(
            "upper_bound_tokens_per_s",
            "float",
            "tokens/s",
            "upper bound on the maximum flow of any placement",
        ),
        Column("events", "int", "", "events that were simulated"),
        Column("wall_s", "float", "s", "wall time of the simulation"),
        Column("peak_rss_mb", "float", "MB", "peak resident memory of the process"),
    ),
    "iterations": (
        Column("request", "int", "", "number of the request"),
        Column(
            "iteration", "int", "", "number of the iteration: 0 for the prompt, then one per output token"
        ),
        Column("tokens", "int", "tokens", "tokens that were processed"),
        Column("start_s", "float", "s", "start of the iteration: arrival, or end of the iteration before"),
        Column("end_s", "float", "s", "end of the iteration"),
        Column("latency_s", "float", "s", "end_s - start_s"),
        *(Column(name, "float", "s", f"{part} (keep_breakdown)") for name, part in _PARTS.items()),
    ),
    "requests": (
        Column("request", "int", "", "number of the request"),
        Column("input_tokens", "int", "tokens", "length of the prompt"),
        Column("output_tokens", "int", "tokens", "length of the output"),
        Column("arrival_s", "float", "s", "arrival at the coordinator"),
        Column("prompt_done_s", "float", "s", "time of the first token, when the prompt is done"),
        Column("end_s", "float", "s", "time when the request finished, was dropped or was refused"),
        Column("outcome", "str", "", "finished, dropped or refused"),
        Column("reason", "str", "", "why the request was refused; else empty"),
        Column("ttft_s", "float", "s", "time to first token: prompt_done_s - arrival_s"),
        Column(
            "tpot_s",
            "float",
            "s",
            "time per output token: (end_s - prompt_done_s) / output_tokens, if finished",
        ),
        Column("e2e_s", "float", "s", "end-to-end latency: end_s - arrival_s, if finished"),
    ),
    "batches": (
        Column("node", "int", "", "number of the node"),
        Column("first_layer", "int", "", "first layer that the batch was computed in"),
        Column("layers", "int", "layers", "layers that the batch was computed in"),
        Column("prompts", "int", "", "prompts, or chunks of them, in the batch"),
        Column("prompt_tokens", "int", "tokens", "tokens of these prompts"),
        Column("decodes", "int", "", "decodes in the batch"),
        Column("start_s", "float", "s", "start of the batch"),
        Column("end_s", "float", "s", "end of the batch"),
    ),
    "nodes": (
        Column("node", "int", "", "number of the node"),
        Column("machine", "str", "", "machine of the node"),
        Column("region", "str", "", "region of the node"),
        Column("first_layer", "int", "", "first layer of the node"),
        Column("end_layer", "int", "", "layer after its last; equal to first_layer if it has none"),
        Column(
            "potential_tokens_per_s",
            "float",
            "tokens/s",
            "what the node could add to the throughput with the number of layers that suits it best",
        ),
        Column("capacity_tokens_per_s", "float", "tokens/s", "throughput of the node with its layers"),
        Column("flow_tokens_per_s", "float", "tokens/s", "maximum flow through the node"),
        Column("kv_capacity_token_layers", "int", "tokens x layers", "capacity of the KV cache"),
        Column("kv_used_token_layers", "int", "tokens x layers", "KV cache in use at the end"),
        Column("kv_used_fraction", "float", "", "part of the KV cache in use at the end"),
        Column("busy_fraction", "float", "", "part of the window in which the node computed"),
        Column("batches", "int", "", "batches that ended in the window"),
        Column("tokens", "int", "tokens", "tokens of these batches"),
        Column(
            "batch_wait_s",
            "float",
            "s",
            "time that requests together waited for a batch in the window (keep_breakdown)",
        ),
        Column(
            "kv_wait_s",
            "float",
            "s",
            "time that requests together waited for KV cache in the window (keep_breakdown)",
        ),
    ),
    "links": (
        Column("sender", "int or str", "", "number of the sending node, or source"),
        Column("receiver", "int or str", "", "number of the receiving node, or sink"),
        Column("flow_tokens_per_s", "float", "tokens/s", "flow on the link in the maximum flow"),
        Column("capacity_tokens_per_s", "float", "tokens/s", "capacity of the link"),
        Column("tokens_per_s", "float", "tokens/s", "tokens sent in the window, per second"),
        Column("busy_fraction", "float", "", "part of the window in which the link was sending"),
        Column(
            "wait_s",
            "float",
            "s",
            "time that requests together waited for the link in the window (keep_breakdown)",
        ),
        Column("considered", "int", "", "times that the helix scheduler considered the link for a prompt"),
        Column(
            "kv_masked",
            "int",
            "",
            "times that it masked the link because the KV cache of the receiver was expected to be too full",
        ),
        Column(
            "batch_masked",
            "int",
            "",
            "times that it masked the link because the prompt exceeds a batch of the receiver",
        ),
    ),
    "bottlenecks": (
        Column("kind", "str", "", "kind of the bottleneck, see `helixlab.Flow`"),
        Column("sender", "int or str", "", "number of the sending node, or source"),
        Column(
            "receiver",
            "int or str",
            "",
            "number of the receiving node, or sink; the node itself if it computes",
        ),
        Column("capacity_tokens_per_s", "float", "tokens/s", "capacity that binds the maximum flow"),
    ),
    "timeline": (
        Column("time_s", "float", "s", "time of the sample"),
        Column(
            "in_flight", "int", "requests", "requests that have arrived and not ended, those queued included"
        ),
        Column("queued", "int", "requests", "requests queued at the coordinator"),
        Column("feeds_owed", "int", "requests", "requests yet to replace ended ones, once none is queued"),
        Column("finished", "int", "requests", "requests finished so far"),
        Column("prompt_tokens", "int", "tokens", "prompt tokens so far"),
        Column("decode_tokens", "int", "tokens", "decode tokens so far"),
        Column(
            "bottleneck_kv_expected_fraction",
            "float",
            "",
            "part of the KV cache expected to be used of the layer with the least left",
        ),
        Column(
            "prompt_tokens_per_s", "float", "tokens/s", "prompt tokens per second since the sample before"
        ),
        Column(
            "decode_tokens_per_s", "float", "tokens/s", "decode tokens per second since the sample before"
        ),
    ),
    "node_timeline": (
        Column("time_s", "float", "s", "time of the sample"),
        Column("node", "int", "", "number of the node"),
        Column("kv_used_fraction", "float", "", "part of the KV cache in use"),
        Column(
            "kv_expected_fraction",
            "float",
            "",
            "part of the KV cache that the helix scheduler expects to be used",
        ),
        Column("busy_fraction", "float", "", "part of the time since the sample before in which it computed"),
    ),
}
"""Columns of each table of a Result, in their order."""

TABLES: Final = tuple(COLUMNS)
"""Names of the tables of a Result."""
