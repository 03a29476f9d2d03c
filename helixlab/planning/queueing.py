"""Queueing model of a placement in steady state, compiled.

A fixed number of requests circulates through nodes and links; the KV caches bound that number. The time a
request takes for one round follows from the waits and service times on its path. Decode tokens/s are the
requests in flight over the time of a round (Little's law).
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import typeof, types
from numpy.typing import NDArray

from helixlab._jit import compiled, inlined, rare
from helixlab.planning.flow_kernel import Network, flow_workspace_type, push_maximum_flow

__all__ = [
    "CONSTANTS",
    "DECODE",
    "FEED_LIMIT",
    "INPUT",
    "INPUT_SQUARED",
    "IN_FLIGHT",
    "IS_CHUNKED",
    "OUTPUT",
    "OVERHEAD",
    "PIECE",
    "PROMPT",
    "THROUGHPUT",
    "Serving",
    "Stations",
    "predict_steady_state",
    "serving_type",
    "set_parts",
    "set_stations",
    "stations_of",
    "stations_type",
    "steady_state_throughput",
    "steady_state_type",
]


LEAST_SHARE: Final = 1e-6
"""Fraction of the flow below which links and nodes are left out."""
HALVINGS: Final = 30
"""Number of bisection steps that find the throughput."""
ROUNDS: Final = 40
"""Largest number of rounds that find the size of the batches."""
BEHIND_ON_LINKS: Final = 0.2
"""Extra wait on a link of a decode that travels behind a prompt, as a fraction of the prompt's time there."""
QUEUEING_AT_NODES: Final = 0.2
"""Weight of the wait at nodes whose batches are nearly full.

This constant and the one before are fitted once, to simulations of 54 placements on three clusters.
"""
DEAD_END: Final = 0.98
"""Fraction of the requests that fit into the first nodes of a part of the flow. Where the part admits fewer,
some of these requests later reach nodes without free KV cache."""
FULL: Final = 0.999
"""Utilization above which a station counts as overloaded."""

CONSTANTS: Final = (
    "input_tokens",  # mean
    "output_tokens",  # mean
    "input_tokens_squared",  # mean of the squares
    "piece_tokens",  # of a prompt that travels as one: its chunk, or all of it
    "is_chunked",
    "feed_limit",  # fraction of the KV cache up to which requests are fed
    "token_bytes",
    "activation_bytes",
    "overhead_s_per_token",  # of concatenating and transferring activations
)
"""Names of the entries of `Serving.constants`, in order."""
(
    INPUT, OUTPUT, INPUT_SQUARED, PIECE, IS_CHUNKED, FEED_LIMIT, TOKEN_BYTES, ACTIVATION_BYTES, OVERHEAD
) = range(len(CONSTANTS))  # fmt: skip

THROUGHPUT, IN_FLIGHT, PROMPT, DECODE = range(4)
"""Entries of a steady state: decode tokens/s, requests in flight, mean latency of a prompt and of a decode in
seconds."""


class Serving(NamedTuple):
    """Arrays that describe nodes, links and requests, beyond the capacities of a `Network`."""

    decode_s: NDArray[np.float64]
    """``[kind of node, tokens]``: time of one layer for a batch of decodes."""
    prompt_s: NDArray[np.float64]
    """``[kind of node]``: time of one layer that a prompt, or a chunk of one, adds to a batch."""
    kind: NDArray[np.int64]
    """``[node]``: kind of the node."""
    decode_limit: NDArray[np.float64]
    """``[node, k]``: largest number of decodes in a batch of a node that holds k layers."""
    cache: NDArray[np.float64]
    """``[node, k]``: mean number of requests that fit into the KV cache, each with all k layers."""
    cache_network: Network
    """Network whose maximum flow is the number of requests that fit into the KV caches along their path."""
    bandwidth: NDArray[np.float64]
    """``[sender, receiver]``: bandwidth in bytes/s; the coordinator is the last row and column."""
    latency_s: NDArray[np.float64]
    """``[sender, receiver]``: latency of the link."""
    card: NDArray[np.float64]
    """``[direction, node]``: bytes/s of the network card, inbound (0) and outbound (1); the coordinator is
    last."""
    constants: NDArray[np.float64]
    """Numbers in the order of `CONSTANTS`."""


