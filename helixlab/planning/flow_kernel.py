"""Maximum flow of a placement, compiled, on a cluster stored as arrays.

The value agrees with that of `helixlab.flow.max_flow`. A search calls this code many thousand times.

References
----------
Dinic, "Algorithm for solution of a problem of maximum flow in networks with power estimation", Soviet Math.
Doklady 11, 1970: find the level of every vertex by breadth-first search in the residual network, push flow
along paths on which the level rises until none is left, and repeat.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import typeof, types
from numpy.typing import NDArray

from helixlab._jit import compiled, inlined, rare
from helixlab.cluster import Cluster
from helixlab.model import Model, machine_throughput
from helixlab.planning.layout import most_layers_by_machine, planning_throughput

__all__ = [
    "LEAST",
    "FlowWorkspace",
    "Network",
    "flow_workspace",
    "flow_workspace_type",
    "maximum_flow",
    "network_of",
    "network_type",
    "push_maximum_flow",
]

LEAST: Final = 1e-9
"""Residual capacity, in tokens/s, up to which an edge counts as full."""


class Network(NamedTuple):
    """Capacities of the nodes and links of a cluster, in tokens/s."""

    speed: NDArray[np.float64]
    """``[node, k]``: compute throughput of a node that holds k layers."""
    most: NDArray[np.int64]
    """``[node]``: largest number of layers that a node may hold."""
    link: NDArray[np.float64]
    """``[sender, receiver]``: capacity of a link between nodes; 0 where there is no link."""
    from_source: NDArray[np.float64]
    """``[node]``: capacity of the link from the coordinator."""
    to_sink: NDArray[np.float64]
    """``[node]``: capacity of the link to the coordinator."""
    card: NDArray[np.float64]
    """``[direction, content, node]``: capacity of the network card, inbound (0) or outbound (1), where it
    carries activations (0) or only exchanges tokens with the coordinator (1)."""
    coordinator: NDArray[np.float64]
    """``[direction]``: capacity of the coordinator's network card, outbound and inbound."""


class FlowWorkspace(NamedTuple):
    """Workspace for a flow, which holds the flow that was computed last.

    A node is two vertices of the flow network: tokens enter at vertex ``2 * node`` and leave at vertex
    ``2 * node + 1``. The edge between the two carries what the node computes.
    """

    on_link: NDArray[np.float64]
    """``[sender, receiver]``: flow on a link between nodes, in tokens/s."""
    through_node: NDArray[np.float64]
    """``[node]``: flow through a node."""
    capacity: NDArray[np.float64]
    """``[node]``: largest flow through a node."""
    from_source: NDArray[np.float64]
    """``[node]``: flow from the coordinator."""
    to_sink: NDArray[np.float64]
    """``[node]``: flow to the coordinator."""
    level: NDArray[np.int64]
    """``[vertex]``: distance from the source in the residual network; -1 where a vertex is not reached."""
    queue: NDArray[np.int64]
    """Vertices of the breadth-first search."""
    pointer: NDArray[np.int64]
    """``[vertex]``: next vertex to try as the continuation of a path."""
    path: NDArray[np.int64]
    """Vertices of the path that is being extended."""


def network_of(cluster: Cluster, model: Model) -> Network:
    """Store the capacities of a cluster that serves a model as arrays."""
    table = machine_throughput(model, cluster.machine_counts())
    most = most_layers_by_machine(planning_throughput(cluster, model))
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
    speeds = [[m.nic_in_bytes_per_s for m in machines], [m.nic_out_bytes_per_s for m in machines]]
    card = np.array([[np.divide(each, inner_bytes), np.divide(each, model.token_bytes)] for each in speeds])
    coordinator = cluster.coordinator.nic_out_bytes_per_s, cluster.coordinator.nic_in_bytes_per_s
    return Network(
        speed,
        np.array([most.get(node.machine, 0) for node in cluster.nodes]),
        link,
        from_source,
        to_sink,
        card,
        np.array(coordinator) / model.token_bytes,
    )


