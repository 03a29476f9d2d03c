"""Simulated annealing on the maximum flow itself, compiled: for clusters whose links bind.

A step moves one or two nodes over the layers. Most steps are seen through without a flow: no flow is larger
than what the nodes that hold a layer serve together, in the layer with the least.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import typeof, types
from numpy.typing import NDArray

from helixlab._jit import compiled, inlined
from helixlab.planning.flow_kernel import network_type, room_type, served
from helixlab.planning.queueing import foretold_by, foretold_type, serving_type, stations_type

__all__ = ["Walk", "anneal", "anneal_throughput", "walk_from"]

ONE: Final = 0.6
"""Part of the steps that move one node, not two."""
MOST_SHIFT: Final = 3
"""Layers by which a node is shifted at once, at most."""


class Walk(NamedTuple):
    """Where the annealing is: layers ``[start, end)`` of every node, the same where it is idle."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    best_start: NDArray[np.int64]
    best_end: NDArray[np.int64]
    cover: NDArray[np.float64]
    """``[layer]``: tokens/s of the nodes that hold it."""
    flow: NDArray[np.float64]
    """What is served at last, and at best."""
    moved: NDArray[np.int64]
    """Which nodes are moved, from where to where: node, start, end, twice."""
    state: NDArray[np.uint64]
    """Of the random numbers."""


def walk_from(start: NDArray[np.int64], end: NDArray[np.int64], layers: int, seed: int) -> Walk:
    """A walk that begins at a placement."""
    return Walk(
        start.copy(),
        end.copy(),
        start.copy(),
        end.copy(),
        np.zeros(layers),
        np.zeros(2),
        np.zeros(6, dtype=np.int64),
        np.array([seed * 2 + 1], dtype=np.uint64),
    )


_walk_type = typeof(walk_from(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), 1, 0))


@inlined
def uniform(walk: Any) -> Any:
    """A random number from 0 up to 1 (xorshift64*)."""
    x = walk.state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    walk.state[0] = x
    return np.float64((x * np.uint64(2685821657736338717)) >> np.uint64(11)) * 2.0**-53


@inlined
def below(walk: Any, size: Any) -> Any:
    """A random whole number from 0 up to `size`."""
    return int(uniform(walk) * size)


@inlined
def holds(network: Any, walk: Any, node: Any, start: Any, end: Any, sign: Any) -> None:
    """Add a node to the cover, or take it away."""
    speed = sign * network.speed[node, end - start]
    for layer in range(start, end):
        walk.cover[layer] += speed


@inlined
def move_one(network: Any, walk: Any, layers: Any) -> Any:
    """Propose other layers for one node: shifted, more or fewer, beside another node, or anywhere."""
    i = below(walk, len(walk.start))
    start, end = walk.start[i], walk.end[i]
    way = uniform(walk)
    if way < 0.3 and end > start:
        shift = 1 + below(walk, MOST_SHIFT)
        shift = -shift if uniform(walk) < 0.5 else shift
        start, end = start + shift, end + shift
    elif way < 0.6 and end > start:
        change = 1 if uniform(walk) < 0.5 else -1
        if uniform(walk) < 0.5:
            start -= change
        else:
            end += change
    elif way < 0.95:
        j = below(walk, len(walk.start))
        held = end - start
        if held == 0 or uniform(walk) < 0.5:
            held = 1 + below(walk, network.most[i])
        side = uniform(walk)
        if side < 0.3:
            start = walk.end[j]
        elif side < 0.6:
            start = walk.start[j] - held
        elif side < 0.8:
            start = walk.start[j]
        else:
            start = walk.end[j] - held
        end = start + held
    else:
        held = 1 + below(walk, network.most[i])
        start = below(walk, layers - held + 1)
        end = start + held
    walk.moved[0], walk.moved[1], walk.moved[2] = i, start, end
    return 1


@inlined
def move_two(network: Any, walk: Any) -> Any:
    """Propose to exchange the layers of two nodes, their order, or to shift the border between them."""
    size = len(walk.start)
    i, j = below(walk, size), below(walk, size)
    way = uniform(walk)
    if i == j:
        return 0
    a, b, c, d = walk.start[i], walk.end[i], walk.start[j], walk.end[j]
    if way < 0.4:  # exchange the layers, each as many as it can hold
        a, b, c, d = c, c + min(d - c, network.most[i]), a, a + min(b - a, network.most[j])
    elif way < 0.6:  # exchange the order, from the first start to the last end
        if a > c:
            i, j, a, b, c, d = j, i, c, d, a, b
        a, b, c, d = d - (b - a), d, a, a + (d - c)
    else:  # what one node gives, the next one takes
        found = 0
        for other in range(size):
            if other != i and walk.start[other] == b and walk.end[other] > b:
                found += 1
                if uniform(walk) * found < 1:
                    j = other
        if found == 0:
            return 0
        shift = 1 + below(walk, 2)
        shift = -shift if uniform(walk) < 0.5 else shift
        b, c, d = b + shift, walk.start[j] + shift, walk.end[j]
    walk.moved[0], walk.moved[1], walk.moved[2] = i, a, b
    walk.moved[3], walk.moved[4], walk.moved[5] = j, c, d
    return 2


