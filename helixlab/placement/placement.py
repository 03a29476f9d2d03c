"""Placement: which layers each node holds, and which links queries may take between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import pandas as pd

from helixlab._equality import ByContent
from helixlab._validation import as_whole, plain, plain_amount, shown
from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.errors import PlacementError
from helixlab.files import content_hash
from helixlab.html import card
from helixlab.model import Model

__all__ = ["End", "NodeLayers", "Placement", "PlanReport"]

End = int | str
"""A node's index, or the coordinator as ``"source"`` or ``"sink"``."""


@dataclass(frozen=True, slots=True)
class NodeLayers:
    """The layers ``[first_layer, end_layer)`` that one node holds."""

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
        """Number of layers held."""
        return self.end_layer - self.first_layer


@dataclass(frozen=True, eq=False)
class PlanReport(ByContent):
    """What a planner did.

    Parameters
    ----------
    status : str
        ``"heuristic"`` for planners without a proof, else what the solver proved.
    objective_tokens_per_s : float or None
        The planner's own objective for this placement; None where it has none.
    upper_bound_tokens_per_s : float or None
        No placement exceeds this; None where the planner proves nothing.
    wall_s : float
        Seconds spent.
    trace : tuple of (float, float, float)
        Seconds, incumbent and bound over time; empty for one-shot planners.
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
        """Relative distance from the objective to the bound; None where either is missing."""
        if not self.objective_tokens_per_s or self.upper_bound_tokens_per_s is None:
            return None
        return self.upper_bound_tokens_per_s / self.objective_tokens_per_s - 1


def _ends(link: Any) -> tuple[End, End]:
    """Sender and receiver of a link, as plain values."""
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
    """Layers per node and the links between them. Nodes that hold nothing are idle.

    Parameters
    ----------
    name : str
        For instance ``"single24/llama-2-70b/helix"``.
    cluster, model, method : str
        Names of the cluster and the model this is for, and of the method that made it.
    layers : sequence of NodeLayers
        One entry for each node that holds layers; the order is that of the flow graph.
    links : sequence of (sender, receiver)
        Links queries may take, ``"source"`` and ``"sink"`` being the coordinator. Their order
        breaks ties in scheduling.
    kv_capacity_token_layers : mapping of int to int
        KV capacity of nodes where it is not the measured one of the machine profile.
    part : Cluster, optional
        The nodes and links of its own, for a placement on part of a cluster.
    source : str
        Where it comes from.
    report : PlanReport, optional
        What the planner did.

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
                raise PlacementError(f"node {node} is listed {times} times; a node holds one run of layers")
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
                f"placement {self.name!r} is for {self.cluster!r} and brings the nodes and links of"
                f" {self.part.name!r}; name the two alike"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.name, self.cluster, self.model, self.method, self.layers, self.links,
            dict(self.kv_capacity_token_layers), self.part, self.source, self.report,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        held = [(each.node, each.first_layer, each.end_layer, each.count) for each in self.layers]
        figures: dict[str, Any] = {
            "model": self.model, "cluster": self.cluster, "method": self.method, "source": self.source,
            "links": len(self.links), "content": self.content_hash[:8],
        }  # fmt: skip
        if self.report is not None:
            figures |= {
                "status": self.report.status,
                "objective_tokens_per_s": self.report.objective_tokens_per_s,
            }
        columns = ["node", "first_layer", "end_layer", "layers"]
        return card(f"Placement {self.name}", figures, pd.DataFrame(held, columns=columns))

    def __repr__(self) -> str:
        spans = f"{len(self.layers)} nodes, {len(self.links)} links"
        named = f"{self.name!r} {self.content_hash[:8]}"
        return f"Placement({named}: {self.method}, {self.model} on {self.cluster}, {spans})"

    @cached_property
    def _by_node(self) -> dict[End, NodeLayers]:
        return {held.node: held for held in self.layers}

    @cached_property
    def content_hash(self) -> str:
        """Identifies layers, links and stated KV capacities, whatever the placement is called.

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
        """What the placement consists of, as plain data.

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
        """The layers a node holds, None if it is idle (or the coordinator)."""
        return self._by_node.get(plain(node))

    def on(self, cluster: Cluster) -> Cluster:
        """The cluster this placement runs on when asked for on `cluster`.

        That is `cluster` itself, unless the placement is for part of it (``"single24-a100"`` is
        part of ``"single24"``) and brings the nodes and links of that part.

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
        """KV capacity of a node in token-layers: the placement's own, else that of the machine profile.

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
        """One row a node of the cluster, idle ones too.

        Columns: node, machine, region, first_layer, end_layer, layers (how many; 0 if idle).
        """
        rows = []
        for node in self.on(cluster).nodes:
            held = self.layers_of(node.index)
            span = (held.first_layer, held.end_layer) if held else (0, 0)
            rows.append((node.index, node.machine, node.region, *span, span[1] - span[0]))
        return pd.DataFrame(rows, columns=["node", "machine", "region", "first_layer", "end_layer", "layers"])
