"""What a search has found and proved so far, and when it is to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.planning.network import Network, flow_room, serve

__all__ = ["GAP", "Record", "Spans"]

Spans = tuple[tuple[int, ...], tuple[int, ...]]
"""First layer and end of the layers of every node, equal where it is idle."""

GAP: Final = 1e-4
"""A placement whose bound is within this part of it is called optimal."""
POOL: Final = 64
"""How many of the best placements are kept."""


class Record:
    """Placements by what they serve, the least bound, and the trace of both over time.

    Parameters
    ----------
    network : Network
        On which placements are judged, by their maximum flow.
    layers : int
        Of the model.
    bound : float
        That is known from the start.
    time_limit_s : float, optional
        After which the search is to end.
    on_progress : callable
        Called with the seconds so far, the incumbent and the bound.
    """

    def __init__(
        self,
        network: Network,
        layers: int,
        bound: float,
        time_limit_s: float | None,
        on_progress: Callable[[float, float, float], None],
    ) -> None:
        self.network, self.layers = network, layers
        self.flow, self.bound = 0.0, bound
        self.pool: dict[Spans, float] = {}
        self.trace: list[tuple[float, float, float]] = []
        self._room = flow_room(len(network.most))
        self._began = time.perf_counter()
        self._ends = math.inf if time_limit_s is None else self._began + time_limit_s
        self._on_progress = on_progress

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return time.perf_counter() - self._began

    @property
    def closed(self) -> bool:
        """Whether no placement is better by more than `GAP`."""
        return self.bound <= self.flow * (1 + GAP)

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() > self._ends

    def over(self) -> bool:
        """Whether to end."""
        self._on_progress(self.seconds, self.flow, self.bound)
        return self.closed or self.late

    def offer(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> float:
        """Take note of a placement; what it serves."""
        flow = float(serve(self.network, start, end, self.layers, self._room))
        if flow > 0:
            self.pool[tuple(start.tolist()), tuple(end.tolist())] = flow
        if len(self.pool) > 2 * POOL:
            self.pool = dict(self.best(POOL))
        if flow > self.flow:
            self.flow = flow
            self._note()
        return flow

    def best(self, count: int) -> list[tuple[Spans, float]]:
        """The placements that serve most, with what they serve; of equals the earlier ones."""
        return sorted(self.pool.items(), key=lambda pair: -pair[1])[:count]

    def lower(self, bound: float) -> None:
        """Take note of a bound that was proved."""
        if bound < self.bound:
            self.bound = bound
            self._note()

    def _note(self) -> None:
        self.trace.append((self.seconds, self.flow, self.bound))
        self._on_progress(*self.trace[-1])
