"""Beam search for a placement with a given flow, layer by layer.

The search sweeps the layers from the first to the last. A state consists of the blocks in use at a layer, by
their last layer, and of the number of free nodes of each kind; how the earlier layers are served does not
matter. Where the blocks in use at a layer do not reach the flow, the search adds blocks that begin there, in
every sensible way. The prices of `helixlab.planning.prices` say exactly how much a state has wasted so far:
its slack is the number of layers that the free nodes and the blocks in use can still pay for, less the number
of layers to come. Dropping a state with negative slack loses no placement. At each layer, only the states
with the most slack are kept, and dropping the others may lose placements.

A search that never dropped a state for lack of space proves that no placement has the flow.
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

__all__ = ["ACTIVE", "ADDED", "Block", "Blocks", "Found", "Frontier", "Workspace", "search", "sweep_layer"]

ACTIVE: Final = 24
"""Largest number of blocks in use at one layer; a state with more is dropped."""
ADDED: Final = 10
"""Largest number of blocks that begin at one layer."""
SLACK: Final = 1e-6
"""Rounding error of the slack, in layers."""
FLOW: Final = 1e-9
"""Fraction of the flow that a layer may lack by rounding."""
MOST_WASTE: Final = 0.25
"""Largest slack, in layers, that a step may waste unless links demand it: with much slack, wasting more leads
nowhere."""
STEPS_OF_A_STATE: Final = 300_000
"""Number of steps after which the remaining extensions of a state are dropped."""
STEPS: Final = 200_000
"""Number of steps, a fraction of a second, after which the compiled search returns to see whether to stop."""
GRID: Final = 4000
"""Number of amounts of missing flow for which the cheapest blocks are tabulated."""
NOISE: Final = 1e-9
"""Size of the noise, in layers, that breaks ties between scores by the seed."""

_UNREACHED: Final = 1 << 30

Block = tuple[int, int, int]
"""Kind of node, first layer, number of layers."""


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a search.

    Parameters
    ----------
    placements : tuple of tuples of blocks
        Placements that reach the flow, the best first; empty if none was found.
    excluded : bool
        True if it is proved that no placement reaches the flow.
    steps : int
        Number of steps, a measure of work that does not depend on the machine.
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
    """Search for placements in which every layer reaches the flow of the prices.

    Parameters
    ----------
    prices : Prices
        Prices for these nodes and the flow.
    speeds, counts : sequences
        Tokens/s by number of layers on the node, ``[kind][k]``, and number of nodes of each kind.
    model_layers : int
        Number of layers of the model.
    width : int
        Number of states kept at each layer.
    link : array ``[kind, kind]``, optional
        Tokens/s of the link from a node of one kind to a node of another; without it links do not bind.
    more : bool
        Also try blocks that the flow does not need where they begin. Without them, a search with links
        proves nothing.
    all_of_them : bool
        Extend all states even when a placement has been found.
    seed : int
        Seed of the choice between states with equal scores.
    steps : float
        Number of steps after which the search gives up.
    stopped : callable
        Function called every now and then that returns whether to give up.
    """
    if prices.most_layers < model_layers * (1 - 1e-7):
        return Found((), True, 0)
    flow = prices.flow_tokens_per_s
    blocks = _priced_blocks(prices, counts, link)
    frontier = _new_frontier(width, model_layers, len(counts))
    workspace = _new_workspace(width, int(prices.layers.max()), len(counts))
    frontier.size[0] = 1
    frontier.left[0, 0] = counts
    frontier.slack[0, 0] = prices.most_layers - model_layers
    how = (link is not None, more, NOISE, seed)
    finished = True
    for layer in range(model_layers):
        done = 0
        while done < frontier.size[layer] and finished:
            done = sweep_layer(blocks, frontier, workspace, layer, done, model_layers, flow, how, STEPS)
            if frontier.size[model_layers] and not all_of_them:
                break
            finished = workspace.counts[0] < steps and not stopped()
        if not finished or (frontier.size[model_layers] and not all_of_them):
            break
    ends = frontier.heap[model_layers, : frontier.size[model_layers]].tolist()
    ends.sort(key=lambda place: -frontier.score[model_layers, place])
    found = tuple(_placement_to(frontier, model_layers, place, prices, speeds) for place in ends)
    lossless = finished and not workspace.counts[1] and (link is None or more)
    return Found(found, lossless and not found, int(workspace.counts[0]))


def _placement_to(
    frontier: Frontier,
    layer: int,
    place: int,
    prices: Prices,
    speeds: Sequence[NDArray[np.float64]],
) -> tuple[Block, ...]:
    """Trace a state back to the blocks that led to it."""
    model_layers, blocks = layer, []
    while layer > 0:
        before, origin = frontier.parent[layer, place].tolist()
        for block in frontier.added[layer, place].tolist():
            if block >= 0:
                kind, asked = int(prices.kind[block]), int(prices.layers[block])
                # A node may hold more layers than the block has, if that makes it faster.
                count = asked + int(
                    np.argmax(speeds[kind][asked:] > speeds[kind][asked:].max() * (1 - 1e-12))
                )
                blocks.append((kind, min(before, model_layers - count), count))
        layer, place = before, origin
    return tuple(reversed(blocks))


def _priced_blocks(prices: Prices, counts: Sequence[int], link: NDArray[np.float64] | None) -> Blocks:
    """Combine the priced blocks with the links between kinds of nodes."""
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


class Blocks(NamedTuple):
    """Blocks that may be placed: arrays by block (shortest first), by kind of node, or by amount of flow."""

    kind: NDArray[np.int64]
    """``[block]``: kind of node."""
    layers: NDArray[np.int64]
    """``[block]``: number of layers."""
    speed: NDArray[np.float64]
    """``[block]``: tokens/s that the block adds to its layers."""
    price: NDArray[np.float64]
    """``[block]``: price that the block pays for each of its layers."""
    worth: NDArray[np.float64]
    """``[kind]``: largest number of layers that a node pays for."""
    link: NDArray[np.float64]
    """``[kind, kind]``: tokens/s of a link from a node of one kind to a node of another."""
    rest: NDArray[np.float64]
    """``[amount]``: least price of blocks that provide a missing fraction of the flow; the last entry is for
    all of it."""


class Frontier(NamedTuple):
    """States that were reached, by layer and place."""

    size: NDArray[np.int64]
    """``[layer]``: number of states."""
    left: NDArray[np.int16]
    """``[layer, place, kind]``: number of free nodes."""
    block: NDArray[np.int16]
    """``[layer, place, i]``: blocks in use, -1 after the last; sorted by end, then by block."""
    end: NDArray[np.int16]
    """``[layer, place, i]``: layer after the last one of each block in use."""
    added: NDArray[np.int16]
    """``[layer, place, i]``: blocks that were added to the parent to reach this state, -1 after the last."""
    slack: NDArray[np.float64]
    """``[layer, place]``: slack in layers."""
    score: NDArray[np.float64]
    """``[layer, place]``: slack less the least cost of the next layer, with noise that breaks ties."""
    parent: NDArray[np.int64]
    """``[layer, place, :]``: layer and place of the state before."""
    heap: NDArray[np.int64]
    """``[layer, i]``: places as a heap with the least score first."""
    seen: NDArray[np.uint64]
    """``[layer, slot]``: hash table of the fingerprints of the states that were kept."""
    entries: NDArray[np.int64]
    """``[layer]``: number of fingerprints in the hash table."""
    fingerprint: NDArray[np.uint64]
    """``[layer, place]``: hash of the state."""


class Workspace(NamedTuple):
    """Workspace in which one state is extended."""

    left: NDArray[np.int64]
    """``[kind]``: number of free nodes."""
    block: NDArray[np.int64]
    """``[i]``: blocks in use, then blocks added."""
    end: NDArray[np.int64]
    """``[i]``: layer after the last one of each block."""
    next_block: NDArray[np.int64]
    next_end: NDArray[np.int64]
    """``[i]``: blocks of the extended state, and their ends."""
    following: NDArray[np.int64]
    """``[added]``: next block to try, by the number of blocks added so far."""
    slack: NDArray[np.float64]
    speed: NDArray[np.float64]
    price: NDArray[np.float64]
    """``[added]``: slack, total speed and total price of the blocks in use, by the number of blocks added."""
    shortest: NDArray[np.int64]
    """``[added]``: least number of layers of an added block, by the number of blocks added."""
    entry: NDArray[np.float64]
    """``[ahead]``: least score that is kept by some layer at most so far ahead."""
    order: NDArray[np.int64]
    """``[i]``: places of the states of a layer, the best first."""
    counts: NDArray[np.int64]
    """Number of steps since the search began, and 1 if a state was dropped."""


def _new_frontier(width: int, model_layers: int, kinds: int) -> Frontier:
    """Allocate a frontier of `width` states for each layer."""
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
        entries=np.zeros(model_layers + 1, dtype=np.int64),
        fingerprint=np.zeros(shape, dtype=np.uint64),
    )


def _new_workspace(width: int, most_layers: int, kinds: int) -> Workspace:
    """Allocate a workspace for `kinds` kinds of nodes and blocks of at most `most_layers` layers."""

    def whole(size: int) -> NDArray[np.int64]:
        return np.zeros(size, dtype=np.int64)

    blocks, depth = ACTIVE + ADDED + 1, ADDED + 1
    return Workspace(
        left=whole(kinds),
        block=whole(blocks),
        end=whole(blocks),
        next_block=whole(blocks),
        next_end=whole(blocks),
        following=whole(depth),
        slack=np.zeros(depth),
        speed=np.zeros(depth),
        price=np.zeros(depth),
        shortest=whole(depth),
        entry=np.zeros(most_layers + 1),
        order=whole(width),
        counts=whole(2),
    )


def _example_blocks() -> Blocks:
    whole, one = np.zeros(1, dtype=np.int64), np.zeros(1)
    return Blocks(whole, whole, one, one, one, np.zeros((1, 1)), one)


_blocks_type, _frontier_type, _workspace_type = map(
    typeof, (_example_blocks(), _new_frontier(1, 1, 1), _new_workspace(1, 1, 1))
)
_how_type = types.Tuple((types.boolean, types.boolean, types.float64, types.int64))
_whole = types.int64


@inlined
def mix_bits(number: Any) -> Any:
    """Mix the bits of a number (the finalizer of MurmurHash3)."""
    number ^= number >> np.uint64(33)
    number *= np.uint64(0xFF51AFD7ED558CCD)
    number ^= number >> np.uint64(33)
    number *= np.uint64(0xC4CEB9FE1A85EC53)
    return number ^ (number >> np.uint64(33))


@inlined
def sift_up(heap: Any, score: Any, place: Any) -> None:
    """Restore the order of a heap after its entry at `place`, the last one, was appended."""
    while place > 0:
        above = (place - 1) // 2
        if score[heap[above]] <= score[heap[place]]:
            break
        heap[above], heap[place] = heap[place], heap[above]
        place = above


@inlined
def sift_down(heap: Any, score: Any, size: Any) -> None:
    """Restore the order of a heap after its first entry was replaced."""
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
def insert(table: Any, fingerprint: Any) -> Any:
    """Insert a fingerprint into a hash table that is not full; return whether it is new."""
    slot = np.int64(fingerprint % np.uint64(len(table)))
    while table[slot] != 0:
        if table[slot] == fingerprint:
            return False
        slot = slot + 1 if slot + 1 < len(table) else np.int64(0)
    table[slot] = fingerprint
    return True


@rare
def keep_state(frontier: Any, workspace: Any, key: Any, at: Any, origin: Any, number: Any, slack: Any) -> Any:
    """Keep the state in the workspace if it is new and good enough; return whether no state was dropped.

    Parameters
    ----------
    frontier, workspace
        States that were reached, and the workspace that holds the new state.
    key : int
        Fingerprint of the state.
    at : (int, int, int)
        Layer of the state, and range of its blocks in `next_block`.
    origin : (int, int)
        Layer and place of its parent.
    number : (int, int)
        Number of blocks in use of the parent, and number of blocks added.
    slack : (float, float)
        Slack and score of the state.
    """
    layer, first, last = at
    width = frontier.score.shape[1]
    score, heap = frontier.score[layer], frontier.heap[layer]
    full = frontier.size[layer] == width
    if full and slack[1] <= score[heap[0]]:
        return False
    if not insert(frontier.seen[layer], key):
        return True
    if full:
        place = heap[0]
    else:
        place = frontier.size[layer]
        heap[place] = place
        frontier.size[layer] += 1
    for kind in range(len(workspace.left)):
        frontier.left[layer, place, kind] = workspace.left[kind]
    for i in range(ACTIVE):
        frontier.block[layer, place, i] = -1
    for i in range(first, last):
        frontier.block[layer, place, i - first] = workspace.next_block[i]
        frontier.end[layer, place, i - first] = workspace.next_end[i]
    for i in range(ADDED):
        frontier.added[layer, place, i] = workspace.block[number[0] + i] if i < number[1] else -1
    frontier.slack[layer, place], score[place] = slack
    frontier.fingerprint[layer, place] = key
    frontier.parent[layer, place, 0], frontier.parent[layer, place, 1] = origin
    if full:
        sift_down(heap, score, width)
    else:
        sift_up(heap, score, place)
    frontier.entries[layer] += 1
    if frontier.entries[layer] > 3 * frontier.seen.shape[1] // 4:
        for i in range(frontier.seen.shape[1]):
            frontier.seen[layer, i] = 0
        for i in range(frontier.size[layer]):
            insert(frontier.seen[layer], frontier.fingerprint[layer, i])
        frontier.entries[layer] = frontier.size[layer]
    return not full


@rare
def links_suffice(blocks: Any, workspace: Any, layer: Any, used: Any, total: Any, flow: Any) -> Any:
    """Return whether the links can carry the flow past this layer boundary.

    They join the blocks that end here with the blocks that begin here. This is a minimum cut by trial of
    every set of ending blocks. Blocks that span the boundary are assumed to carry their full speed.
    """
    if layer == 0:
        return True
    ending = 0
    missing = flow * (1 - FLOW)
    while ending < used and workspace.end[ending] == layer:
        ending += 1
    for i in range(ending, used):
        missing -= blocks.speed[workspace.block[i]]
    for chosen in range(1 << ending):
        cut = 0.0
        for i in range(ending):
            if not chosen >> i & 1:
                cut += blocks.speed[workspace.block[i]]
        for j in range(used, total):
            brought = 0.0
            for i in range(ending):
                if chosen >> i & 1:
                    brought += blocks.link[blocks.kind[workspace.block[i]], blocks.kind[workspace.block[j]]]
            cut += min(brought, blocks.speed[workspace.block[j]])
        if cut < missing:
            return False
    return True


@inlined
def load_state(blocks: Any, frontier: Any, workspace: Any, layer: Any, place: Any) -> Any:
    """Load a state into the workspace; return the number of its blocks in use."""
    for kind in range(len(workspace.left)):
        workspace.left[kind] = frontier.left[layer, place, kind]
    used = 0
    workspace.slack[0] = frontier.slack[layer, place]
    workspace.speed[0] = workspace.price[0] = 0.0
    workspace.shortest[0] = _UNREACHED
    workspace.following[0] = 0
    while used < ACTIVE and frontier.block[layer, place, used] >= 0:
        block = workspace.block[used] = frontier.block[layer, place, used]
        workspace.end[used] = frontier.end[layer, place, used]
        if workspace.end[used] > layer:
            workspace.speed[0] += blocks.speed[block]
            workspace.price[0] += blocks.price[block]
        used += 1
    return used


@inlined
def set_entry_scores(frontier: Any, workspace: Any, layer: Any, last: Any) -> None:
    """Set `entry` of the workspace for the states of a layer."""
    width = frontier.score.shape[1]
    least = np.inf
    for ahead in range(1, len(workspace.entry)):
        if layer + ahead <= last:
            full = frontier.size[layer + ahead] == width
            heap = frontier.heap[layer + ahead]
            least = min(least, frontier.score[layer + ahead, heap[0]] if full else -SLACK)
        workspace.entry[ahead] = least


@rare
def extend_state(
    blocks: Any, frontier: Any, workspace: Any, at: Any, number: Any, flow: Any, how: Any
) -> Any:
    """Advance the state in the workspace to the layer where blocks are needed next, and keep it there.

    Return whether no state was dropped.

    Parameters
    ----------
    blocks, frontier, workspace
        Blocks that may be placed, states that were reached, and the workspace that holds the state.
    at : (int, int, int)
        Layer and place of the state, and number of layers of the model.
    number : (int, int)
        Number of its blocks in use, and number of blocks added.
    flow : float
        Tokens/s that every layer must reach.
    how : (bool, float, int)
        Whether links may bind, size of the noise, and seed of the noise.
    """
    layer, place, last_layer = at
    binding, noise, seed = how
    total = number[0] + number[1]
    depth = number[1]
    speed, price, slack = workspace.speed[depth], workspace.price[depth], workspace.slack[depth]
    count = 0
    for i in range(total):
        block, end = workspace.block[i], workspace.end[i]
        if end <= layer:
            continue
        j = count
        while j > 0 and (
            workspace.next_end[j - 1] > end
            or (workspace.next_end[j - 1] == end and workspace.next_block[j - 1] > block)
        ):
            workspace.next_end[j], workspace.next_block[j] = (
                workspace.next_end[j - 1],
                workspace.next_block[j - 1],
            )
            j -= 1
        workspace.next_end[j], workspace.next_block[j] = end, block
        count += 1
    now, ended = layer, 0
    before = 0
    while True:
        following = min(workspace.next_end[ended], last_layer)
        slack -= (price - 1) * (following - now)
        now = following
        if slack < -SLACK:
            return True
        if now == last_layer:
            break
        before = ended
        while ended < count and workspace.next_end[ended] == now:
            speed -= blocks.speed[workspace.next_block[ended]]
            price -= blocks.price[workspace.next_block[ended]]
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
    key = mix_bits(np.uint64(seed) + np.uint64(1))
    for kind in range(len(workspace.left)):
        key = mix_bits(key ^ np.uint64(workspace.left[kind] + 1))
    for i in range(first, count):
        key = mix_bits(key ^ np.uint64(workspace.next_block[i] * 65536 + workspace.next_end[i] + 65536))
    if now == last_layer:  # keep every complete placement, even those that end alike
        key = mix_bits(key ^ np.uint64(workspace.counts[0] + 1))
    key |= np.uint64(1)
    score += noise * (np.float64(key >> np.uint64(11)) * 2.0**-53)
    return keep_state(frontier, workspace, key, (now, first, count), (layer, place), number, (slack, score))


@compiled(
    _whole(
        _blocks_type,
        _frontier_type,
        _workspace_type,
        _whole,
        _whole,
        _whole,
        types.float64,
        _how_type,
        _whole,
    )
)
def sweep_layer(
    blocks: Any,
    frontier: Any,
    workspace: Any,
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
    blocks, frontier, workspace
        Blocks that may be placed, states that were reached, and the workspace for the state being extended.
    layer : int
        Layer of the states to extend.
    first : int
        Number of states that are done already.
    last_layer : int
        Number of layers of the model.
    flow : float
        Tokens/s that every layer must reach.
    how : (bool, bool, float, int)
        Whether links may bind; whether blocks may be added that the flow does not need yet; size of the noise
        of the scores; seed of the noise.
    steps : int
        Approximate number of steps after which to return.

    Returns
    -------
    int
        Number of states that are done.
    """
    binding, more, noise, seed = how
    size = frontier.size[layer]
    if first == 0:
        for i in range(size):
            workspace.order[i] = frontier.heap[layer, i]
        for i in range(size - 1, 0, -1):
            workspace.order[0], workspace.order[i] = workspace.order[i], workspace.order[0]
            sift_down(workspace.order, frontier.score[layer], i)
    stop = workspace.counts[0] + steps
    done = first
    nothing_lost = True
    while done < size and workspace.counts[0] < stop:
        place = workspace.order[done]
        done += 1
        used = load_state(blocks, frontier, workspace, layer, place)
        set_entry_scores(frontier, workspace, layer, last_layer)
        at = (layer, place, last_layer)
        moves = (binding, noise, seed)
        if workspace.speed[0] >= flow * (1 - FLOW):
            nothing_lost &= extend_state(blocks, frontier, workspace, at, (used, 0), flow, moves)
            if not more:
                continue
        depth = 0
        enough_of_it = workspace.counts[0] + STEPS_OF_A_STATE
        while depth >= 0:
            if workspace.counts[0] > enough_of_it:
                nothing_lost = False
                break
            block = workspace.following[depth]
            if block == len(blocks.kind):
                depth -= 1
                if depth >= 0:
                    workspace.left[blocks.kind[workspace.block[used + depth]]] += 1
                continue
            workspace.following[depth] += 1
            kind = blocks.kind[block]
            if workspace.left[kind] == 0:
                continue
            slack = workspace.slack[depth] - (blocks.worth[kind] - blocks.layers[block] * blocks.price[block])
            if slack < -SLACK:
                continue
            workspace.counts[0] += 1
            speed = workspace.speed[depth] + blocks.speed[block]
            price = workspace.price[depth] + blocks.price[block]
            shortest = min(workspace.shortest[depth], blocks.layers[block])
            enough = speed >= flow * (1 - FLOW)
            least = slack - (price - 1)
            if not enough:
                least -= blocks.rest[int((1 - speed / flow) * (len(blocks.rest) - 1))]
            if least < -SLACK:
                continue
            too_much = not binding and least < workspace.slack[0] - MOST_WASTE
            if too_much or least + noise < workspace.entry[min(shortest, len(workspace.entry) - 1)]:
                nothing_lost = False
                continue
            workspace.block[used + depth], workspace.end[used + depth] = block, layer + blocks.layers[block]
            depth += 1
            workspace.left[kind] -= 1
            workspace.slack[depth], workspace.speed[depth], workspace.price[depth] = slack, speed, price
            workspace.shortest[depth], workspace.following[depth] = shortest, block
            deeper = not enough
            if enough:
                needed = True
                if not binding:
                    for i in range(used, used + depth):
                        needed &= speed - blocks.speed[workspace.block[i]] < flow * (1 - FLOW)
                if not needed:
                    pass
                elif not binding or links_suffice(blocks, workspace, layer, used, used + depth, flow):
                    nothing_lost &= extend_state(blocks, frontier, workspace, at, (used, depth), flow, moves)
                    deeper = more
                else:
                    deeper = True
            if deeper and (depth == ADDED or used + depth == ACTIVE):
                nothing_lost = deeper = False
            if not deeper:
                depth -= 1
                workspace.left[kind] += 1
    if not nothing_lost:
        workspace.counts[1] = 1
    return done