class Stations(NamedTuple):
    """Workspace for the nodes and links at which requests may wait, in the order of the layers."""

    share: NDArray[np.float64]
    """``[station]``: fraction of the requests that pass the station."""
    layers: NDArray[np.float64]
    """``[station]``: mean number of layers that a request runs at the node; 0 for a link."""
    token_s: NDArray[np.float64]
    """``[station]``: time in which the link sends one token."""
    kind: NDArray[np.int64]
    """``[station]``: kind of the node."""
    decode_limit: NDArray[np.float64]
    """``[station]``: largest number of decodes in a batch of the node."""
    sent: NDArray[np.float64]
    """``[node]``: bytes/s out of the node; the coordinator is last."""
    received: NDArray[np.float64]
    """``[node]``: bytes/s into the node; the coordinator is last."""
    listed: NDArray[np.int64]
    """Number of stations, an array of one."""
    part: NDArray[np.int64]
    """``[node]``: part of the flow that passes the node; -1 where none does."""
    flow: NDArray[np.float64]
    """``[part]``: value of the flow."""
    in_flight: NDArray[np.float64]
    """``[part]``: number of requests that the KV caches admit."""
    has_dead_ends: NDArray[np.bool_]
    """``[part]``: True where an admitted request may later reach nodes without free KV cache."""
    rate: NDArray[np.float64]
    """``[part]``: decode tokens/s."""
    prompt_s: NDArray[np.float64]
    """``[part]``: latency of a prompt."""
    decode_s: NDArray[np.float64]
    """``[part]``: latency of a decode."""


def stations_of(nodes: int) -> Stations:
    """Allocate the workspace for the stations of `nodes` nodes."""
    most = nodes + (nodes + 1) ** 2
    return Stations(
        share=np.zeros(most),
        layers=np.zeros(most),
        token_s=np.zeros(most),
        kind=np.zeros(most, np.int64),
        decode_limit=np.zeros(most),
        sent=np.zeros(nodes + 1),
        received=np.zeros(nodes + 1),
        listed=np.zeros(1, np.int64),
        part=np.zeros(nodes, np.int64),
        flow=np.zeros(nodes),
        in_flight=np.zeros(nodes),
        has_dead_ends=np.zeros(nodes, np.bool_),
        rate=np.zeros(nodes),
        prompt_s=np.zeros(nodes),
        decode_s=np.zeros(nodes),
    )


def _example() -> Serving:
    one, two = np.zeros(1), np.zeros((1, 1))
    whole = np.zeros(1, dtype=np.int64)
    network = Network(two, whole, two, one, one, np.zeros((1, 1, 1)), one)
    return Serving(two, one, whole, two, two, network, two, two, two, one)


serving_type, stations_type, steady_state_type = map(typeof, (_example(), stations_of(1), np.zeros(4)))


@inlined
def add_link(serving: Any, stations: Any, sender: Any, receiver: Any, sent: Any, total: Any) -> Any:
    """Append a link that sends `sent` of `total` tokens/s as a station.

    Return its latency, weighted with its share of the requests.
    """
    coordinator = len(serving.kind)
    is_edge = sender == coordinator or receiver == coordinator
    token_bytes = serving.constants[TOKEN_BYTES]
    if not is_edge:
        token_bytes += serving.constants[ACTIVATION_BYTES]
    carried = sent * token_bytes
    rate = min(
        serving.bandwidth[sender, receiver],
        serving.card[1, sender] * carried / stations.sent[sender],
        serving.card[0, receiver] * carried / stations.received[receiver],
    )
    at = stations.listed[0]
    stations.listed[0] += 1
    stations.share[at] = sent / total
    stations.layers[at] = 0.0
    stations.token_s[at] = token_bytes / rate
    return sent / total * serving.latency_s[sender, receiver]


