"""Bisection for the largest rate at which an objective is met."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["Bracket", "rates_ahead"]

LEAST_OF_EXPECTED: Final = 1e-3
"""Of the rate that a search starts from: below it, the goodput is not looked for."""


class Bracket(NamedTuple):
    """The objective is met at `low` (or that is 0) and missed at `high` (or that is infinite)."""

    low: float
    high: float

    def next_rate(self, most: float, tolerance: float) -> float | None:
        """The rate to try next, None at the end of the search."""
        if self.high == math.inf:
            return 2 * self.low if self.low else most
        if self.low == 0 and self.high < LEAST_OF_EXPECTED * most:
            return None  # it is not met even by a trickle
        if self.high - self.low <= tolerance * self.high:
            return None
        return (self.low + self.high) / 2

    def after(self, rate: float, met: bool) -> Bracket:
        """The bracket when it is known whether the objective is met at a rate inside of it."""
        return Bracket(rate, self.high) if met else Bracket(self.low, rate)

    def narrowed(self, met: Mapping[float, bool]) -> Bracket:
        """The bracket by all that is known, in whatever order the search would have come to it.

        Examples
        --------
        >>> Bracket(50, 200).narrowed({25: False, 75: True, 100: False, 150: True})
        Bracket(low=75, high=100)
        """
        inside = {rate: is_met for rate, is_met in met.items() if self.low < rate < self.high}
        high = min([self.high, *(rate for rate, is_met in inside.items() if not is_met)])
        low = max([self.low, *(rate for rate, is_met in inside.items() if is_met and rate < high)])
        return Bracket(low, high)


def rates_ahead(bracket: Bracket, most: float, tolerance: float, count: int) -> list[float]:
    """Rates that the search may come to next, the nearest first, lower ones before higher ones."""
    rates: list[float] = []
    brackets = deque([bracket])
    while brackets and len(rates) < count:
        each = brackets.popleft()
        rate = each.next_rate(most, tolerance)
        if rate is None:
            continue
        rates.append(rate)
        brackets.append(each.after(rate, met=False))
        if each.high < math.inf:  # upwards without end only step by step: overload is slow to simulate
            brackets.append(each.after(rate, met=True))
    return rates
