"""The states of a beam search over placements: how they are kept, and which, compiled."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import typeof
from numpy.typing import NDArray

from helixlab.jit import inlined, rare

__all__ = [
    "ACTIVE",
    "ADDED",
    "Blocks",
    "Frontier",
    "Scratch",
    "blocks_type",
    "frontier_type",
    "let_in",
    "lowered",
    "mixed",
    "scratch_type",
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
