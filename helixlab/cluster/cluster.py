"""The cluster: machine types, nodes, links and a coordinator, and the checks that they fit together.

Every check of a cluster is one function; its message says how to correct the error.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final, Literal

import networkx as nx
import numpy as np
import pandas as pd

from helixlab._html import card
from helixlab._validation import LARGEST, as_number, plain, plain_amount, shown
from helixlab.errors import ClusterError
from helixlab.units import GB, Gbps

__all__ = [
    "SINK",
    "SOURCE",
    "Cluster",
    "Coordinator",
    "Link",
    "Machine",
    "Node",
    "both_ways",
    "check_amount",
    "check_coordinator",
    "check_link_amounts",
    "check_link_ends",
    "check_links_differ",
    "check_machine_amounts",
    "check_machine_names",
    "check_members",
    "check_name",
    "check_node_indices",
    "check_node_machines",
    "check_node_regions",
    "check_reached",
]


SOURCE: Final = "source"
"""Name of the coordinator as a sender; every iteration of a request starts there."""
SINK: Final = "sink"
"""Name of the coordinator as a receiver; every iteration of a request ends there."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type; one with several GPUs, such as L4x2, is one node of the cluster.

    Parameters
    ----------
    name : str
        Name of the type, the key into measured profiles.
    vram_bytes : float
        GPU memory of the whole machine. It has to hold the weights and the KV cache of a node; the size of
        the cache is given by the machine profile or the placement.
    nic_in_bytes_per_s, nic_out_bytes_per_s : float
        Bytes per second that its network card receives and sends over all links together.
    disk_bytes_per_s : float
        Speed at which it loads layers. A run starts when the slowest node has loaded its layers; nothing else
        depends on this speed.

    Examples
    --------
    >>> from helixlab.units import GB, Gbps
    >>> Machine("H100", 80 * GB, 100 * Gbps, 100 * Gbps, 2 * GB).vram_bytes
    80000000000.0
    """

    name: str
    vram_bytes: float
    nic_in_bytes_per_s: float
    nic_out_bytes_per_s: float
    disk_bytes_per_s: float

    def __post_init__(self) -> None:
        _make_plain(self, name=plain)


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the cluster.

    Parameters
    ----------
    index : int
        Position in the nodes of the cluster, counted from 0.
    machine : str
        Name of its machine type.
    region : str, default ""
        Name of its region for tables, figures and planners; empty where the cluster has no regions. The
        bandwidth and latency between regions are those of the links.

    Examples
    --------
    >>> Node(0, "A100")
    Node(index=0, machine='A100', region='')
    """

    index: int
    machine: str
    region: str = ""

    def __post_init__(self) -> None:
        _make_plain(self, index=plain, machine=plain, region=plain)


@dataclass(frozen=True, slots=True)
class Link:
    """A directed link between two nodes, or between the coordinator and a node.

    Parameters
    ----------
    sender : int or "source"
        Index of the sending node; ``SOURCE`` is the coordinator.
    receiver : int or "sink"
        Index of the receiving node; ``SINK`` is the coordinator.
    bandwidth_bytes_per_s : float
        Bandwidth in bytes, not bits, per second.
    latency_s : float
        Time from the end of sending to arrival.

    Examples
    --------
    >>> from helixlab.units import Gbps, ms
    >>> Link(SOURCE, 0, 10 * Gbps, 1 * ms)
    Link(sender='source', receiver=0, bandwidth_bytes_per_s=1250000000.0, latency_s=0.001)
    """

    sender: int | Literal["source"]
    receiver: int | Literal["sink"]
    bandwidth_bytes_per_s: float
    latency_s: float

    def __post_init__(self) -> None:
        # A million links are common in studies of scale: plain values are left as they are.
        plain_ends = type(self.sender) in (int, str) and type(self.receiver) in (int, str)
        if not (plain_ends and type(self.bandwidth_bytes_per_s) is type(self.latency_s) is float):
            _make_plain(self, sender=plain, receiver=plain)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """The machine that sends prompts to the cluster and collects its tokens.

    Parameters
    ----------
    nic_in_bytes_per_s, nic_out_bytes_per_s : float
        Bytes per second that its network card receives and sends over all links together.

    Examples
    --------
    >>> from helixlab.units import GB
    >>> Coordinator(10 * GB, 10 * GB).nic_out_bytes_per_s
    10000000000.0
    """

    nic_in_bytes_per_s: float
    nic_out_bytes_per_s: float

    def __post_init__(self) -> None:
        _make_plain(self)


