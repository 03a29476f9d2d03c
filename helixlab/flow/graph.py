"""The flow graph of a placement.

Every node of the cluster becomes four vertices in a row (network card in, compute start, compute end, network
card out), and the coordinator becomes two on either side. Capacities are in tokens/s (Mei et al., ASPLOS
2025, section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import networkx as nx

from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.model import Model, machine_throughput, node_throughput
from helixlab.placement import Placement
from helixlab.placement.placement import End

__all__ = [
    "SINK_VERTEX",
    "SOURCE_VERTEX",
    "EdgeKind",
    "flow_graph",
    "link_edge",
    "node_capacities",
    "node_edge",
]

# Vertices are integers, so that the algorithm visits them in the same order in every process (strings are
# hashed differently in each). A node at position p of the placement has the four vertices -4 - 4 p - 0 .. 3:
# in, start, end, out. They count downwards because, where there are several maximum flows, this order leads
# to the one that the random order of the reference simulator finds most often.
SOURCE_VERTEX: Final = 0
SINK_VERTEX: Final = -3
_SOURCE_OUT: Final = -1
_SINK_IN: Final = -2
_IN, _START, _END, _OUT = range(4)


class EdgeKind(StrEnum):
    """Kind of an edge, by what limits its capacity."""

    COMPUTE = "compute"
    LINK = "link"
    NETWORK_CARD = "network card"


def _vertex(position: int, part: int) -> int:
    return -4 - 4 * position - part


def node_edge(position: int) -> tuple[int, int]:
    """Return the edge for the compute of the node at this position of the placement."""
    return _vertex(position, _START), _vertex(position, _END)


def link_edge(position: Mapping[End, int], sender: End, receiver: End) -> tuple[int, int]:
    """Return the edge for a link; `position` is that of each node in the placement."""
    return (
        _SOURCE_OUT if sender == SOURCE else _vertex(position[sender], _OUT),
        _SINK_IN if receiver == SINK else _vertex(position[receiver], _IN),
    )


def node_capacities(cluster: Cluster, model: Model, placement: Placement) -> dict[int, float]:
    """Estimate the compute throughput of every node of the placement, in tokens/s.

    For nodes with a stated KV capacity, the estimate is made for that capacity and their number of layers.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> from helixlab.placement import load_placement
    >>> placement = load_placement("small10/llama-1-30b/helix")
    >>> capacities = node_capacities(load_cluster("small10"), load_model("llama-1-30b"), placement)
    >>> round(capacities[0], 2)
    331.34
    """
    counts = cluster.machine_counts()
    table = machine_throughput(model, counts)
    capacities = {}
    for held in placement.layers:
        machine = cluster.machine_of(held.node).name
        stated = placement.kv_capacity_token_layers.get(held.node)
        if stated is None:
            placement.kv_capacity(cluster, model, held.node)  # raises where nothing is known
            capacities[held.node] = float(table[machine][held.count])
        else:
            capacities[held.node] = node_throughput(model, counts, machine, held.count, stated)
    return capacities


def flow_graph(
    cluster: Cluster, model: Model, placement: Placement
) -> tuple[nx.DiGraph, dict[int, tuple[str, End, End]]]:
    """Build the flow graph with integer vertices, and name its vertices.

    Edges carry ``capacity`` in tokens/s, ``kind`` (``"network card"``, ``"compute"``, ``"link"``),
    ``sender`` and ``receiver``. They are added in a fixed order: source, sink, nodes in the order of the
    placement, links in the order of the placement.

    Returns
    -------
    graph : networkx.DiGraph
        Flow graph; vertex 0 is the source, -3 the sink.
    names : dict of int to (str, end, end)
        Name of each vertex, and the sender and receiver of its row: the node, or the coordinator.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> from helixlab.placement import load_placement
    >>> placement = load_placement("small10/llama-1-30b/helix")
    >>> graph, names = flow_graph(load_cluster("small10"), load_model("llama-1-30b"), placement)
    >>> len(graph), names[-4]
    (44, ('0 in', 0, 0))
    >>> graph.edges[-4, -5]
    {'capacity': 751089.079164789, 'kind': 'network card', 'sender': 0, 'receiver': 0}
    """
    graph = nx.DiGraph()
    edge_bytes = model.token_bytes
    inner_bytes = model.inner_link_bytes_per_token
    position: dict[End, int] = {held.node: p for p, held in enumerate(placement.layers)}
    sent_to: dict[End, list[End]] = {}
    received_from: dict[End, list[End]] = {}
    for sender, receiver in placement.links:
        sent_to.setdefault(sender, []).append(receiver)
        received_from.setdefault(receiver, []).append(sender)

    def add(a: int, b: int, capacity: float, kind: EdgeKind, sender: End, receiver: End) -> None:
        graph.add_edge(a, b, capacity=capacity, kind=kind.value, sender=sender, receiver=receiver)

    sent, received = cluster.coordinator.nic_out_bytes_per_s, cluster.coordinator.nic_in_bytes_per_s
    add(SOURCE_VERTEX, _SOURCE_OUT, sent / edge_bytes, EdgeKind.NETWORK_CARD, SOURCE, SOURCE)
    add(_SINK_IN, SINK_VERTEX, received / edge_bytes, EdgeKind.NETWORK_CARD, SINK, SINK)
    for p, (node, throughput) in enumerate(node_capacities(cluster, model, placement).items()):
        machine = cluster.machine_of(node)
        bytes_in = edge_bytes if received_from.get(node) == [SOURCE] else inner_bytes
        bytes_out = edge_bytes if sent_to.get(node) == [SINK] else inner_bytes
        into, start, end, out = (_vertex(p, part) for part in (_IN, _START, _END, _OUT))
        add(into, start, machine.nic_in_bytes_per_s / bytes_in, EdgeKind.NETWORK_CARD, node, node)
        add(start, end, throughput, EdgeKind.COMPUTE, node, node)
        add(end, out, machine.nic_out_bytes_per_s / bytes_out, EdgeKind.NETWORK_CARD, node, node)
    for sender, receiver in placement.links:
        bandwidth = cluster.link(sender, receiver).bandwidth_bytes_per_s
        capacity = bandwidth / model.link_bytes_per_token(sender, receiver)
        add(*link_edge(position, sender, receiver), capacity, EdgeKind.LINK, sender, receiver)
    names: dict[int, tuple[str, End, End]] = {
        SOURCE_VERTEX: ("source", SOURCE, SOURCE),
        _SOURCE_OUT: ("source out", SOURCE, SOURCE),
        _SINK_IN: ("sink in", SINK, SINK),
        SINK_VERTEX: ("sink", SINK, SINK),
    }
    for p, held in enumerate(placement.layers):
        for part, word in ((_IN, "in"), (_START, "start"), (_END, "end"), (_OUT, "out")):
            names[_vertex(p, part)] = (f"{held.node} {word}", held.node, held.node)
    return graph, names
