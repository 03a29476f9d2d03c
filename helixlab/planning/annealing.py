"""Simulated annealing of placements, compiled: on the maximum flow, or on the predicted throughput.

A step moves one or two nodes to other layers. The new placement is accepted if it is better, or worse by a
random amount in the order of the temperature. Most steps are rejected without computing a flow: no flow
exceeds the total throughput of the nodes that hold a layer, for the layer where that is least.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import typeof, types
from numpy.typing import NDArray

from helixlab._jit import compiled, inlined
from helixlab.planning.flow_kernel import flow_workspace_type, network_type, push_maximum_flow
from helixlab.planning.queueing import predict_steady_state, serving_type, stations_type, steady_state_type

__all__ = ["Walk", "anneal", "anneal_throughput", "walk_from"]

ONE: Final = 0.6
"""Fraction of the steps that move one node rather than two."""
MOST_SHIFT: Final = 3
"""Largest number of layers by which a step shifts a node."""


class Walk(NamedTuple):
    """Position of an annealing, and the best placement it has met.

    A placement is the layers ``[start, end)`` of every node, an empty range where a node is idle.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    best_start: NDArray[np.int64]
    best_end: NDArray[np.int64]
    cover: NDArray[np.float64]
    """``[layer]``: total tokens/s of the nodes that hold the layer."""
    worth: NDArray[np.float64]
    """Objective of the current placement, and of the best one."""
    moved: NDArray[np.int64]
    """Proposed moves: node, start and end, for up to two nodes."""
    state: NDArray[np.uint64]
    """State of the random number generator."""


def walk_from(start: NDArray[np.int64], end: NDArray[np.int64], layers: int, seed: int) -> Walk:
    """Begin a walk at a placement."""
    return Walk(
        start=start.copy(),
        end=end.copy(),
        best_start=start.copy(),
        best_end=end.copy(),
        cover=np.zeros(layers),
        worth=np.zeros(2),
        moved=np.zeros(6, dtype=np.int64),
        state=np.array([seed * 2 + 1], dtype=np.uint64),
    )


_walk_type = typeof(walk_from(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), 1, 0))


@inlined
def draw_uniform(walk: Any) -> Any:
    """Draw a number from 0 up to 1, exclusive (xorshift64*)."""
    x = walk.state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    walk.state[0] = x
    return np.float64((x * np.uint64(2685821657736338717)) >> np.uint64(11)) * 2.0**-53


@inlined
def draw_below(walk: Any, size: Any) -> Any:
    """Draw a whole number from 0 up to `size`, exclusive."""
    return int(draw_uniform(walk) * size)


@inlined
def add_to_cover(network: Any, walk: Any, node: Any, start: Any, end: Any, sign: Any) -> None:
    """Add the throughput of a node with these layers to the cover, or subtract it (`sign` -1)."""
    speed = sign * network.speed[node, end - start]
    for layer in range(start, end):
        walk.cover[layer] += speed


@inlined
def move_one(network: Any, walk: Any, layers: Any) -> Any:
    """Propose other layers for one node; return the number of moved nodes.

    The layers are shifted, grow or shrink, lie beside those of another node, or lie anywhere.
    """
    i = draw_below(walk, len(walk.start))
    start, end = walk.start[i], walk.end[i]
    choice = draw_uniform(walk)
    if choice < 0.3 and end > start:
        shift = 1 + draw_below(walk, MOST_SHIFT)
        shift = -shift if draw_uniform(walk) < 0.5 else shift
        start, end = start + shift, end + shift
    elif choice < 0.6 and end > start:
        change = 1 if draw_uniform(walk) < 0.5 else -1
        if draw_uniform(walk) < 0.5:
            start -= change
        else:
            end += change
    elif choice < 0.95:
        j = draw_below(walk, len(walk.start))
        count = end - start
        if count == 0 or draw_uniform(walk) < 0.5:
            count = 1 + draw_below(walk, network.most[i])
        side = draw_uniform(walk)
        if side < 0.3:
            start = walk.end[j]
        elif side < 0.6:
            start = walk.start[j] - count
        elif side < 0.8:
            start = walk.start[j]
        else:
            start = walk.end[j] - count
        end = start + count
    else:
        count = 1 + draw_below(walk, network.most[i])
        start = draw_below(walk, layers - count + 1)
        end = start + count
    walk.moved[0], walk.moved[1], walk.moved[2] = i, start, end
    return 1


@inlined
def move_two(network: Any, walk: Any) -> Any:
    """Propose other layers for two nodes; return the number of moved nodes, 0 if no move is possible.

    The two swap layers, swap their order, or shift the boundary between them.
    """
    size = len(walk.start)
    i, j = draw_below(walk, size), draw_below(walk, size)
    choice = draw_uniform(walk)
    if i == j:
        return 0
    a, b, c, d = walk.start[i], walk.end[i], walk.start[j], walk.end[j]
    if choice < 0.4:  # swap the layers, each node with as many as it can hold
        a, b, c, d = c, c + min(d - c, network.most[i]), a, a + min(b - a, network.most[j])
    elif choice < 0.6:  # swap the order, from the first start to the last end
        if a > c:
            i, j, a, b, c, d = j, i, c, d, a, b
        a, b, c, d = d - (b - a), d, a, a + (d - c)
    else:  # shift the boundary between a node and one of those that follow it
        found = 0
        for other in range(size):
            if other != i and walk.start[other] == b and walk.end[other] > b:
                found += 1
                if draw_uniform(walk) * found < 1:
                    j = other
        if found == 0:
            return 0
        shift = 1 + draw_below(walk, 2)
        shift = -shift if draw_uniform(walk) < 0.5 else shift
        b, c, d = b + shift, walk.start[j] + shift, walk.end[j]
    walk.moved[0], walk.moved[1], walk.moved[2] = i, a, b
    walk.moved[3], walk.moved[4], walk.moved[5] = j, c, d
    return 2


