"""The cluster: machine types, nodes, links and a coordinator that fit together."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
import pandas as pd

from helixlab._validation import plain
from helixlab.cluster import checks
from helixlab.cluster.parts import SINK, SOURCE, Coordinator, Link, Machine, Node
from helixlab.errors import ClusterError
from helixlab.html import card
from helixlab.units import GB, Gbps

__all__ = ["Cluster"]


@dataclass(frozen=True, repr=False)
class Cluster:
    """Nodes of several machine types, the directed links between them, and the coordinator.

    A cluster checks itself when it is made and never changes; `dataclasses.replace` makes an altered copy.

    Parameters
    ----------
    name : str
        What to call it in tables and messages.
    machines : sequence of Machine
        The machine types; each name once.
    nodes : sequence of Node
        Indices 0 to n-1 in this order.
    links : sequence of Link
        Directed. Their order is kept, and ties are decided by it: a maximum flow, and a scheduler that
        follows it, may depend on it.
    coordinator : Coordinator
        Sender of the links from ``"source"``, receiver of the links to ``"sink"``.

    Raises
    ------
    ClusterError
        An invariant is broken; the message names the value and the mend.

    Examples
    --------
    A machine type of one's own needs no more than its description:

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
                value = checks.shown(getattr(self, field))
                raise ClusterError(f"{field} is {value}; give a sequence of {kind.__name__}") from None
            checks.check_members(members, kind, field)
            object.__setattr__(self, field, members)
        object.__setattr__(self, "name", plain(self.name))
        checks.check_name(self.name, "the name of the cluster")
        checks.check_machine_names(self.machines)
        checks.check_machine_amounts(self.machines)
        checks.check_coordinator(self.coordinator)
        checks.check_node_indices(self.nodes)
        checks.check_node_machines(self.nodes, self._machine_by_name)
        checks.check_node_regions(self.nodes)
        checks.check_link_ends(self.links, len(self.nodes))
        checks.check_links_differ(self.links)
        checks.check_link_amounts(self.links)
        checks.check_reached(self.links)

    @cached_property
    def _machine_by_name(self) -> dict[str, Machine]:
        return {machine.name: machine for machine in self.machines}

    @cached_property
    def _link_by_ends(self) -> dict[tuple[int | str, int | str], Link]:
        return {(link.sender, link.receiver): link for link in self.links}

    @cached_property
    def content_hash(self) -> str:
        """Identifies what the cluster consists of, whatever it is called.

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
        figures = {"nodes": len(self.nodes), "links": len(self.links), "content": self.content_hash[:8]}
        if len(self.regions) > 1:
            figures["regions"] = ", ".join(self.regions)
        return card(f"Cluster {self.name}", figures, pd.DataFrame(machines))

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
        """Nodes of each machine type that is in use, in the order of `machines`."""
        counts = Counter(node.machine for node in self.nodes)
        return {machine.name: counts[machine.name] for machine in self.machines if counts[machine.name]}

    def machine_of(self, index: int) -> Machine:
        """The machine type of a node.

        Raises
        ------
        ClusterError
            There is no node of that index.
        """
        place = plain(index)
        if type(place) is not int or not 0 <= place < len(self.nodes):
            raise ClusterError(
                f"cluster {self.name!r} has no node {checks.shown(index)}; ask for 0 to {len(self.nodes) - 1}"
            )
        return self._machine_by_name[self.nodes[place].machine]

    def link(self, sender: int | str, receiver: int | str) -> Link:
        """The link from one node to another; ``"source"`` and ``"sink"`` are the coordinator.

        Raises
        ------
        ClusterError
            There is no such link.
        """
        found = self._link_by_ends.get((sender, receiver))
        if found is None:
            raise ClusterError(
                f"cluster {self.name!r} has no link {checks.shown(sender)} -> {checks.shown(receiver)}; "
                "links_table() lists those there are"
            )
        return found

    def nodes_table(self) -> pd.DataFrame:
        """One row a node: node, machine, region and what the machine type offers.

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
        """One row a link: sender, receiver, bandwidth_bytes_per_s, latency_s.

        Senders and receivers are what they are in `Link`: node indices, ``"source"`` and ``"sink"``.

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
        """The cluster as a directed graph.

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