@rare
def set_parts(serving: Any, stations: Any, flow: Any, total: Any) -> Any:
    """Number the parts of a flow that share no node; return their number.

    Also add up the traffic of every node.
    """
    size = len(flow.through_node)
    least = LEAST_SHARE * total
    token_bytes = serving.constants[TOKEN_BYTES]
    inner_bytes = token_bytes + serving.constants[ACTIVATION_BYTES]
    stations.sent[size] = stations.received[size] = total * token_bytes
    for i in range(size):
        stations.part[i] = -1
        stations.sent[i] = flow.to_sink[i] * token_bytes
        stations.received[i] = flow.from_source[i] * token_bytes
        for j in range(size):
            stations.sent[i] += flow.on_link[i, j] * inner_bytes
            stations.received[i] += flow.on_link[j, i] * inner_bytes
    parts = 0
    for first in range(size):
        if stations.part[first] >= 0 or flow.through_node[first] <= least:
            continue
        stations.part[first] = parts
        flow.queue[0] = first
        head, tail = 0, 1
        while head < tail:
            i = flow.queue[head]
            head += 1
            for j in range(size):
                if stations.part[j] < 0 and max(flow.on_link[i, j], flow.on_link[j, i]) > least:
                    stations.part[j] = parts
                    flow.queue[tail] = j
                    tail += 1
        parts += 1
    return parts


@rare
def set_stations(serving: Any, stations: Any, start: Any, end: Any, layers: Any, flow: Any, part: Any) -> Any:
    """List the stations that a part of the flow passes, first layer first.

    Return the mean latency of all links on the path of a request.
    """
    size = len(start)
    total = stations.flow[part]
    least = LEAST_SHARE * total
    stations.listed[0] = 0
    latency_s = 0.0
    for layer in range(layers):
        for j in range(size):
            if start[j] != layer or stations.part[j] != part or flow.through_node[j] <= least:
                continue
            run = 0.0
            if flow.from_source[j] > least:
                latency_s += add_link(serving, stations, size, j, flow.from_source[j], total)
                run += flow.from_source[j] * end[j]
            for i in range(size):
                if flow.on_link[i, j] > least:
                    latency_s += add_link(serving, stations, i, j, flow.on_link[i, j], total)
                    run += flow.on_link[i, j] * (end[j] - end[i])
            at = stations.listed[0]
            stations.listed[0] += 1
            stations.share[at] = flow.through_node[j] / total
            stations.layers[at] = run / flow.through_node[j]
            stations.kind[at] = serving.kind[j]
            stations.decode_limit[at] = serving.decode_limit[j, end[j] - start[j]]
    for i in range(size):
        if stations.part[i] == part and flow.to_sink[i] > least:
            latency_s += add_link(serving, stations, i, size, flow.to_sink[i], total)
    return latency_s


@inlined
def layer_time(serving: Any, kind: Any, tokens: Any) -> Any:
    """Return the time of one layer for a batch of decodes; `tokens` is a mean and may be fractional."""
    low = min(int(tokens), serving.decode_s.shape[1] - 2)
    part = min(tokens - low, 1.0)
    return (1 - part) * serving.decode_s[kind, low] + part * serving.decode_s[kind, low + 1]


