"""Planning where links do not bind: cover every layer with as much throughput as possible.

Without binding links, every minimal cut between source and sink separates a prefix of the layers from the
rest. So the maximum flow of a placement is its cover: the total throughput of the nodes that hold a layer,
for the layer where that is least. Nodes of one machine type are interchangeable. The search raises the cover
and lowers a bound on it until the two meet.
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

__all__ = ["Kinds", "climb", "climb_together", "least_cover", "node_layers", "split_into_pods"]

WIDTHS: Final = (8, 32, 128)
"""Numbers of states kept at each layer by successive searches."""
STEPS: Final = 400e6
"""Largest number of steps of one search."""
POD: Final = 40
"""Approximate number of nodes that are searched together."""
SPARE: Final = 1.2
"""Least number of layers that a group of nodes can hold, in multiples of the layers of the model."""
ROUGH_GAP: Final = 0.1
"""Relative gap between flow and bound at which the first search of each group ends."""
LEAST: Final = 1e-3
"""Fraction of the bound below which no flow is searched for."""
FIRST: Final = 0.9
"""Fraction of the bound that is tried first."""


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """Nodes by kind; nodes of one kind are interchangeable.

    Parameters
    ----------
    nodes : sequence of sequences of int
        Indices of the nodes of each kind.
    speeds : sequence of arrays
        Tokens/s of each kind by the number of layers on the node, ``[kind][k]``.
    """

    nodes: Sequence[Sequence[int]]
    speeds: Sequence[NDArray[np.float64]]

    @property
    def counts(self) -> list[int]:
        """Number of nodes of each kind."""
        return [len(nodes) for nodes in self.nodes]

    @property
    def capacity(self) -> int:
        """Number of layers that all nodes together can hold."""
        return sum(len(nodes) * (len(s) - 1) for nodes, s in zip(self.nodes, self.speeds, strict=True))


def node_layers(
    blocks: Sequence[Block], kinds: Kinds, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return start and end of the layers of `size` nodes; each block goes to the next node of its kind."""
    start, end = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    free = [iter(nodes) for nodes in kinds.nodes]
    for kind, first, count in blocks:
        node = next(free[kind])
        start[node], end[node] = first, first + count
    return start, end


def split_into_pods(kinds: Kinds, model_layers: int) -> list[Kinds]:
    """Divide nodes into groups as alike as possible, large enough for the model and small enough to search.

    The flows of groups that share nothing add up, and large clusters lose little by the division.
    """
    number = max(1, min(round(sum(kinds.counts) / POD), kinds.capacity // int(SPARE * model_layers)))
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
    is_over: Callable[[], bool],
    seed: int = 0,
) -> None:
    """Raise the flow of groups of nodes that each serve the whole model, first roughly, then finely.

    Parameters
    ----------
    groups : sequence of Kinds
        Nodes of each group.
    model_layers : int
        Number of layers of the model.
    offer : callable
        Function called with the blocks of all groups whenever those of one have improved.
    is_over : callable
        Function that returns whether the search should end.
    seed : int
        Seed of the choice between ties.
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
                offer=better, on_bound=lambda bound: None, is_over=is_over, low=reached[number],
                widths=WIDTHS[:1], gap=gap, seed=seed,
            )  # fmt: skip


def climb(
    kinds: Kinds,
    model_layers: int,
    bound: float,
    *,
    offer: Callable[[Sequence[Block]], None],
    on_bound: Callable[[float], None],
    is_over: Callable[[], bool],
    low: float = 0.0,
    widths: Sequence[int] = WIDTHS,
    gap: float = GAP,
    seed: int = 0,
) -> float:
    """Raise the flow of the best placement, and lower the bound on it, until they meet.

    The search bisects between the two, with beam searches of growing width.

    Parameters
    ----------
    kinds : Kinds
        Nodes to place layers on.
    model_layers : int
        Number of layers of the model.
    bound : float
        Bound on the flow that is known already.
    offer, on_bound : callables
        Functions called with every placement found, and with every bound proved.
    is_over : callable
        Function that returns whether the search should end.
    low : float
        Flow that is reached already.
    widths : sequence of int
        Widths of the beam searches.
    gap : float
        Relative gap between flow and bound at which the search ends.
    seed : int
        Seed of the choice between ties.

    Returns
    -------
    float
        Flow of the best placement.
    """
    bound = coverage_bound(kinds.speeds, kinds.counts, model_layers, bound, stopped=is_over)
    on_bound(bound)
    for width in widths:
        high = bound
        while high > max(low * (1 + gap), LEAST * bound) and not is_over():
            flow = max(FIRST * high, (low + high) / 2) if low == 0 else (low + high) / 2
            prices = layer_prices(kinds.speeds, kinds.counts, flow)
            found = search(
                prices, kinds.speeds, kinds.counts, model_layers,
                width=width, seed=seed, steps=STEPS, stopped=is_over,
            )  # fmt: skip
            if found.placements:
                blocks = found.placements[0]
                offer(blocks)
                low = max(flow, least_cover(blocks, kinds, model_layers))
            else:
                high = flow
                if found.excluded:
                    bound = flow
                    on_bound(bound)
    return low


def least_cover(blocks: Sequence[Block], kinds: Kinds, model_layers: int) -> float:
    """Return the total tokens/s of the nodes that hold a layer, for the layer where that is least."""
    cover = np.zeros(model_layers)
    for kind, first, count in blocks:
        cover[first : first + count] += kinds.speeds[kind][count]
    return float(cover.min())
