"""The placement of Petals: each node joins where the swarm is slowest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from helixlab._validation import as_generator, as_items, as_whole
from helixlab.cluster import Cluster
from helixlab.errors import PlacementError
from helixlab.model import Model
from helixlab.placement.placement import NodeLayers, Placement
from helixlab.placement.reach import usable_links
from helixlab.planning.common import placed, planning_throughput, require_room

__all__ = ["plan_petals"]


def plan_petals(
    cluster: Cluster,
    model: Model,
    *,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    order: Sequence[int] | None = None,
) -> Placement:
    """Let nodes join one after another, each with all layers it can hold where they are needed most.

    A node looks at every run of layers of its length, lists the throughput that those layers have so far
    from the least to the most, and takes the run whose list is the smallest (the first of several).

    Parameters
    ----------
    cluster, model
        What to place on what.
    rng : numpy.random.Generator or int, default 0
        Draws the order in which the nodes join.
    time_limit_s : float, optional
        Not needed: it is done at once.
    order : sequence of int, optional
        All nodes in the order in which they join, in place of a random one.

    Raises
    ------
    PlacementError
        The model does not fit, or `order` does not name every node once.

    Notes
    -----
    Borzunov et al., "Petals: Collaborative Inference and Fine-tuning of Large Models", 2023, appendix D.
    Its clients enter a node at any of its layers, so the links include those for partial inference.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> cluster, model = load_cluster("small10"), load_model("llama-1-30b")
    >>> plan_petals(cluster, model, order=range(10)).layers[:3]
    (NodeLayers(node=0, first_layer=0, end_layer=7),
     NodeLayers(node=1, first_layer=7, end_layer=18),
     NodeLayers(node=2, first_layer=18, end_layer=25))
    """
    table = planning_throughput(cluster, model)
    require_room(cluster, model, {machine: len(values) - 1 for machine, values in table.items()})
    if order is None:
        order = as_generator(rng, error=PlacementError).permutation(len(cluster.nodes)).tolist()
    else:
        named = as_items(order, "order", of="nodes", error=PlacementError)
        order = [as_whole(node, "a node of order", error=PlacementError) for node in named]
        if sorted(order) != list(range(len(cluster.nodes))):
            raise PlacementError(f"order must name the nodes 0 to {len(cluster.nodes) - 1}, each once")
    reached = np.zeros(model.layers)
    layers = []
    for node in order:
        own = table[cluster.nodes[node].machine]
        if count := len(own) - 1:
            first = _neediest(reached, count)
            reached[first : first + count] += own[count]
            layers.append(NodeLayers(node, first, first + count))
    return placed(cluster, model, "petals", layers, usable_links(cluster, layers, model.layers))


def _neediest(reached: NDArray[np.float64], count: int) -> int:
    """Start of the run of `count` layers that is smallest when sorted; of several the first."""
    runs = np.sort(np.lib.stride_tricks.sliding_window_view(reached, count), axis=1)
    # lexsort compares by its last key first, and keeps the order of equals.
    return int(np.lexsort(runs.T[::-1])[0])
