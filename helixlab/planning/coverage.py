"""Planning where links do not bind: how much flow every layer can have.

Then the maximum flow of a placement is the least throughput that the nodes holding a layer have together,
over all layers: every cut that separates source and sink and is not wider than it need be is a prefix of the
layers. Nodes of one machine type are interchangeable, and what remains is a search over how far the flow can
be raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.planning.beam_search import Block, search
from helixlab.planning.prices import coverage_bound, layer_prices
from helixlab.planning.record import GAP

__all__ = ["Kinds", "climb", "climb_together", "laid_out", "least_cover", "pods"]

WIDTHS: Final = (8, 32, 128)
"""States kept at each layer, one search after the other."""
STEPS: Final = 400e6
"""Of one search, at most."""
POD: Final = 40
"""Nodes that are searched together, about."""
SPARE: Final = 1.2
"""A group of nodes has room for so many times the layers of the model at least."""
ROUGH_GAP: Final = 0.1
"""How close flow and bound are to come before all groups of nodes have had their turn."""
LEAST: Final = 1e-3
"""Part of the bound below which nothing is looked for."""
FIRST: Final = 0.9
"""Part of the bound that is tried first."""


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """Nodes that are interchangeable.

    Parameters
    ----------
    nodes : sequence of sequences of int
        Indices of the nodes of each kind.
    speeds : sequence of arrays
        For each kind, tokens/s by the layers held.
    """

    nodes: Sequence[Sequence[int]]
    speeds: Sequence[NDArray[np.float64]]

    @property
    def counts(self) -> list[int]:
        """Nodes of each kind."""
        return [len(nodes) for nodes in self.nodes]

    @property
    def room(self) -> int:
        """Layers that fit."""
        return sum(len(nodes) * (len(s) - 1) for nodes, s in zip(self.nodes, self.speeds, strict=True))


def laid_out(blocks: Sequence[Block], kinds: Kinds, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and end of the layers of each of `size` nodes; each block goes to the next node of its kind."""
    start, end = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    free = [iter(nodes) for nodes in kinds.nodes]
    for kind, first, held in blocks:
        node = next(free[kind])
        start[node], end[node] = first, first + held
    return start, end


def pods(kinds: Kinds, model_layers: int) -> list[Kinds]:
    """The nodes in groups as alike as possible, each large enough for the model and small enough to search.

    Every flow through groups that share nothing adds up, and large clusters lose little by it.
    """
    number = max(1, min(round(sum(kinds.counts) / POD), kinds.room // int(SPARE * model_layers)))
    groups: list[list[Sequence[int]]] = [[] for _ in range(number)]
    turn = 0
    for nodes in kinds.nodes:
        for group in range(number):
            groups[(group + turn) % number].append(nodes[group::number])
        turn += len(nodes) % number
    return [Kinds(group, kinds.speeds) for group in groups]


def climb_together(
    groups: Sequence[Kinds],
    model_layers: int,
    *,
    offer: Callable[[Sequence[tuple[Kinds, Sequence[Block]]]], None],
    over: Callable[[], bool],
    seed: int = 0,
) -> None:
    """Raise the flow of groups of nodes that each serve the whole model, first roughly, then finely.

    `offer` is told of the blocks of all groups whenever those of one have become better.
    """
    reached = [0.0] * len(groups)
    blocks: list[Sequence[Block]] = [()] * len(groups)
    for gap in (ROUGH_GAP, GAP):
        for number, kinds in enumerate(groups):

            def better(found: Sequence[Block], number: int = number) -> None:
                blocks[number] = found
                offer([pair for pair in zip(groups, blocks, strict=True) if pair[1]])

            amounts = (
                count * float(np.max(np.arange(len(speeds)) * speeds))
                for count, speeds in zip(kinds.counts, kinds.speeds, strict=True)
            )
            reached[number] = climb(
                kinds, model_layers, sum(amounts) / model_layers,
                offer=better, lower=lambda bound: None, over=over, low=reached[number],
                widths=WIDTHS[:1], gap=gap, seed=seed,
            )  # fmt: skip


def climb(
    kinds: Kinds,
    model_layers: int,
    bound: float,
    *,
    offer: Callable[[Sequence[Block]], None],
    lower: Callable[[float], None],
    over: Callable[[], bool],
    low: float = 0.0,
    widths: Sequence[int] = WIDTHS,
    gap: float = GAP,
    seed: int = 0,
) -> float:
    """Raise the flow that every layer has, and lower the bound on it, until they meet.

    Bisection between the two, with searches that grow wider.

    Parameters
    ----------
    kinds : Kinds
        What to place.
    model_layers : int
        Layers to hold.
    bound : float
        That is known.
    offer, lower : callables
        Told of every placement and every bound.
    over : callable
        Asked whether to end.
    low : float
        Flow that is reached already.
    widths : sequence of int
        Widths of the searches.
    gap : float
        How close flow and bound are to come.
    seed : int
        Decides between equals.

    Returns
    -------
    float
        The flow that was reached.
    """
    bound = coverage_bound(kinds.speeds, kinds.counts, model_layers, bound, stopped=over)
    lower(bound)
    for width in widths:
        high = bound
        while high > max(low * (1 + gap), LEAST * bound) and not over():
            flow = max(FIRST * high, (low + high) / 2) if low == 0 else (low + high) / 2
            prices = layer_prices(kinds.speeds, kinds.counts, flow)
            found = search(
                prices, kinds.speeds, kinds.counts, model_layers,
                width=width, seed=seed, steps=STEPS, stopped=over,
            )  # fmt: skip
            if found.placements:
                blocks = found.placements[0]
                offer(blocks)
                low = max(flow, least_cover(blocks, kinds, model_layers))
            else:
                high = flow
                if found.excluded:
                    bound = flow
                    lower(bound)
    return low


def least_cover(blocks: Sequence[Block], kinds: Kinds, model_layers: int) -> float:
    """Tokens/s of the layer that has the least."""
    cover = np.zeros(model_layers)
    for kind, first, held in blocks:
        cover[first : first + held] += kinds.speeds[kind][held]
    return float(cover.min())
