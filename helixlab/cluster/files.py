"""Clusters by name, and to and from files."""

from __future__ import annotations

import json
import os
import warnings
from functools import cache
from pathlib import Path

from helixlab.cluster.cluster import Cluster
from helixlab.cluster.ini import read_cluster_ini
from helixlab.cluster.json_format import cluster_from_json, cluster_to_json
from helixlab.errors import FileFormatError, UnknownNameError
from helixlab.files import parse_json, read_text, write_text
from helixlab.naming import claimed, misnamed_in_words
from helixlab.tables import data_file, names_in

__all__ = ["cluster_names", "is_misnamed", "load_cluster", "save_cluster"]


def cluster_names() -> list[str]:
    """Names of the clusters that ship with helixlab.

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
        The name of a cluster that ships with helixlab, or the path of a file: ``.json`` as `save_cluster`
        writes it, or ``.ini`` of the Helix paper's simulator, a complete cluster or a simulator cluster.

    Raises
    ------
    UnknownNameError
        It is neither.
    FileFormatError
        The file cannot be read.
    ClusterError
        The file can be read, but breaks an invariant of clusters.

    Warns
    -----
    UserWarning
        The cluster in the file has the name of a bundled one and another content.

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
        warnings.warn(misnamed_in_words(path, "cluster", cluster.name), stacklevel=2)
    return cluster


def is_misnamed(cluster: Cluster) -> bool:
    """Whether it bears the name of a bundled cluster without being that.

    Examples
    --------
    >>> from dataclasses import replace
    >>> cluster = load_cluster("small10")
    >>> is_misnamed(cluster), is_misnamed(replace(cluster, name="Single24"))
    (False, True)
    """
    name = claimed(cluster.name, cluster_names())
    if name is None or cluster.content_hash == _bundled(name).content_hash:
        return False
    return cluster.content_hash not in _parts_called(name)


@cache
def _bundled(name: str) -> Cluster:
    file = data_file("clusters", f"{name}.json")
    return cluster_from_json(file.read_text(encoding="utf-8"), name)


@cache
def _parts_called(name: str) -> frozenset[str]:
    """Contents of the parts of clusters that published placements bring along under this name."""
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
    """Write a cluster to a ``.json`` file, whole or not at all.

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
