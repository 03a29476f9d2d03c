"""What no placement can exceed."""

from __future__ import annotations

from typing import Final

import numpy as np

from helixlab.cluster import Cluster
from helixlab.model import Model, machine_throughput

__all__ = ["upper_bound"]

STEPS: Final = 100
"""More halvings than a double has bits, so that the search ends at neighbouring numbers."""
TOLERANCE: Final = 1e-12
"""Part by which rounding may let equal amounts differ; the bound is above the exact one by no more."""


def upper_bound(cluster: Cluster, model: Model) -> float:
    """Tokens/s that no placement of the model on the cluster exceeds.

    It is the largest F with ``sum over nodes of max over k of k * min(T(k), F) >= L * F``, T(k) being the
    throughput of a node that holds k of the L layers (`helixlab.model.machine_throughput`).

    Proof: a flow of F takes every token through every layer, so the nodes together run L * F layers per
    second. A node that holds k layers is passed by at most min(T(k), F) tokens/s and runs at most k layers
    of each, so together they run at most the sum, and F cannot be larger than the largest that allows it.

    The bound leaves the network aside and holds for nodes with as many layers as were measured; one that is
    overfilled and states a KV capacity of its own is not covered.

    Parameters
    ----------
    cluster : Cluster
        Only its counts of machine types matter.
    model : Model
        What is to be served.

    Returns
    -------
    float
        In tokens/s; 0 where the cluster cannot hold the model.

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
        """Layers per second that the nodes run at most when each is passed by `flow` tokens/s at most."""
        return sum(
            count * float(np.max(np.arange(len(table[machine])) * np.minimum(table[machine], flow)))
            for machine, count in counts.items()
        )

    # runs(F) / F falls, so the flows that are possible are those up to the bound. What all nodes can run
    # without the limit of the flow is never below it.
    possible, impossible = 0.0, (1 + TOLERANCE) * runs(np.inf) / model.layers
    for _ in range(STEPS):
        middle = (possible + impossible) / 2
        if (1 + TOLERANCE) * runs(middle) >= model.layers * middle:
            possible = middle
        else:
            impossible = middle
    return impossible if possible else 0.0
