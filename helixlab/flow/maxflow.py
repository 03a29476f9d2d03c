"""The maximum flow of a placement.

The maximum flow from source to sink is the most that the placement can serve. The Helix scheduler follows the
flow on each link (Mei et al., ASPLOS 2025, section 4.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Final

import networkx as nx
import pandas as pd

from helixlab._equality import ByContent
from helixlab._html import card
from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.flow.graph import SINK_VERTEX, SOURCE_VERTEX, flow_graph, link_edge, node_edge
from helixlab.flow.small_links import RELATIVE, ROUNDING, check_rule, links_left_out, table_of_links
from helixlab.model import Model
from helixlab.placement import Placement, check_placement
from helixlab.placement.io import shown_name
from helixlab.placement.placement import End

__all__ = ["Flow", "max_flow"]

_AMOUNTS: Final = ("flow_tokens_per_s", "capacity_tokens_per_s")
_MOST_SPREAD: Final = 1e9
"""Largest ratio of two capacities for which preflow-push is exact enough.

It pushes as much as the widest edges carry and returns what does not get through, so that its error is the
rounding of the largest capacity. The error of augmenting paths is that of the flow."""


@dataclass(frozen=True, eq=False)
class Flow(ByContent):
    """A maximum flow through a placement.

    Parameters
    ----------
    value_tokens_per_s : float
        Flow from source to sink.
    links : DataFrame
        One row for each link of the placement: sender, receiver, flow_tokens_per_s, capacity_tokens_per_s.
    nodes : DataFrame
        One row for each node of the placement: node, machine, first_layer, end_layer, flow_tokens_per_s,
        capacity_tokens_per_s, utilisation.
    bottlenecks : DataFrame
        Minimum cut nearest to the source: kind (``"compute"``, ``"link"``, ``"network card"``), sender,
        receiver, capacity_tokens_per_s. The capacities add up to the flow.
    placement : str
        Name of the placement; its hash is added where a published placement of another content has this name.
    small_links : str or None
        Rule by which links with little flow were left out; None if all links could carry flow.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.flow import max_flow
    >>> from helixlab.model import load_model
    >>> from helixlab.placement import load_placement
    >>> placement = load_placement("single24/llama-2-70b/example-ilp")
    >>> flow = max_flow(load_cluster("single24"), load_model("llama-2-70b"), placement)
    >>> round(flow.value_tokens_per_s, 6)
    1289.55577
    """

    value_tokens_per_s: float
    links: pd.DataFrame
    nodes: pd.DataFrame
    bottlenecks: pd.DataFrame
    placement: str
    small_links: str | None = None

    @cached_property
    def on_link(self) -> Mapping[tuple[End, End], float]:
        """Flow on each link, ``{(sender, receiver): tokens/s}``, in the order of the placement."""
        rows = zip(self.links["sender"], self.links["receiver"], self.links["flow_tokens_per_s"], strict=True)
        return {(sender, receiver): float(flow) for sender, receiver, flow in rows}

    def left_out(self, small_links: str = RELATIVE) -> pd.DataFrame:
        """List the links with too little flow, which the Helix scheduler does not use.

        Parameters
        ----------
        small_links : str
            Rule ``"relative"`` or ``"paper"``, see `helixlab.flow.links_left_out`.

        Returns
        -------
        DataFrame
            One row for each link: sender, receiver, flow_tokens_per_s, share (of the flow of its sender).

        Examples
        --------
        >>> from helixlab.cluster import load_cluster
        >>> from helixlab.model import load_model
        >>> from helixlab.placement import load_placement
        >>> placement = load_placement("hetero42/llama-2-70b/swarm")
        >>> max_flow(load_cluster("hetero42"), load_model("llama-2-70b"), placement).left_out().round(3)
          sender receiver  flow_tokens_per_s  share
        0     30       37             33.783  0.036
        """
        return table_of_links(self.on_link, links_left_out(self.on_link, small_links))

    def _repr_html_(self) -> str:
        values = {"value_tokens_per_s": self.value_tokens_per_s, "links": len(self.links)}
        title = f"Maximum flow through {self.placement}{self._rule}"
        return card(title, values, self.bottlenecks, "The table lists the bottlenecks.")

    def __repr__(self) -> str:
        kinds = Counter(self.bottlenecks["kind"])
        cut = ", ".join(f"{n} x {kind}" for kind, n in kinds.items()) or "the links left out"
        through = f"{self.placement!r}{self._rule}"
        return f"Flow({self.value_tokens_per_s:.1f} tokens/s through {through}, bound by {cut})"

    @property
    def _rule(self) -> str:
        return f" with small_links={self.small_links!r}" if self.small_links else ""

    def to_networkx(self) -> nx.DiGraph:
        """Convert to a graph of nodes and coordinator, with flow and capacity on nodes and edges."""
        graph = nx.DiGraph(value_tokens_per_s=self.value_tokens_per_s)
        graph.add_node(SOURCE)
        for row in self.nodes.to_dict("records"):
            graph.add_node(row["node"], **{str(key): value for key, value in row.items() if key != "node"})
        graph.add_node(SINK)
        for (sender, receiver), row in zip(self.on_link, self.links.to_dict("records"), strict=True):
            amounts = {key: row[key] for key in ("flow_tokens_per_s", "capacity_tokens_per_s")}
            graph.add_edge(sender, receiver, **amounts)
        return graph


def max_flow(cluster: Cluster, model: Model, placement: Placement, *, small_links: str | None = None) -> Flow:
    """Find the maximum flow of a placement, with its bottlenecks.

    A maximum flow is rarely unique; this one is always the same for the same input. It is 0 if every path has
    a node without throughput in the estimate (an overfilled node without KV cache).

    Parameters
    ----------
    cluster, model, placement
        Placement, and the cluster (or one that it is part of) and model that it is for.
    small_links : str, optional
        Rule ``"relative"`` or ``"paper"``, as for `simulate`: find the maximum flow over the links that the
        Helix scheduler uses by this rule. By default all links count; `Flow.left_out` of that flow lists the
        links that the scheduler does not use.

    Returns
    -------
    Flow

    Raises
    ------
    PlacementError
        The placement cannot serve the model on the cluster.
    UnknownNameError
        There is no such rule.

    Notes
    -----
    Mei et al., ASPLOS 2025, section 4.2; the algorithm is networkx's preflow-push, or its shortest augmenting
    paths where capacities differ by more than a factor of 1e9.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> from helixlab.placement import load_placement
    >>> cluster, model = load_cluster("small10"), load_model("llama-1-30b")
    >>> max_flow(cluster, model, load_placement("small10/llama-1-30b/helix"))
    Flow(286.6 tokens/s through 'small10/llama-1-30b/helix', bound by 1 x compute)
    """
    if small_links is not None:
        check_rule(small_links)
    check_placement(placement, cluster, model)
    cluster = placement.on(cluster)
    graph, _ = flow_graph(cluster, model, placement)
    position: dict[End, int] = {held.node: p for p, held in enumerate(placement.layers)}
    edge_of = {link: link_edge(position, *link) for link in placement.links}
    capacity_of = {link: graph.edges[edge]["capacity"] for link, edge in edge_of.items()}
    value, edge_flow = _solved(graph)
    left_out: set[tuple[End, End]] = set()
    if small_links is not None:
        on_link = {link: float(edge_flow[a][b]) for link, (a, b) in edge_of.items()}
        left_out = links_left_out(on_link, small_links)
        if sum(on_link[link] for link in left_out) > ROUNDING * value:
            graph.remove_edges_from([edge_of[link] for link in left_out])
            value, edge_flow = _solved(graph)
    links, nodes = [], []
    for link, (a, b) in edge_of.items():
        links.append((*link, 0.0 if link in left_out else float(edge_flow[a][b]), capacity_of[link]))
    for place, held in enumerate(placement.layers):
        a, b = node_edge(place)
        flow, capacity = float(edge_flow[a][b]), graph[a][b]["capacity"]
        machine = cluster.machine_of(held.node).name
        used = flow / capacity if capacity else 0.0
        nodes.append((held.node, machine, held.first_layer, held.end_layer, flow, capacity, used))
    return Flow(
        value_tokens_per_s=float(value),
        links=_frame(links, ("sender", "receiver", *_AMOUNTS)),
        nodes=_frame(nodes, ("node", "machine", "first_layer", "end_layer", *_AMOUNTS, "utilisation")),
        bottlenecks=_frame(
            _minimum_cut(graph, edge_flow, value), ("kind", "sender", "receiver", "capacity_tokens_per_s")
        ),
        placement=shown_name(placement),
        small_links=small_links,
    )


_SOLVED: dict[Hashable, tuple[float, Mapping[int, Mapping[int, float]]]] = {}
_MOST_SOLVED: Final = 16
_LOCK: Final = Lock()


def _solved(graph: nx.DiGraph) -> tuple[float, Mapping[int, Mapping[int, float]]]:
    """Find the value and the flow of edges; cached, as the runs of a sweep share a few graphs."""
    # The order of everything in the graph decides between several maximum flows, so the key holds all of it.
    key = tuple(graph), tuple(graph.edges(data="capacity")), tuple(graph.in_edges())
    with _LOCK:
        if key not in _SOLVED:
            while len(_SOLVED) >= _MOST_SOLVED:
                _SOLVED.pop(next(iter(_SOLVED)))
            flow = nx.algorithms.flow
            method = flow.shortest_augmenting_path if _is_wide(graph) else flow.preflow_push
            _SOLVED[key] = nx.maximum_flow(graph, SOURCE_VERTEX, SINK_VERTEX, flow_func=method)
        return _SOLVED[key]


def _is_wide(graph: nx.DiGraph) -> bool:
    """Tell whether small capacities are lost in the rounding of large ones."""
    capacities = [capacity for _, _, capacity in graph.edges(data="capacity") if capacity > 0]
    return bool(max(capacities) > _MOST_SPREAD * min(capacities))


def _frame(rows: Iterable[tuple[Any, ...]], columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    # Ends are indices or "source"/"sink": keep them as Python objects, not as text.
    ends = {end: object for end in ("sender", "receiver") if end in frame}
    return frame.astype(ends)


def _minimum_cut(
    graph: nx.DiGraph, edge_flow: Mapping[int, Mapping[int, float]], value: float
) -> list[tuple[Any, ...]]:
    """List the edges from what the source reaches in the residual network to the rest."""
    scale = value if _is_wide(graph) else max(data["capacity"] for _, _, data in graph.edges(data=True))
    tolerance = 1e-12 * scale
    residual = nx.DiGraph()
    residual.add_node(SOURCE_VERTEX)
    for a, b, capacity in graph.edges(data="capacity"):
        if capacity - edge_flow[a][b] > tolerance:
            residual.add_edge(a, b)
        if edge_flow[a][b] > tolerance:
            residual.add_edge(b, a)
    reached = nx.descendants(residual, SOURCE_VERTEX) | {SOURCE_VERTEX}
    return [
        (data["kind"], data["sender"], data["receiver"], data["capacity"])
        for a, b, data in graph.edges(data=True)
        if a in reached and b not in reached
    ]
