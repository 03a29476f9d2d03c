"""Expected throughput of a placement from queueing, compiled.

Requests in flight circle through nodes and links. How many there are is bounded by the KV caches; how fast
they go round, by what they wait for; and tokens/s are the one over the other (Little's law).
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import typeof, types
from numpy.typing import NDArray

from helixlab._jit import compiled, inlined, rare
from helixlab.planning.flow_kernel import Network, room_type, served

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
    "foretell",
    "foretold_by",
    "foretold_type",
    "serving_type",
    "set_parts",
    "set_stations",
    "stations_of",
    "stations_type",
]


LEAST_SHARE: Final = 1e-6
"""Of the flow: links and nodes with less are left out."""


class Serving(NamedTuple):
    """What simulation knows of nodes, links and requests, beyond the capacities of a `Network`."""

    decode_s: NDArray[np.float64]
    """``[kind of node, tokens]``: time of one layer for a batch of decodes."""
    prompt_s: NDArray[np.float64]
    """``[kind]``: what a prompt, or a chunk of one, adds to it."""
    kind: NDArray[np.int64]
    decode_limit: NDArray[np.float64]
    """``[node, k]``: most decodes in a batch."""
    cache: NDArray[np.float64]
    """``[node, k]``: mean requests that the KV cache holds, each with all k layers."""
    cache_network: Network
    """The same as a network: the requests that find room on a way from source to sink."""
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
    "feed_limit",  # part of the KV cache up to which requests are fed
    "token_bytes",
    "activation_bytes",
    "overhead_s_per_token",  # of bringing activations together
)
(
    INPUT, OUTPUT, INPUT_SQUARED, PIECE, IS_CHUNKED, FEED_LIMIT, TOKEN_BYTES, ACTIVATION_BYTES, OVERHEAD
) = range(len(CONSTANTS))  # fmt: skip


class Stations(NamedTuple):
    """Where requests may have to wait, in the order of the layers: room for nodes and links."""

    share: NDArray[np.float64]
    """Part of the requests that come by."""
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
    """Requests that the KV caches let in."""
    has_dead_ends: NDArray[np.bool_]
    """Whether a request may be let in that finds no room further on."""
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
    """A link with flow as a station; its latency, weighted with the share of the requests."""
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


HALVINGS: Final = 30
ROUNDS: Final = 40
"""Of the search for the size of batches."""
BEHIND_ON_LINKS: Final = 0.2
"""Part of its prompt's time on a link that a decode waits for it once more."""
QUEUEING_AT_NODES: Final = 0.2
"""Weight of the wait at nodes whose batches are nearly full.

These two are fitted, once for all, to simulations of 54 placements on three clusters.
"""
DEAD_END: Final = 0.98
"""A part of the flow that takes in less than this part of what its first nodes could hold turns requests away
that these have let in."""
FULL: Final = 0.999
"""A station that is busy for a larger part of the time never gets done."""

Foretold = NDArray[np.float64]
"""Decode tokens/s, requests in flight, mean latency of a prompt and of a decode in seconds."""
THROUGHPUT, IN_FLIGHT, PROMPT, DECODE = range(4)
(foretold_type,) = map(typeof, (np.zeros(4),))


@inlined
def decode_s(serving: Any, kind: Any, tokens: Any) -> Any:
    """Time of a layer for a batch of so many decodes, on average."""
    low = min(int(tokens), serving.decode_s.shape[1] - 2)
    part = min(tokens - low, 1.0)
    return (1 - part) * serving.decode_s[kind, low] + part * serving.decode_s[kind, low + 1]


@rare
def set_latencies(serving: Any, stations: Any, latency_s: Any, rate: Any, foretold: Any) -> Any:
    """Mean latencies of a prompt and of a decode at so many decode tokens/s; whether so many are possible."""
    constants = serving.constants
    piece, is_chunked = constants[PIECE], constants[IS_CHUNKED] > 0
    pieces = math.ceil(constants[INPUT] / piece)
    # Variation of what a prompt takes makes what comes behind it wait longer.
    spread = 1.0 if is_chunked else constants[INPUT_SQUARED] / constants[INPUT] ** 2
    prompt = decode = latency_s
    slowest = 0.0
    convoyed = 0.0  # part of the decodes that travel behind a prompt
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
            # Chunks that follow each other faster than they are sent pile up.
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
        # Greedy batches form between prompts; with chunks, one joins a batch like a decode.
        left = 1.0 if is_chunked else 1.0 - prompts * piece_s
        if left <= 1 - FULL:
            return False
        arriving = decodes + (prompts if is_chunked else 0.0)
        batch_s = layers * decode_s(serving, kind, 1.0)
        works = 0.0
        for _ in range(ROUNDS):
            works = 1 - math.exp(-arriving * batch_s / left)
            size = max(1.0, min(limit, decodes * batch_s / left / works))
            longer_s = layers * decode_s(serving, kind, size)
            if is_chunked:
                longer_s += min(1.0, prompts * batch_s / works) * piece_s
            if abs(longer_s - batch_s) < 1e-4 * batch_s:
                break
            batch_s = longer_s
        with_piece_s = layers * decode_s(serving, kind, size) + piece_s
        busy = decodes * batch_s / left / limit
        if is_chunked:
            busy = max(busy, prompts * with_piece_s)
        if busy >= FULL:
            return False
        wait = works * batch_s / 2
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
    foretold[PROMPT], foretold[DECODE] = prompt, decode
    return True


