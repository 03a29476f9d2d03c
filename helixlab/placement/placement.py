"""Placements: the layers of each node, the links that requests may take, and the checks of both.

A placement is checked against its cluster and model by one function for each rule.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from types import MappingProxyType
from typing import Any

import networkx as nx
import pandas as pd

from helixlab._equality import ByContent
from helixlab._html import card
from helixlab._io import content_hash
from helixlab._validation import as_whole, plain, plain_amount, shown
from helixlab.cluster import SINK, SOURCE, Cluster, Machine
from helixlab.cluster.machines import bundled_machines
from helixlab.errors import PlacementError
from helixlab.model import Model, load_model, model_names
from helixlab.units import GB

__all__ = [
    "End",
    "NodeLayers",
    "Placement",
    "PlanReport",
    "check_placement",
    "held_by",
    "measured_memory_bytes",
    "memory_misfit",
    "usable_links",
]


End = int | str
"""Index of a node, or the coordinator as ``"source"`` or ``"sink"``."""


@dataclass(frozen=True, slots=True)
class NodeLayers:
    """Layers ``[first_layer, end_layer)`` of one node."""

    node: int
    first_layer: int
    end_layer: int

    def __post_init__(self) -> None:
        for name in ("node", "first_layer", "end_layer"):
            value = getattr(self, name)
            if type(value) is not int:  # planners make a lot of them
                object.__setattr__(self, name, as_whole(value, f"{name} of NodeLayers", error=PlacementError))

    @property
    def count(self) -> int:
        """Number of layers."""
        return self.end_layer - self.first_layer


@dataclass(frozen=True, eq=False)
class PlanReport(ByContent):
    """Report of a planner: its objective, its bound and its search.

    Parameters
    ----------
    status : str
        ``"heuristic"`` for planners without a proof, otherwise the status that the solver proved.
    objective_tokens_per_s : float or None
        Objective of the planner for this placement; None where it has none.
    upper_bound_tokens_per_s : float or None
        Bound that no placement exceeds; None where the planner proves none.
    wall_s : float
        Seconds that planning took.
    trace : tuple of (float, float, float)
        Seconds, incumbent and bound over time; empty for planners without a search.
    """

    status: str
    objective_tokens_per_s: float | None = None
    upper_bound_tokens_per_s: float | None = None
    wall_s: float = 0.0
    trace: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        for name in ("objective_tokens_per_s", "upper_bound_tokens_per_s", "wall_s"):
            object.__setattr__(self, name, plain_amount(getattr(self, name)))
        trace = tuple(tuple(map(plain_amount, row)) for row in self.trace)
        object.__setattr__(self, "trace", trace)

    @property
    def gap(self) -> float | None:
        """Relative gap between objective and bound; None where either is missing."""
        if not self.objective_tokens_per_s or self.upper_bound_tokens_per_s is None:
            return None
        return self.upper_bound_tokens_per_s / self.objective_tokens_per_s - 1


def _ends(link: Any) -> tuple[End, End]:
    """Check the sender and receiver of a link; return them as plain values."""
    try:
        sender, receiver = map(plain, link)
    except (TypeError, ValueError):
        raise PlacementError(f"links hold {shown(link)}; give pairs of sender and receiver") from None
    for end in (sender, receiver):
        if type(end) is not int and end not in (SOURCE, SINK):
            raise PlacementError(
                f"link {shown(sender)} -> {shown(receiver)} has the end {shown(end)}; give the index of a"
                f" node, {SOURCE!r} or {SINK!r}"
            )
    return sender, receiver


@dataclass(frozen=True)
class Placement:
    """Layers of each node and the links between nodes. Nodes without layers are idle.

    Parameters
    ----------
    name : str
        Name of the placement, for instance ``"single24/llama-2-70b/helix"``.
    cluster, model, method : str
        Names of the cluster and the model that the placement is for, and of the method that made it.
    layers : sequence of NodeLayers
        Layers of each node that holds any; their order is that of the flow graph.
    links : sequence of (sender, receiver)
        Links that requests may take; ``"source"`` and ``"sink"`` are the coordinator. Their order breaks
        ties in scheduling.
    kv_capacity_token_layers : mapping of int to int
        KV capacity of the nodes for which it differs from that of the machine profile.
    part : Cluster, optional
        Nodes and links of a placement on part of a cluster.
    source : str
        Origin of the placement.
    report : PlanReport, optional
        Report of the planner.

    Examples
    --------
    >>> from helixlab.placement import load_placement
    >>> placement = load_placement("single24/llama-2-70b/example-ilp")
    >>> placement.layers_of(9)
    NodeLayers(node=9, first_layer=37, end_layer=49)
    >>> placement.links[0]
    ('source', 15)
    """

    name: str
    cluster: str
    model: str
    method: str
    layers: tuple[NodeLayers, ...]
    links: tuple[tuple[End, End], ...]
    kv_capacity_token_layers: Mapping[int, int] = field(default_factory=dict, hash=False)
    part: Cluster | None = None
    source: str = ""
    report: PlanReport | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for key in ("name", "cluster", "model", "method", "source"):
            text = plain(getattr(self, key))
            if not isinstance(text, str) or not text.isprintable():
                raise PlacementError(f"{key} of the placement is {shown(text)}; give printable text")
            object.__setattr__(self, key, text)
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "links", tuple(map(_ends, self.links)))
        capacities = {
            as_whole(node, "a node with a KV capacity", error=PlacementError): as_whole(
                capacity, f"the KV capacity of node {shown(node)}", error=PlacementError
            )
            for node, capacity in self.kv_capacity_token_layers.items()
        }
        object.__setattr__(self, "kv_capacity_token_layers", MappingProxyType(capacities))
        for held in self.layers:
            if not isinstance(held, NodeLayers):
                raise PlacementError(f"layers hold {shown(held)}; give NodeLayers(node, first, end) objects")
            if not 0 <= held.first_layer < held.end_layer:
                raise PlacementError(
                    f"node {held.node} holds layers [{held.first_layer}, {held.end_layer}); give"
                    " 0 <= first < end, or leave the node out if it is idle"
                )
        for node, times in Counter(held.node for held in self.layers).items():
            if times > 1:
                raise PlacementError(f"node {node} is listed {times} times; list it once")
        for (sender, receiver), times in Counter(self.links).items():
            if times > 1:
                raise PlacementError(f"link {sender} -> {receiver} is listed {times} times; list it once")
        for node in self.kv_capacity_token_layers:
            if node not in self._by_node:
                raise PlacementError(
                    f"a KV capacity is stated for node {node}, which holds no layers; leave it out"
                )
        if self.part is not None and self.part.name != self.cluster:
            raise PlacementError(
                f"placement {self.name!r} is for {self.cluster!r} and has the nodes and links of"
                f" {self.part.name!r}; use one name for both"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.name, self.cluster, self.model, self.method, self.layers, self.links,
            dict(self.kv_capacity_token_layers), self.part, self.source, self.report,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        held = [(each.node, each.first_layer, each.end_layer, each.count) for each in self.layers]
        values: dict[str, Any] = {
            "model": self.model, "cluster": self.cluster, "method": self.method, "source": self.source,
            "links": len(self.links), "content": self.content_hash[:8],
        }  # fmt: skip
        if self.report is not None:
            values |= {
                "status": self.report.status,
                "objective_tokens_per_s": self.report.objective_tokens_per_s,
            }
        columns = ["node", "first_layer", "end_layer", "layers"]
        return card(f"Placement {self.name}", values, pd.DataFrame(held, columns=columns))

    def __repr__(self) -> str:
        spans = f"{len(self.layers)} nodes, {len(self.links)} links"
        named = f"{self.name!r} {self.content_hash[:8]}"
        return f"Placement({named}: {self.method}, {self.model} on {self.cluster}, {spans})"

    @cached_property
    def _by_node(self) -> dict[End, NodeLayers]:
        return {held.node: held for held in self.layers}

    @cached_property
    def content_hash(self) -> str:
        """Hash of layers, links and stated KV capacities, which does not depend on names.

        Examples
        --------
        >>> from dataclasses import replace
        >>> from helixlab.placement import load_placement
        >>> placement = load_placement("small10/llama-1-30b/helix")
        >>> replace(placement, name="mine").content_hash == placement.content_hash
        True
        """
        return content_hash(self.layout())

    def layout(self) -> dict[str, Any]:
        """Convert layers, links and stated KV capacities to plain data.

        Examples
        --------
        >>> from helixlab.placement import load_placement
        >>> load_placement("single24/llama-2-70b/helix").layout()["layers"][0]
        [0, 7, 11]
        """
        return {
            "layers": [[held.node, held.first_layer, held.end_layer] for held in self.layers],
            "links": [list(link) for link in self.links],
            "kv_capacity_token_layers": {str(n): c for n, c in self.kv_capacity_token_layers.items()},
        }

    def layers_of(self, node: End) -> NodeLayers | None:
        """Return the layers of a node; None if it is idle or the coordinator."""
        return self._by_node.get(plain(node))

    def on(self, cluster: Cluster) -> Cluster:
        """Return the cluster that this placement runs on when it is used with `cluster`.

        That is `cluster` itself, unless the placement is for a part of it (as ``"single24-a100"`` is of
        ``"single24"``) and contains the nodes and links of that part.

        Raises
        ------
        PlacementError
            The placement does not belong to `cluster`.
        """
        if self.part is None or cluster.name == self.cluster:
            return cluster
        if not self.cluster.startswith(f"{cluster.name}-"):
            raise PlacementError(
                f"placement {self.name!r} is for {self.cluster!r}, which is not part of cluster"
                f" {cluster.name!r}; load cluster {self.cluster!r}, or the whole it is named after"
            )
        return self.part

    def kv_capacity(self, cluster: Cluster, model: Model, node: int) -> int:
        """Return the KV capacity of a node in token-layers: the stated one, else that of the machine profile.

        Raises
        ------
        PlacementError
            The node holds nothing, or more than was measured without stating its KV capacity.
        """
        held = self.layers_of(node)
        if held is None:
            raise PlacementError(f"node {node} holds no layers and so has no KV cache")
        node = held.node
        if node in self.kv_capacity_token_layers:
            return self.kv_capacity_token_layers[node]
        machine = cluster.machine_of(node).name
        profile = model.profile(machine)
        if held.count > profile.max_layers:
            raise PlacementError(
                f"node {node} ({machine}) holds {held.count} layers of {model.name}, at most"
                f" {profile.max_layers} are measured; hold fewer, or state its kv_capacity_token_layers"
            )
        return profile.kv_capacity_token_layers(held.count)

    def to_frame(self, cluster: Cluster) -> pd.DataFrame:
        """Tabulate the layers of every node of the cluster, including idle nodes.

        Columns: node, machine, region, first_layer, end_layer, layers (their number, 0 if idle).
        """
        rows = []
        for node in self.on(cluster).nodes:
            held = self.layers_of(node.index)
            span = (held.first_layer, held.end_layer) if held else (0, 0)
            rows.append((node.index, node.machine, node.region, *span, span[1] - span[0]))
        return pd.DataFrame(rows, columns=["node", "machine", "region", "first_layer", "end_layer", "layers"])


def usable_links(
    cluster: Cluster, layers: Sequence[NodeLayers], model_layers: int, *, partial_inference: bool = True
) -> tuple[tuple[End, End], ...]:
    """List the links of the cluster that lead a request to its next layer.

    A link i -> j is usable if j holds the layer after the last one of i: as its first layer or, with partial
    inference, as any of its layers (j then runs only the layers from there on).

    Parameters
    ----------
    cluster : Cluster
        The cluster; the order of its links is kept.
    layers : sequence of NodeLayers
        Layers of each node.
    model_layers : int
        Number of layers of the model.
    partial_inference : bool
        True if a request may enter a node at a later layer than its first.

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
    """List the nodes that hold each layer, ``[layer]``, in the order of `layers`.

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


def _check_kv_capacity(placement: Placement, cluster: Cluster, model: Model) -> None:
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
    """Describe the weights and KV cache that exceed the GPU memory of a machine; None where they fit.

    Parameters
    ----------
    what : str
        Name of the node or machine type.
    machine : Machine
        Machine type whose memory counts.
    model : Model
        Model whose layers the node holds.
    layers : int
        Number of layers.
    capacity : int
        KV capacity in token-layers.
    stated : bool
        True if the placement states the capacity; otherwise it is that of the machine profile.

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
    if weights > machine.vram_bytes and (stated or cache <= machine.vram_bytes):
        return f"{amounts}; give it fewer layers, or correct its vram_bytes"
    if stated:
        mends = "give it fewer layers, or state a smaller kv_capacity_token_layers in the placement"
    else:
        measured = measured_memory_bytes(machine, model)
        other = "another memory size" if measured is None else f"{measured / GB:.4g} GB"
        amounts += f"; the KV cache is that of the profile, which is for {other}"
        layers_too = "it fewer layers, and " if weights > machine.vram_bytes else ""
        mends = (
            f"give {layers_too}the model a profile with the kv_blocks of this memory, or correct its"
            " vram_bytes"
        )
    if token_layer_bytes == 2 * model.activation_bytes:
        mends += (
            " (with grouped-query attention also the model's kv_bytes_per_token_layer, two activations here)"
        )
    return f"{amounts}; {mends}"


