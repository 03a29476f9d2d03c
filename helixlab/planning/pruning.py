"""Fewer links: a cluster of which every node keeps its fastest ones only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import replace

from helixlab._validation import as_whole
from helixlab.cluster import SINK, SOURCE, Cluster, Link
from helixlab.errors import PlacementError

__all__ = ["keep_fastest_links"]


def keep_fastest_links(cluster: Cluster, count: int) -> Cluster:
    """The cluster with the links that one of their ends counts among its fastest.

    Every node ranks its links with other nodes by bandwidth, those in and those out apart, and so does the
    coordinator.

    Parameters
    ----------
    cluster : Cluster
        What to prune.
    count : int
        How many links each of them keeps in either direction; the paper's study keeps 12.

    Returns
    -------
    Cluster
        Of the same name, its links in their order.

    Raises
    ------
    PlacementError
        `count` is not 1 or more.

    Notes
    -----
    Mei et al., ASPLOS 2025, section 4. Of links with equal bandwidth (in ``hetero42`` all are) the
    coordinator keeps those of the nodes with the greatest indices, and a node those whose ends, the smaller
    index first, are greatest *as text*. By this rule the programs have the published sizes, and the
    placements that were published with pruning all their links.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> geo24 = load_cluster("geo24")
    >>> len(geo24.links), len(keep_fastest_links(geo24, 12).links)
    (600, 350)
    """
    mend = "1 or more, or None for all links"
    count = as_whole(count, "keep_links_per_node", least=1, mend=mend, error=PlacementError)
    ranked: dict[Hashable, list[Link]] = defaultdict(list)
    for link in sorted(cluster.links, key=_speed, reverse=True):
        # A node does not count its links with the coordinator.
        if link.receiver != SINK:
            ranked["from", link.sender].append(link)
        if link.sender != SOURCE:
            ranked["to", link.receiver].append(link)
    kept = {link for links in ranked.values() for link in links[:count]}
    return replace(cluster, links=tuple(link for link in cluster.links if link in kept))


def _speed(link: Link) -> tuple[float, tuple[str, ...]]:
    """Bandwidth first; ties as the published study breaks them."""
    ends = [end for end in (link.sender, link.receiver) if isinstance(end, int)]
    # Numbers of one width sort as text like numbers do.
    names = [f"{ends[0]:09}"] if len(ends) == 1 else [str(end) for end in sorted(ends)]
    return link.bandwidth_bytes_per_s, tuple(names)
