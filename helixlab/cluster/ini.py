"""Readers for the files of the Helix paper's own simulator.

It has two kinds of cluster files. A *complete cluster* names the machine type of each node and links that
serve both directions; what a machine type offers stands in a *machine profile* beside it. A *simulator
cluster* is written for one placement: machines described node by node, directed links, often a subset, and
the KV capacity of every node. Its nodes are called ``compute_node_2`` and so on, numbered from an offset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from helixlab._validation import shown
from helixlab.cluster.bundled import bundled_coordinator, machines_in_use
from helixlab.cluster.checks import (
    check_coordinator,
    check_machine_amounts,
    check_machine_names,
    naming,
)
from helixlab.cluster.cluster import Cluster
from helixlab.cluster.ini_values import RATES, SECONDS, SIZES, Section, read_sections
from helixlab.cluster.parts import SINK, SOURCE, Coordinator, Link, Machine, Node, both_ways
from helixlab.errors import FileFormatError

__all__ = [
    "read_cluster_ini",
    "read_complete_cluster",
    "read_layers_ini",
    "read_machine_profiles",
    "read_simulator_cluster",
]

_COMPLETE_LINK: Final = re.compile(r"Link-(source|[0-9]{1,9})-(sink|[0-9]{1,9})")
_COMPUTE_NODE: Final = re.compile(r"compute_node_([0-9]{1,9})")
_PROFILE: Final = ("vram_size", "inbound_nic_speed", "outbound_nic_speed", "disk_speed")
_NODE_KEYS: Final = (*_PROFILE, "machine_type", "kv_cache_capacity")


def read_cluster_ini(path: str | os.PathLike[str]) -> Cluster:
    """Read a cluster file of either kind, with the bundled machine types where it describes none.

    Raises
    ------
    FileFormatError
        The file is of another kind, or a value in it cannot be read.
    ClusterError
        It can be read, but breaks an invariant of clusters.
    """
    sections = read_sections(path)
    if "NodeNames" in sections:
        return read_complete_cluster(path)
    if "ComputeNodes" in sections:
        return read_simulator_cluster(path)[0]
    kind = "a placement" if "Solution" in sections else "no cluster"
    raise FileFormatError(
        f"{path} holds {kind}; give a file with a section [NodeNames] (complete cluster) or [ComputeNodes] "
        "(simulator cluster)"
    )


def read_machine_profiles(path: str | os.PathLike[str]) -> tuple[tuple[Machine, ...], Coordinator]:
    """Read machine types and the coordinator from a machine profile file.

    Returns
    -------
    machines : tuple of Machine
    coordinator : Coordinator

    Raises
    ------
    FileFormatError
        The file is of another kind, or a value in it cannot be read.
    ClusterError
        A figure in it is not above 0.
    """
    sections = read_sections(path)
    out = _taken(sections, "SourceNode", path).only(_PROFILE).number("outbound_nic_speed", RATES)
    into = _taken(sections, "SinkNode", path).only(_PROFILE).number("inbound_nic_speed", RATES)
    machines = tuple(_machine(name, section.only(_PROFILE)) for name, section in sections.items())
    with naming(os.fspath(path)):
        check_machine_names(machines)
        check_machine_amounts(machines)
        check_coordinator(Coordinator(into, out))
    return machines, Coordinator(into, out)


def read_complete_cluster(
    path: str | os.PathLike[str],
    machines: Iterable[Machine] | None = None,
    coordinator: Coordinator | None = None,
) -> Cluster:
    """Read a complete cluster.

    Parameters
    ----------
    path : path
        The file; its name without ending becomes the cluster's name.
    machines : iterable of Machine, optional
        Machine types to choose from; by default those that ship with helixlab. For those of a machine profile
        file call ``read_complete_cluster(path, *read_machine_profiles(profiles))``.
    coordinator : Coordinator, optional
        By default the one that ships with helixlab.

    Raises
    ------
    FileFormatError
        The file is of another kind, or a value in it cannot be read.
    ClusterError
        It can be read, but breaks an invariant of clusters, for instance by an unknown machine type.
    """
    sections = read_sections(path)
    names = _taken(sections, "NodeNames", path).only(["total_compute_nodes"])
    listed: dict[int | str, Section] = {
        SOURCE: _taken(sections, "SourceNode", path).only(["connected_nodes"]),
        SINK: _taken(sections, "SinkNode", path).only(["connected_nodes"]),
    }
    nodes: list[Node] = []
    while (name := f"ComputeNode-{len(nodes)}") in sections:
        section = sections.pop(name).only(["type", "connected_nodes"])
        listed[len(nodes)] = section
        nodes.append(Node(len(nodes), section.text("type")))
    if names.integer("total_compute_nodes") != len(nodes):
        raise names.fault("total_compute_nodes", f"write {len(nodes)}, or add the sections [{name}] and on")
    links: list[Link] = []
    joined: dict[int | str, set[int | str]] = {end: set() for end in listed}
    for title, section in sections.items():
        found = _COMPLETE_LINK.fullmatch(title)
        if found is None:
            raise FileFormatError(f"{path}: section [{shown(title)[1:-1]}] means nothing here; leave it out")
        section.only(["bandwidth", "latency"])
        figures = section.number("bandwidth", RATES), section.number("latency", SECONDS)
        one, other = (end if end in (SOURCE, SINK) else int(end) for end in found.groups())
        links.extend(both_ways(one, other, *figures))
        joined.setdefault(one, set()).add(other)
        joined.setdefault(other, set()).add(one)
    for end, section in listed.items():
        for odd in sorted(joined[end].symmetric_difference(section.items("connected_nodes")), key=str):
            raise section.fault(
                "connected_nodes",
                f"make it agree with the [Link-...] sections: {odd!r} is in one of them only",
            )
    with naming(os.fspath(path)):
        return Cluster(
            Path(path).stem,
            machines_in_use(machines, nodes),
            tuple(nodes),
            tuple(links),
            bundled_coordinator() if coordinator is None else coordinator,
        )


def read_simulator_cluster(path: str | os.PathLike[str]) -> tuple[Cluster, dict[int, int]]:
    """Read a simulator cluster and the KV capacity of its nodes.

    The nodes are numbered from 0 on in the order of the numbers in their names; the offset need not be known.

    Returns
    -------
    cluster : Cluster
        Its name is the file's without ending.
    kv_capacity_token_layers : dict of int to int
        Token-layers that the KV cache of each node holds.

    Raises
    ------
    FileFormatError
        The file is of another kind, or a value in it cannot be read.
    ClusterError
        It can be read, but breaks an invariant of clusters.
    """
    sections = read_sections(path)
    nics = _taken(sections, "Coordinator", path).only(["inbound_nic_speed", "outbound_nic_speed"])
    coordinator = Coordinator(
        nics.number("inbound_nic_speed", RATES), nics.number("outbound_nic_speed", RATES)
    )
    types = _taken(sections, "MachineTypes", path).only(["types"]).items("types")
    index = _numbered(_taken(sections, "ComputeNodes", path).only(["names"]))
    machines: dict[str, Machine] = {}
    nodes: list[Node] = []
    capacity: dict[int, int] = {}
    for name in index:
        section = _taken(sections, name, path).only(_NODE_KEYS, ["activation_backup_capacity"])
        machine = _machine(section.text("machine_type"), section)
        if machine.name not in types:
            raise section.fault("machine_type", "add it to the types of section [MachineTypes]")
        if machines.setdefault(machine.name, machine) != machine:
            raise section.fault("machine_type", "rename it: an earlier node of this type has other figures")
        capacity[len(nodes)] = section.integer("kv_cache_capacity")
        nodes.append(Node(len(nodes), machine.name))
    links: list[Link] = []
    listed = _taken(sections, "Links", path).only(["names"])
    names = listed.items("names")
    if len(set(names)) < len(names):
        raise listed.fault("names", "name each link once")
    for name in map(str, names):
        section = _taken(sections, name, path).only(["in", "out", "latency", "bandwidth"])
        ends: list[Any] = []
        for key, outside in (("in", SOURCE), ("out", SINK)):
            end = section.text(key)
            if end != outside and end not in index:
                raise section.fault(key, f"write {outside!r} or a name from section [ComputeNodes]")
            ends.append(index.get(end, end))
        figures = section.number("bandwidth", RATES), section.number("latency", SECONDS)
        links.append(Link(ends[0], ends[1], *figures))
    for name in sections:
        raise FileFormatError(f"{path}: section [{shown(name)[1:-1]}] is named by no other; leave it out")
    used = tuple(sorted(machines.values(), key=lambda machine: types.index(machine.name)))
    with naming(os.fspath(path)):
        cluster = Cluster(Path(path).stem, used, tuple(nodes), tuple(links), coordinator)
    return cluster, capacity


def read_layers_ini(path: str | os.PathLike[str]) -> dict[int, tuple[int, int]]:
    """Read which layers each node holds from a placement ("solution") file.

    Returns
    -------
    dict of int to (int, int)
        First layer and end (one past the last layer) by node index, in the order of the file. Nodes without
        layers are left out. The simulator cluster written for such a placement leaves them out too, so
        `read_simulator_cluster` numbers the others without gaps.

    Raises
    ------
    FileFormatError
        The file is of another kind, a value in it cannot be read, or layers do not follow one another.
    """
    sections = read_sections(path)
    offset = _taken(sections, "Settings", path).only(["offset"]).integer("offset")
    solution = _taken(sections, "Solution", path)
    for name in sections:
        raise FileFormatError(f"{path}: section [{shown(name)[1:-1]}] means nothing here; leave it out")
    held: dict[int, tuple[int, int]] = {}
    for key in solution.values:
        found = _COMPUTE_NODE.fullmatch(key)
        if found is None or int(found[1]) < offset:
            raise solution.fault(key, f"call the node compute_node_N with N not below the offset, {offset}")
        layers, index = solution.items(key), int(found[1]) - offset
        if index in held:
            raise solution.fault(key, "name each node once")
        if not layers:
            continue
        first = layers[0]
        if not isinstance(first, int) or first < 0 or layers != list(range(first, first + len(layers))):
            raise solution.fault(key, "write layers that follow one another, from 0 on, such as [3, 4, 5]")
        held[index] = first, first + len(layers)
    return held


def _taken(sections: dict[str, Section], name: str, path: str | os.PathLike[str]) -> Section:
    """Take a section out; what is left at the end is unknown."""
    if name not in sections:
        raise FileFormatError(f"{path} has no section [{shown(name)[1:-1]}]; add it")
    return sections.pop(name)


def _numbered(compute: Section) -> dict[str, int]:
    """Node index of each name, by the number in it."""
    names: dict[int, str] = {}
    for name in map(str, compute.items("names")):
        found = _COMPUTE_NODE.fullmatch(name)
        if found is None or names.setdefault(int(found[1]), name) is not name:
            raise compute.fault("names", f"item {shown(name)}: call each node compute_node_N, each N once")
    return {names[number]: index for index, number in enumerate(sorted(names))}


def _machine(name: str, section: Section) -> Machine:
    return Machine(
        name,
        section.number("vram_size", SIZES),
        section.number("inbound_nic_speed", RATES),
        section.number("outbound_nic_speed", RATES),
        section.number("disk_speed", RATES),
    )
