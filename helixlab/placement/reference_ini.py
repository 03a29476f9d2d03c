"""Reader for the placement files of the Helix paper's own simulator."""

from __future__ import annotations

import os
import warnings
from operator import attrgetter
from pathlib import Path

from helixlab.cluster import Cluster, read_layers_ini
from helixlab.model import Model
from helixlab.placement.io import name_mismatches
from helixlab.placement.placement import NodeLayers, Placement, check_placement, usable_links

__all__ = ["read_placement_ini"]


def read_placement_ini(path: str | os.PathLike[str], cluster: Cluster, model: Model) -> Placement:
    r"""Read a placement ("solution") file of the Helix artifact.

    The file states only layers. The links are those of the cluster that lead from a node to one that starts
    where the first one ends; links for partial inference are not included (`usable_links` with
    ``partial_inference=True`` lists them as well). The KV capacities are those of the machine profiles.

    Parameters
    ----------
    path : path
        Path of the file; its name without the ending becomes the method of the placement.
    cluster : Cluster
        Cluster of the placement; its nodes are counted from 0.
    model : Model
        Model of the placement.

    Raises
    ------
    FileFormatError
        The file is of another kind, or a value in it cannot be read.
    PlacementError
        The placement cannot serve the model on the cluster.

    Warns
    -----
    UserWarning
        The file has the name of a published placement, but other layers.

    Examples
    --------
    >>> import os, tempfile
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> path = os.path.join(tempfile.mkdtemp(), "mine.ini")
    >>> lines = [f"compute_node_{n + 2}={list(range(6 * n, 6 * n + 6))}" for n in range(10)]
    >>> with open(path, "w") as file:
    ...     print("[Settings]", "offset=2", "[Solution]", *lines, sep="\n", file=file)
    >>> read_placement_ini(path, load_cluster("small10"), load_model("llama-1-30b"))
    Placement('small10/llama-1-30b/mine' b7eac42f: mine, llama-1-30b on small10, 10 nodes, 11 links)
    """
    layers = tuple(NodeLayers(node, first, end) for node, (first, end) in read_layers_ini(path).items())
    method = Path(path).stem
    placement = Placement(
        name=f"{cluster.name}/{model.name}/{method}",
        cluster=cluster.name,
        model=model.name,
        method=method,
        layers=layers,
        links=usable_links(cluster, layers, model.layers, partial_inference=False),
        source=f"placement file {Path(path).name}",
    )
    check_placement(placement, cluster, model)
    for mismatch in name_mismatches(placement, str(path), attrgetter("layers")):
        warnings.warn(mismatch, stacklevel=2)
    return placement