def measured_memory_bytes(machine: Machine, model: Model) -> float | None:
    """Return the GPU memory for which the profile was measured; None for a profile of the user's own."""
    profile = model.profiles.get(machine.name)
    for name in model_names():
        known = load_model(name).profiles.get(machine.name)
        if profile is not None and known is not None and profile.kv_blocks == known.kv_blocks:
            return _bundled_memory_bytes()[machine.name]
    return None


@cache
def _bundled_memory_bytes() -> dict[str, float]:
    return {machine.name: machine.vram_bytes for machine in bundled_machines()}


def _warn_of_other_memory(placement: Placement, cluster: Cluster, model: Model) -> None:
    stated = placement.kv_capacity_token_layers
    for name in dict.fromkeys(
        cluster.nodes[held.node].machine for held in placement.layers if held.node not in stated
    ):
        machine = next(each for each in cluster.machines if each.name == name)
        if machine.vram_bytes != _bundled_memory_bytes().get(name, machine.vram_bytes):
            measured = measured_memory_bytes(machine, model)
            if measured is not None and machine.vram_bytes != measured:
                rest = ", and the rest stays unused" if machine.vram_bytes > measured else ""
                warnings.warn(
                    f"machine type {name!r} of cluster {cluster.name!r} has {machine.vram_bytes / GB:.4g} GB"
                    f" of GPU memory, but the KV cache of its profile is for {measured / GB:.4g} GB{rest};"
                    " give the model a profile with the kv_blocks of this memory",
                    stacklevel=3,
                )


