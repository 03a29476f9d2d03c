"""Record of a search: the placements found, the bound proved, and the clock that ends the search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.planning.flow_kernel import Network, flow_workspace, maximum_flow
from helixlab.planning.layout import Layout

__all__ = ["GAP", "Record", "SearchClock"]

GAP: Final = 1e-4
"""Relative gap to the bound up to which a placement is called optimal."""
POOL: Final = 64
"""Number of best placements that are kept."""


class SearchClock:
    """Clock of a search, with the trace of its incumbent and bound.

    Parameters
    ----------
    time_limit_s : float, optional
        Time after which the search should end.
    on_progress : callable
        Function called with the seconds so far, the incumbent and the bound.

    Examples
    --------
    >>> clock = SearchClock(None, lambda seconds, incumbent, bound: print(incumbent, bound))
    >>> clock.record(1.0, 3.0)
    1.0 3.0
    >>> clock.show(1.0, 3.0)  # nothing has improved
    1.0 3.0
    >>> len(clock.trace), clock.is_late()
    (1, False)
    """

    def __init__(
        self, time_limit_s: float | None, on_progress: Callable[[float, float, float], None]
    ) -> None:
        self.limit_s = math.inf if time_limit_s is None else time_limit_s
        self.trace: list[tuple[float, float, float]] = []
        self._began, self._on_progress = time.perf_counter(), on_progress

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return time.perf_counter() - self._began

    def is_late(self, fraction: float = 1.0) -> bool:
        """Return whether this fraction of the time limit is over."""
        return self.seconds > fraction * self.limit_s

    def record(self, incumbent: float, bound: float = math.nan) -> None:
        """Add an improved incumbent or bound to the trace, and show it."""
        self.trace.append((self.seconds, incumbent, bound))
        self._on_progress(*self.trace[-1])

    def show(self, incumbent: float, bound: float = math.nan) -> None:
        """Show the state of the search without adding it to the trace."""
        self._on_progress(self.seconds, incumbent, bound)


class Record:
    """Best placements of a search by their flow, and the least bound.

    Parameters
    ----------
    network : Network
        Network on which placements are judged, by their maximum flow.
    layers : int
        Number of layers of the model.
    bound : float
        Bound on the flow that is known from the start.
    clock : SearchClock
        Clock of the search.
    """

    def __init__(self, network: Network, layers: int, bound: float, clock: SearchClock) -> None:
        self.network, self.layers, self.clock = network, layers, clock
        self.flow, self.bound = 0.0, bound
        self.pool: dict[Layout, float] = {}
        self._workspace = flow_workspace(len(network.most))

    @property
    def closed(self) -> bool:
        """True where no placement is better than the best one by more than `GAP`."""
        return self.bound <= self.flow * (1 + GAP)

    def is_over(self) -> bool:
        """Show the state of the search, and return whether it should end."""
        self.clock.show(self.flow, self.bound)
        return self.closed or self.clock.is_late()

    def offer(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> float:
        """Record a placement, and return its maximum flow."""
        flow = float(maximum_flow(self.network, start, end, self.layers, self._workspace))
        if flow > 0:
            self.pool[Layout.of(start, end)] = flow
        if len(self.pool) > 2 * POOL:
            self.pool = dict(self.best(POOL))
        if flow > self.flow:
            self.flow = flow
            self.clock.record(self.flow, self.bound)
        return flow

    def best(self, count: int) -> list[tuple[Layout, float]]:
        """Return the placements with the greatest flow, and their flows; ties in the order of discovery."""
        return sorted(self.pool.items(), key=lambda pair: -pair[1])[:count]

    def record_bound(self, bound: float) -> None:
        """Record a bound that was proved."""
        if bound < self.bound:
            self.bound = bound
            self.clock.record(self.flow, self.bound)