@rare
def set_latencies(serving: Any, stations: Any, latency_s: Any, rate: Any, predicted: Any) -> Any:
    """Set the mean latencies of a prompt and of a decode at `rate` decode tokens/s.

    Return whether the stations can sustain the rate.
    """
    constants = serving.constants
    piece, is_chunked = constants[PIECE], constants[IS_CHUNKED] > 0
    pieces = math.ceil(constants[INPUT] / piece)
    # The more prompts vary in length, the longer the wait behind them.
    spread = 1.0 if is_chunked else constants[INPUT_SQUARED] / constants[INPUT] ** 2
    prompt = decode = latency_s
    slowest = 0.0  # longest time of a piece at a station so far
    convoyed = 0.0  # fraction of the decodes that travel behind a prompt
    for at in range(stations.listed[0]):
        share = stations.share[at]
        decodes = share * rate
        prompts = decodes / constants[OUTPUT] * (constants[INPUT] / piece if is_chunked else 1.0)
        if stations.layers[at] == 0.0:
            token_s = stations.token_s[at]
            piece_s = piece * token_s
            busy = prompts * piece_s + decodes * token_s
            if busy >= FULL:
                return False
            # Chunks that arrive faster than the link sends them pile up.
            pile_s = piece_s
            if is_chunked:
                pile_s += (pieces - 1) * max(0.0, piece_s - slowest)
            wait = prompts * piece_s * pile_s * spread / 2 / (1 - busy)
            behind = BEHIND_ON_LINKS * convoyed * piece_s
            decode += share * (wait * (1 - convoyed) + behind + token_s)
            prompt += share * (wait + piece_s)
            if not is_chunked:
                convoyed = 1 - (1 - min(1.0, prompts * piece_s) * share) * (1 - convoyed)
            slowest = max(slowest, piece_s)
            continue
        layers, kind = stations.layers[at], stations.kind[at]
        piece_s = layers * serving.prompt_s[kind]
        limit = stations.decode_limit[at]
        # Greedy batches form between prompts; a chunk joins a batch like a decode.
        left = 1.0 if is_chunked else 1.0 - prompts * piece_s
        if left <= 1 - FULL:
            return False
        arriving = decodes + (prompts if is_chunked else 0.0)
        batch_s = layers * layer_time(serving, kind, 1.0)
        working = 0.0  # fraction of the time between prompts in which the node works
        for _ in range(ROUNDS):
            working = 1 - math.exp(-arriving * batch_s / left)
            size = max(1.0, min(limit, decodes * batch_s / left / working))
            longer_s = layers * layer_time(serving, kind, size)
            if is_chunked:
                longer_s += min(1.0, prompts * batch_s / working) * piece_s
            if abs(longer_s - batch_s) < 1e-4 * batch_s:
                break
            batch_s = longer_s
        with_piece_s = layers * layer_time(serving, kind, size) + piece_s
        busy = decodes * batch_s / left / limit
        if is_chunked:
            busy = max(busy, prompts * with_piece_s)
        if busy >= FULL:
            return False
        wait = working * batch_s / 2
        if is_chunked:
            wait += QUEUEING_AT_NODES * busy * busy * batch_s / (1 - busy)
            decode += share * (wait + batch_s)
            prompt += share * (wait + with_piece_s)
            slowest = max(slowest, with_piece_s)
        else:
            convoyed = 1 - (1 - min(1.0, prompts * with_piece_s) * share) * (1 - convoyed)
            decode += share * (left * wait + batch_s + convoyed * piece_s)
            prompt += share * (wait + with_piece_s + piece * constants[OVERHEAD])
    if is_chunked:
        prompt += (pieces - 1) * slowest
    predicted[PROMPT], predicted[DECODE] = prompt, decode
    return True


@rare
def set_in_flight(
    serving: Any, stations: Any, start: Any, end: Any, layers: Any, flow: Any, cache_flow: Any, parts: Any
) -> None:
    """Set the number of requests that the KV caches admit into each part of the flow.

    Also set whether a part has dead ends.
    """
    size = len(start)
    admitted = push_maximum_flow(serving.cache_network, start, end, layers, cache_flow)
    for layer in range(layers):
        cached = 0.0
        for i in range(size):
            if start[i] <= layer < end[i]:
                cached += serving.cache[i, end[i] - start[i]]
        admitted = min(admitted, serving.constants[FEED_LIMIT] * cached)
    all_admit = total = 0.0
    for i in range(size):
        if stations.part[i] >= 0:
            all_admit += cache_flow.from_source[i]
            total += flow.from_source[i]
    for part in range(parts):
        part_flow = part_admits = first = 0.0
        for i in range(size):
            if stations.part[i] == part:
                part_flow += flow.from_source[i]
                part_admits += cache_flow.from_source[i]
                if flow.from_source[i] > 0:
                    first += serving.cache_network.speed[i, end[i] - start[i]]
        stations.flow[part] = part_flow
        share = part_admits / all_admit if all_admit > 0 else part_flow / total
        stations.in_flight[part] = admitted * share
        stations.has_dead_ends[part] = part_admits < DEAD_END * first


