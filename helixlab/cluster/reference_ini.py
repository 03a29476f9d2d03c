"""Readers for the cluster files of the Helix paper's own simulator.

The simulator has two kinds of cluster files. A *complete cluster* names the machine type of each node, and
links that serve both directions; a separate *machine profile* describes the machine types. A *simulator
cluster* is written for one placement: it describes machines node by node, directed links, often a subset of
them, and the KV capacity of every node. Its nodes are called ``compute_node_2`` and so on, numbered from an
offset.

A value in these files is a product of numbers and units (``1250.0 * mbps``), a list of integers and quoted
names (``['source', 1, 2]``), or a name (``A100``, ``"A100"``). A small grammar reads them; nothing is
evaluated.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from helixlab._io import read_text
from helixlab._validation import shown
from helixlab.cluster.cluster import (
    SINK,
    SOURCE,
    Cluster,
    Coordinator,
    Link,
    Machine,
    Node,
    both_ways,
    check_coordinator,
    check_machine_amounts,
    check_machine_names,
)
from helixlab.cluster.machines import bundled_coordinator, machines_in_use
from helixlab.errors import ClusterError, FileFormatError, name_source

__all__ = [
    "RATES",
    "SECONDS",
    "SIZES",
    "Section",
    "read_cluster_ini",
    "read_complete_cluster",
    "read_layers_ini",
    "read_machine_profiles",
    "read_sections",
    "read_simulator_cluster",
]


RATES: Final = {"kbps": "1e3", "mbps": "1e6", "gbps": "1e9"}
"""Units of rates in bytes per second; a "bit" in these files is a byte."""
SIZES: Final = {"Byte": "1", "KB": "1e3", "MB": "1e6", "GB": "1e9"}
SECONDS: Final = {"Sec": "1", "MilliSec": "1e-3"}

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,2})?")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,15}")
_NAME: Final = re.compile(r"\w[\w .+/-]{0,63}")
_MOST_FACTORS: Final = 4
_MOST_ITEMS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a file, with methods that read its values.

    Examples
    --------
    >>> link = Section("my.ini", "Link-0-1", {"bandwidth": "12.5 * mbps", "latency": "59 * MilliSec"})
    >>> link.number("bandwidth", RATES), link.number("latency", SECONDS)
    (12500000.0, 0.059)
    """

    file: str
    name: str
    values: Mapping[str, str]

    def only(self, required: Collection[str], optional: Collection[str] = ()) -> Section:
        """Return this section if it has all `required` keys and no others but the `optional` ones."""
        for key in required:
            if key not in self.values:
                raise FileFormatError(f"{self.file}: section [{self.name}] has no key {key!r}; add it")
        for key in self.values:
            if key not in required and key not in optional:
                raise self.fault(key, "leave out this key: it has no meaning here")
        return self

    def fault(self, key: str, mend: str) -> FileFormatError:
        """Make the error for a value, which says how to correct it."""
        value = shown(self.values[key])
        return FileFormatError(f"{self.file}: section [{self.name}], key {shown(key)}, value {value}: {mend}")

    def number(self, key: str, units: Mapping[str, str]) -> float:
        """Read a product of numbers and at most one unit, in bytes, bytes per second or seconds."""
        mend = f"write a number and a unit ({', '.join(units)}), such as 2.5 * {list(units)[-1]}"
        factors = [factor.strip() for factor in self.values[key].split("*", _MOST_FACTORS)]
        if len(factors) > _MOST_FACTORS or sum(factor in units for factor in factors) > 1:
            raise self.fault(key, mend)
        product = Decimal(1)  # decimal, so that 59 * 1e-3 is 0.059 and not 0.059000000000000004
        for factor in factors:
            if factor not in units and not _NUMBER.fullmatch(factor):
                raise self.fault(key, mend)
            product *= Decimal(units.get(factor, factor))
        return float(product)

    def integer(self, key: str) -> int:
        """Read a whole number, 0 or more."""
        value = self.values[key].strip()
        if not _INTEGER.fullmatch(value) or int(value) < 0:
            raise self.fault(key, "write a whole number, 0 or more")
        return int(value)

    def text(self, key: str) -> str:
        """Read a name, in quotes or not."""
        name = _unquoted(self.values[key]) or self.values[key].strip()
        if not _NAME.fullmatch(name):
            raise self.fault(key, "write a name of letters, digits, blanks and . + - / _")
        return name

    def items(self, key: str) -> list[int | str]:
        """Read a list of whole numbers and quoted names."""
        value = self.values[key].strip()
        if value[:1] != "[" or value[-1:] != "]":
            raise self.fault(key, "write a list, such as ['source', 0, 1]")
        if value.count(",") >= _MOST_ITEMS:
            raise self.fault(key, f"write a list of at most {_MOST_ITEMS} items")
        found: list[int | str] = []
        for item in value[1:-1].split(",") if value[1:-1].strip() else []:
            name = _unquoted(item)
            if name is not None and _NAME.fullmatch(name):
                found.append(name)
            elif _INTEGER.fullmatch(item.strip()):
                found.append(int(item))
            else:
                raise self.fault(key, f"write item {shown(item.strip())} as a whole number or a quoted name")
        return found


