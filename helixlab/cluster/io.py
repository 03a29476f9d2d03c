"""Bundled clusters, and cluster files.

helixlab's own cluster files are strict JSON with one node or link on each line.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from helixlab._data import data_file, names_in
from helixlab._io import check_format, check_keys, parse_json, read_text, write_text
from helixlab._naming import describe_misnaming, find_namesake
from helixlab._validation import shown
from helixlab.cluster.cluster import Cluster, Coordinator, Link, Machine, Node, both_ways
from helixlab.cluster.reference_ini import read_cluster_ini
from helixlab.errors import ClusterError, FileFormatError, UnknownNameError, name_source

__all__ = [
    "cluster_from_json",
    "cluster_names",
    "cluster_to_json",
    "is_misnamed",
    "load_cluster",
    "save_cluster",
]


_FORMAT: Final = "helixlab-cluster"
_VERSION: Final = 1
_CLUSTER_KEYS: Final = ("format", "version", "name", "coordinator", "machines", "nodes", "links")
_NICS: Final = ("nic_in_bytes_per_s", "nic_out_bytes_per_s")
_MACHINE_KEYS: Final = ("name", "vram_bytes", *_NICS, "disk_bytes_per_s")
_COLUMNS: Final = ("sender", "receiver", "bandwidth_bytes_per_s", "latency_s")


def cluster_from_json(text: str, source: str) -> Cluster:
    """Make a cluster from the text of a cluster file; `source` names it in errors.

    Raises
    ------
    FileFormatError
        The text is not a cluster file of this version.
    ClusterError
        It is, but the cluster in it breaks an invariant.
    """
    content = parse_json(text, source)
    check_format(content, source, "cluster", _FORMAT, _VERSION)
    check_keys(content, source, _CLUSTER_KEYS)
    coordinator = check_keys(content["coordinator"], f"coordinator of {source}", _NICS)
    with name_source(source, ClusterError):
        return Cluster(
            name=content["name"],
            machines=tuple(_machines(content["machines"], source)),
            nodes=tuple(_nodes(content["nodes"], source)),
            links=tuple(_links(content["links"], source)),
            coordinator=Coordinator(**coordinator),
        )


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise FileFormatError(f"{where} is {shown(value)}; give a list")
    return value


def _machines(value: object, source: str) -> Iterable[Machine]:
    for position, entry in enumerate(_list(value, f"machines of {source}")):
        yield Machine(**check_keys(entry, f"machine type {position} of {source}", _MACHINE_KEYS))


def _nodes(value: object, source: str) -> Iterable[Node]:
    for position, entry in enumerate(_list(value, f"nodes of {source}")):
        yield Node(**check_keys(entry, f"node {position} of {source}", ("index", "machine"), ("region",)))


def _links(value: object, source: str) -> Iterable[Link]:
    fields = check_keys(value, f"links of {source}", ("columns", "both_ways", "rows"))
    if fields["columns"] != list(_COLUMNS):
        raise FileFormatError(
            f"columns of the links of {source} are {shown(fields['columns'])}; give {json.dumps(_COLUMNS)}"
        )
    pairs = fields["both_ways"]
    if not isinstance(pairs, bool):
        raise FileFormatError(f"both_ways of the links of {source} is {shown(pairs)}; give true or false")
    for position, row in enumerate(_list(fields["rows"], f"rows of the links of {source}")):
        if not isinstance(row, list) or len(row) != len(_COLUMNS):
            raise FileFormatError(
                f"row {position} of the links of {source} is {shown(row)}; give {json.dumps(_COLUMNS)}"
            )
        if pairs:
            yield from both_ways(*row)
        else:
            yield Link(*row)


def cluster_to_json(cluster: Cluster) -> str:
    """Write a cluster as the text of a cluster file.

    Examples
    --------
    >>> from helixlab.cluster import single_region
    >>> text = cluster_to_json(single_region({"T4": 2}))
    >>> [line for line in text.splitlines() if "[0, " in line]
    ['   [0, "sink", 1250000000, 0.001],', '   [0, 1, 1250000000, 0.001]']
    """
    coordinator, links = cluster.coordinator, cluster.links
    pairs = _pairs(links)
    machines = ({key: _short(getattr(machine, key)) for key in _MACHINE_KEYS} for machine in cluster.machines)
    nodes = (
        {"index": node.index, "machine": node.machine} | ({"region": node.region} if node.region else {})
        for node in cluster.nodes
    )
    rows = (
        [link.sender, link.receiver, _short(link.bandwidth_bytes_per_s), _short(link.latency_s)]
        for link in (links if pairs is None else pairs)
    )
    lines = [
        "{",
        f' "format": {json.dumps(_FORMAT)},',
        f' "version": {_VERSION},',
        f' "name": {json.dumps(cluster.name)},',
        f' "coordinator": {json.dumps({key: _short(getattr(coordinator, key)) for key in _NICS})},',
        ' "machines": [',
        _lines(machines, "  "),
        " ],",
        ' "nodes": [',
        _lines(nodes, "  "),
        " ],",
        ' "links": {',
        f'  "columns": {json.dumps(_COLUMNS)},',
        f'  "both_ways": {json.dumps(pairs is not None)},',
        '  "rows": [',
        _lines(rows, "   "),
        "  ]",
        " }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _lines(values: Iterable[object], indent: str) -> str:
    return ",\n".join(indent + json.dumps(value) for value in values)


def _short(value: Any) -> Any:
    """Shorten 1250000000.0 to 1250000000 where it is read as the same number."""
    if isinstance(value, str):
        return value
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def _pairs(links: tuple[Link, ...]) -> list[Link] | None:
    """List the links that stand for both directions; None where their order or values do not allow it."""
    kept, position = [], 0
    while position < len(links):
        link = links[position]
        expected = both_ways(link.sender, link.receiver, link.bandwidth_bytes_per_s, link.latency_s)
        if links[position : position + len(expected)] != expected:
            return None
        kept.append(link)
        position += len(expected)
    return kept


def cluster_names() -> list[str]:
    """List the names of the clusters that ship with helixlab.

    Examples
    --------
    >>> cluster_names()
    ['geo24', 'geo24-a100', 'geo24-l4', 'geo24-t4', 'hetero42',
     'single24', 'single24-a100', 'single24-l4', 'single24-t4', 'small10']
    """
    return names_in("clusters")


def load_cluster(name_or_path: str | os.PathLike[str]) -> Cluster:
    """Load a cluster.

    Parameters
    ----------
    name_or_path : str or path
        Name of a cluster that ships with helixlab, or path of a file: ``.json`` as `save_cluster` writes it,
        or ``.ini`` of the Helix paper's simulator (a complete cluster or a simulator cluster).

    Raises
    ------
    UnknownNameError
        There is no such cluster.
    FileFormatError
        The file cannot be read.
    ClusterError
        The cluster in the file breaks an invariant.

    Warns
    -----
    UserWarning
        The cluster in the file has the name of a bundled cluster, but another content.

    Examples
    --------
    >>> load_cluster("geo24")
    Cluster('geo24': 24 nodes (4 A100, 8 L4, 12 T4), 600 links, 3 regions)
    """
    if isinstance(name_or_path, str) and name_or_path in cluster_names():
        return _bundled(name_or_path)
    ending = Path(name_or_path).suffix.lower() if isinstance(name_or_path, str | os.PathLike) else ""
    if ending not in (".json", ".ini"):
        name = str(name_or_path)
        what = "cluster" if name == Path(name).stem else "cluster (of files, .json and .ini are read)"
        raise UnknownNameError(what, name, cluster_names())
    path = os.fspath(name_or_path)
    cluster = cluster_from_json(read_text(path), path) if ending == ".json" else read_cluster_ini(path)
    if is_misnamed(cluster):
        warnings.warn(describe_misnaming(path, "cluster", cluster.name), stacklevel=2)
    return cluster


def is_misnamed(cluster: Cluster) -> bool:
    """Tell whether a cluster has the name of a bundled one but another content.

    Examples
    --------
    >>> from dataclasses import replace
    >>> cluster = load_cluster("small10")
    >>> is_misnamed(cluster), is_misnamed(replace(cluster, name="Single24"))
    (False, True)
    """
    name = find_namesake(cluster.name, cluster_names())
    if name is None or cluster.content_hash == _bundled(name).content_hash:
        return False
    return cluster.content_hash not in _parts_called(name)


@cache
def _bundled(name: str) -> Cluster:
    file = data_file("clusters", f"{name}.json")
    return cluster_from_json(file.read_text(encoding="utf-8"), name)


@cache
def _parts_called(name: str) -> frozenset[str]:
    """Hash the parts of clusters that published placements contain under this name."""
    contents = []
    for placement in names_in("placements"):
        *folders, last = placement.split("/")
        if name.startswith(f"{folders[0]}-"):
            file = data_file("placements", *folders, f"{last}.json")
            part = parse_json(file.read_text(encoding="utf-8"), placement).get("part")
            if part is not None and part["name"] == name:
                contents.append(cluster_from_json(json.dumps(part), placement).content_hash)
    return frozenset(contents)


def save_cluster(cluster: Cluster, path: str | os.PathLike[str]) -> None:
    """Write a cluster to a ``.json`` file, as a whole or not at all.

    Raises
    ------
    FileFormatError
        The path does not end in ``.json``.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mine.json"
    >>> save_cluster(load_cluster("small10"), path)
    >>> load_cluster(path) == load_cluster("small10")
    True
    """
    if Path(path).suffix.lower() != ".json":
        raise FileFormatError(f"cannot save a cluster to {path}: call the file {Path(path).stem}.json")
    write_text(path, cluster_to_json(cluster))
