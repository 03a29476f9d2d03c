"""Where queries may have to wait: the nodes and links that a flow passes, compiled."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import typeof
from numpy.typing import NDArray

from helixlab.jit import inlined, rare
from helixlab.planning.network import Network

__all__ = [
    "CONSTANTS",
    "FEED_LIMIT",
    "INPUT",
    "INPUT_SQUARED",
    "IS_CHUNKED",
    "OUTPUT",
    "OVERHEAD",
    "PIECE",
    "Serving",
    "Stations",
    "serving_type",
    "set_parts",
    "set_stations",
    "stations_of",
    "stations_type",
]

LEAST_SHARE: Final = 1e-6
"""Of the flow: links and nodes with less are left out."""


class Serving(NamedTuple):
    """What simulation knows of nodes, links and queries, beyond the capacities of a `Network`."""

    decode_s: NDArray[np.float64]
    """``[kind of node, tokens]``: time of one layer for a batch of decodes."""
    prompt_s: NDArray[np.float64]
    """``[kind]``: what a prompt, or a chunk of one, adds to it."""
    kind: NDArray[np.int64]
    decode_limit: NDArray[np.float64]
    """``[node, k]``: most decodes in a batch."""
    cache: NDArray[np.float64]
    """``[node, k]``: mean queries that the KV cache holds, each with all k layers."""
    cache_network: Network
    """The same as a network: the queries that find room on a way from source to sink."""
    bandwidth: NDArray[np.float64]
    """``[sender, receiver]`` in bytes/s; the coordinator is the last row and column."""
    latency_s: NDArray[np.float64]
    card: NDArray[np.float64]
    """``[in or out, node]`` in bytes/s; the coordinator is last."""
    constants: NDArray[np.float64]
    """As `CONSTANTS` lists them."""


CONSTANTS: Final = (
    "input_tokens",  # mean
    "output_tokens",
    "input_tokens_squared",  # mean of the squares
    "piece_tokens",  # of a prompt that travels as one: its chunk, or all of it
    "is_chunked",
    "feed_limit",  # part of the KV cache up to which queries are fed
    "token_bytes",
    "activation_bytes",
    "overhead_s_per_token",  # of bringing activations together
)
(
    INPUT, OUTPUT, INPUT_SQUARED, PIECE, IS_CHUNKED, FEED_LIMIT, TOKEN_BYTES, ACTIVATION_BYTES, OVERHEAD
) = range(len(CONSTANTS))  # fmt: skip


class Stations(NamedTuple):
    """Where queries may have to wait, in the order of the layers: room for nodes and links."""

    share: NDArray[np.float64]
    """Part of the queries that come by."""
    layers: NDArray[np.float64]
    """Of a node, that they run there; 0 for a link."""
    token_s: NDArray[np.float64]
    """Of a link, to send one token."""
    kind: NDArray[np.int64]
    decode_limit: NDArray[np.float64]
    sent: NDArray[np.float64]
    """Bytes/s out of each node, and the coordinator."""
    received: NDArray[np.float64]
    listed: NDArray[np.int64]
    """How many there are."""
    part: NDArray[np.int64]
    """``[node]``: of the flow, -1 where none passes."""
    flow: NDArray[np.float64]
    """``[part]``; so are the following."""
    in_flight: NDArray[np.float64]
    """Queries that the KV caches let in."""
    has_dead_ends: NDArray[np.bool_]
    """Whether a query may be let in that finds no room further on."""
    rate: NDArray[np.float64]
    """Decode tokens/s."""
    prompt_s: NDArray[np.float64]
    decode_s: NDArray[np.float64]
    """Latencies."""


def stations_of(nodes: int) -> Stations:
    """Room for the stations of so many nodes."""
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


serving_type, stations_type = map(typeof, (_example(), stations_of(1)))


@inlined
def add_link(serving: Any, stations: Any, sender: Any, receiver: Any, flow: Any, total: Any) -> Any:
    """A link with flow as a station; its latency, weighted with the share of the queries."""
    coordinator = len(serving.kind)
    is_edge = sender == coordinator or receiver == coordinator
    token_bytes = serving.constants[TOKEN_BYTES]
    if not is_edge:
        token_bytes += serving.constants[ACTIVATION_BYTES]
    carried = flow * token_bytes
    rate = min(
        serving.bandwidth[sender, receiver],
        serving.card[1, sender] * carried / stations.sent[sender],
        serving.card[0, receiver] * carried / stations.received[receiver],
    )
    at = stations.listed[0]
    stations.listed[0] += 1
    stations.share[at] = flow / total
    stations.layers[at] = 0.0
    stations.token_s[at] = token_bytes / rate
    return flow / total * serving.latency_s[sender, receiver]


@rare
def set_parts(serving: Any, stations: Any, room: Any, total: Any) -> Any:
    """Number the parts of a flow that share no node, and add up the traffic of each; how many there are."""
    size = len(room.through)
    least = LEAST_SHARE * total
    token_bytes = serving.constants[TOKEN_BYTES]
    inner_bytes = token_bytes + serving.constants[ACTIVATION_BYTES]
    stations.sent[size] = stations.received[size] = total * token_bytes
    for i in range(size):
        stations.part[i] = -1
        stations.sent[i] = room.ended[i] * token_bytes
        stations.received[i] = room.begun[i] * token_bytes
        for j in range(size):
            stations.sent[i] += room.flow[i, j] * inner_bytes
            stations.received[i] += room.flow[j, i] * inner_bytes
    parts = 0
    for first in range(size):
        if stations.part[first] >= 0 or room.through[first] <= least:
            continue
        stations.part[first] = parts
        room.queue[0] = first
        head, tail = 0, 1
        while head < tail:
            i = room.queue[head]
            head += 1
            for j in range(size):
                if stations.part[j] < 0 and max(room.flow[i, j], room.flow[j, i]) > least:
                    stations.part[j] = parts
                    room.queue[tail] = j
                    tail += 1
        parts += 1
    return parts


@rare
def set_stations(serving: Any, stations: Any, start: Any, end: Any, layers: Any, room: Any, part: Any) -> Any:
    """List the stations that a part of a flow passes, first layer first; the sum of the latencies."""
    size = len(start)
    total = stations.flow[part]
    least = LEAST_SHARE * total
    stations.listed[0] = 0
    latency_s = 0.0
    for layer in range(layers):
        for j in range(size):
            if start[j] != layer or stations.part[j] != part or room.through[j] <= least:
                continue
            run = 0.0
            if room.begun[j] > least:
                latency_s += add_link(serving, stations, size, j, room.begun[j], total)
                run += room.begun[j] * end[j]
            for i in range(size):
                if room.flow[i, j] > least:
                    latency_s += add_link(serving, stations, i, j, room.flow[i, j], total)
                    run += room.flow[i, j] * (end[j] - end[i])
            at = stations.listed[0]
            stations.listed[0] += 1
            stations.share[at] = room.through[j] / total
            stations.layers[at] = run / room.through[j]
            stations.kind[at] = serving.kind[j]
            stations.decode_limit[at] = serving.decode_limit[j, end[j] - start[j]]
    for i in range(size):
        if stations.part[i] == part and room.ended[i] > least:
            latency_s += add_link(serving, stations, i, size, room.ended[i], total)
    return latency_s
