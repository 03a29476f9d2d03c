"""Room in the KV caches.

A work item takes the room it needs on a node when it first joins a batch there. A prompt that finds
none waits. A decode that finds none sends the youngest request on the node back to the coordinator,
where it waits and then computes its tokens again, so that the oldest requests always get on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from helixlab._jit import inlined, rare
from helixlab.engine.queues import ARRIVE, SENT, wake
from helixlab.engine.state import NONE, State, view

__all__ = [
    "KV_FITS",
    "KV_NEVER",
    "KV_WAITS",
    "bottleneck_kv_expected",
    "free_kv",
    "preempt",
    "reserve_kv",
    "stored_kv",
]

KV_FITS = 0
KV_WAITS = 1
KV_NEVER = 2


@inlined
def reserve_kv(state, node, row, on_finish):
    """Reserve the KV cache a work item needs on this node; a first chunk does so for its whole prompt."""
    entry = state.nodes[node]
    item = state.work_items[row]
    if item.kv_reserved:
        return KV_FITS
    request = item.request
    tokens = item.tokens
    layers = state.links[item.link].layers
    if item.is_prompt:
        asked = state.requests[request]
        tokens = asked.iteration_tokens if item.context_tokens == 0 else 0
        if (asked.input_tokens + asked.output_tokens) * layers > entry.kv_capacity_token_layers:
            return KV_NEVER
    while entry.kv_used_token_layers + tokens * layers > entry.kv_capacity_token_layers:
        if item.is_prompt:
            entry.kv_blocked = 1
            if item.waits_for_kv == 0:
                item.waits_for_kv = 1
                state.run[0].kv_waits += 1
            return KV_WAITS
        youngest = _youngest_on(state, node)
        preempt(state, youngest, on_finish)
        state.run[0].preemptions += 1
        if youngest == request:
            return KV_WAITS
    entry.kv_used_token_layers += tokens * layers
    state.kv_tokens[request, item.hop] += tokens
    item.kv_reserved = 1
    item.waits_for_kv = 0
    return KV_FITS


@rare
def _youngest_on(state, node):
    """The request with KV cache on the node that arrived last."""
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
    """Give back all room of a request, and let nodes look again at what waits for room."""
    entry = state.requests[request]
    for hop in range(entry.hops):
        link = state.links[state.pipelines[request, hop]]
        if link.queue != NONE:
            node = state.nodes[link.receiver]
            node.kv_used_token_layers -= state.kv_tokens[request, hop] * link.layers
            state.kv_tokens[request, hop] = 0
            if node.kv_blocked:
                wake(state.run, state.followups, state.nodes, link.receiver)
    entry.kv_tokens = 0


@rare
def preempt(state, request, on_finish):
    """Take all room from a request; its work items are taken back where they are next met."""
    on_finish(view(state), request)
    # Whichever node has a work item looks at it at this instant; on a link it is met on arrival.
    wake(state.run, state.followups, state.nodes, len(state.nodes) - 1)
    for hop in range(state.requests[request].hops):
        link = state.links[state.pipelines[request, hop]]
        if link.queue != NONE:
            wake(state.run, state.followups, state.nodes, link.receiver)
    free_kv(state, request)
    state.requests[request].preempted = 1
    state.run[0].preempted_requests += 1


@rare
def bottleneck_kv_expected(state):
    """Expected KV use of the fullest layer, every node's cache spread evenly over its layers."""
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


def stored_kv(state: State, now_s: float) -> NDArray[np.int64]:
    """Token-layers stored on every node at `now_s`: without the room set aside for layers not yet run."""
    stored = state.nodes["kv_used_token_layers"].copy()
    reached = _reached_layers(state, now_s)
    events = state.events[: state.run["events"][0]]
    travelling = set(events["subject"][(events["kind"] == ARRIVE) | (events["kind"] == SENT)].tolist())
    for row in _rows_in_use(state):
        item = state.work_items[row]
        request = int(item["request"])
        # The first chunk of a prompt sets room aside for all of them.
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


def _rows_in_use(state: State) -> list[int]:
    free, row = set(), int(state.run["free_work_item"][0])
    while row != NONE:
        free.add(row)
        row = int(state.work_items[row]["next"])
    return [row for row in range(len(state.work_items)) if row not in free]


def _reached_layers(state: State, now_s: float) -> dict[int, int]:
    """The next layer to run of every work item that waits or runs at a node."""
    reached = {}
    for queue in state.queues:
        for row in _linked(state, int(queue["head"])):
            reached[row] = int(queue["layer"])
    for node in state.nodes[:-1]:
        if not node["busy"]:
            continue
        queue = state.queues[node["current_queue"]]
        layer_s = float(node["batch_layer_s"])
        done, end_s = 0, float(node["busy_since_s"]) + (layer_s + float(node["batch_overhead_s"]))
        while end_s <= now_s and done < queue["layers"]:
            done, end_s = done + 1, end_s + layer_s
        for row in _linked(state, int(node["batch_head"])):
            reached[row] = int(queue["layer"]) + done
    return reached


def _linked(state: State, row: int) -> list[int]:
    rows = []
    while row != NONE:
        rows.append(row)
        row = int(state.work_items[row]["next"])
    return rows