def _make_plain(part: Any, **how: Callable[[Any], Any]) -> None:
    """Convert the fields to plain Python values, amounts by default; the cluster checks them."""
    for field in fields(part):
        object.__setattr__(part, field.name, how.get(field.name, plain_amount)(getattr(part, field.name)))


def both_ways(one: Any, other: Any, bandwidth_bytes_per_s: float, latency_s: float) -> tuple[Link, ...]:
    """Make a link and, between two nodes, the reverse link with the same bandwidth and latency.

    Examples
    --------
    >>> [(link.sender, link.receiver) for link in both_ways(0, 1, 1e9, 1e-3)]
    [(0, 1), (1, 0)]
    >>> [(link.sender, link.receiver) for link in both_ways(SOURCE, 1, 1e9, 1e-3)]
    [('source', 1)]
    """
    there = Link(one, other, bandwidth_bytes_per_s, latency_s)
    if one == SOURCE or other == SINK:
        return (there,)
    return there, Link(other, one, bandwidth_bytes_per_s, latency_s)


def check_amount(value: object, what: str, zero: bool = False) -> float:
    """Check a number above 0 (or 0 itself, with `zero`); `what` names it in the error."""
    mend = f"a number, {'0 or more' if zero else 'above 0'} and at most {LARGEST:g}"
    limits = {"least": 0.0} if zero else {"above": 0.0}
    return as_number(value, what, **limits, most=LARGEST, mend=mend, error=ClusterError)


