"""The State at the start of a run: the engine's tables, filled from cluster, model and placement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.engine.constants import NODE_SAMPLES, Part
from helixlab.engine.state import (
    ARRIVAL,
    BATCH_LOG,
    EVENT,
    FOLLOWUP,
    ITERATION,
    LINK,
    NODE,
    NONE,
    QUEUE,
    REQUEST,
    REQUEST_LOG,
    RUN,
    SAMPLE,
    WORK_ITEM,
    State,
)
from helixlab.errors import SimulationError
from helixlab.execution import Execution
from helixlab.model import MachineProfile, Model
from helixlab.placement import Placement
from helixlab.scheduling import Scheduler

__all__ = [
    "End",
    "enlarged",
    "link_table",
    "loading_time_s",
    "longest_pipeline",
    "new_state",
    "queue_table",
    "short_of_rows",
]

End = int | str
"""An end of a link: the number of a node, or source or sink."""
FIRST_PRIORITY: Final = 0.05
"""Start value of the swarm scheduler's priorities and moving averages."""
LOG_ROWS: Final = 1 << 16
"""Rows of the engine's logs at the start."""
MOST_CHUNK_TOKENS: Final = 2**62
"""Tokens of the largest chunk: more than any prompt has, and few enough for the engine's integers."""
CHUNKS_PER_REQUEST: Final = 4
"""Work items per request, under way at a time, for which the tables have rows at the start."""


def longest_pipeline(placement: Placement) -> int:
    """Return the most links on a path from source to sink; every link leads on by at least a layer."""
    reached: dict[End, int] = {held.node: held.end_layer for held in placement.layers}
    longest: dict[End, int] = {SOURCE: 0}
    for sender, receiver in sorted(placement.links, key=lambda link: reached.get(link[0], 0)):
        if sender in longest:
            longest[receiver] = max(longest.get(receiver, 0), longest[sender] + 1)
    return longest[SINK]


def link_table(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    nodes: NDArray[np.void],
    flow: Mapping[tuple[End, End], float] | None,
    left_out: Set[tuple[End, End]],
) -> NDArray[np.void]:
    """Return the links by sender, in the order of the placement, and set each node's range of links."""
    coordinator = len(nodes) - 1
    row_of: dict[End, End] = {SOURCE: coordinator, SINK: coordinator}
    ordered = sorted(placement.links, key=lambda link: row_of.get(link[0], link[0]))
    links = np.zeros(len(ordered), LINK)
    links["waiting_head"] = links["waiting_tail"] = NONE
    for row, (sender, receiver) in zip(links, ordered, strict=True):
        link = cluster.link(sender, receiver)
        row["sender"], row["receiver"] = row_of.get(sender, sender), row_of.get(receiver, receiver)
        row["latency_s"], row["bandwidth_bytes_per_s"] = link.latency_s, link.bandwidth_bytes_per_s
        row["bytes_per_token"] = model.link_bytes_per_token(sender, receiver)
        row["priority"] = row["service_s"] = FIRST_PRIORITY
        if flow is not None:
            row["flow_tokens_per_s"] = flow[sender, receiver]
            row["left_out"] = flow[sender, receiver] <= 0 or (sender, receiver) in left_out
    for node in range(len(nodes)):
        own = np.flatnonzero(links["sender"] == node)
        nodes[node]["first_link"], nodes[node]["links"] = (own[0], len(own)) if len(own) else (0, 0)
    if flow is not None:
        _fix_rates(nodes, links)
    return links


def _fix_rates(nodes: NDArray[np.void], links: NDArray[np.void]) -> None:
    """Give each link its share of both network cards, by the bytes of the flow, up to its bandwidth."""
    tokens_per_s = links["flow_tokens_per_s"]
    nodes["outbound_flow_tokens_per_s"] = np.bincount(
        links["sender"], weights=tokens_per_s, minlength=len(nodes)
    )
    carried = tokens_per_s * links["bytes_per_token"]
    sent = np.bincount(links["sender"], weights=carried, minlength=len(nodes))
    received = np.bincount(links["receiver"], weights=carried, minlength=len(nodes))
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.minimum.reduce(
            [
                links["bandwidth_bytes_per_s"],
                nodes["nic_out_bytes_per_s"][links["sender"]] * carried / sent[links["sender"]],
                nodes["nic_in_bytes_per_s"][links["receiver"]] * carried / received[links["receiver"]],
            ]
        )
    links["rate_bytes_per_s"] = np.where(carried > 0, np.where(rate >= 1, np.floor(rate), rate), 0)


def queue_table(placement: Placement, nodes: NDArray[np.void], links: NDArray[np.void]) -> NDArray[np.void]:
    """Return a queue per layer where work items may enter a node, and set each node's and link's queues."""
    coordinator = len(nodes) - 1
    rows: list[tuple[int, int, int, bool, bool]] = []
    for held in placement.layers:
        inbound = links[links["receiver"] == held.node]
        ends = {
            0 if sender == coordinator else int(nodes[sender]["first_layer"] + nodes[sender]["layers"])
            for sender in inbound["sender"].tolist()
        }
        entries = sorted(ends)
        nodes[held.node]["first_queue"] = nodes[held.node]["current_queue"] = len(rows)
        nodes[held.node]["queues"] = len(entries)
        for layer, following in zip(entries, [*entries, held.end_layer][1:], strict=True):
            rows.append(
                (held.node, layer, following - layer, layer == held.first_layer, layer == entries[-1])
            )
    queues = np.zeros(len(rows), QUEUE)
    queues["head"] = queues["tail"] = NONE
    for name, column in zip(
        ("node", "layer", "layers", "is_first_layer", "is_last"), zip(*rows, strict=True), strict=True
    ):
        queues[name] = column
    row_of = {(node, layer): row for row, (node, layer, *_) in enumerate(rows)}
    for link in links:
        if link["receiver"] == coordinator:
            link["queue"] = NONE
            continue
        sender = nodes[link["sender"]]
        layer = 0 if link["sender"] == coordinator else int(sender["first_layer"] + sender["layers"])
        receiver = nodes[link["receiver"]]
        link["queue"] = row_of[int(link["receiver"]), layer]
        link["layers"] = receiver["first_layer"] + receiver["layers"] - layer
    return queues


