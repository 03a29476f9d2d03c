"""Can this placement serve this model on this cluster? One check for each thing that can be wrong."""

from __future__ import annotations

from itertools import groupby

from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.errors import PlacementError
from helixlab.model import Model
from helixlab.placement.placement import End, Placement
from helixlab.placement.reach import held_by

__all__ = ["check_placement"]


def _check_names(placement: Placement, cluster: Cluster, model: Model) -> None:
    if placement.model != model.name:
        raise PlacementError(
            f"placement {placement.name!r} is for model {placement.model!r}, not {model.name!r}; load that"
        )
    if placement.cluster != cluster.name:
        raise PlacementError(
            f"placement {placement.name!r} is for cluster {placement.cluster!r}, not {cluster.name!r}; load"
            " that cluster, or dataclasses.replace(placement, cluster=...) if the two have the same nodes"
        )


def _check_nodes(placement: Placement, cluster: Cluster, model: Model) -> None:
    if not placement.layers:
        raise PlacementError(f"placement {placement.name!r} gives no layers to any node; place the model")
    for held in placement.layers:
        if not 0 <= held.node < len(cluster.nodes):
            raise PlacementError(
                f"placement {placement.name!r} uses node {held.node}; cluster {cluster.name!r} has nodes 0 to"
                f" {len(cluster.nodes) - 1}"
            )
        if held.end_layer > model.layers:
            raise PlacementError(
                f"node {held.node} holds layers up to {held.end_layer}, {model.name} has {model.layers};"
                " end there"
            )


def _check_room(placement: Placement, cluster: Cluster, model: Model) -> None:
    for held in placement.layers:
        capacity = placement.kv_capacity(cluster, model, held.node)
        if capacity < held.count:
            raise PlacementError(
                f"node {held.node} has a KV capacity of {capacity} token-layers for {held.count} layers; it"
                " cannot hold one token, give it fewer layers"
            )


def _check_every_layer_held(placement: Placement, cluster: Cluster, model: Model) -> None:
    holders = held_by(placement.layers, model.layers)
    missing = [layer for layer, nodes in enumerate(holders) if not nodes]
    if missing:
        # Layers that follow one another keep their distance from their place in the list.
        runs = [[x for _, x in run] for _, run in groupby(enumerate(missing), lambda pair: pair[1] - pair[0])]
        text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
        raise PlacementError(
            f"placement {placement.name!r} misses layers {text} of {model.name}; give them to a node"
        )


def _check_links(placement: Placement, cluster: Cluster, model: Model) -> None:
    for sender, receiver in placement.links:
        cluster.link(sender, receiver)  # raises where there is none
        before, after = placement.layers_of(sender), placement.layers_of(receiver)
        for end, held, coordinator in ((sender, before, SOURCE), (receiver, after, SINK)):
            if held is None and end != coordinator:
                raise PlacementError(
                    f"link {sender} -> {receiver} uses node {end}, which holds no layers; drop the link"
                )
        reached = before.end_layer if before else 0
        fits = after.first_layer <= reached < after.end_layer if after else reached == model.layers
        if not fits:
            raise PlacementError(
                f"link {sender} -> {receiver} leads nowhere: layer {reached} is next after {sender} and"
                f" {receiver} does not hold it; drop the link"
            )


def _check_path(placement: Placement, cluster: Cluster, model: Model) -> None:
    onward: dict[End, list[End]] = {}
    for sender, receiver in placement.links:
        onward.setdefault(sender, []).append(receiver)
    seen: set[End] = {SOURCE}
    frontier: list[End] = [SOURCE]
    while frontier:
        for receiver in onward.get(frontier.pop(), []):
            if receiver not in seen:
                seen.add(receiver)
                frontier.append(receiver)
    if SINK not in seen:
        raise PlacementError(
            f"placement {placement.name!r} has no path from source to sink over its links; check that cluster"
            f" {cluster.name!r} links the nodes that hold neighbouring layers"
        )


_CHECKS = (_check_names, _check_nodes, _check_room, _check_every_layer_held, _check_links, _check_path)


def check_placement(placement: Placement, cluster: Cluster, model: Model) -> None:
    """Raise unless `placement` can serve `model` on `cluster`.

    Raises
    ------
    PlacementError
        It names another model or cluster or unknown nodes, overfills a node, misses a layer, has a link
        that leads nowhere, or no path from source to sink.
    ClusterError
        It uses a link that the cluster does not have.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> from helixlab.placement import load_placement
    >>> placement = load_placement("single24/llama-2-70b/helix")
    >>> check_placement(placement, load_cluster("single24"), load_model("llama-2-70b"))
    """
    cluster = placement.on(cluster)
    for check in _CHECKS:
        check(placement, cluster, model)
