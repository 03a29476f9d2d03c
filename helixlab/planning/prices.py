"""Prices of layers, which prove bounds on the flow and guide the search for placements.

Where links do not bind, a placement serves F tokens/s if, for every layer, the throughputs of the nodes that
hold it add up to F or more. Give every block (a node that holds k layers) a price per layer such that blocks
whose throughputs add up to F always cost 1 or more together. Then all nodes together pay for at most
``sum over nodes of max over k of k * price`` layers. Where the model has more layers, no placement serves F.
Such prices are dual values of covers (blocks that share a layer). A linear program with one row for each
cover finds the best prices, and needs only few of the covers.

Prices in proportion to throughput give `helixlab.flow.upper_bound`. The best prices prove more, because they
take into account that blocks do not come in every size.
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


GRID: Final = 80_000
"""Resolution of covers: throughputs are rounded up, the safe direction, to this fraction of the flow."""
TOLERANCE: Final = 1e-7
"""Amount by which a cover must cost less than 1 to cause another round."""
ROUNDS: Final = 1000
"""Largest number of rounds that add covers."""
PRECISION: Final = 1e-5
"""Relative precision of the bound."""


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Blocks that are useful at a flow, and their prices per layer.

    Parameters
    ----------
    flow_tokens_per_s : float
        Flow that every layer must reach.
    kind : array of int, one for each block
        Kind of node that holds the block.
    layers : array of int
        Number of layers of the block.
    speed : array of float
        Tokens/s that the block adds to its layers, at most the flow.
    price : array of float
        Price that the block pays for each of its layers. Blocks that reach the flow together pay 1 or more.
    worth : array of float, one for each kind
        Largest number of layers that a node of the kind pays for, over all its blocks.
    most_layers : float
        Bound on the number of layers that all nodes together can serve with the flow.
    """

    flow_tokens_per_s: float
    kind: NDArray[np.int64]
    layers: NDArray[np.int64]
    speed: NDArray[np.float64]
    price: NDArray[np.float64]
    worth: NDArray[np.float64]
    most_layers: float

    def for_kinds(self, like: Sequence[int]) -> Prices:
        """Apply the prices to finer kinds: ``like[kind]`` is the kind here that `kind` is part of."""
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
    """Find the prices that prove most for nodes that should serve a flow.

    Parameters
    ----------
    speeds : sequence of arrays
        Tokens/s of each kind of node by the number of layers it holds, ``[kind][k]``.
    counts : sequence of int
        Number of nodes of each kind.
    flow : float
        Tokens/s that every layer must reach.
    every : bool
        Also price blocks that could be longer without being slower, which matters only where links bind.

    Returns
    -------
    Prices

    Examples
    --------
    Each of two nodes serves one layer with 10 tokens/s, or two layers with 4. A flow of 8 allows only one
    layer on each node, two in total; a flow of 4 allows four:

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
        # Adding the cheapest cover with each block, not only the cheapest of all, takes fewer rounds.
        for block in range(len(price)):
            left = max(GRID - int(weight[block]), 0)
            if price[block] + cost[left] < 1 - TOLERANCE:
                covers.add(_cover(block, left, choice, weight))
        if len(covers) == before:
            break
    # Slightly higher prices, so that the bound does not depend on the accuracy of the solver.
    price = (price + TOLERANCE / GRID) / max(cost[GRID], 1e-9)
    worth = np.array([(layers * price)[kind == k].max(initial=0.0) for k in range(len(speeds))])
    return Prices(flow, kind, layers, speed, price, worth, float(worth @ np.asarray(counts)))


def coverage_bound(
    speeds: Sequence[NDArray[np.float64]],
    counts: Sequence[int],
    model_layers: int,
    most: float,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> float:
    """Bound the tokens/s of all placements by the best prices.

    Parameters
    ----------
    speeds, counts
        As for `layer_prices`.
    model_layers : int
        Number of layers of the model.
    most : float
        Bound that is known already, for instance `helixlab.flow.upper_bound`.
    stopped : callable
        Function called every now and then that returns whether to settle for the bound so far.

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


@compiled(types.void(types.float64[::1], types.int64[::1], types.float64[::1], types.int64[::1]))
def cheapest_covers(price: Any, weight: Any, cost: Any, choice: Any) -> None:
    """Set the least cost of blocks that reach each amount, and one of these blocks.

    This is the unbounded knapsack problem, by dynamic programming.

    Parameters
    ----------
    price : array of float, one for each block
        Price of the block, which may be taken any number of times.
    weight : array of int
        Amount that the block adds, 1 or more.
    cost : array of float, one for each amount from 0
        Result: least sum of prices of blocks that weigh the amount or more.
    choice : array of int
        Result: one block of such a choice, -1 for the amount 0.
    """
    cost[0], choice[0] = 0.0, -1
    for amount in range(1, len(cost)):
        best, block = np.inf, -1
        for i in range(len(price)):
            reached = cost[max(amount - weight[i], 0)] + price[i]
            if reached < best:
                best, block = reached, i
        cost[amount], choice[amount] = best, block


def _blocks(
    speeds: Sequence[NDArray[np.float64]], flow: float, every: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return kind, layers and speed of blocks, the short ones first.

    Unless `every` block is asked for, blocks are left out if a longer one is as fast.
    """
    found = []
    for kind, values in enumerate(speeds):
        # A node that should run k layers may hold more layers, if that makes it faster.
        reached = np.minimum(np.maximum.accumulate(values[::-1])[::-1], flow)
        for k in range(1, len(values)):
            if reached[k] > 0 and (every or k + 1 == len(values) or reached[k + 1] < reached[k]):
                found.append((k, kind, float(reached[k])))
    found.sort()
    layers, kind_of, speed = zip(*found, strict=True)
    return np.array(kind_of), np.array(layers), np.array(speed)


def _cover(block: int, left: int, choice: NDArray[np.int64], weight: NDArray[np.int64]) -> tuple:
    """Return the cover of a block and the cheapest blocks for the rest, as sorted (block, times)."""
    times = {block: 1}
    while left > 0:
        following = int(choice[left])
        times[following] = times.get(following, 0) + 1
        left = max(left - int(weight[following]), 0)
    return tuple(sorted(times.items()))


def _best_prices(
    kind: NDArray[np.int64], layers: NDArray[np.int64], counts: Sequence[int], covers: set[tuple]
) -> NDArray[np.float64]:
    """Find the prices with which the nodes pay for the fewest layers while these covers cost 1 or more.

    The columns are the worth of each kind and the price of each block. The program is built from arrays,
    because one bound takes some hundred of them.
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
        raise SolverError(f"the solver found no prices ({found.status}); give a flow of a sensible size")
    return np.maximum(found.values[kinds:], 0.0)
