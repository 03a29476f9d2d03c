"""Placements as a search holds them: plain numbers, a few for each node."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import Cluster
from helixlab.model import Model
from helixlab.placement import NodeLayers, Placement, usable_links
from helixlab.planning.common import placed

__all__ = ["Layout", "layout_of", "placement_of"]


class Layout(NamedTuple):
    """The layers of every node, and with which others it works."""

    start: tuple[int, ...]
    """First layer of each node."""
    end: tuple[int, ...]
    """Behind its last layer; its first where it is idle."""
    group: tuple[int, ...] = ()
    """Nodes pass on only to nodes of their own group; without groups, to all."""

    @classmethod
    def of(cls, start: NDArray[np.int64], end: NDArray[np.int64], group: tuple[int, ...] = ()) -> Layout:
        """From arrays."""
        return cls(tuple(start.tolist()), tuple(end.tolist()), group)

    @property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First layers, and ends."""
        return np.array(self.start, dtype=np.int64), np.array(self.end, dtype=np.int64)


def layout_of(placement: Placement, nodes: int) -> Layout:
    """The layers of a placement on a cluster of so many nodes; its links are forgotten.

    Examples
    --------
    >>> from helixlab.placement import load_placement
    >>> layout_of(load_placement("small10/llama-1-30b/helix"), 10).start
    (42, 36, 6, 18, 54, 12, 30, 0, 24, 48)
    """
    start, end = np.zeros((2, nodes), dtype=np.int64)
    for held in placement.layers:
        start[held.node], end[held.node] = held.first_layer, held.end_layer
    return Layout.of(start, end)


def placement_of(layout: Layout, cluster: Cluster, model: Model) -> Placement:
    """The placement of the helix planner, with all links that can be used within each group."""
    ends = enumerate(zip(layout.start, layout.end, strict=True))
    layers = [NodeLayers(node, start, end) for node, (start, end) in ends if end > start]
    links = usable_links(cluster, layers, model.layers)
    group = dict(enumerate(layout.group))
    within = (
        (a, b) for a, b in links if isinstance(a, str) or isinstance(b, str) or group.get(a) == group.get(b)
    )
    return placed(cluster, model, "helix", layers, within)
