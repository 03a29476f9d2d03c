"""What a cluster is made of: machine types, nodes, links and the coordinator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from helixlab._validation import plain, plain_amount

__all__ = ["SINK", "SOURCE", "Coordinator", "Link", "Machine", "Node", "both_ways"]

SOURCE: Final = "source"
"""The coordinator as a sender: where every iteration of a query starts."""
SINK: Final = "sink"
"""The coordinator as a receiver: where every iteration of a query ends."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type; one with several GPUs, such as L4x2, is one node of the cluster.

    Parameters
    ----------
    name : str
        Name of the type, the key into measured profiles.
    vram_bytes : float
        GPU memory of the whole machine. It has to hold the weights and the KV cache of a node; how large the
        cache is says the machine profile or the placement, not the memory.
    nic_in_bytes_per_s, nic_out_bytes_per_s : float
        What its network card receives and sends, all links together.
    disk_bytes_per_s : float
        Speed at which it loads layers. A run starts when the slowest node has loaded its own; nothing else
        depends on it.

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
        Its number, from 0 on in the order of the cluster's nodes.
    machine : str
        Name of its machine type.
    region : str, default ""
        Where it stands; empty where the cluster has no regions. A name for tables, pictures and planners:
        what a region means for its links say their bandwidth and latency.

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
        Bytes, not bits, per second.
    latency_s : float
        From the end of sending to arrival.

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
        # A million links are common in studies of scale: what is plain already needs no closer look.
        plain_ends = type(self.sender) in (int, str) and type(self.receiver) in (int, str)
        if not (plain_ends and type(self.bandwidth_bytes_per_s) is type(self.latency_s) is float):
            _make_plain(self, sender=plain, receiver=plain)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """The machine that feeds prompts to the cluster and collects its tokens.

    Parameters
    ----------
    nic_in_bytes_per_s, nic_out_bytes_per_s : float
        What its network card receives and sends, all links together.

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
    """Make the fields plain Python values, amounts if nothing else is said; a cluster checks them."""
    for field in fields(part):
        object.__setattr__(part, field.name, how.get(field.name, plain_amount)(getattr(part, field.name)))


def both_ways(one: Any, other: Any, bandwidth_bytes_per_s: float, latency_s: float) -> tuple[Link, ...]:
    """A link and, between two nodes, its way back with the same figures.

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
