"""Room in the KV caches.

A request takes the room it needs on a node when it first joins a batch there. A prompt that finds
none waits. A decode that finds none sends the youngest query on the node back to the coordinator,
where it waits and then computes its tokens again, so that the oldest queries always get on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from helixlab.jit import inlined
from helixlab.scheduling.state import NONE, State, view
from helixlab.simulation.marks import SEND, START, mark

__all__ = ["KV_FITS", "KV_NEVER", "KV_WAITS", "free_kv", "reserve_kv", "stored_kv"]

KV_FITS = 0
KV_WAITS = 1
KV_NEVER = 2


@inlined
def reserve_kv(state, node, query, on_finish):
    """Take the room for all layers that the request runs on this node."""
    entry = state.nodes[node]
    request = state.requests[query]
    if request.kv_reserved:
        return KV_FITS
    asked = state.queries[query]
    layers = state.links[request.link].layers
    if (asked.input_tokens + asked.output_tokens) * layers > entry.kv_capacity_token_layers:
        return KV_NEVER
    needed = request.tokens * layers
    while entry.kv_used_token_layers + needed > entry.kv_capacity_token_layers:
        if request.is_prompt:
            entry.kv_blocked = 1
            if request.waits_for_kv == 0:
                request.waits_for_kv = 1
                state.run[0].kv_waits += 1
            return KV_WAITS
        youngest = _youngest_on(state, node)
        _evict(state, youngest, on_finish)
        if youngest == query:
            return KV_WAITS
    entry.kv_used_token_layers += needed
    request.kv_reserved = 1
    request.waits_for_kv = 0
    return KV_FITS


@inlined
def _kv_at_hop(state, query, hop):
    """Token-layers that a query holds on the node at the end of a hop of its pipeline."""
    request = state.requests[query]
    tokens = state.queries[query].kv_tokens
    if hop < request.hop or (hop == request.hop and request.kv_reserved):
        tokens += request.tokens
    return tokens * state.links[state.pipelines[query, hop]].layers


@inlined
def _youngest_on(state, node):
    """The query with KV cache on the node that arrived last."""
    youngest = NONE
    for query in range(len(state.queries)):
        entry = state.queries[query]
        if not entry.in_use or entry.held or entry.evicted:
            continue
        if youngest != NONE and entry.id < state.queries[youngest].id:
            continue
        for hop in range(entry.hops):
            if (
                state.links[state.pipelines[query, hop]].receiver == node
                and _kv_at_hop(state, query, hop) > 0
            ):
                youngest = query
    return youngest


@inlined
def free_kv(state, query):
    """Give back all room of a query, and let nodes look again at what waits for room."""
    entry = state.queries[query]
    for hop in range(entry.hops):
        link = state.links[state.pipelines[query, hop]]
        if link.queue != NONE:
            node = state.nodes[link.receiver]
            node.kv_used_token_layers -= _kv_at_hop(state, query, hop)
            if node.kv_blocked:
                mark(state, START, link.receiver)
    entry.kv_tokens = 0
    state.requests[query].kv_reserved = 0


@inlined
def _evict(state, query, on_finish):
    """Take all room from a query; its request is taken back where it is next met."""
    on_finish(view(state), query)
    # Whichever node has its request looks at it at this instant; on a link it is met on arrival.
    mark(state, SEND, len(state.nodes) - 1)
    for hop in range(state.queries[query].hops):
        link = state.links[state.pipelines[query, hop]]
        if link.queue != NONE:
            mark(state, SEND, link.receiver)
            mark(state, START, link.receiver)
    free_kv(state, query)
    state.queries[query].evicted = 1
    state.run[0].preempted += 1


def stored_kv(state: State, now_s: float) -> NDArray[np.int64]:
    """Token-layers stored on every node at `now_s`: without the room set aside for layers not yet run."""
    stored = state.nodes["kv_used_token_layers"].copy()
    nodes, queues = state.nodes, state.queues
    for row in range(len(queues)):
        query = int(queues[row]["head"])
        while query != NONE:
            stored[queues[row]["node"]] -= _not_run(state, query, int(queues[row]["layer"]))
            query = int(state.requests[query]["next"])
    for node in range(len(nodes) - 1):
        entry = nodes[node]
        if not entry["busy"]:
            continue
        queue = queues[entry["current_queue"]]
        done, end_s = (
            0,
            float(entry["busy_since_s"]) + (float(entry["batch_layer_s"]) + float(entry["batch_overhead_s"])),
        )
        while end_s <= now_s and done < queue["layers"]:
            done, end_s = done + 1, end_s + float(entry["batch_layer_s"])
        query = int(entry["batch_head"])
        while query != NONE:
            stored[node] -= _not_run(state, query, int(queue["layer"]) + done)
            query = int(state.requests[query]["next"])
    return stored


def _not_run(state: State, query: int, layer: int) -> int:
    """Token-layers set aside for a request's layers from `layer` on at the node it is at."""
    request = state.requests[query]
    if not request["kv_reserved"]:
        return 0
    node = state.nodes[state.links[request["link"]]["receiver"]]
    return int(request["tokens"]) * (int(node["first_layer"] + node["layers"]) - layer)