def check_name(value: object, what: str) -> None:
    """Check that a name is printable text."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ClusterError(f"{what} is {shown(value)}; give it a printable, non-empty name")


def check_members(members: Iterable[object], kind: type, what: str) -> None:
    """Check that members of a cluster are of their class."""
    for member in members:
        if not isinstance(member, kind):
            raise ClusterError(f"{what} holds {shown(member)}; give {kind.__name__} objects only")


def check_machine_names(machines: Sequence[Machine]) -> None:
    """Check that machine types have different names."""
    seen: set[str] = set()
    for machine in machines:
        check_name(machine.name, "the name of a machine type")
        if machine.name in seen:
            raise ClusterError(f"two machine types are called {machine.name!r}; rename or drop one of them")
        seen.add(machine.name)


def check_machine_amounts(machines: Iterable[Machine]) -> None:
    """Check that memory, network card and disk of every machine type are positive and finite."""
    for machine in machines:
        for amount in ("vram_bytes", "nic_in_bytes_per_s", "nic_out_bytes_per_s", "disk_bytes_per_s"):
            check_amount(getattr(machine, amount), f"{amount} of machine type {machine.name!r}")


def check_coordinator(coordinator: object) -> None:
    """Check that the bandwidth of the coordinator is positive and finite."""
    check_members([coordinator], Coordinator, "coordinator")
    for amount in ("nic_in_bytes_per_s", "nic_out_bytes_per_s"):
        check_amount(getattr(coordinator, amount), f"{amount} of the coordinator")


def check_node_indices(nodes: Sequence[Node]) -> None:
    """Check that there are nodes, numbered 0 to n-1 in their order."""
    if not nodes:
        raise ClusterError("the cluster has 0 nodes; give it at least one Node")
    for position, node in enumerate(nodes):
        if type(node.index) is not int or node.index != position:
            raise ClusterError(
                f"the node at position {position} has index {shown(node.index)}; "
                f"number the nodes 0 to {len(nodes) - 1} in their order"
            )


def check_node_machines(nodes: Iterable[Node], known: Collection[str]) -> None:
    """Check that every node is of a machine type that the cluster describes."""
    for node in nodes:
        if not isinstance(node.machine, str) or node.machine not in known:
            raise ClusterError(
                f"node {node.index} is of machine type {shown(node.machine)}, which the cluster does not "
                f"describe; add a Machine of that name, or use one of: {', '.join(known) or 'none yet'}"
            )


def check_node_regions(nodes: Iterable[Node]) -> None:
    """Check that regions are text, empty for none."""
    for node in nodes:
        if not isinstance(node.region, str) or not node.region.isprintable():
            raise ClusterError(
                f"node {node.index} is in region {shown(node.region)}; give a printable name, or '' for none"
            )


def check_link_ends(links: Iterable[Link], nodes: int) -> None:
    """Check that links join two different nodes, the source to a node, or a node to the sink."""
    for link in links:
        sender, receiver = link.sender, link.receiver
        from_node = type(sender) is int and 0 <= sender < nodes
        to_node = type(receiver) is int and 0 <= receiver < nodes
        if from_node and to_node and sender == receiver:
            raise ClusterError(f"link {sender} -> {receiver} joins a node to itself; leave it out")
        if not ((from_node or sender == SOURCE) and (to_node or receiver == SINK) and (from_node or to_node)):
            raise ClusterError(
                f"link {shown(sender)} -> {shown(receiver)} has no such ends; join nodes 0 to {nodes - 1}, "
                f"{SOURCE!r} to a node, or a node to {SINK!r}"
            )


def check_links_differ(links: Iterable[Link]) -> None:
    """Check that no two links have the same sender and receiver."""
    seen: set[tuple[int | str, int | str]] = set()
    for link in links:
        ends = (link.sender, link.receiver)
        if ends in seen:
            raise ClusterError(
                f"link {link.sender} -> {link.receiver} is there twice; keep one, with the bandwidth of both"
            )
        seen.add(ends)


def check_link_amounts(links: Iterable[Link]) -> None:
    """Check that bandwidth is positive and finite, and latency finite and not negative."""
    for link in links:
        bandwidth, latency = link.bandwidth_bytes_per_s, link.latency_s
        # A million links are common in studies of scale: floats in range pass at once.
        if type(bandwidth) is type(latency) is float and 0 < bandwidth <= LARGEST and 0 <= latency <= LARGEST:
            continue
        check_amount(bandwidth, f"bandwidth_bytes_per_s of link {link.sender} -> {link.receiver}")
        check_amount(latency, f"latency_s of link {link.sender} -> {link.receiver}", zero=True)


def check_reached(links: Iterable[Link]) -> None:
    """Check that the coordinator has a link into the cluster and one back."""
    leaving, arriving = False, False
    for link in links:
        leaving = leaving or link.sender == SOURCE
        arriving = arriving or link.receiver == SINK
    if not leaving:
        raise ClusterError(f"no link leaves the coordinator; add Link({SOURCE!r}, node, ...)")
    if not arriving:
        raise ClusterError(f"no link returns to the coordinator; add Link(node, {SINK!r}, ...)")


@dataclass(frozen=True, repr=False)
class Cluster:
    """Nodes of several machine types, the directed links between them, and the coordinator.

    A cluster is checked when it is made and never changes; `dataclasses.replace` makes an altered copy.

    Parameters
    ----------
    name : str
        Name of the cluster in tables and messages.
    machines : sequence of Machine
        Machine types of the nodes, each name once.
    nodes : sequence of Node
        Nodes with the indices 0 to n-1 in this order.
    links : sequence of Link
        Directed links. Their order is kept and decides ties: a maximum flow, and a scheduler that follows
        it, may depend on it.
    coordinator : Coordinator
        Sender of the links from ``"source"``, receiver of the links to ``"sink"``.

    Raises
    ------
    ClusterError
        An invariant is broken; the message names the value and how to correct it.

    Examples
    --------
    A machine type of your own needs no more than its description:

    >>> from helixlab.units import GB, Gbps, ms
    >>> h100 = Machine("H100", 80 * GB, 100 * Gbps, 100 * Gbps, 2 * GB)
    >>> ends = [(SOURCE, 0), (1, SINK), (0, 1), (1, 0)]
    >>> cluster = Cluster(
    ...     name="pair",
    ...     machines=[h100],
    ...     nodes=[Node(0, "H100"), Node(1, "H100")],
    ...     links=[Link(sender, receiver, 10 * Gbps, 1 * ms) for sender, receiver in ends],
    ...     coordinator=Coordinator(10 * Gbps, 10 * Gbps),
    ... )
    >>> cluster
    Cluster('pair': 2 nodes (2 H100), 4 links)
    >>> cluster.machine_of(1).vram_bytes / GB
    80.0
    """

    name: str
    machines: tuple[Machine, ...]
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    coordinator: Coordinator

    def __post_init__(self) -> None:
        for field, kind in (("machines", Machine), ("nodes", Node), ("links", Link)):
            try:
                members = tuple(getattr(self, field))
            except TypeError:
                value = shown(getattr(self, field))
                raise ClusterError(f"{field} is {value}; give a sequence of {kind.__name__}") from None
            check_members(members, kind, field)
            object.__setattr__(self, field, members)
        object.__setattr__(self, "name", plain(self.name))
        check_name(self.name, "the name of the cluster")
        check_machine_names(self.machines)
        check_machine_amounts(self.machines)
        check_coordinator(self.coordinator)
        check_node_indices(self.nodes)
        check_node_machines(self.nodes, self._machine_by_name)
        check_node_regions(self.nodes)
        check_link_ends(self.links, len(self.nodes))
        check_links_differ(self.links)
        check_link_amounts(self.links)
        check_reached(self.links)

    @cached_property
    def _machine_by_name(self) -> dict[str, Machine]:
        return {machine.name: machine for machine in self.machines}

    @cached_property
    def _link_by_ends(self) -> dict[tuple[int | str, int | str], Link]:
        return {(link.sender, link.receiver): link for link in self.links}

    @cached_property
    def content_hash(self) -> str:
        """Hash of the content of the cluster, which does not depend on its name.

        Examples
        --------
        >>> from dataclasses import replace
        >>> from helixlab.cluster import load_cluster
        >>> cluster = load_cluster("small10")
        >>> replace(cluster, name="another").content_hash == cluster.content_hash
        True
        """
        parts = [repr(part) for part in (*self.machines, *self.nodes, self.coordinator)]
        digest = hashlib.sha256(repr(parts).encode())
        # A column at a time: a thousand nodes have a million links.
        position = {SOURCE: -1, SINK: -2}
        for end in ("sender", "receiver"):
            ends = (getattr(link, end) for link in self.links)
            digest.update(np.array([position.get(end, end) for end in ends], "<i8").tobytes())
        for amount in ("bandwidth_bytes_per_s", "latency_s"):
            amounts = np.array([getattr(link, amount) for link in self.links], "<f8")
            digest.update((amounts + 0.0).tobytes())  # -0.0 is 0.0
        return digest.hexdigest()[:16]

    def _repr_html_(self) -> str:
        machines = [
            {
                "machine": machine.name,
                "nodes": self.machine_counts().get(machine.name, 0),
                "vram_GB": machine.vram_bytes / GB,
                "nic_in_Gbps": machine.nic_in_bytes_per_s / Gbps,
                "nic_out_Gbps": machine.nic_out_bytes_per_s / Gbps,
            }
            for machine in self.machines
        ]
        values = {"nodes": len(self.nodes), "links": len(self.links), "content": self.content_hash[:8]}
        if len(self.regions) > 1:
            values["regions"] = ", ".join(self.regions)
        return card(f"Cluster {self.name}", values, pd.DataFrame(machines))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {machine}" for machine, count in self.machine_counts().items())
        regions = f", {len(self.regions)} regions" if len(self.regions) > 1 else ""
        nodes = f"{len(self.nodes)} node" + ("s" if len(self.nodes) > 1 else "")
        return f"Cluster({self.name!r}: {nodes} ({counts}), {len(self.links)} links{regions})"

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions in the order of the nodes; ``("",)`` where the cluster has none."""
        return tuple(dict.fromkeys(node.region for node in self.nodes))

    def machine_counts(self) -> dict[str, int]:
        """Count the nodes of each machine type in use, in the order of `machines`."""
        counts = Counter(node.machine for node in self.nodes)
        return {machine.name: counts[machine.name] for machine in self.machines if counts[machine.name]}

    def machine_of(self, index: int) -> Machine:
        """Return the machine type of a node.

        Raises
        ------
        ClusterError
            There is no node with that index.
        """
        place = plain(index)
        if type(place) is not int or not 0 <= place < len(self.nodes):
            raise ClusterError(
                f"cluster {self.name!r} has no node {shown(index)}; ask for 0 to {len(self.nodes) - 1}"
            )
        return self._machine_by_name[self.nodes[place].machine]

    def link(self, sender: int | str, receiver: int | str) -> Link:
        """Return the link from one node to another; ``"source"`` and ``"sink"`` are the coordinator.

        Raises
        ------
        ClusterError
            There is no such link.
        """
        found = self._link_by_ends.get((sender, receiver))
        if found is None:
            raise ClusterError(
                f"cluster {self.name!r} has no link {shown(sender)} -> {shown(receiver)}; "
                "links_table() lists those there are"
            )
        return found

    def nodes_table(self) -> pd.DataFrame:
        """Tabulate the nodes: index, machine, region, and memory and speeds of the machine type.

        Examples
        --------
        >>> from helixlab.cluster import load_cluster
        >>> table = load_cluster("single24").nodes_table()
        >>> table.groupby("machine")["vram_bytes"].first().to_dict()
        {'A100': 40000000000.0, 'L4': 24000000000.0, 'T4': 16000000000.0}
        """
        rows = []
        for node in self.nodes:
            machine = self._machine_by_name[node.machine]
            rows.append(
                {
                    "node": node.index,
                    "machine": node.machine,
                    "region": node.region,
                    "vram_bytes": machine.vram_bytes,
                    "nic_in_bytes_per_s": machine.nic_in_bytes_per_s,
                    "nic_out_bytes_per_s": machine.nic_out_bytes_per_s,
                    "disk_bytes_per_s": machine.disk_bytes_per_s,
                }
            )
        return pd.DataFrame(rows)

    def links_table(self) -> pd.DataFrame:
        """Tabulate the links: sender, receiver, bandwidth_bytes_per_s, latency_s.

        Senders and receivers are those of `Link`: node indices, ``"source"`` and ``"sink"``.

        Examples
        --------
        >>> from helixlab.cluster import load_cluster
        >>> table = load_cluster("geo24").links_table()
        >>> float(table.loc[table["sender"] == "source", "latency_s"].max())
        0.059
        """
        return pd.DataFrame(
            {
                "sender": pd.Series([link.sender for link in self.links], dtype=object),
                "receiver": pd.Series([link.receiver for link in self.links], dtype=object),
                "bandwidth_bytes_per_s": pd.Series(
                    [link.bandwidth_bytes_per_s for link in self.links], dtype=float
                ),
                "latency_s": pd.Series([link.latency_s for link in self.links], dtype=float),
            }
        )

    def to_networkx(self) -> nx.DiGraph:
        """Convert the cluster to a directed graph.

        Its nodes are ``"source"``, ``"sink"`` and the indices, with `machine` and `region` (the two ends of
        the coordinator are of machine ``"coordinator"``); its edges carry `bandwidth_bytes_per_s` and
        `latency_s`. Nodes and edges are added in the cluster's order.

        Examples
        --------
        >>> from helixlab.cluster import load_cluster
        >>> graph = load_cluster("single24").to_networkx()
        >>> graph.nodes[6]["machine"], graph.edges["source", 6]["bandwidth_bytes_per_s"]
        ('A100', 1000000000.0)
        """
        graph = nx.DiGraph(name=self.name)
        graph.add_nodes_from((SOURCE, SINK), machine="coordinator", region="")
        graph.add_nodes_from(
            (node.index, {"machine": node.machine, "region": node.region}) for node in self.nodes
        )
        graph.add_edges_from(
            (
                link.sender,
                link.receiver,
                {"bandwidth_bytes_per_s": link.bandwidth_bytes_per_s, "latency_s": link.latency_s},
            )
            for link in self.links
        )
        return graph