def _unquoted(value: str) -> str | None:
    """Return the text between quotes; None without quotes."""
    value = value.strip()
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"" else None


def read_sections(path: str | os.PathLike[str]) -> dict[str, Section]:
    """Read the sections of an .ini file in their order, without interpreting values.

    Raises
    ------
    FileFormatError
        The file cannot be read, or does not consist of sections with ``key = value`` lines, each once.
    """
    parser = configparser.RawConfigParser(default_section="", delimiters=("=",), comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    try:
        parser.read_string(read_text(path), os.fspath(path))
    except configparser.Error as error:
        reason = " ".join(str(error).split())[:200]
        raise FileFormatError(f"{path} is not a readable .ini file: {reason}; correct that line") from None
    return {name: Section(os.fspath(path), name, dict(parser.items(name))) for name in parser.sections()}


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
        The cluster in the file breaks an invariant.
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
        A value in the file is not above 0.
    """
    sections = read_sections(path)
    out = _take(sections, "SourceNode", path).only(_PROFILE).number("outbound_nic_speed", RATES)
    into = _take(sections, "SinkNode", path).only(_PROFILE).number("inbound_nic_speed", RATES)
    machines = tuple(_machine(name, section.only(_PROFILE)) for name, section in sections.items())
    with name_source(os.fspath(path), ClusterError):
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
        Path of the file; its name without the ending becomes the name of the cluster.
    machines : iterable of Machine, optional
        Machine types to choose from; by default those that ship with helixlab. For those of a machine profile
        file call ``read_complete_cluster(path, *read_machine_profiles(profiles))``.
    coordinator : Coordinator, optional
        The coordinator; by default the one that ships with helixlab.

    Raises
    ------
    FileFormatError
        The file is of another kind, or a value in it cannot be read.
    ClusterError
        The cluster in the file breaks an invariant, for instance by an unknown machine type.
    """
    sections = read_sections(path)
    names = _take(sections, "NodeNames", path).only(["total_compute_nodes"])
    listed: dict[int | str, Section] = {
        SOURCE: _take(sections, "SourceNode", path).only(["connected_nodes"]),
        SINK: _take(sections, "SinkNode", path).only(["connected_nodes"]),
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
            raise FileFormatError(f"{path}: section [{shown(title)[1:-1]}] has no meaning here; leave it out")
        section.only(["bandwidth", "latency"])
        amounts = section.number("bandwidth", RATES), section.number("latency", SECONDS)
        one, other = (end if end in (SOURCE, SINK) else int(end) for end in found.groups())
        links.extend(both_ways(one, other, *amounts))
        joined.setdefault(one, set()).add(other)
        joined.setdefault(other, set()).add(one)
    for end, section in listed.items():
        for odd in sorted(joined[end].symmetric_difference(section.items("connected_nodes")), key=str):
            raise section.fault(
                "connected_nodes",
                f"make it agree with the [Link-...] sections: {odd!r} is in one of them only",
            )
    with name_source(os.fspath(path), ClusterError):
        return Cluster(
            Path(path).stem,
            machines_in_use(machines, nodes),
            tuple(nodes),
            tuple(links),
            bundled_coordinator() if coordinator is None else coordinator,
        )


def read_simulator_cluster(path: str | os.PathLike[str]) -> tuple[Cluster, dict[int, int]]:
    """Read a simulator cluster and the KV capacity of its nodes.

    Nodes are numbered from 0 in the order of the numbers in their names; the offset need not be known.

    Returns
    -------
    cluster : Cluster
        The cluster; its name is that of the file without the ending.
    kv_capacity_token_layers : dict of int to int
        KV capacity of each node in token-layers.

    Raises
    ------
    FileFormatError
        The file is of another kind, or a value in it cannot be read.
    ClusterError
        The cluster in the file breaks an invariant.
    """
    sections = read_sections(path)
    nics = _take(sections, "Coordinator", path).only(["inbound_nic_speed", "outbound_nic_speed"])
    coordinator = Coordinator(
        nics.number("inbound_nic_speed", RATES), nics.number("outbound_nic_speed", RATES)
    )
    types = _take(sections, "MachineTypes", path).only(["types"]).items("types")
    index = _numbered(_take(sections, "ComputeNodes", path).only(["names"]))
    machines: dict[str, Machine] = {}
    nodes: list[Node] = []
    capacity: dict[int, int] = {}
    for name in index:
        section = _take(sections, name, path).only(_NODE_KEYS, ["activation_backup_capacity"])
        machine = _machine(section.text("machine_type"), section)
        if machine.name not in types:
            raise section.fault("machine_type", "add it to the types of section [MachineTypes]")
        if machines.setdefault(machine.name, machine) != machine:
            raise section.fault("machine_type", "rename it: an earlier node of this type has other values")
        capacity[len(nodes)] = section.integer("kv_cache_capacity")
        nodes.append(Node(len(nodes), machine.name))
    links: list[Link] = []
    listed = _take(sections, "Links", path).only(["names"])
    names = listed.items("names")
    if len(set(names)) < len(names):
        raise listed.fault("names", "name each link once")
    for name in map(str, names):
        section = _take(sections, name, path).only(["in", "out", "latency", "bandwidth"])
        ends: list[Any] = []
        for key, outside in (("in", SOURCE), ("out", SINK)):
            end = section.text(key)
            if end != outside and end not in index:
                raise section.fault(key, f"write {outside!r} or a name from section [ComputeNodes]")
            ends.append(index.get(end, end))
        amounts = section.number("bandwidth", RATES), section.number("latency", SECONDS)
        links.append(Link(ends[0], ends[1], *amounts))
    for name in sections:
        raise FileFormatError(f"{path}: section [{shown(name)[1:-1]}] is named by no other; leave it out")
    used = tuple(sorted(machines.values(), key=lambda machine: types.index(machine.name)))
    with name_source(os.fspath(path), ClusterError):
        cluster = Cluster(Path(path).stem, used, tuple(nodes), tuple(links), coordinator)
    return cluster, capacity


def read_layers_ini(path: str | os.PathLike[str]) -> dict[int, tuple[int, int]]:
    """Read the layers of each node from a placement ("solution") file.

    Returns
    -------
    dict of int to (int, int)
        First layer and end (one past the last layer) by node index, in the order of the file. Nodes without
        layers are left out. The simulator cluster written for such a placement also leaves them out, so that
        `read_simulator_cluster` numbers the others without gaps.

    Raises
    ------
    FileFormatError
        The file is of another kind, a value in it cannot be read, or layers are not consecutive.
    """
    sections = read_sections(path)
    offset = _take(sections, "Settings", path).only(["offset"]).integer("offset")
    solution = _take(sections, "Solution", path)
    for name in sections:
        raise FileFormatError(f"{path}: section [{shown(name)[1:-1]}] has no meaning here; leave it out")
    layers_of: dict[int, tuple[int, int]] = {}
    for key in solution.values:
        found = _COMPUTE_NODE.fullmatch(key)
        if found is None or int(found[1]) < offset:
            raise solution.fault(key, f"call the node compute_node_N with N not below the offset, {offset}")
        layers, index = solution.items(key), int(found[1]) - offset
        if index in layers_of:
            raise solution.fault(key, "name each node once")
        if not layers:
            continue
        first = layers[0]
        if not isinstance(first, int) or first < 0 or layers != list(range(first, first + len(layers))):
            raise solution.fault(key, "write consecutive layers, counted from 0, such as [3, 4, 5]")
        layers_of[index] = first, first + len(layers)
    return layers_of


def _take(sections: dict[str, Section], name: str, path: str | os.PathLike[str]) -> Section:
    """Take a section out of `sections`; those left at the end are unknown."""
    if name not in sections:
        raise FileFormatError(f"{path} has no section [{shown(name)[1:-1]}]; add it")
    return sections.pop(name)


def _numbered(compute: Section) -> dict[str, int]:
    """Number the nodes by the numbers in their names."""
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
