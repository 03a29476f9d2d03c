"""The cheapest blocks that add up to a flow, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from helixlab.jit import compiled

__all__ = ["cheapest_covers"]


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
