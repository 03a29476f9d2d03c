"""From objects to tables: the State at the start of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import Cluster
from helixlab.errors import SimulationError
from helixlab.execution import Execution
from helixlab.model import MachineProfile, Model
from helixlab.placement import Placement
from helixlab.scheduling import Scheduler
from helixlab.scheduling.state import (
    ARRIVAL,
    BATCH_LOG,
    EVENT,
    FOLLOWUP,
    ITERATION,
    NODE,
    NONE,
    QUERY,
    QUERY_LOG,
    REQUEST,
    RUN,
    SAMPLE,
    State,
)
from helixlab.simulation.breakdown import PARTS
from helixlab.simulation.samples import NODE_SAMPLES
from helixlab.simulation.wiring import End, link_table, longest_pipeline, queue_table

__all__ = ["enlarged", "loading_time_s", "new_state", "short_of_rows"]

LOG_ROWS = 1 << 16
MOST_CHUNK_TOKENS = 2**62
"""Longer than any prompt, as the engine can count it."""
CHUNKS_A_QUERY = 4
"""Requests under way that tables have room for at first, for each query."""


def loading_time_s(cluster: Cluster, model: Model, placement: Placement) -> float:
    """When the run starts: the slowest node has read its layers from disk, rounded up, and one second."""
    seconds = [
        held.count * model.layer_bytes / cluster.machine_of(held.node).disk_bytes_per_s
        for held in placement.layers
    ]
    return math.ceil(max(seconds)) + 1


def new_state(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    scheduler: Scheduler,
    execution: Execution,
    flow: Mapping[tuple[End, End], float] | None,
    *,
    left_out: Set[tuple[End, End]] = frozenset(),
    query_rows: int,
    keep_breakdown: bool = False,
) -> State:
    """Tables of an idle system with room for `query_rows` queries at first.

    Parameters
    ----------
    cluster, model, placement
        Checked to fit each other.
    scheduler : Scheduler
        Decides how links share the network cards.
    execution : Execution
        How nodes form batches.
    flow : mapping, optional
        Flow on each link of the placement, for schedulers that follow it.
    left_out : set of (sender, receiver)
        Links that such a scheduler does not use, though they have flow.
    query_rows : int
        Rows of the query tables to start with.
    keep_breakdown : bool
        Make room to note where the time of each iteration goes.
    """
    nodes, profiles = _nodes(cluster, model, placement, execution)
    links = link_table(cluster, model, placement, nodes, flow, left_out)
    queues = queue_table(placement, nodes, links)
    prompt_s, decode_s = (
        _padded([getattr(p, name) for p in profiles]) for name in ("prompt_table_s", "decode_table_s")
    )
    run = np.zeros(1, RUN)
    run["first_held"] = run["free_query"] = run["free_request"] = run["first_gathered"] = NONE
    run["most_chunks"] = 1
    run["chunk_tokens"] = min(execution.chunk_tokens or 0, MOST_CHUNK_TOKENS)
    run["prompt_cost_factor"] = execution.prompt_cost_factor
    run["next_sample_s"] = np.inf
    run["activation_bytes"] = model.activation_bytes
    run["plans_ahead"] = scheduler.plans_ahead
    run["picks_free_links"] = scheduler.picks_free_links
    run["fixed_rates"] = scheduler.follows_flow
    run["feeds_by_kv"] = scheduler.feeds_by_kv
    run["keep_breakdown"] = keep_breakdown
    longest = longest_pipeline(placement)
    state = State(
        run=run,
        nodes=nodes,
        links=links,
        queues=queues,
        queries=np.zeros(0, QUERY),
        requests=np.zeros(0, REQUEST),
        pipelines=np.zeros((0, longest), np.int32),
        prompt_s=prompt_s,
        decode_s=decode_s,
        parameters=np.array(scheduler.parameters or (0.0,), np.float64),
        events=np.zeros(0, EVENT),
        kv_tokens=np.zeros((0, longest), np.int32),
        followups=np.zeros(0, FOLLOWUP),
        arrivals=np.zeros(0, ARRIVAL),
        iterations=np.zeros(LOG_ROWS, ITERATION),
        query_logs=np.zeros(LOG_ROWS, QUERY_LOG),
        batch_log=np.zeros(LOG_ROWS, BATCH_LOG),
        samples=np.zeros(256, SAMPLE),
        node_samples=np.zeros((256, len(NODE_SAMPLES), len(cluster.nodes))),
        layer_kv=np.zeros((model.layers, 2)),
        spent=np.zeros((0, len(PARTS) + 1)),
        iteration_parts=np.zeros((LOG_ROWS if keep_breakdown else 0, len(PARTS))),
    )
    return enlarged(state, query_rows)


def enlarged(state: State, query_rows: int) -> State:
    """The same state with more rows for queries, their requests, and what these cause."""
    run = state.run[0]

    def longer(table: NDArray[Any], rows: int) -> NDArray[Any]:
        result = np.zeros((max(rows, len(table)), *table.shape[1:]), table.dtype)
        result[: len(table)] = table
        return result

    def with_free_rows(table: NDArray[Any], rows: int, first_free: str) -> NDArray[Any]:
        # The new rows go in front of the list of free ones.
        result, before = longer(table, rows), len(table)
        if rows > before:
            result["next"][before:] = np.arange(before + 1, rows + 1)
            result["next"][-1] = run[first_free]
            run[first_free] = before
        return result

    request_rows = query_rows * min(int(run["most_chunks"]), CHUNKS_A_QUERY) + int(run["most_chunks"])
    run["free_requests"] += max(request_rows - len(state.requests), 0)
    return state._replace(
        queries=with_free_rows(state.queries, query_rows, "free_query"),
        requests=with_free_rows(state.requests, request_rows, "free_request"),
        pipelines=longer(state.pipelines, query_rows),
        kv_tokens=longer(state.kv_tokens, query_rows),
        events=longer(state.events, 4 * request_rows + 4 * query_rows + 64),
        followups=longer(state.followups, 8 * request_rows + 6 * len(state.nodes) + 64),
        spent=longer(state.spent, request_rows if run["keep_breakdown"] else 0),
        query_logs=longer(state.query_logs, max(2 * request_rows, LOG_ROWS)),
    )


def short_of_rows(state: State) -> bool:
    """Whether emptied logs are not enough for the engine to go on."""
    run = state.run[0]
    return bool(
        run["free_query"] == NONE
        or run["free_requests"] < run["most_chunks"]
        or run["events"] > len(state.events) // 2
        or run["followups_end"] > len(state.followups) // 2
    )


def _nodes(
    cluster: Cluster, model: Model, placement: Placement, execution: Execution
) -> tuple[NDArray[np.void], list[MachineProfile]]:
    nodes = np.zeros(len(cluster.nodes) + 1, NODE)
    nodes["outbox_head"] = nodes["outbox_tail"] = nodes["first_waiting_link"] = nodes["batch_head"] = nodes[
        "batch_tail"
    ] = NONE
    machines = sorted({cluster.machine_of(held.node).name for held in placement.layers})
    profiles = [model.profile(machine) for machine in machines]
    for node in cluster.nodes:
        machine = cluster.machine_of(node.index)
        nodes[node.index]["nic_in_bytes_per_s"] = machine.nic_in_bytes_per_s
        nodes[node.index]["nic_out_bytes_per_s"] = machine.nic_out_bytes_per_s
    nodes[-1]["nic_in_bytes_per_s"] = cluster.coordinator.nic_in_bytes_per_s
    nodes[-1]["nic_out_bytes_per_s"] = cluster.coordinator.nic_out_bytes_per_s
    for held in placement.layers:
        row = nodes[held.node]
        machine = cluster.machine_of(held.node)
        profile = model.profile(machine.name)
        limits = profile.batch_limits(held.count)
        most = (len(profile.prompt_table_s) - 1, len(profile.decode_table_s) - 1)
        if limits.prompt_tokens > most[0] or limits.decode_tokens > most[1]:
            raise SimulationError(
                f"batches of {limits.prompt_tokens} prompt and {limits.decode_tokens} decode tokens are"
                f" allowed on {machine.name}, but its layer times are measured to {most[0]} and {most[1]}"
                " only;"
                " measure further or lower the limits of the profile"
            )
        row["first_layer"], row["layers"] = held.first_layer, held.count
        row["kv_capacity_token_layers"] = placement.kv_capacity(cluster, model, held.node)
        row["max_prompt_requests"], row["max_prompt_tokens"] = limits.prompt_requests, limits.prompt_tokens
        row["max_decode_tokens"], row["max_decode_context_tokens"] = (
            limits.decode_tokens,
            limits.decode_context_tokens,
        )
        for column, limit in (
            ("max_prompt_requests", execution.max_prompt_chunks_per_batch),
            ("max_decode_tokens", execution.max_decode_per_batch),
        ):
            row[column] = min(int(row[column]), limit or int(row[column]))
        row["profile"] = machines.index(machine.name)
        # A batch of two decodes does little but read the layer.
        read_layer_s = float(profile.decode_table_s[2])
        row["floor_s"] = read_layer_s if execution.memory_floor else 0.0
        row["reread_s_per_token"] = (
            execution.kv_reread_factor
            * read_layer_s
            * float(model.kv_bytes_per_token_layer or 0)
            / model.layer_bytes
        )
    return nodes, profiles


def _padded(tables: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Time tables of different lengths as rows of one array, NaN behind their ends."""
    padded = np.full((len(tables), max(map(len, tables))), np.nan)
    for row, table in zip(padded, tables, strict=True):
        row[: len(table)] = table
    return padded
