"""Which links lead on from one node's layers to the next, and who holds a layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.placement.placement import End, NodeLayers

__all__ = ["held_by", "usable_links"]


def usable_links(
    cluster: Cluster, layers: Sequence[NodeLayers], model_layers: int, *, partial_inference: bool = True
) -> tuple[tuple[End, End], ...]:
    """Links of the cluster over which the next layer of a query can be reached.

    A link i -> j is usable when j holds the layer that follows i's last one: as its first layer, or,
    with partial inference, anywhere (j then runs only from that layer on).

    Parameters
    ----------
    cluster : Cluster
        Its link order is kept.
    layers : sequence of NodeLayers
        What each node holds.
    model_layers : int
        Layers of the model.
    partial_inference : bool
        Whether a query may enter a node behind its first layer.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> halves = [NodeLayers(0, 0, 30), NodeLayers(1, 30, 60)]
    >>> usable_links(load_cluster("small10"), halves, 60)
    (('source', 0), (1, 'sink'), (0, 1))
    """
    span: dict[End, NodeLayers] = {held.node: held for held in layers}

    def usable(sender: End, receiver: End) -> bool:
        if sender != SOURCE and sender not in span:
            return False
        reached = 0 if sender == SOURCE else span[sender].end_layer
        if receiver == SINK:
            return reached == model_layers
        if receiver not in span:
            return False
        held = span[receiver]
        later = partial_inference and sender != SOURCE and held.first_layer < reached < held.end_layer
        return reached == held.first_layer or later

    return tuple((link.sender, link.receiver) for link in cluster.links if usable(link.sender, link.receiver))


def held_by(layers: Iterable[NodeLayers], model_layers: int) -> list[list[int]]:
    """``[layer]``: the nodes that hold it, in the order of `layers`.

    Examples
    --------
    >>> held_by([NodeLayers(4, 0, 2), NodeLayers(7, 1, 3)], 3)
    [[4], [4, 7], [7]]
    """
    nodes: list[list[int]] = [[] for _ in range(model_layers)]
    for held in layers:
        for layer in range(held.first_layer, min(held.end_layer, model_layers)):
            nodes[layer].append(held.node)
    return nodes