@rare
def balance(serving: Any, stations: Any, latency_s: Any, part: Any, predicted: Any) -> Any:
    """Return the decode tokens/s of a part at which its requests in flight obey Little's law.

    Also set the latencies at that rate.
    """
    output = serving.constants[OUTPUT]
    low, high = 0.0, stations.flow[part]
    for _ in range(HALVINGS):
        rate = (low + high) / 2
        possible = set_latencies(serving, stations, latency_s, rate, predicted)
        in_flight = rate / output * (predicted[PROMPT] + output * predicted[DECODE])
        if possible and in_flight <= stations.in_flight[part]:
            low = rate
        else:
            high = rate
    set_latencies(serving, stations, latency_s, low, predicted)
    return low


@rare
def predict_steady_state(
    serving: Any, start: Any, end: Any, layers: Any, flow: Any, cache_flow: Any, stations: Any, predicted: Any
) -> Any:
    """Predict the steady state of a placement whose requests follow the maximum flow; return its throughput.

    Parameters
    ----------
    serving : Serving
        Arrays of the cluster, the model and the requests.
    start, end : array of int
        Layers ``[start, end)`` of every node.
    layers : int
        Number of layers of the model.
    flow : FlowWorkspace
        Maximum flow of the placement.
    cache_flow, stations
        Workspaces.
    predicted : array of four floats
        Result; its entries are `THROUGHPUT`, `IN_FLIGHT`, `PROMPT` and `DECODE`.
    """
    predicted[:] = 0.0
    size = len(start)
    total = 0.0
    for i in range(size):
        total += flow.from_source[i]
    if total <= 0:
        return 0.0
    parts = set_parts(serving, stations, flow, total)
    set_in_flight(serving, stations, start, end, layers, flow, cache_flow, parts)
    most_per_flow = np.inf
    for part in range(parts):
        latency_s = set_stations(serving, stations, start, end, layers, flow, part)
        rate = balance(serving, stations, latency_s, part, predicted)
        stations.rate[part] = rate
        stations.prompt_s[part], stations.decode_s[part] = predicted[PROMPT], predicted[DECODE]
        if stations.has_dead_ends[part] and parts > 1:
            most_per_flow = min(most_per_flow, rate / stations.flow[part])
    predicted[:] = 0.0
    for part in range(parts):
        # A request that finds no free KV cache on its path is queued, and all others wait behind it, even
        # those whose part of the cluster has free KV cache.
        rate = min(stations.rate[part], most_per_flow * stations.flow[part])
        predicted[THROUGHPUT] += rate
        predicted[PROMPT] += rate * stations.prompt_s[part]
        predicted[DECODE] += rate * stations.decode_s[part]
        if rate > 0:
            predicted[IN_FLIGHT] += stations.in_flight[part] * rate / stations.rate[part]
    reached = predicted[THROUGHPUT]
    if reached > 0:
        predicted[PROMPT] /= reached
        predicted[DECODE] /= reached
    return reached


@compiled(
    types.float64(
        serving_type, types.int64[::1], types.int64[::1], types.int64, flow_workspace_type,
        flow_workspace_type, stations_type, steady_state_type,
    )
)  # fmt: skip
def steady_state_throughput(
    serving: Any, start: Any, end: Any, layers: Any, flow: Any, cache_flow: Any, stations: Any, predicted: Any
) -> Any:
    """Call `predict_steady_state` from Python."""
    return predict_steady_state(serving, start, end, layers, flow, cache_flow, stations, predicted)
