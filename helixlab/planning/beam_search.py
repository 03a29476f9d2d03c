"""Beam search over placements, layer by layer, which finds out whether a flow is within reach.

The layers are swept from the first to the last. A state is what is in use at a layer (blocks by their last
layer) and how many nodes of each kind are left; how the layers before were served does not matter. Wherever
a layer would not reach the flow, blocks that begin there are added, in every way that makes sense. What a
state has wasted so far is known exactly from the prices (`helixlab.planning.prices`): its slack is the
layers for which all that is left can still pay, less those still to come. A state without slack is given
up, which loses no placement; at each layer only the states with the most slack go on, which may.

So a search that never had to drop a state for lack of space proves that there is no placement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numba import typeof, types
from numpy.typing import NDArray

from helixlab._jit import compiled, inlined, rare
from helixlab.planning.prices import Prices, cheapest_covers

__all__ = [
    "ACTIVE",
    "ADDED",
    "Block",
    "Blocks",
    "Found",
    "Frontier",
    "Scratch",
    "blocks_type",
    "frontier_type",
    "let_in",
    "lowered",
    "mixed",
    "scratch_type",
    "search",
    "sweep_layer",
]


ACTIVE: Final = 24
"""Most blocks in use at one layer; a state with more is dropped."""
ADDED: Final = 10
"""Most blocks that begin at one layer."""


class Blocks(NamedTuple):
    """What may be placed: arrays by block (shortest first), by kind of node, and by amount of flow."""

    kind: NDArray[np.int64]
    layers: NDArray[np.int64]
    speed: NDArray[np.float64]
    price: NDArray[np.float64]
    worth: NDArray[np.float64]
    """Of a kind."""
    link: NDArray[np.float64]
    """``[kind, kind]``: tokens/s that go from a node of one kind to a node of another over their link."""
    rest: NDArray[np.float64]
    """Least price of blocks that make up for a missing part of the flow; the last entry is for all of it."""


class Frontier(NamedTuple):
    """The states of every layer: ``[layer, place]`` and what each is."""

    size: NDArray[np.int64]
    left: NDArray[np.int16]
    """``[layer, place, kind]``: nodes that are left."""
    block: NDArray[np.int16]
    """``[layer, place, i]``: blocks in use, -1 after the last; sorted by end, then by block."""
    end: NDArray[np.int16]
    added: NDArray[np.int16]
    """``[layer, place, i]``: blocks that were added to reach this state from the one before."""
    slack: NDArray[np.float64]
    score: NDArray[np.float64]
    """Slack less what the next layer costs at least, with a little noise to tell equals apart."""
    parent: NDArray[np.int64]
    """``[layer, place, :]``: layer and place of the state before."""
    heap: NDArray[np.int64]
    """Places as a heap, the one with the least score first."""
    seen: NDArray[np.uint64]
    """``[layer, slot]``: hash table of the states that were let in."""
    letting: NDArray[np.int64]
    """How many were let in since the table was last cleared."""
    fingerprint: NDArray[np.uint64]


class Scratch(NamedTuple):
    """Room for one state that is being extended."""

    left: NDArray[np.int64]
    block: NDArray[np.int64]
    end: NDArray[np.int64]
    next_block: NDArray[np.int64]
    next_end: NDArray[np.int64]
    following: NDArray[np.int64]
    """By number of blocks added so far: the block to try next."""
    slack: NDArray[np.float64]
    speed: NDArray[np.float64]
    price: NDArray[np.float64]
    shortest: NDArray[np.int64]
    """By number of blocks added so far: the fewest layers of an added block."""
    entry: NDArray[np.float64]
    """By layers from here: the least score that is let in by some layer that near."""
    order: NDArray[np.int64]
    counts: NDArray[np.int64]
    """Steps done; whether a state was dropped (1) since the search began."""


def _prototype(record: type, dimensions: str) -> Any:
    """Type of a record of arrays: for each field its dtype and number of dimensions."""
    parts = [part.split(":") for part in dimensions.split()]
    return typeof(record(*(np.empty((1,) * int(size), dtype=name) for name, size in parts)))


blocks_type = _prototype(Blocks, "i8:1 i8:1 f8:1 f8:1 f8:1 f8:2 f8:1")
frontier_type = _prototype(Frontier, "i8:1 i2:3 i2:3 i2:3 i2:3 f8:2 f8:2 i8:3 i8:2 u8:2 i8:1 u8:2")
scratch_type = _prototype(Scratch, "i8:1 i8:1 i8:1 i8:1 i8:1 i8:1 f8:1 f8:1 f8:1 i8:1 f8:1 i8:1 i8:1")


@inlined
def mixed(number: Any) -> Any:
    """Bits of a number, well shuffled (the last step of MurmurHash3)."""
    number ^= number >> np.uint64(33)
    number *= np.uint64(0xFF51AFD7ED558CCD)
    number ^= number >> np.uint64(33)
    number *= np.uint64(0xC4CEB9FE1A85EC53)
    return number ^ (number >> np.uint64(33))


@inlined
def raised(heap: Any, score: Any, place: Any) -> None:
    """Put the last entry of a heap where it belongs."""
    while place > 0:
        above = (place - 1) // 2
        if score[heap[above]] <= score[heap[place]]:
            break
        heap[above], heap[place] = heap[place], heap[above]
        place = above


@inlined
def lowered(heap: Any, score: Any, size: Any) -> None:
    """Put the first entry of a heap where it belongs."""
    place = 0
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and score[heap[below + 1]] < score[heap[below]]:
            below += 1
        if score[heap[place]] <= score[heap[below]]:
            break
        heap[below], heap[place] = heap[place], heap[below]
        place = below


@inlined
def is_new(table: Any, fingerprint: Any) -> Any:
    """Note a state in a hash table with room; whether it was not there."""
    slot = np.int64(fingerprint % np.uint64(len(table)))
    while table[slot] != 0:
        if table[slot] == fingerprint:
            return False
        slot = slot + 1 if slot + 1 < len(table) else np.int64(0)
    table[slot] = fingerprint
    return True


@rare
def let_in(frontier: Any, scratch: Any, key: Any, at: Any, origin: Any, number: Any, slack: Any) -> Any:
    """Keep the state in the scratch, if it is new and good enough; whether nothing was lost by it.

    `key` is its fingerprint, `at` its layer and its first and last block, `origin` the layer and place of the
    state before, `number` how many blocks it had and how many were added; `slack` its slack and its score.
    """
    layer, first, last = at
    width = frontier.score.shape[1]
    score, heap = frontier.score[layer], frontier.heap[layer]
    full = frontier.size[layer] == width
    if full and slack[1] <= score[heap[0]]:
        return False
    if not is_new(frontier.seen[layer], key):
        return True
    if full:
        place = heap[0]
    else:
        place = frontier.size[layer]
        heap[place] = place
        frontier.size[layer] += 1
    for kind in range(len(scratch.left)):
        frontier.left[layer, place, kind] = scratch.left[kind]
    for i in range(ACTIVE):
        frontier.block[layer, place, i] = -1
    for i in range(first, last):
        frontier.block[layer, place, i - first] = scratch.next_block[i]
        frontier.end[layer, place, i - first] = scratch.next_end[i]
    for i in range(ADDED):
        frontier.added[layer, place, i] = scratch.block[number[0] + i] if i < number[1] else -1
    frontier.slack[layer, place], score[place] = slack
    frontier.fingerprint[layer, place] = key
    frontier.parent[layer, place, 0], frontier.parent[layer, place, 1] = origin
    if full:
        lowered(heap, score, width)
    else:
        raised(heap, score, place)
    frontier.letting[layer] += 1
    if frontier.letting[layer] > 3 * frontier.seen.shape[1] // 4:
        for i in range(frontier.seen.shape[1]):
            frontier.seen[layer, i] = 0
        for i in range(frontier.size[layer]):
            is_new(frontier.seen[layer], frontier.fingerprint[layer, i])
        frontier.letting[layer] = frontier.size[layer]
    return not full


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


Block = tuple[int, int, int]
"""Kind of node, first layer, number of layers."""

STEPS: Final = 200_000
"""The compiled search comes back after so many, a fraction of a second, to see whether it is to stop."""
GRID: Final = 4000
NOISE: Final = 1e-9
"""In layers: tells apart states that are equally good, by the seed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Parameters
    ----------
    placements : tuple of tuples of blocks
        Those that reach the flow, the best first; empty if none was found.
    excluded : bool
        It is proved that there is none.
    steps : int
        Steps done, a measure of work that does not depend on the machine.
    """

    placements: tuple[tuple[Block, ...], ...]
    excluded: bool
    steps: int


def search(
    prices: Prices,
    speeds: Sequence[NDArray[np.float64]],
    counts: Sequence[int],
    model_layers: int,
    *,
    width: int,
    link: NDArray[np.float64] | None = None,
    more: bool = False,
    all_of_them: bool = False,
    seed: int = 0,
    steps: float = np.inf,
    stopped: Callable[[], bool] = lambda: False,
) -> Found:
    """Look for placements in which every layer reaches the flow of the prices.

    Parameters
    ----------
    prices : Prices
        Of these nodes.
    speeds, counts : sequences
        Tokens/s by layers held, ``[kind][k]``, and number of nodes of each kind.
    model_layers : int
        Layers to hold.
    width : int
        States kept at each layer.
    link : array ``[kind, kind]``, optional
        Tokens/s over the link from a node of a kind to one of another; without it links do not bind.
    more : bool
        Also try blocks that the flow does not need where they begin; without it, nothing is excluded where
        links bind.
    all_of_them : bool
        Go through all states even when a placement has been found.
    seed : int
        Decides which of equally good states are kept.
    steps : float
        Give up after so many.
    stopped : callable
        Asked every now and then whether to give up.
    """
    if prices.most_layers < model_layers * (1 - 1e-7):
        return Found((), True, 0)
    flow = prices.flow_tokens_per_s
    blocks = _blocks(prices, counts, link)
    frontier = _frontier(width, model_layers, len(counts))
    scratch = _scratch(width, prices)
    frontier.size[0] = 1
    frontier.left[0, 0] = counts
    frontier.slack[0, 0] = prices.most_layers - model_layers
    how = (link is not None, more, NOISE, seed)
    finished = True
    for layer in range(model_layers):
        done = 0
        while done < frontier.size[layer] and finished:
            done = sweep_layer(blocks, frontier, scratch, layer, done, model_layers, flow, how, STEPS)
            if frontier.size[model_layers] and not all_of_them:
                break
            finished = scratch.counts[0] < steps and not stopped()
        if not finished or (frontier.size[model_layers] and not all_of_them):
            break
    ends = frontier.heap[model_layers, : frontier.size[model_layers]].tolist()
    ends.sort(key=lambda place: -frontier.score[model_layers, place])
    found = tuple(_placement(frontier, model_layers, place, prices, speeds) for place in ends)
    lossless = finished and not scratch.counts[1] and (link is None or more)
    return Found(found, lossless and not found, int(scratch.counts[0]))


def _blocks(prices: Prices, counts: Sequence[int], link: NDArray[np.float64] | None) -> Blocks:
    weight = np.maximum(np.ceil(prices.speed / prices.flow_tokens_per_s * GRID - 1e-7), 1).astype(np.int64)
    rest, choice = np.empty(GRID + 1), np.empty(GRID + 1, dtype=np.int64)
    cheapest_covers(prices.price, weight, rest, choice)
    links = np.zeros((len(counts), len(counts))) if link is None else link
    return Blocks(
        prices.kind,
        prices.layers,
        prices.speed,
        prices.price,
        prices.worth,
        np.ascontiguousarray(links),
        rest,
    )


def _frontier(width: int, model_layers: int, kinds: int) -> Frontier:
    shape = (model_layers + 1, width)
    return Frontier(
        size=np.zeros(model_layers + 1, dtype=np.int64),
        left=np.zeros((*shape, kinds), dtype=np.int16),
        block=np.full((*shape, ACTIVE), -1, dtype=np.int16),
        end=np.zeros((*shape, ACTIVE), dtype=np.int16),
        added=np.full((*shape, ADDED), -1, dtype=np.int16),
        slack=np.zeros(shape),
        score=np.zeros(shape),
        parent=np.full((*shape, 2), -1, dtype=np.int64),
        heap=np.zeros(shape, dtype=np.int64),
        seen=np.zeros((model_layers + 1, 8 * width + 8), dtype=np.uint64),
        letting=np.zeros(model_layers + 1, dtype=np.int64),
        fingerprint=np.zeros(shape, dtype=np.uint64),
    )


def _scratch(width: int, prices: Prices) -> Scratch:
    def whole(size: int) -> NDArray[np.int64]:
        return np.zeros(size, dtype=np.int64)

    room, depth = ACTIVE + ADDED + 1, ADDED + 1
    return Scratch(
        left=whole(len(prices.worth)),
        block=whole(room),
        end=whole(room),
        next_block=whole(room),
        next_end=whole(room),
        following=whole(depth),
        slack=np.zeros(depth),
        speed=np.zeros(depth),
        price=np.zeros(depth),
        shortest=whole(depth),
        entry=np.zeros(int(prices.layers.max()) + 1),
        order=whole(width),
        counts=whole(2),
    )


def _placement(
    frontier: Frontier,
    layer: int,
    place: int,
    prices: Prices,
    speeds: Sequence[NDArray[np.float64]],
) -> tuple[Block, ...]:
    """The blocks that led to a state."""
    model_layers, blocks = layer, []
    while layer > 0:
        before, origin = frontier.parent[layer, place].tolist()
        for block in frontier.added[layer, place].tolist():
            if block >= 0:
                kind, asked = int(prices.kind[block]), int(prices.layers[block])
                # A node may hold more than it was taken for, should it be faster so.
                held = asked + int(np.argmax(speeds[kind][asked:] > speeds[kind][asked:].max() * (1 - 1e-12)))
                blocks.append((kind, min(before, model_layers - held), held))
        layer, place = before, origin
    return tuple(reversed(blocks))
