"""Beam search over placements, layer by layer, compiled.

The layers are swept from the first to the last. A state is what is in use at a layer (blocks by their last
layer) and how many nodes of each kind are left; how the layers before were served does not matter. Wherever
a layer would not reach the flow, blocks that begin there are added, in every way that makes sense. What a
state has wasted so far is known exactly from the prices (`helixlab.planning.prices`): its slack is the layers
for which all that is left can still pay, less those still to come. A state without slack is given up, which
loses no placement; at each layer only the states with the most slack go on, which may.

So a search that never had to drop a state for want of room proves that there is no placement.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import types

from helixlab.jit import compiled, inlined, rare
from helixlab.planning.frontier import (
    ACTIVE,
    ADDED,
    blocks_type,
    frontier_type,
    let_in,
    lowered,
    mixed,
    scratch_type,
)

__all__ = ["sweep_layer"]

SLACK: Final = 1e-6
"""Rounding of the slack, in layers."""
FLOW: Final = 1e-9
"""Part of the flow that a layer may miss by rounding."""
MOST_WASTE: Final = 0.25
"""Layers that may be wasted at once, unless links demand it: with much slack, to waste more leads nowhere."""
STEPS_OF_A_STATE: Final = 300_000
"""After so many the other ways to go on from a state are dropped."""
_UNREACHED: Final = 1 << 30


@rare
def crosses(blocks: Any, scratch: Any, layer: Any, used: Any, total: Any, flow: Any) -> Any:
    """Whether the links could bring the flow to this layer, from what ends here to what begins.

    A minimum cut, by trial of every set of ends: nodes that go on are taken to be as full as they can be.
    """
    if layer == 0:
        return True
    ending = 0
    missing = flow * (1 - FLOW)
    while ending < used and scratch.end[ending] == layer:
        ending += 1
    for i in range(ending, used):
        missing -= blocks.speed[scratch.block[i]]
    for chosen in range(1 << ending):
        cut = 0.0
        for i in range(ending):
            if not chosen >> i & 1:
                cut += blocks.speed[scratch.block[i]]
        for j in range(used, total):
            brought = 0.0
            for i in range(ending):
                if chosen >> i & 1:
                    brought += blocks.link[blocks.kind[scratch.block[i]], blocks.kind[scratch.block[j]]]
            cut += min(brought, blocks.speed[scratch.block[j]])
        if cut < missing:
            return False
    return True


@inlined
def open_state(blocks: Any, frontier: Any, scratch: Any, layer: Any, place: Any) -> Any:
    """Copy a state into the scratch; how many blocks it has in use."""
    for kind in range(len(scratch.left)):
        scratch.left[kind] = frontier.left[layer, place, kind]
    used = 0
    scratch.slack[0] = frontier.slack[layer, place]
    scratch.speed[0] = scratch.price[0] = 0.0
    scratch.shortest[0] = _UNREACHED
    scratch.following[0] = 0
    while used < ACTIVE and frontier.block[layer, place, used] >= 0:
        block = scratch.block[used] = frontier.block[layer, place, used]
        scratch.end[used] = frontier.end[layer, place, used]
        if scratch.end[used] > layer:
            scratch.speed[0] += blocks.speed[block]
            scratch.price[0] += blocks.price[block]
        used += 1
    return used


@inlined
def least_scores(frontier: Any, scratch: Any, layer: Any, last: Any) -> None:
    """Fill in `entry` of the scratch for a layer."""
    width = frontier.score.shape[1]
    least = np.inf
    for ahead in range(1, len(scratch.entry)):
        if layer + ahead <= last:
            full = frontier.size[layer + ahead] == width
            heap = frontier.heap[layer + ahead]
            least = min(least, frontier.score[layer + ahead, heap[0]] if full else -SLACK)
        scratch.entry[ahead] = least


@rare
def extended(blocks: Any, frontier: Any, scratch: Any, at: Any, number: Any, flow: Any, how: Any) -> Any:
    """Move the state in the scratch on to where blocks are next needed; whether nothing was lost by it.

    `at` is layer, place and number of layers, `number` how many blocks it had and how many were added; `how`
    whether links bind, the noise and the seed.
    """
    layer, place, last_layer = at
    binding, noise, seed = how
    total = number[0] + number[1]
    depth = number[1]
    speed, price, slack = scratch.speed[depth], scratch.price[depth], scratch.slack[depth]
    count = 0
    for i in range(total):
        block, end = scratch.block[i], scratch.end[i]
        if end <= layer:
            continue
        j = count
        while j > 0 and (
            scratch.next_end[j - 1] > end
            or (scratch.next_end[j - 1] == end and scratch.next_block[j - 1] > block)
        ):
            scratch.next_end[j], scratch.next_block[j] = scratch.next_end[j - 1], scratch.next_block[j - 1]
            j -= 1
        scratch.next_end[j], scratch.next_block[j] = end, block
        count += 1
    now, ended = layer, 0
    before = 0
    while True:
        following = min(scratch.next_end[ended], last_layer)
        slack -= (price - 1) * (following - now)
        now = following
        if slack < -SLACK:
            return True
        if now == last_layer:
            break
        before = ended
        while ended < count and scratch.next_end[ended] == now:
            speed -= blocks.speed[scratch.next_block[ended]]
            price -= blocks.price[scratch.next_block[ended]]
            ended += 1
        if binding or speed < flow * (1 - FLOW):
            break
    score = slack
    if now < last_layer:
        missing = max(1 - speed / flow, 0.0)
        look = price + blocks.rest[int(missing * (len(blocks.rest) - 1))] - 1
        score -= max(look, 0.0)
        if score < -SLACK:
            return True
    else:
        ended = before = count
    first = before if binding else ended
    if count - first > ACTIVE:
        return False
    key = mixed(np.uint64(seed) + np.uint64(1))
    for kind in range(len(scratch.left)):
        key = mixed(key ^ np.uint64(scratch.left[kind] + 1))
    for i in range(first, count):
        key = mixed(key ^ np.uint64(scratch.next_block[i] * 65536 + scratch.next_end[i] + 65536))
    if now == last_layer:  # whole placements are all of interest, however they end
        key = mixed(key ^ np.uint64(scratch.counts[0] + 1))
    key |= np.uint64(1)
    score += noise * (np.float64(key >> np.uint64(11)) * 2.0**-53)
    return let_in(frontier, scratch, key, (now, first, count), (layer, place), number, (slack, score))


_how_type = types.Tuple((types.boolean, types.boolean, types.float64, types.int64))
_whole = types.int64


@compiled(
    _whole(blocks_type, frontier_type, scratch_type, _whole, _whole, _whole, types.float64, _how_type, _whole)
)
def sweep_layer(
    blocks: Any,
    frontier: Any,
    scratch: Any,
    layer: Any,
    first: Any,
    last_layer: Any,
    flow: Any,
    how: Any,
    steps: Any,
) -> Any:
    """Extend the states of a layer, the best ones first.

    Parameters
    ----------
    blocks, frontier, scratch
        What there is, what was reached, and room to work.
    layer : int
        Whose states to extend.
    first : int
        How many of them are done already.
    last_layer : int
        Number of layers.
    flow : float
        Tokens/s that every layer must reach.
    how : (bool, bool, float, int)
        Whether links may bind; whether blocks may also be added that the flow does not need yet; noise of the
        scores; seed of the noise.
    steps : int
        Return after about so many.

    Returns
    -------
    int
        How many states are done.
    """
    binding, more, noise, seed = how
    size = frontier.size[layer]
    if first == 0:
        for i in range(size):
            scratch.order[i] = frontier.heap[layer, i]
        for i in range(size - 1, 0, -1):
            scratch.order[0], scratch.order[i] = scratch.order[i], scratch.order[0]
            lowered(scratch.order, frontier.score[layer], i)
    stop = scratch.counts[0] + steps
    done = first
    nothing_lost = True
    while done < size and scratch.counts[0] < stop:
        place = scratch.order[done]
        done += 1
        used = open_state(blocks, frontier, scratch, layer, place)
        least_scores(frontier, scratch, layer, last_layer)
        at = (layer, place, last_layer)
        moves = (binding, noise, seed)
        if scratch.speed[0] >= flow * (1 - FLOW):
            nothing_lost &= extended(blocks, frontier, scratch, at, (used, 0), flow, moves)
            if not more:
                continue
        depth = 0
        enough_of_it = scratch.counts[0] + STEPS_OF_A_STATE
        while depth >= 0:
            if scratch.counts[0] > enough_of_it:
                nothing_lost = False
                break
            block = scratch.following[depth]
            if block == len(blocks.kind):
                depth -= 1
                if depth >= 0:
                    scratch.left[blocks.kind[scratch.block[used + depth]]] += 1
                continue
            scratch.following[depth] += 1
            kind = blocks.kind[block]
            if scratch.left[kind] == 0:
                continue
            slack = scratch.slack[depth] - (blocks.worth[kind] - blocks.layers[block] * blocks.price[block])
            if slack < -SLACK:
                continue
            scratch.counts[0] += 1
            speed = scratch.speed[depth] + blocks.speed[block]
            price = scratch.price[depth] + blocks.price[block]
            shortest = min(scratch.shortest[depth], blocks.layers[block])
            enough = speed >= flow * (1 - FLOW)
            least = slack - (price - 1)
            if not enough:
                least -= blocks.rest[int((1 - speed / flow) * (len(blocks.rest) - 1))]
            if least < -SLACK:
                continue
            too_much = not binding and least < scratch.slack[0] - MOST_WASTE
            if too_much or least + noise < scratch.entry[min(shortest, len(scratch.entry) - 1)]:
                nothing_lost = False
                continue
            scratch.block[used + depth], scratch.end[used + depth] = block, layer + blocks.layers[block]
            depth += 1
            scratch.left[kind] -= 1
            scratch.slack[depth], scratch.speed[depth], scratch.price[depth] = slack, speed, price
            scratch.shortest[depth], scratch.following[depth] = shortest, block
            deeper = not enough
            if enough:
                needed = True
                if not binding:
                    for i in range(used, used + depth):
                        needed &= speed - blocks.speed[scratch.block[i]] < flow * (1 - FLOW)
                if not needed:
                    pass
                elif not binding or crosses(blocks, scratch, layer, used, used + depth, flow):
                    nothing_lost &= extended(blocks, frontier, scratch, at, (used, depth), flow, moves)
                    deeper = more
                else:
                    deeper = True
            if deeper and (depth == ADDED or used + depth == ACTIVE):
                nothing_lost = deeper = False
            if not deeper:
                depth -= 1
                scratch.left[kind] += 1
    if not nothing_lost:
        scratch.counts[1] = 1
    return done
