"""What a search for flow has found and proved so far."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.planning.layouts import Layout
from helixlab.planning.network import Network, flow_room, serve
from helixlab.planning.watch import Watch

__all__ = ["GAP", "Record"]

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