@inlined
def swap_moved(network: Any, walk: Any, number: Any) -> None:
    """Swap the layers of the moved nodes with the proposed ones.

    A second call undoes the first.
    """
    for m in range(number):
        node, start, end = walk.moved[3 * m], walk.moved[3 * m + 1], walk.moved[3 * m + 2]
        add_to_cover(network, walk, node, walk.start[node], walk.end[node], -1.0)
        add_to_cover(network, walk, node, start, end, 1.0)
        walk.moved[3 * m + 1], walk.moved[3 * m + 2] = walk.start[node], walk.end[node]
        walk.start[node], walk.end[node] = start, end


@inlined
def propose(network: Any, walk: Any, layers: Any) -> Any:
    """Propose to move one node or two; return their number, 0 if the proposal is not a placement."""
    number = move_one(network, walk, layers) if draw_uniform(walk) < ONE else move_two(network, walk)
    for m in range(number):
        node, start, end = walk.moved[3 * m], walk.moved[3 * m + 1], walk.moved[3 * m + 2]
        if not (0 <= start < end <= layers and end - start <= network.most[node]):
            return 0
    return number


@inlined
def set_cover(network: Any, walk: Any, layers: Any) -> None:
    """Compute the cover of the placement at which the walk begins."""
    for layer in range(layers):
        walk.cover[layer] = 0.0
    for i in range(len(walk.start)):
        add_to_cover(network, walk, i, walk.start[i], walk.end[i], 1.0)


@inlined
def keep(walk: Any, worth: Any) -> None:
    """Keep the placement if it is the best so far."""
    if worth > walk.worth[1] + 1e-6:
        walk.worth[1] = worth
        for i in range(len(walk.start)):
            walk.best_start[i], walk.best_end[i] = walk.start[i], walk.end[i]


@inlined
def flow_worth(network: Any, walk: Any, layers: Any, least: Any, workspaces: Any) -> Any:
    """Return the maximum flow of the current placement, or -inf if it is surely below `least`."""
    for layer in range(layers):
        if walk.cover[layer] < least:
            return -np.inf
    return push_maximum_flow(network, walk.start, walk.end, layers, workspaces[0])


@inlined
def throughput_worth(network: Any, walk: Any, layers: Any, least: Any, workspaces: Any) -> Any:
    """Return the predicted throughput of the current placement, or -inf if it is surely below `least`."""
    serving, flow, cache_flow, stations, predicted = workspaces
    # Every decoded token is part of the flow, and so is a part of the prompts.
    if push_maximum_flow(network, walk.start, walk.end, layers, flow) <= least:
        return -np.inf
    return predict_steady_state(serving, walk.start, walk.end, layers, flow, cache_flow, stations, predicted)


@inlined
def walk_on(
    worth_of: Any, network: Any, workspaces: Any, walk: Any, layers: Any, warm: Any, cold: Any, steps: Any
) -> None:
    """Anneal on an objective: `worth_of` is `flow_worth` or `throughput_worth`."""
    set_cover(network, walk, layers)
    worth = worth_of(network, walk, layers, -np.inf, workspaces)
    keep(walk, worth)
    for step in range(steps):
        temperature = warm * (cold / warm) ** (step / steps)
        number = propose(network, walk, layers)
        if number == 0:
            continue
        # The least worth that is accepted is drawn before the worth is known.
        least = worth + temperature * np.log(max(draw_uniform(walk), 1e-300))
        swap_moved(network, walk, number)
        reached = worth_of(network, walk, layers, least, workspaces)
        if reached < least:
            swap_moved(network, walk, number)
            continue
        worth = reached
        keep(walk, worth)
    walk.worth[0] = worth


@compiled(
    types.void(
        network_type, flow_workspace_type, _walk_type, types.int64, types.float64, types.float64, types.int64
    )
)
def anneal(network: Any, workspace: Any, walk: Any, layers: Any, warm: Any, cold: Any, steps: Any) -> None:
    """Anneal a placement on its maximum flow.

    Parameters
    ----------
    network : Network
        Capacities of the cluster.
    workspace : FlowWorkspace
        Workspace for the flow.
    walk : Walk
        Position to begin at. It is changed, and keeps the best placement that is met.
    layers : int
        Number of layers of the model.
    warm, cold : float
        Temperature at the first and at the last step. A loss of that many tokens/s is accepted in one of
        three cases.
    steps : int
        Number of steps.
    """
    walk_on(flow_worth, network, (workspace,), walk, layers, warm, cold, steps)


@compiled(
    types.void(
        network_type, serving_type, flow_workspace_type, flow_workspace_type, stations_type,
        steady_state_type, _walk_type, types.int64, types.float64, types.float64, types.int64,
    )
)  # fmt: skip
def anneal_throughput(
    network: Any, serving: Any, flow: Any, cache_flow: Any, stations: Any, predicted: Any, walk: Any,
    layers: Any, warm: Any, cold: Any, steps: Any,
) -> None:  # fmt: skip
    """Anneal a placement on its predicted throughput.

    Parameters
    ----------
    network, serving
        Arrays of the cluster, the model and the requests.
    flow, cache_flow, stations, predicted
        Workspaces for what is computed.
    walk, layers, warm, cold, steps
        As for `anneal`; temperatures are in decode tokens/s.
    """
    workspaces = (serving, flow, cache_flow, stations, predicted)
    walk_on(throughput_worth, network, workspaces, walk, layers, warm, cold, steps)
