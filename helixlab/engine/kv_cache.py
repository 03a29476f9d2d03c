"""The KV caches of the nodes: reserving, freeing and preempting.

A work item reserves the KV cache it needs on a node when it first joins a batch there. A prompt that does not
fit waits. A decode that does not fit preempts the youngest request on the node: that request goes back to the
coordinator, queues there, and computes its tokens again. So the oldest requests always make progress.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from helixlab._jit import inlined, rare
from helixlab.engine.constants import EventKind, KvAnswer
from helixlab.engine.queues import wake_node
from helixlab.engine.state import NONE, State, view

__all__ = [
    "compute_bottleneck_kv_use",
    "compute_stored_kv",
    "free_kv",
    "preempt_request",
    "reserve_kv",
]


@inlined
def reserve_kv(state, node, row, on_finish):
    """Reserve the KV cache that a work item needs on this node, and return a `KvAnswer`.

    The first chunk of a prompt reserves for the whole prompt.
    """
    entry = state.nodes[node]
    item = state.work_items[row]
    if item.kv_reserved:
        return KvAnswer.FITS
    request = item.request
    tokens = item.tokens
    layers = state.links[item.link].layers
    if item.is_prompt:
        asked = state.requests[request]
        tokens = asked.iteration_tokens if item.context_tokens == 0 else 0
        if (asked.input_tokens + asked.output_tokens) * layers > entry.kv_capacity_token_layers:
            return KvAnswer.NEVER
    while entry.kv_used_token_layers + tokens * layers > entry.kv_capacity_token_layers:
        if item.is_prompt:
            entry.kv_blocked = 1
            if item.waits_for_kv == 0:
                item.waits_for_kv = 1
                state.run[0].kv_waits += 1
            return KvAnswer.WAITS
        youngest = _find_youngest_request(state, node)
        preempt_request(state, youngest, on_finish)
        state.run[0].preemptions += 1
        if youngest == request:
            return KvAnswer.WAITS
    entry.kv_used_token_layers += tokens * layers
    state.kv_tokens[request, item.hop] += tokens
    item.kv_reserved = 1
    item.waits_for_kv = 0
    return KvAnswer.FITS


@rare
def _find_youngest_request(state, node):
    """Find the request with KV cache on the node that arrived last."""
    youngest = NONE
    for request in range(len(state.requests)):
        entry = state.requests[request]
        if not entry.in_use or entry.queued or entry.preempted:
            continue
        if youngest != NONE and entry.id < state.requests[youngest].id:
            continue
        for hop in range(entry.hops):
            if (
                state.links[state.pipelines[request, hop]].receiver == node
                and state.kv_tokens[request, hop] > 0
            ):
                youngest = request
    return youngest


@rare
def free_kv(state, request):
    """Free all KV cache of a request, and wake the nodes where work items wait for KV cache."""
    entry = state.requests[request]
    for hop in range(entry.hops):
        link = state.links[state.pipelines[request, hop]]
        if link.queue != NONE:
            node = state.nodes[link.receiver]
            node.kv_used_token_layers -= state.kv_tokens[request, hop] * link.layers
            state.kv_tokens[request, hop] = 0
            if node.kv_blocked:
                wake_node(state.run, state.followups, state.nodes, link.receiver)
    entry.kv_tokens = 0


@rare
def preempt_request(state, request, on_finish):
    """Take all KV cache from a request.

    Its work items are discarded where they are found next.
    """
    on_finish(view(state), request)
    # Any node with a work item of it finds that at this instant; one on a link is found on arrival.
    wake_node(state.run, state.followups, state.nodes, len(state.nodes) - 1)
    for hop in range(state.requests[request].hops):
        link = state.links[state.pipelines[request, hop]]
        if link.queue != NONE:
            wake_node(state.run, state.followups, state.nodes, link.receiver)
    free_kv(state, request)
    state.requests[request].preempted = 1
    state.run[0].preempted_requests += 1


@rare
def compute_bottleneck_kv_use(state):
    """Compute the expected KV use, as a fraction, of the layer with the highest.

    Every node's cache is spread evenly over its layers.
    """
    nodes = state.nodes
    layers = len(state.layer_kv)
    for layer in range(layers):
        state.layer_kv[layer, 0] = 0.0
        state.layer_kv[layer, 1] = 0.0
    for row in range(len(nodes) - 1):
        node = nodes[row]
        for layer in range(node.first_layer, node.first_layer + node.layers):
            state.layer_kv[layer, 0] += node.kv_capacity_token_layers / node.layers
            state.layer_kv[layer, 1] += (
                node.kv_capacity_token_layers - node.kv_expected_token_layers
            ) / node.layers
    fullest = 0.0
    for layer in range(layers):
        if state.layer_kv[layer, 0] > 0:
            fullest = max(fullest, 1 - state.layer_kv[layer, 1] / state.layer_kv[layer, 0])
    return fullest


def compute_stored_kv(state: State, now_s: float) -> NDArray[np.int64]:
    """Compute the token-layers stored on every node at `now_s`: those reserved, less what has not yet run."""
    stored = state.nodes["kv_used_token_layers"].copy()
    reached = _find_reached_layers(state, now_s)
    events = state.events[: state.run["events"][0]]
    on_link = np.isin(events["kind"], (EventKind.ARRIVE, EventKind.SENT))
    travelling = set(events["subject"][on_link].tolist())
    for row in _list_rows_in_use(state):
        item = state.work_items[row]
        request = int(item["request"])
        # The first chunk of a prompt reserves for all of them.
        later_chunk = item["is_prompt"] and item["context_tokens"] > 0
        for hop in range(max(int(item["hop"]), 0), int(state.requests[request]["hops"])):
            link = state.links[state.pipelines[request, hop]]
            at_hop = hop == item["hop"]
            counted = later_chunk or (at_hop and item["kv_reserved"])
            if link["queue"] == NONE or not counted or state.kv_tokens[request, hop] == 0:
                continue
            node = state.nodes[link["receiver"]]
            end = int(node["first_layer"] + node["layers"])
            first = end - int(link["layers"])
            layer = reached.get(row, end) if at_hop and row not in travelling else first
            stored[link["receiver"]] -= int(item["tokens"]) * (end - layer)
    return stored


def _list_rows_in_use(state: State) -> list[int]:
    free, row = set(), int(state.run["free_work_item"][0])
    while row != NONE:
        free.add(row)
        row = int(state.work_items[row]["next"])
    return [row for row in range(len(state.work_items)) if row not in free]


def _find_reached_layers(state: State, now_s: float) -> dict[int, int]:
    """Find the next layer to run of every work item that waits or runs at a node."""
    reached = {}
    for queue in state.queues:
        for row in _list_linked_rows(state, int(queue["head"])):
            reached[row] = int(queue["layer"])
    for node in state.nodes[:-1]:
        if not node["busy"]:
            continue
        queue = state.queues[node["current_queue"]]
        layer_s = float(node["batch_layer_s"])
        done, end_s = 0, float(node["busy_since_s"]) + (layer_s + float(node["batch_overhead_s"]))
        while end_s <= now_s and done < queue["layers"]:
            done, end_s = done + 1, end_s + layer_s
        for row in _list_linked_rows(state, int(node["batch_head"])):
            reached[row] = int(queue["layer"]) + done
    return reached


def _list_linked_rows(state: State, row: int) -> list[int]:
    rows = []
    while row != NONE:
        rows.append(row)
        row = int(state.work_items[row]["next"])
    return rows
