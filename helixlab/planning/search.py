"""Is a flow within reach? Beam search by prices, from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.planning.covers import cheapest_covers
from helixlab.planning.frontier import ACTIVE, ADDED, Blocks, Frontier, Scratch
from helixlab.planning.prices import Prices
from helixlab.planning.sweep import sweep_layer

__all__ = ["Block", "Found", "search"]

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
