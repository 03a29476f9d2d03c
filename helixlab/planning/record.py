"""What a search has found and proved so far, and the clock that ends it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.planning.flow_kernel import Network, flow_room, serve
from helixlab.planning.layout import Layout

__all__ = ["GAP", "Record", "Watch"]


class Watch:
    """Time since a search began, and the trace of its incumbent and bound.

    Parameters
    ----------
    time_limit_s : float, optional
        After which the search is to end.
    on_progress : callable
        Called with the seconds so far, the incumbent and the bound.

    Examples
    --------
    >>> watch = Watch(None, lambda seconds, incumbent, bound: print(incumbent, bound))
    >>> watch.note(1.0, 3.0)
    1.0 3.0
    >>> watch.tell(1.0, 3.0)  # nothing is better than it was
    1.0 3.0
    >>> len(watch.trace), watch.late()
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
        """Since the search began."""
        return time.perf_counter() - self._began

    def late(self, part: float = 1.0) -> bool:
        """Whether so much of the time is over."""
        return self.seconds > part * self.limit_s

    def note(self, incumbent: float, bound: float = math.nan) -> None:
        """Add to the trace that one of them has become better."""
        self.trace.append((self.seconds, incumbent, bound))
        self._on_progress(*self.trace[-1])

    def tell(self, incumbent: float, bound: float = math.nan) -> None:
        """Show where the search is."""
        self._on_progress(self.seconds, incumbent, bound)


GAP: Final = 1e-4
"""A placement whose bound is within this part of it is called optimal."""
POOL: Final = 64
"""How many of the best placements are kept."""


class Record:
    """Placements by what they serve, and the least bound.

    Parameters
    ----------
    network : Network
        On which placements are judged, by their maximum flow.
    layers : int
        Of the model.
    bound : float
        That is known from the start.
    watch : Watch
        When the search is to end.
    """

    def __init__(
        self,
        network: Network,
        layers: int,
        bound: float,
        watch: Watch,
    ) -> None:
        self.network, self.layers, self.watch = network, layers, watch
        self.flow, self.bound = 0.0, bound
        self.pool: dict[Layout, float] = {}
        self._room = flow_room(len(network.most))

    @property
    def closed(self) -> bool:
        """Whether no placement is better by more than `GAP`."""
        return self.bound <= self.flow * (1 + GAP)

    def over(self) -> bool:
        """Whether to end."""
        self.watch.tell(self.flow, self.bound)
        return self.closed or self.watch.late()

    def offer(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> float:
        """Take note of a placement; what it serves."""
        flow = float(serve(self.network, start, end, self.layers, self._room))
        if flow > 0:
            self.pool[Layout.of(start, end)] = flow
        if len(self.pool) > 2 * POOL:
            self.pool = dict(self.best(POOL))
        if flow > self.flow:
            self.flow = flow
            self.watch.note(self.flow, self.bound)
        return flow

    def best(self, count: int) -> list[tuple[Layout, float]]:
        """The placements that serve most, with what they serve; of equals the earlier ones."""
        return sorted(self.pool.items(), key=lambda pair: -pair[1])[:count]

    def lower(self, bound: float) -> None:
        """Take note of a bound that was proved."""
        if bound < self.bound:
            self.bound = bound
            self.watch.note(self.flow, self.bound)
