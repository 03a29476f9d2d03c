"""Can this placement serve this model on this cluster? One check for each thing that can be wrong."""

from __future__ import annotations

import math
import warnings
from functools import cache
from itertools import groupby

from helixlab.cluster import SINK, SOURCE, Cluster, Machine
from helixlab.cluster.bundled import bundled_machines
from helixlab.errors import PlacementError
from helixlab.model import Model, load_model, model_names
from helixlab.placement.placement import End, Placement
from helixlab.placement.reach import held_by
from helixlab.units import GB

__all__ = ["check_placement", "measured_memory_bytes", "memory_misfit"]


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


def _check_memory(placement: Placement, cluster: Cluster, model: Model) -> None:
    for held in placement.layers:
        machine = cluster.machine_of(held.node)
        misfit = memory_misfit(
            f"node {held.node} ({machine.name})",
            machine,
            model,
            held.count,
            placement.kv_capacity(cluster, model, held.node),
            stated=held.node in placement.kv_capacity_token_layers,
        )
        if misfit:
            raise PlacementError(misfit)


def memory_misfit(
    what: str, machine: Machine, model: Model, layers: int, capacity: int, *, stated: bool = False
) -> str | None:
    """What does not fit into the GPU memory of a machine, and how to mend it; None where all fits.

    Parameters
    ----------
    what : str
        Name of the node or machine type.
    machine : Machine
        Its memory.
    model : Model
        Whose layers it holds.
    layers : int
        Number of layers.
    capacity : int
        KV capacity in token-layers.
    stated : bool
        Whether the placement states the capacity; otherwise it is that of the machine profile.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> model, a100 = load_model("llama-2-70b"), load_cluster("single24").machines[0]
    >>> memory_misfit("A100", a100, model, 12, model.profile("A100").kv_capacity_token_layers(12)) is None
    True
    """
    token_layer_bytes = float(model.kv_bytes_per_token_layer or 0)
    weights, cache = layers * model.layer_bytes, capacity * token_layer_bytes
    if weights + cache <= machine.vram_bytes:
        return None
    amounts = (
        f"{what} with {layers} layer{'s' * (layers > 1)} of {model.name} takes {weights / GB:.4g} GB for"
        f" weights and {cache / GB:.4g} GB for the KV cache ({capacity} token-layers of"
        f" {token_layer_bytes:g} bytes),"
        f" more than its GPU memory of {machine.vram_bytes / GB:.4g} GB"
    )
    if weights > machine.vram_bytes:
        return f"{amounts}; give it fewer layers, or correct its vram_bytes"
    if stated:
        mends = "give it fewer layers, or state a smaller kv_capacity_token_layers in the placement"
    else:
        measured = measured_memory_bytes(machine, model)
        other = "another memory size" if measured is None else f"{measured / GB:.4g} GB"
        amounts += f"; the KV cache is that of the profile, which is for {other}"
        mends = "give the model a profile with the kv_blocks of this memory, or correct its vram_bytes"
    if token_layer_bytes == 2 * model.activation_bytes:
        mends += (
            " (with grouped-query attention also the model's kv_bytes_per_token_layer, two activations here)"
        )
    return f"{amounts}; {mends}"


def measured_memory_bytes(machine: Machine, model: Model) -> float | None:
    """GPU memory that the KV cache of the profile was measured with; None for a profile of one's own."""
    profile = model.profiles.get(machine.name)
    for name in model_names():
        known = load_model(name).profiles.get(machine.name)
        if profile is not None and known is not None and profile.kv_blocks == known.kv_blocks:
            return _bundled_memory_bytes()[machine.name]
    return None


@cache
def _bundled_memory_bytes() -> dict[str, float]:
    return {machine.name: machine.vram_bytes for machine in bundled_machines()}


def _warn_of_unused_memory(placement: Placement, cluster: Cluster, model: Model) -> None:
    stated = placement.kv_capacity_token_layers
    for name in dict.fromkeys(
        cluster.nodes[held.node].machine for held in placement.layers if held.node not in stated
    ):
        machine = next(each for each in cluster.machines if each.name == name)
        if machine.vram_bytes > _bundled_memory_bytes().get(name, math.inf):
            measured = measured_memory_bytes(machine, model)
            if measured is not None and machine.vram_bytes > measured:
                warnings.warn(
                    f"machine type {name!r} of cluster {cluster.name!r} has {machine.vram_bytes / GB:.4g} GB"
                    f" of GPU memory, but the KV cache of its profile is for {measured / GB:.4g} GB, and the"
                    " rest stays unused; give the model a profile with the kv_blocks of this memory",
                    stacklevel=3,
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


_CHECKS = (
    _check_names,
    _check_nodes,
    _check_room,
    _check_memory,
    _check_every_layer_held,
    _check_links,
    _check_path,
)


def check_placement(placement: Placement, cluster: Cluster, model: Model) -> None:
    """Raise unless `placement` can serve `model` on `cluster`.

    Raises
    ------
    PlacementError
        It names another model or cluster or unknown nodes, overfills a node, puts more weights and KV cache
        on it than its GPU memory holds, misses a layer, has a link that leads nowhere, or no path from
        source to sink.
    ClusterError
        It uses a link that the cluster does not have.

    Warns
    -----
    UserWarning
        A machine has more GPU memory than the KV cache of its bundled profile was measured with.

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
    _warn_of_unused_memory(placement, cluster, model)
