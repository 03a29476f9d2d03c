"""Prices of layers: they prove bounds and steer the search for placements.

Where links do not bind, a placement serves F tokens/s when in every layer the nodes that hold it add up to
F. Give every block (a machine that holds k layers) a price per layer such that blocks that add up to F
always cost 1 or more. All nodes together then pay for at most ``sum over nodes of max over k of k * price``
layers; where that is less than the model has, no placement serves F. Such prices are the dual values of
covers (blocks that share a layer), and the best of them are found by a linear program with as many rows
as there are covers, of which few are ever needed.

With prices in proportion to throughput this is `helixlab.flow.upper_bound`; the best ones also know that
blocks do not come in every size, which is why they prove more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numba import types
from numpy.typing import NDArray

from helixlab._jit import compiled
from helixlab.errors import SolverError
from helixlab.planning.solver import Program, solve

__all__ = ["Prices", "cheapest_covers", "coverage_bound", "layer_prices"]


@compiled(types.void(types.float64[::1], types.int64[::1], types.float64[::1], types.int64[::1]))
def cheapest_covers(price: Any, weight: Any, cost: Any, choice: Any) -> None:
    """Fill in, for every amount up to the last, what the cheapest blocks that reach it cost, and one of them.

    Parameters
    ----------
    price : array of float, one for each block
        What one costs; each may be taken many times.
    weight : array of int
        What one adds to the amount, 1 or more.
    cost : array of float, one for each amount from 0
        Filled in: least sum of prices of blocks that weigh the amount or more.
    choice : array of int
        Filled in: a block of such a choice, -1 for the amount 0.
    """
    cost[0], choice[0] = 0.0, -1
    for amount in range(1, len(cost)):
        best, block = np.inf, -1
        for i in range(len(price)):
            reached = cost[max(amount - weight[i], 0)] + price[i]
            if reached < best:
                best, block = reached, i
        cost[amount], choice[amount] = best, block


GRID: Final = 80_000
"""Throughputs are rounded up to this part of the flow where covers are looked for: on the safe side."""
TOLERANCE: Final = 1e-7
"""A cover that costs so much less than 1 is not worth another round."""
ROUNDS: Final = 1000
PRECISION: Final = 1e-5
"""Relative precision of the bound."""


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Blocks that are worth having at a flow, and what a layer of each is worth.

    Parameters
    ----------
    flow_tokens_per_s : float
        The flow that every layer must have.
    kind : array of int, one for each block
        Which kind of node holds it.
    layers : array of int
        Layers of the block.
    speed : array of float
        Tokens/s that the block adds to its layers, the flow at most.
    price : array of float
        What the block pays for each of its layers. Blocks with the flow together pay 1 or more.
    worth : array of float, one for each kind
        The most that a node of the kind pays for, over all its blocks.
    most_layers : float
        Layers that all nodes together can serve with the flow, at most.
    """

    flow_tokens_per_s: float
    kind: NDArray[np.int64]
    layers: NDArray[np.int64]
    speed: NDArray[np.float64]
    price: NDArray[np.float64]
    worth: NDArray[np.float64]
    most_layers: float

    def for_kinds(self, like: Sequence[int]) -> Prices:
        """The same prices for kinds that differ in something else: ``like[kind]`` is the kind it equals."""
        blocks = [
            (kind, block) for kind, same in enumerate(like) for block in np.flatnonzero(self.kind == same)
        ]
        kind, block = np.array(sorted(blocks, key=lambda pair: int(self.layers[pair[1]]))).T
        return replace(
            self,
            kind=np.ascontiguousarray(kind),
            layers=self.layers[block],
            speed=self.speed[block],
            price=self.price[block],
            worth=self.worth[np.asarray(like)],
        )