def flow_workspace(size: int) -> FlowWorkspace:
    """Allocate the workspace for the flow between `size` nodes."""

    def whole(length: int) -> NDArray[np.int64]:
        return np.zeros(length, dtype=np.int64)

    return FlowWorkspace(
        on_link=np.zeros((size, size)),
        through_node=np.zeros(size),
        capacity=np.zeros(size),
        from_source=np.zeros(size),
        to_sink=np.zeros(size),
        level=whole(2 * size),
        queue=whole(2 * size),
        pointer=whole(2 * size),
        path=whole(2 * size + 1),
    )


def _example() -> tuple[Network, FlowWorkspace]:
    one, two = np.zeros(1), np.zeros((1, 1))
    network = Network(two, np.zeros(1, dtype=np.int64), two, one, one, np.zeros((1, 1, 1)), one)
    return network, flow_workspace(1)


network_type, flow_workspace_type = map(typeof, _example())


@inlined
def usable(network: Any, start: Any, end: Any, i: Any, j: Any) -> Any:
    """Return whether a token may move on from node i to node j."""
    return start[j] <= end[i] < end[j] and network.link[i, j] > 0 and end[i] > start[i]


@inlined
def set_capacities(network: Any, start: Any, end: Any, layers: Any, workspace: Any) -> None:
    """Set the capacity of every node, and reset the flow to zero."""
    size = len(start)
    for i in range(size):
        workspace.from_source[i] = workspace.to_sink[i] = workspace.through_node[i] = 0.0
        only_source, only_sink = start[i] == 0, end[i] == layers
        for j in range(size):
            workspace.on_link[i, j] = 0.0
            if usable(network, start, end, j, i):
                only_source = False
            if usable(network, start, end, i, j):
                only_sink = False
        only_source &= network.from_source[i] > 0
        only_sink &= network.to_sink[i] > 0
        card = min(network.card[0, int(only_source), i], network.card[1, int(only_sink), i])
        workspace.capacity[i] = min(network.speed[i, end[i] - start[i]], card)


@rare
def set_levels(network: Any, start: Any, end: Any, layers: Any, workspace: Any) -> Any:
    """Set the level of every vertex in the residual network; return whether the sink is reached."""
    size = len(start)
    head = tail = 0
    for v in range(2 * size):
        workspace.level[v] = -1
    for i in range(size):
        if start[i] == 0 and end[i] > 0 and network.from_source[i] - workspace.from_source[i] > LEAST:
            workspace.level[2 * i] = 0
            workspace.queue[tail] = 2 * i
            tail += 1
    reached = False
    while head < tail:
        v = workspace.queue[head]
        head += 1
        i = v // 2
        onward = workspace.level[v] + 1
        if v % 2 == 0:
            if workspace.level[v + 1] < 0 and workspace.capacity[i] - workspace.through_node[i] > LEAST:
                workspace.level[v + 1] = onward
                workspace.queue[tail] = v + 1
                tail += 1
            for j in range(size):
                if workspace.level[2 * j + 1] < 0 and workspace.on_link[j, i] > LEAST:
                    workspace.level[2 * j + 1] = onward
                    workspace.queue[tail] = 2 * j + 1
                    tail += 1
        else:
            if end[i] == layers and network.to_sink[i] - workspace.to_sink[i] > LEAST:
                reached = True
            if workspace.level[v - 1] < 0 and workspace.through_node[i] > LEAST:
                workspace.level[v - 1] = onward
                workspace.queue[tail] = v - 1
                tail += 1
            for j in range(size):
                if (
                    workspace.level[2 * j] < 0
                    and usable(network, start, end, i, j)
                    and network.link[i, j] - workspace.on_link[i, j] > LEAST
                ):
                    workspace.level[2 * j] = onward
                    workspace.queue[tail] = 2 * j
                    tail += 1
    return reached