def loading_time_s(cluster: Cluster, model: Model, placement: Placement) -> float:
    """Return the start of the run: when the slowest node has loaded its layers, rounded up, plus 1 s."""
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
    request_rows: int,
    keep_breakdown: bool = False,
) -> State:
    """Return the tables of an idle system, with rows for `request_rows` requests at the start.

    Parameters
    ----------
    cluster, model, placement
        Cluster, model and placement, checked to fit each other.
    scheduler : Scheduler
        Scheduler, which also decides how links share the network cards.
    execution : Execution
        Policy by which nodes form batches.
    flow : mapping, optional
        Flow on each link of the placement, for schedulers that follow it.
    left_out : set of (sender, receiver)
        Links that such a scheduler does not use, though they have flow.
    request_rows : int
        Rows of the request tables to start with.
    keep_breakdown : bool
        Add the tables that record where the time of each iteration goes.
    """
    nodes, profiles = _nodes(cluster, model, placement, execution)
    links = link_table(cluster, model, placement, nodes, flow, left_out)
    queues = queue_table(placement, nodes, links)
    prompt_s, decode_s = (
        _padded([getattr(p, name) for p in profiles]) for name in ("prompt_table_s", "decode_table_s")
    )
    run = np.zeros(1, RUN)
    run["first_queued"] = run["free_request"] = run["free_work_item"] = run["first_gathered"] = NONE
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
        requests=np.zeros(0, REQUEST),
        work_items=np.zeros(0, WORK_ITEM),
        pipelines=np.zeros((0, longest), np.int32),
        prompt_s=prompt_s,
        decode_s=decode_s,
        parameters=np.array(scheduler.parameters or (0.0,), np.float64),
        events=np.zeros(0, EVENT),
        kv_tokens=np.zeros((0, longest), np.int32),
        followups=np.zeros(0, FOLLOWUP),
        arrivals=np.zeros(0, ARRIVAL),
        iterations=np.zeros(LOG_ROWS, ITERATION),
        request_logs=np.zeros(LOG_ROWS, REQUEST_LOG),
        batch_log=np.zeros(LOG_ROWS, BATCH_LOG),
        samples=np.zeros(256, SAMPLE),
        node_samples=np.zeros((256, len(NODE_SAMPLES), len(cluster.nodes))),
        layer_kv=np.zeros((model.layers, 2)),
        spent=np.zeros((0, len(Part) + 1)),
        iteration_parts=np.zeros((LOG_ROWS if keep_breakdown else 0, len(Part))),
    )
    return enlarged(state, request_rows)


def enlarged(state: State, request_rows: int) -> State:
    """Return the same state with more rows for requests, their work items, and what these cause."""
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

    work_item_rows = request_rows * min(int(run["most_chunks"]), CHUNKS_PER_REQUEST) + int(run["most_chunks"])
    run["free_work_items"] += max(work_item_rows - len(state.work_items), 0)
    return state._replace(
        requests=with_free_rows(state.requests, request_rows, "free_request"),
        work_items=with_free_rows(state.work_items, work_item_rows, "free_work_item"),
        pipelines=longer(state.pipelines, request_rows),
        kv_tokens=longer(state.kv_tokens, request_rows),
        events=longer(state.events, 4 * work_item_rows + 4 * request_rows + 64),
        followups=longer(state.followups, 8 * work_item_rows + 6 * len(state.nodes) + 64),
        spent=longer(state.spent, work_item_rows if run["keep_breakdown"] else 0),
        request_logs=longer(state.request_logs, max(2 * work_item_rows, LOG_ROWS)),
    )


def short_of_rows(state: State) -> bool:
    """Return True if the engine needs more rows to go on, so that emptying its logs is not enough."""
    run = state.run[0]
    return bool(
        run["free_request"] == NONE
        or run["free_work_items"] < run["most_chunks"]
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
                " only; measure further or lower the limits of the profile"
            )
        row["first_layer"], row["layers"] = held.first_layer, held.count
        row["kv_capacity_token_layers"] = placement.kv_capacity(cluster, model, held.node)
        row["max_prompts"], row["max_prompt_tokens"] = limits.prompt_requests, limits.prompt_tokens
        row["max_decode_tokens"], row["max_decode_context_tokens"] = (
            limits.decode_tokens,
            limits.decode_context_tokens,
        )
        for column, limit in (
            ("max_prompts", execution.max_prompt_chunks_per_batch),
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
    """Return time tables of different lengths as rows of one array, with NaN after their ends."""
    padded = np.full((len(tables), max(map(len, tables))), np.nan)
    for row, table in zip(padded, tables, strict=True):
        row[: len(table)] = table
    return padded
