"""The invariants of a cluster, one function each; every message says how to mend what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from helixlab._validation import LARGEST, as_number, shown
from helixlab.cluster.parts import SINK, SOURCE, Coordinator, Link, Machine, Node
from helixlab.errors import ClusterError

__all__ = [
    "LARGEST",
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
    "naming",
    "shown",
]


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Put the file in front of what is wrong with the cluster in it."""
    try:
        yield
    except ClusterError as error:
        raise ClusterError(f"{source}: {error}") from None


def check_amount(value: object, what: str, zero: bool = False) -> float:
    """Refuse what is not a number above 0 (or 0 itself, with `zero`); `what` names the value."""
    mend = f"a number, {'0 or more' if zero else 'above 0'} and at most {LARGEST:g}"
    limits = {"least": 0.0} if zero else {"above": 0.0}
    return as_number(value, what, **limits, most=LARGEST, mend=mend, error=ClusterError)


def check_name(value: object, what: str) -> None:
    """Refuse a name that is not printable text."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ClusterError(f"{what} is {shown(value)}; give it a printable, non-empty name")


def check_members(members: Iterable[object], kind: type, what: str) -> None:
    """Refuse members of a cluster that are not of their class."""
    for member in members:
        if not isinstance(member, kind):
            raise ClusterError(f"{what} holds {shown(member)}; give {kind.__name__} objects only")


def check_machine_names(machines: Sequence[Machine]) -> None:
    """Machine types have different names."""
    seen: set[str] = set()
    for machine in machines:
        check_name(machine.name, "the name of a machine type")
        if machine.name in seen:
            raise ClusterError(f"two machine types are called {machine.name!r}; rename or drop one of them")
        seen.add(machine.name)


def check_machine_amounts(machines: Iterable[Machine]) -> None:
    """Memory, network card and disk of every machine type are positive and finite."""
    for machine in machines:
        for amount in ("vram_bytes", "nic_in_bytes_per_s", "nic_out_bytes_per_s", "disk_bytes_per_s"):
            check_amount(getattr(machine, amount), f"{amount} of machine type {machine.name!r}")


def check_coordinator(coordinator: object) -> None:
    """The coordinator's network card is positive and finite."""
    check_members([coordinator], Coordinator, "coordinator")
    for amount in ("nic_in_bytes_per_s", "nic_out_bytes_per_s"):
        check_amount(getattr(coordinator, amount), f"{amount} of the coordinator")


def check_node_indices(nodes: Sequence[Node]) -> None:
    """There are nodes, numbered 0 to n-1 in their order."""
    if not nodes:
        raise ClusterError("the cluster has 0 nodes; give it at least one Node")
    for position, node in enumerate(nodes):
        if type(node.index) is not int or node.index != position:
            raise ClusterError(
                f"the node at position {position} has index {shown(node.index)}; "
                f"number the nodes 0 to {len(nodes) - 1} in their order"
            )


def check_node_machines(nodes: Iterable[Node], known: Collection[str]) -> None:
    """Every node is of a machine type that the cluster describes."""
    for node in nodes:
        if not isinstance(node.machine, str) or node.machine not in known:
            raise ClusterError(
                f"node {node.index} is of machine type {shown(node.machine)}, which the cluster does not "
                f"describe; add a Machine of that name, or use one of: {', '.join(known) or 'none yet'}"
            )


def check_node_regions(nodes: Iterable[Node]) -> None:
    """Regions are text, empty for none."""
    for node in nodes:
        if not isinstance(node.region, str) or not node.region.isprintable():
            raise ClusterError(
                f"node {node.index} is in region {shown(node.region)}; give a printable name, or '' for none"
            )


def check_link_ends(links: Iterable[Link], nodes: int) -> None:
    """Links join two different nodes, or the source to a node, or a node to the sink."""
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
    """No two links have the same sender and receiver."""
    seen: set[tuple[int | str, int | str]] = set()
    for link in links:
        ends = (link.sender, link.receiver)
        if ends in seen:
            raise ClusterError(
                f"link {link.sender} -> {link.receiver} is there twice; keep one, with the bandwidth of both"
            )
        seen.add(ends)


def check_link_amounts(links: Iterable[Link]) -> None:
    """Bandwidth is positive and finite, latency finite and not negative."""
    for link in links:
        bandwidth, latency = link.bandwidth_bytes_per_s, link.latency_s
        # A million links are common in studies of scale: floats in range need no closer look.
        if type(bandwidth) is type(latency) is float and 0 < bandwidth <= LARGEST and 0 <= latency <= LARGEST:
            continue
        check_amount(bandwidth, f"bandwidth_bytes_per_s of link {link.sender} -> {link.receiver}")
        check_amount(latency, f"latency_s of link {link.sender} -> {link.receiver}", zero=True)


def check_reached(links: Iterable[Link]) -> None:
    """The coordinator has a link into the cluster and one back."""
    leaving, arriving = False, False
    for link in links:
        leaving = leaving or link.sender == SOURCE
        arriving = arriving or link.receiver == SINK
    if not leaving:
        raise ClusterError(f"no link leaves the coordinator; add Link({SOURCE!r}, node, ...)")
    if not arriving:
        raise ClusterError(f"no link returns to the coordinator; add Link(node, {SINK!r}, ...)")