@inlined
def exchanged(network: Any, walk: Any, number: Any) -> None:
    """Put the moved nodes where they are proposed to be, and the proposal where they were."""
    for m in range(number):
        node, start, end = walk.moved[3 * m], walk.moved[3 * m + 1], walk.moved[3 * m + 2]
        holds(network, walk, node, walk.start[node], walk.end[node], -1.0)
        holds(network, walk, node, start, end, 1.0)
        walk.moved[3 * m + 1], walk.moved[3 * m + 2] = walk.start[node], walk.end[node]
        walk.start[node], walk.end[node] = start, end


@inlined
def proposed(network: Any, walk: Any, layers: Any) -> Any:
    """Propose to move one node or two; how many, 0 if it cannot be."""
    number = move_one(network, walk, layers) if uniform(walk) < ONE else move_two(network, walk)
    for m in range(number):
        node, start, end = walk.moved[3 * m], walk.moved[3 * m + 1], walk.moved[3 * m + 2]
        if not (0 <= start < end <= layers and end - start <= network.most[node]):
            return 0
    return number


@inlined
def covered(network: Any, walk: Any, layers: Any) -> None:
    """Add up the cover of the placement at which the walk begins."""
    for layer in range(layers):
        walk.cover[layer] = 0.0
    for i in range(len(walk.start)):
        holds(network, walk, i, walk.start[i], walk.end[i], 1.0)


@inlined
def keep(walk: Any, worth: Any) -> None:
    """Keep the placement if it is the best so far."""
    if worth > walk.flow[1] + 1e-6:
        walk.flow[1] = worth
        for i in range(len(walk.start)):
            walk.best_start[i], walk.best_end[i] = walk.start[i], walk.end[i]


@compiled(
    types.void(network_type, room_type, _walk_type, types.int64, types.float64, types.float64, types.int64)
)
def anneal(network: Any, room: Any, walk: Any, layers: Any, warm: Any, cold: Any, steps: Any) -> None:
    """Walk on for so many steps; the best placement met is kept.

    Parameters
    ----------
    network, room, walk
        What there is, room for a flow, and where to begin; the walk is changed.
    layers : int
        Of the model.
    warm, cold : float
        Temperature at the first and at the last step: a loss of so many tokens/s is taken in one of three
        cases.
    steps : int
        How many.
    """
    covered(network, walk, layers)
    flow = served(network, walk.start, walk.end, layers, room)
    keep(walk, flow)
    for step in range(steps):
        temperature = warm * (cold / warm) ** (step / steps)
        number = proposed(network, walk, layers)
        if number == 0:
            continue
        # The least flow that is taken, drawn before the flow is known.
        least = flow + temperature * np.log(max(uniform(walk), 1e-300))
        exchanged(network, walk, number)
        enough = True
        for layer in range(layers):
            if walk.cover[layer] < least:
                enough = False
                break
        reached = served(network, walk.start, walk.end, layers, room) if enough else -np.inf
        if reached < least:
            exchanged(network, walk, number)
            continue
        flow = reached
        keep(walk, flow)
    walk.flow[0] = flow


@compiled(
    types.void(
        network_type, serving_type, room_type, room_type, stations_type, foretold_type, _walk_type,
        types.int64, types.float64, types.float64, types.int64,
    )
)  # fmt: skip
def anneal_throughput(
    network: Any, serving: Any, room: Any, cache_room: Any, stations: Any, foretold: Any, walk: Any,
    layers: Any, warm: Any, cold: Any, steps: Any,
) -> None:  # fmt: skip
    """The same on the decode tokens/s that are foretold.

    Parameters
    ----------
    network, serving
        What there is.
    room, cache_room, stations, foretold
        Room for what is calculated.
    walk, layers, warm, cold, steps
        As for `anneal`.
    """
    covered(network, walk, layers)
    served(network, walk.start, walk.end, layers, room)
    rate = foretold_by(serving, walk.start, walk.end, layers, room, cache_room, stations, foretold)
    keep(walk, rate)
    for step in range(steps):
        temperature = warm * (cold / warm) ** (step / steps)
        number = proposed(network, walk, layers)
        if number == 0:
            continue
        least = rate + temperature * np.log(max(uniform(walk), 1e-300))
        exchanged(network, walk, number)
        flow = served(network, walk.start, walk.end, layers, room)
        # Every token that is decoded flows, and a part of the prompt's with it.
        reached = -np.inf
        if flow > least:
            reached = foretold_by(serving, walk.start, walk.end, layers, room, cache_room, stations, foretold)
        if reached < least:
            exchanged(network, walk, number)
            continue
        rate = reached
        keep(walk, rate)
    walk.flow[0] = rate