def layer_prices(
    speeds: Sequence[NDArray[np.float64]], counts: Sequence[int], flow: float, *, every: bool = False
) -> Prices:
    """The prices that prove most for nodes that are to serve a flow.

    Parameters
    ----------
    speeds : sequence of arrays
        For each kind of node, tokens/s by the layers it holds, ``[kind][k]``.
    counts : sequence of int
        Nodes of each kind.
    flow : float
        Tokens/s that every layer must have.
    every : bool
        Also price blocks that could as well be longer, which matters only where links bind.

    Returns
    -------
    Prices

    Examples
    --------
    Two nodes, of which each serves one layer with 10 tokens/s or two with 4. With a flow of 8 only the
    first way is of use, and they serve two layers; a flow of 4 leaves room for four:

    >>> import numpy as np
    >>> node = np.array([0.0, 10.0, 4.0])
    >>> [round(layer_prices([node], [2], flow).most_layers, 3) for flow in (8, 4)]
    [2.0, 4.0]
    """
    kind, layers, speed = _blocks(speeds, flow, every)
    weight = np.maximum(np.ceil(speed / flow * GRID - TOLERANCE), 1).astype(np.int64)
    alone = -(-GRID // weight)
    covers = {tuple((block, int(times)) for block, times in [pair]) for pair in enumerate(alone)}
    cost, choice = np.empty(GRID + 1), np.empty(GRID + 1, dtype=np.int64)
    for _ in range(ROUNDS):
        price = _best_prices(kind, layers, counts, covers)
        cheapest_covers(price, weight, cost, choice)
        before = len(covers)
        # The cheapest cover with each block in it, not only the cheapest of all: fewer rounds.
        for block in range(len(price)):
            left = max(GRID - int(weight[block]), 0)
            if price[block] + cost[left] < 1 - TOLERANCE:
                covers.add(_cover(block, left, choice, weight))
        if len(covers) == before:
            break
    # A little more, so that nothing rests on how exactly the solver works.
    price = (price + TOLERANCE / GRID) / max(cost[GRID], 1e-9)
    worth = np.array([(layers * price)[kind == k].max(initial=0.0) for k in range(len(speeds))])
    return Prices(flow, kind, layers, speed, price, worth, float(worth @ np.asarray(counts)))


def _blocks(
    speeds: Sequence[NDArray[np.float64]], flow: float, every: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Kind, layers and speed of blocks, short ones first; only those of which no longer one is as fast."""
    found = []
    for kind, values in enumerate(speeds):
        # A node that is to run k layers may hold more of them, should it be faster so.
        reached = np.minimum(np.maximum.accumulate(values[::-1])[::-1], flow)
        for k in range(1, len(values)):
            if reached[k] > 0 and (every or k + 1 == len(values) or reached[k + 1] < reached[k]):
                found.append((k, kind, float(reached[k])))
    found.sort()
    layers, kind_of, speed = zip(*found, strict=True)
    return np.array(kind_of), np.array(layers), np.array(speed)


def _cover(block: int, left: int, choice: NDArray[np.int64], weight: NDArray[np.int64]) -> tuple:
    """A block and the cheapest ones that make up the rest, as sorted (block, times)."""
    times = {block: 1}
    while left > 0:
        following = int(choice[left])
        times[following] = times.get(following, 0) + 1
        left = max(left - int(weight[following]), 0)
    return tuple(sorted(times.items()))


def _best_prices(
    kind: NDArray[np.int64], layers: NDArray[np.int64], counts: Sequence[int], covers: set[tuple]
) -> NDArray[np.float64]:
    """Prices with which the nodes pay for the fewest layers while these covers cost 1 or more.

    Columns are the worth of each kind and the price of each block; an array program, as it is solved some
    hundred times for one bound.
    """
    blocks, kinds = len(kind), len(counts)
    worth_rows = sp.hstack(
        [
            sp.csr_array((np.ones(blocks), (np.arange(blocks), kind)), shape=(blocks, kinds)),
            sp.diags_array(-layers.astype(float)),
        ]
    )
    entries = [(row, kinds + block, n) for row, cover in enumerate(sorted(covers)) for block, n in cover]
    row, column, times = np.array(entries).T
    cover_rows = sp.csr_array((times.astype(float), (row, column)), shape=(len(covers), kinds + blocks))
    program = Program(
        costs=np.concatenate([np.asarray(counts, dtype=float), np.zeros(blocks)]),
        matrix=sp.csc_array(sp.vstack([worth_rows, cover_rows])),
        row_lower=np.concatenate([np.zeros(blocks), np.ones(len(covers))]),
        row_upper=np.full(blocks + len(covers), np.inf),
        column_lower=np.zeros(kinds + blocks),
        column_upper=np.full(kinds + blocks, np.inf),
        integer=np.zeros(kinds + blocks, dtype=bool),
    )
    found = solve(program)
    if found.values is None:
        raise SolverError(f"no prices were found ({found.status}); is the flow a sensible number?")
    return np.maximum(found.values[kinds:], 0.0)


def coverage_bound(
    speeds: Sequence[NDArray[np.float64]],
    counts: Sequence[int],
    model_layers: int,
    most: float,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> float:
    """Tokens/s that no placement serves, by the best prices.

    Parameters
    ----------
    speeds, counts
        As for `layer_prices`.
    model_layers : int
        Layers of the model.
    most : float
        A bound that is known, for instance `helixlab.flow.upper_bound`.
    stopped : callable
        Asked every now and then whether to be content with the bound so far.

    Examples
    --------
    >>> import numpy as np
    >>> node = np.array([0.0, 10.0, 4.0])
    >>> round(coverage_bound([node], [3], 4, most=20.0), 2)  # by amounts alone it would be 6
    4.0
    """
    possible, bound = 0.0, most
    while bound - possible > PRECISION * bound and not stopped():
        middle = (possible + bound) / 2
        if layer_prices(speeds, counts, middle).most_layers < model_layers * (1 - TOLERANCE):
            bound = middle
        else:
            possible = middle
    return bound
