"""Pipelines of nodes that are as alike as they can be, as a system for equal machines would build them."""

from __future__ import annotations

import numpy as np

from helixlab.cluster import Cluster
from helixlab.model import Model
from helixlab.placement.placement import NodeLayers, Placement
from helixlab.placement.reach import usable_links
from helixlab.planning.common import nodes_by_machine, placed, planning_throughput, require_room

__all__ = ["plan_homogeneous"]


def plan_homogeneous(
    cluster: Cluster,
    model: Model,
    *,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
) -> Placement:
    """Fill one pipeline after the other, the fastest machine type first.

    Each node takes all layers it can hold, the last one of a pipeline those that are left. Machines of a
    type that do not make a whole pipeline are continued by the next type; the nodes of a last pipeline
    that stays unfinished are idle. The fastest type is the one that computes the most layers per second
    when it is full.

    Parameters
    ----------
    cluster, model
        What to place on what.
    rng : numpy.random.Generator or int, default 0
        Not needed: nothing is drawn.
    time_limit_s : float, optional
        Not needed: it is done at once.

    Raises
    ------
    PlacementError
        The model does not fit.

    Notes
    -----
    Like the placement for Orca (Yu et al., OSDI 2022) in the tutorial of the Helix artifact.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> placement = plan_homogeneous(load_cluster("single24"), load_model("llama-2-70b"))
    >>> sorted((held.count for held in placement.layers), reverse=True)
    [12, 12, 12, 12, 7, 7, 7, 7, 4]
    """
    table = planning_throughput(cluster, model)
    most_layers = {machine: len(values) - 1 for machine, values in table.items()}
    require_room(cluster, model, most_layers)
    nodes = nodes_by_machine(cluster)
    fastest_first = sorted(nodes, key=lambda machine: -most_layers[machine] * table[machine][-1])
    layers: list[NodeLayers] = []
    pipeline: list[NodeLayers] = []
    reached = 0
    for machine in fastest_first:
        for node in nodes[machine] if most_layers[machine] else ():
            end = min(reached + most_layers[machine], model.layers)
            pipeline.append(NodeLayers(node, reached, end))
            reached = end
            if reached == model.layers:
                layers += pipeline
                pipeline, reached = [], 0
    links = usable_links(cluster, layers, model.layers, partial_inference=False)
    return placed(cluster, model, "homogeneous", layers, links)