@inlined
def residual(network: Any, start: Any, end: Any, workspace: Any, v: Any, w: Any) -> Any:
    """Return the residual capacity of the edge from vertex v to vertex w."""
    i, j = v // 2, w // 2
    if v % 2 == 0:
        if w == v + 1:
            return workspace.capacity[i] - workspace.through_node[i]
        return workspace.on_link[j, i] if w % 2 == 1 else 0.0
    if w == v - 1:
        return workspace.through_node[i]
    if w % 2 == 0 and usable(network, start, end, i, j):
        return network.link[i, j] - workspace.on_link[i, j]
    return 0.0


@inlined
def push_to(workspace: Any, v: Any, w: Any, amount: Any) -> None:
    """Push an amount from vertex v to vertex w."""
    i, j = v // 2, w // 2
    if v % 2 == 0:
        if w == v + 1:
            workspace.through_node[i] += amount
        else:
            workspace.on_link[j, i] -= amount
    elif w == v - 1:
        workspace.through_node[i] -= amount
    else:
        workspace.on_link[i, j] += amount


@rare
def push_along_levels(
    network: Any, start: Any, end: Any, layers: Any, workspace: Any, first: Any, most: Any
) -> Any:
    """Push flow from a vertex to the sink along paths on which the level rises; return the amount.

    The amount is at most `most`.
    """
    size = len(start)
    path, pointer, level = workspace.path, workspace.pointer, workspace.level
    depth = 0
    path[0] = first
    total = 0.0
    while depth >= 0:
        v = path[depth]
        i = v // 2
        if v % 2 == 1 and end[i] == layers and network.to_sink[i] - workspace.to_sink[i] > LEAST:
            amount = min(most - total, network.to_sink[i] - workspace.to_sink[i])
            for d in range(depth):
                amount = min(amount, residual(network, start, end, workspace, path[d], path[d + 1]))
            for d in range(depth):
                push_to(workspace, path[d], path[d + 1], amount)
            workspace.to_sink[i] += amount
            total += amount
            if most - total <= LEAST:
                return total
            # Continue from the start of the first edge on the path that is now full.
            for d in range(depth):
                if residual(network, start, end, workspace, path[d], path[d + 1]) <= LEAST:
                    depth = d
                    break
            continue
        advanced = False
        while pointer[v] < 2 * size:
            w = pointer[v]
            if level[w] == level[v] + 1 and residual(network, start, end, workspace, v, w) > LEAST:
                depth += 1
                path[depth] = w
                advanced = True
                break
            pointer[v] += 1
        if not advanced:
            level[v] = -1
            depth -= 1
    return total


@rare
def push_maximum_flow(network: Any, start: Any, end: Any, layers: Any, workspace: Any) -> Any:
    """Compute the maximum flow in the workspace; return its value.

    Every node holds the layers ``[start, end)``, an empty range where it is idle. Edges without capacity are
    never entered.
    """
    set_capacities(network, start, end, layers, workspace)
    size = len(start)
    total = 0.0
    most = min(network.coordinator[0], network.coordinator[1])
    while most - total > LEAST and set_levels(network, start, end, layers, workspace):
        for v in range(2 * size):
            workspace.pointer[v] = 0
        for i in range(size):
            left = network.from_source[i] - workspace.from_source[i]
            if start[i] == 0 and end[i] > 0 and left > LEAST and most - total > LEAST:
                left = min(left, most - total)
                amount = push_along_levels(network, start, end, layers, workspace, 2 * i, left)
                workspace.from_source[i] += amount
                total += amount
    return total


@compiled(types.float64(network_type, types.int64[::1], types.int64[::1], types.int64, flow_workspace_type))
def maximum_flow(network: Any, start: Any, end: Any, layers: Any, workspace: Any) -> Any:
    """Call `push_maximum_flow` from Python."""
    return push_maximum_flow(network, start, end, layers, workspace)