@rare
def set_in_flight(
    serving: Any, stations: Any, start: Any, end: Any, layers: Any, room: Any, cache_room: Any, parts: Any
) -> None:
    """How many requests the KV caches let into each part of the flow, and whether they may find no way on."""
    size = len(start)
    held = served(serving.cache_network, start, end, layers, cache_room)
    for layer in range(layers):
        cached = 0.0
        for i in range(size):
            if start[i] <= layer < end[i]:
                cached += serving.cache[i, end[i] - start[i]]
        held = min(held, serving.constants[FEED_LIMIT] * cached)
    begun = total = 0.0
    for i in range(size):
        if stations.part[i] >= 0:
            begun += cache_room.begun[i]
            total += room.begun[i]
    for part in range(parts):
        flow = let_in = first = 0.0
        for i in range(size):
            if stations.part[i] == part:
                flow += room.begun[i]
                let_in += cache_room.begun[i]
                if room.begun[i] > 0:
                    first += serving.cache_network.speed[i, end[i] - start[i]]
        stations.flow[part] = flow
        stations.in_flight[part] = held * (let_in / begun if begun > 0 else flow / total)
        stations.has_dead_ends[part] = let_in < DEAD_END * first


@rare
def in_balance(serving: Any, stations: Any, latency_s: Any, part: Any, foretold: Any) -> Any:
    """Decode tokens/s at which a part's requests are under way (Little's law); latencies are left behind."""
    output = serving.constants[OUTPUT]
    low, high = 0.0, stations.flow[part]
    for _ in range(HALVINGS):
        rate = (low + high) / 2
        possible = set_latencies(serving, stations, latency_s, rate, foretold)
        in_flight = rate / output * (foretold[PROMPT] + output * foretold[DECODE])
        if possible and in_flight <= stations.in_flight[part]:
            low = rate
        else:
            high = rate
    set_latencies(serving, stations, latency_s, low, foretold)
    return low


@rare
def foretold_by(
    serving: Any, start: Any, end: Any, layers: Any, room: Any, cache_room: Any, stations: Any, foretold: Any
) -> Any:
    """What is served when the maximum flow in `room` is followed; it is left there and in `foretold`."""
    foretold[:] = 0.0
    size = len(start)
    total = 0.0
    for i in range(size):
        total += room.begun[i]
    if total <= 0:
        return 0.0
    parts = set_parts(serving, stations, room, total)
    set_in_flight(serving, stations, start, end, layers, room, cache_room, parts)
    most_per_flow = np.inf
    for part in range(parts):
        latency_s = set_stations(serving, stations, start, end, layers, room, part)
        rate = in_balance(serving, stations, latency_s, part, foretold)
        stations.rate[part] = rate
        stations.prompt_s[part], stations.decode_s[part] = foretold[PROMPT], foretold[DECODE]
        if stations.has_dead_ends[part] and parts > 1:
            most_per_flow = min(most_per_flow, rate / stations.flow[part])
    foretold[:] = 0.0
    for part in range(parts):
        # A request that finds no way on is held, and with it all others, whatever room these have.
        rate = min(stations.rate[part], most_per_flow * stations.flow[part])
        foretold[THROUGHPUT] += rate
        foretold[PROMPT] += rate * stations.prompt_s[part]
        foretold[DECODE] += rate * stations.decode_s[part]
        if rate > 0:
            foretold[IN_FLIGHT] += stations.in_flight[part] * rate / stations.rate[part]
    reached = foretold[THROUGHPUT]
    if reached > 0:
        foretold[PROMPT] /= reached
        foretold[DECODE] /= reached
    return reached


@compiled(
    types.float64(
        serving_type, types.int64[::1], types.int64[::1], types.int64, room_type, room_type, stations_type,
        foretold_type,
    )
)  # fmt: skip
def foretell(
    serving: Any, start: Any, end: Any, layers: Any, room: Any, cache_room: Any, stations: Any, foretold: Any
) -> Any:
    """`foretold_by`, to be called from Python, with the flow that stands in `room`."""
    return foretold_by(serving, start, end, layers, room, cache_room, stations, foretold)
