"""The placement of SWARM: equal stages, filled evenly."""

from __future__ import annotations

import numpy as np

from helixlab.cluster import Cluster
from helixlab.errors import PlacementError
from helixlab.model import Model
from helixlab.placement.placement import NodeLayers, Placement
from helixlab.placement.reach import usable_links
from helixlab.planning.common import placed, planning_throughput, require_room

__all__ = ["plan_swarm"]


def plan_swarm(
    cluster: Cluster,
    model: Model,
    *,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
) -> Placement:
    """Cut the model into the fewest equal stages that every node can hold, and fill them evenly.

    Nodes are taken from the fastest to the slowest (of equals the last one of the cluster first), each
    joins the stage with the least throughput so far (of equals the first).

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
        The model does not fit, or there are fewer nodes than stages.

    Notes
    -----
    Ryabinin et al., "SWARM Parallelism: Training Large Models Can Be Surprisingly Communication-Efficient",
    2023, as compared with by Mei et al., ASPLOS 2025, section 6.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> plan_swarm(load_cluster("small10"), load_model("llama-1-30b")).layers[:2]
    (NodeLayers(node=0, first_layer=30, end_layer=36), NodeLayers(node=1, first_layer=54, end_layer=60))
    """
    table = planning_throughput(cluster, model)
    most_layers = {machine: len(values) - 1 for machine, values in table.items()}
    require_room(cluster, model, most_layers)
    able = [node for node in cluster.nodes if most_layers[node.machine]]
    smallest = min(most_layers[node.machine] for node in able)
    size = max(k for k in range(1, smallest + 1) if model.layers % k == 0)
    stages = model.layers // size
    if len(able) < stages:
        raise PlacementError(
            f"swarm cuts {model.name} into {stages} stages of {size} layers, what the smallest node can hold,"
            f" and cluster {cluster.name!r} has {len(able)} nodes; add some, drop the smallest, or plan with"
            " 'petals'"
        )
    speed = {machine: float(table[machine][size]) for machine, most in most_layers.items() if most}
    reached = [0.0] * stages
    layers = []
    for node in sorted(able, key=lambda node: (speed[node.machine], node.index), reverse=True):
        stage = reached.index(min(reached))
        reached[stage] += speed[node.machine]
        layers.append(NodeLayers(node.index, stage * size, (stage + 1) * size))
    links = usable_links(cluster, layers, model.layers, partial_inference=False)
    return placed(cluster, model, "swarm", layers, links)