def _check_every_layer_held(placement: Placement, cluster: Cluster, model: Model) -> None:
    holders = held_by(placement.layers, model.layers)
    missing = [layer for layer, nodes in enumerate(holders) if not nodes]
    if missing:
        # Consecutive layers keep their distance from their position in the list.
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
    graph: nx.DiGraph[End] = nx.DiGraph()
    graph.add_nodes_from((SOURCE, SINK))
    graph.add_edges_from(placement.links)
    if not nx.has_path(graph, SOURCE, SINK):
        raise PlacementError(
            f"placement {placement.name!r} has no path from source to sink over its links; check that cluster"
            f" {cluster.name!r} links the nodes that hold neighbouring layers"
        )


_CHECKS = (
    _check_names,
    _check_nodes,
    _check_kv_capacity,
    _check_memory,
    _check_every_layer_held,
    _check_links,
    _check_path,
)


def check_placement(placement: Placement, cluster: Cluster, model: Model) -> None:
    """Check that a placement can serve a model on a cluster.

    Raises
    ------
    PlacementError
        The placement names another model or cluster or unknown nodes, gives a node more layers, or more
        weights and KV cache, than it can hold, misses a layer, has a link that leads nowhere, or has no path
        from source to sink.
    ClusterError
        The placement uses a link that the cluster does not have.

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
    _warn_of_other_memory(placement, cluster, model)
