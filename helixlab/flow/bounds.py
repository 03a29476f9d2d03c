"""Upper bound on the throughput of any placement; planners prove lower ones (`helixlab.planning.prices`)."""

from __future__ import annotations

from typing import Final

import numpy as np

from helixlab.cluster import Cluster
from helixlab.model import Model, machine_throughput

__all__ = ["upper_bound"]

STEPS: Final = 100
"""Number of halvings: more than a double has bits, so that the search ends at neighbouring numbers."""
TOLERANCE: Final = 1e-12
"""Relative difference that rounding may cause between equal amounts, and between bound and exact bound."""


def upper_bound(cluster: Cluster, model: Model) -> float:
    """Return the tokens/s that no placement of the model on the cluster exceeds.

    The bound is the largest F with ``sum over nodes of max over k of k * min(T(k), F) >= L * F``, where
    T(k) is the throughput of a node that holds k of the L layers (`helixlab.model.machine_throughput`).

    Proof: a flow of F takes every token through every layer, so the nodes together run L * F layers per
    second. At most min(T(k), F) tokens/s pass through a node that holds k layers, and each runs at most k
    layers there. The nodes together therefore run at most the sum, and F is at most the largest value that
    satisfies the inequality.

    The bound leaves the network aside. It holds for nodes with as many layers as were measured; an overfilled
    node with a KV capacity of its own is not covered.

    Parameters
    ----------
    cluster : Cluster
        The cluster; only its counts of machine types matter.
    model : Model
        The model to serve.

    Returns
    -------
    float
        Bound in tokens/s; 0 if the cluster cannot hold the model.

    Raises
    ------
    ModelError
        The model has no profile for one of the machine types.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> round(upper_bound(load_cluster("single24"), load_model("llama-2-70b")), 3)
    2045.641
    """
    counts = cluster.machine_counts()
    table = machine_throughput(model, counts)

    def runs(flow: float) -> float:
        """Return the most layers per second that the nodes run with at most `flow` tokens/s through each."""
        return sum(
            count * float(np.max(np.arange(len(table[machine])) * np.minimum(table[machine], flow)))
            for machine, count in counts.items()
        )

    # runs(F) / F falls, so the possible flows are those up to the bound. The bound is never above the flow
    # for which all nodes together could run enough layers if the flow through each were unlimited.
    possible, impossible = 0.0, (1 + TOLERANCE) * runs(np.inf) / model.layers
    for _ in range(STEPS):
        middle = (possible + impossible) / 2
        if (1 + TOLERANCE) * runs(middle) >= model.layers * middle:
            possible = middle
        else:
            impossible = middle
    return impossible if possible else 0.0
