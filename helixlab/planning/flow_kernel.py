"""A cluster as arrays, and the maximum flow of a placement on it, compiled.

It agrees with `helixlab.flow.max_flow`, and is made to be asked many thousand times.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import typeof, types
from numpy.typing import NDArray

from helixlab._jit import compiled, inlined, rare
from helixlab.cluster import Cluster
from helixlab.model import Model, machine_throughput
from helixlab.planning.layout import planning_throughput

__all__ = [
    "LEAST",
    "Network",
    "Room",
    "flow_room",
    "network_of",
    "network_type",
    "room_type",
    "serve",
    "served",
]

LEAST: Final = 1e-9
"""Residual capacity, in tokens/s, that is taken for none."""


class Network(NamedTuple):
    """Capacities in tokens/s, by node."""

    speed: NDArray[np.float64]
    """``[node, k]``: compute of a node that holds k layers."""
    most: NDArray[np.int64]
    """Most layers a node may hold."""
    link: NDArray[np.float64]
    """``[sender, receiver]``: 0 where there is none."""
    from_source: NDArray[np.float64]
    to_sink: NDArray[np.float64]
    card: NDArray[np.float64]
    """``[way, what, node]``: its network card, in (0) and out (1), if it passes activations (0) or only
    exchanges tokens with the coordinator (1)."""
    coordinator: NDArray[np.float64]
    """Its network card out and in."""


class Room(NamedTuple):
    """Room for a flow. A node has two ends: tokens come in at the first and leave at the second."""

    flow: NDArray[np.float64]
    """``[sender, receiver]``."""
    through: NDArray[np.float64]
    capacity: NDArray[np.float64]
    begun: NDArray[np.float64]
    ended: NDArray[np.float64]
    level: NDArray[np.int64]
    """``[end of a node]``, 2 * node and 2 * node + 1."""
    queue: NDArray[np.int64]
    pointer: NDArray[np.int64]
    path: NDArray[np.int64]


def network_of(cluster: Cluster, model: Model) -> Network:
    """The arrays of a cluster that serves a model."""
    table = machine_throughput(model, cluster.machine_counts())
    most = {machine: len(values) - 1 for machine, values in planning_throughput(cluster, model).items()}
    size = len(cluster.nodes)
    speed = np.zeros((size, max(map(len, table.values()))))
    for node in cluster.nodes:
        speed[node.index, : len(table[node.machine])] = table[node.machine]
    inner_bytes = model.inner_link_bytes_per_token
    link, from_source, to_sink = np.zeros((size, size)), np.zeros(size), np.zeros(size)
    for found in cluster.links:
        sender, receiver, bandwidth = found.sender, found.receiver, found.bandwidth_bytes_per_s
        if isinstance(receiver, str):  # the coordinator
            to_sink[int(sender)] = bandwidth / model.link_bytes_per_token(sender, receiver)
        elif isinstance(sender, str):
            from_source[receiver] = bandwidth / model.link_bytes_per_token(sender, receiver)
        else:
            link[sender, receiver] = bandwidth / model.link_bytes_per_token(sender, receiver)
    machines = [cluster.machine_of(node.index) for node in cluster.nodes]
    ways = [[m.nic_in_bytes_per_s for m in machines], [m.nic_out_bytes_per_s for m in machines]]
    card = np.array([[np.divide(way, inner_bytes), np.divide(way, model.token_bytes)] for way in ways])
    ends = cluster.coordinator.nic_out_bytes_per_s, cluster.coordinator.nic_in_bytes_per_s
    return Network(
        speed,
        np.array([most.get(node.machine, 0) for node in cluster.nodes]),
        link,
        from_source,
        to_sink,
        card,
        np.array(ends) / model.token_bytes,
    )


def flow_room(size: int) -> Room:
    """Room for the flow between so many nodes."""

    def whole(length: int) -> NDArray[np.int64]:
        return np.zeros(length, dtype=np.int64)

    return Room(
        flow=np.zeros((size, size)),
        through=np.zeros(size),
        capacity=np.zeros(size),
        begun=np.zeros(size),
        ended=np.zeros(size),
        level=whole(2 * size),
        queue=whole(2 * size),
        pointer=whole(2 * size),
        path=whole(2 * size + 1),
    )


def _example() -> tuple[Network, Room]:
    one, two = np.zeros(1), np.zeros((1, 1))
    return Network(two, np.zeros(1, dtype=np.int64), two, one, one, np.zeros((1, 1, 1)), one), flow_room(1)


network_type, room_type = map(typeof, _example())


@inlined
def usable(network: Any, start: Any, end: Any, i: Any, j: Any) -> Any:
    """Whether a token may go from node i to node j."""
    return start[j] <= end[i] < end[j] and network.link[i, j] > 0 and end[i] > start[i]


@inlined
def set_capacities(network: Any, start: Any, end: Any, layers: Any, room: Any) -> None:
    """Fill in what each node passes, and empty the flow."""
    size = len(start)
    for i in range(size):
        room.begun[i] = room.ended[i] = room.through[i] = 0.0
        only_source, only_sink = start[i] == 0, end[i] == layers
        for j in range(size):
            room.flow[i, j] = 0.0
            if usable(network, start, end, j, i):
                only_source = False
            if usable(network, start, end, i, j):
                only_sink = False
        only_source &= network.from_source[i] > 0
        only_sink &= network.to_sink[i] > 0
        card = min(network.card[0, int(only_source), i], network.card[1, int(only_sink), i])
        room.capacity[i] = min(network.speed[i, end[i] - start[i]], card)


@rare
def leveled(network: Any, start: Any, end: Any, layers: Any, room: Any) -> Any:
    """Fill in how far every end is from the source in the residual graph; whether the sink is reached."""
    size = len(start)
    head = tail = 0
    for v in range(2 * size):
        room.level[v] = -1
    for i in range(size):
        if start[i] == 0 and end[i] > 0 and network.from_source[i] - room.begun[i] > LEAST:
            room.level[2 * i] = 0
            room.queue[tail] = 2 * i
            tail += 1
    reached = False
    while head < tail:
        v = room.queue[head]
        head += 1
        i = v // 2
        onward = room.level[v] + 1
        if v % 2 == 0:
            if room.level[v + 1] < 0 and room.capacity[i] - room.through[i] > LEAST:
                room.level[v + 1] = onward
                room.queue[tail] = v + 1
                tail += 1
            for j in range(size):
                if room.level[2 * j + 1] < 0 and room.flow[j, i] > LEAST:
                    room.level[2 * j + 1] = onward
                    room.queue[tail] = 2 * j + 1
                    tail += 1
        else:
            if end[i] == layers and network.to_sink[i] - room.ended[i] > LEAST:
                reached = True
            if room.level[v - 1] < 0 and room.through[i] > LEAST:
                room.level[v - 1] = onward
                room.queue[tail] = v - 1
                tail += 1
            for j in range(size):
                if (
                    room.level[2 * j] < 0
                    and usable(network, start, end, i, j)
                    and network.link[i, j] - room.flow[i, j] > LEAST
                ):
                    room.level[2 * j] = onward
                    room.queue[tail] = 2 * j
                    tail += 1
    return reached


@inlined
def residual(network: Any, start: Any, end: Any, room: Any, v: Any, w: Any) -> Any:
    """What more may go from one end to another."""
    i, j = v // 2, w // 2
    if v % 2 == 0:
        if w == v + 1:
            return room.capacity[i] - room.through[i]
        return room.flow[j, i] if w % 2 == 1 else 0.0
    if w == v - 1:
        return room.through[i]
    if w % 2 == 0 and usable(network, start, end, i, j):
        return network.link[i, j] - room.flow[i, j]
    return 0.0


@inlined
def sent(room: Any, v: Any, w: Any, amount: Any) -> None:
    """Send an amount from one end to another."""
    i, j = v // 2, w // 2
    if v % 2 == 0:
        if w == v + 1:
            room.through[i] += amount
        else:
            room.flow[j, i] -= amount
    elif w == v - 1:
        room.through[i] -= amount
    else:
        room.flow[i, j] += amount


@rare
def pushed(network: Any, start: Any, end: Any, layers: Any, room: Any, first: Any, most: Any) -> Any:
    """Send up to an amount from one node to the sink along levels that rise; how much was sent."""
    size = len(start)
    depth = 0
    room.path[0] = first
    total = 0.0
    while depth >= 0:
        v = room.path[depth]
        if v % 2 == 1 and end[v // 2] == layers and network.to_sink[v // 2] - room.ended[v // 2] > LEAST:
            amount = min(most - total, network.to_sink[v // 2] - room.ended[v // 2])
            for d in range(depth):
                amount = min(amount, residual(network, start, end, room, room.path[d], room.path[d + 1]))
            for d in range(depth):
                sent(room, room.path[d], room.path[d + 1], amount)
            room.ended[v // 2] += amount
            total += amount
            if most - total <= LEAST:
                return total
            # Go on from the first end of the path behind which nothing is left.
            for d in range(depth):
                if residual(network, start, end, room, room.path[d], room.path[d + 1]) <= LEAST:
                    depth = d
                    break
            continue
        advanced = False
        while room.pointer[v] < 2 * size:
            w = room.pointer[v]
            if room.level[w] == room.level[v] + 1 and residual(network, start, end, room, v, w) > LEAST:
                depth += 1
                room.path[depth] = w
                advanced = True
                break
            room.pointer[v] += 1
        if not advanced:
            room.level[v] = -1
            depth -= 1
    return total


@rare
def served(network: Any, start: Any, end: Any, layers: Any, room: Any) -> Any:
    """Maximum flow when every node holds the layers from `start` to `end` (the same if it is idle).

    Dinic's algorithm; links and nodes of no capacity are left out as they are met.
    """
    set_capacities(network, start, end, layers, room)
    size = len(start)
    total = 0.0
    most = min(network.coordinator[0], network.coordinator[1])
    while most - total > LEAST and leveled(network, start, end, layers, room):
        for v in range(2 * size):
            room.pointer[v] = 0
        for i in range(size):
            left = network.from_source[i] - room.begun[i]
            if start[i] == 0 and end[i] > 0 and left > LEAST and most - total > LEAST:
                amount = pushed(network, start, end, layers, room, 2 * i, min(left, most - total))
                room.begun[i] += amount
                total += amount
    return total


@compiled(types.float64(network_type, types.int64[::1], types.int64[::1], types.int64, room_type))
def serve(network: Any, start: Any, end: Any, layers: Any, room: Any) -> Any:
    """`served`, to be called from Python; the flow is left in `room`."""
    return served(network, start, end, layers, room)
