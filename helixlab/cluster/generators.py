"""Clusters made up from a few figures: one region, several regions, or a sparse random network.

As in the clusters of the Helix paper, a pair of nodes has the same bandwidth and latency both ways, and the
coordinator may have different ones out and in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from helixlab._validation import as_flag, as_whole, shown
from helixlab.cluster.bundled import bundled_coordinator, machines_in_use
from helixlab.cluster.checks import check_amount
from helixlab.cluster.cluster import Cluster
from helixlab.cluster.draws import (
    all_pairs,
    generator,
    known_machines,
    listed,
    random_pairs,
    spread_links,
    uniform,
)
from helixlab.cluster.parts import Coordinator, Link, Machine, Node
from helixlab.errors import ClusterError

__all__ = ["geo_distributed", "random_sparse", "single_region"]


def single_region(
    counts: Mapping[str, int],
    *,
    bandwidth_bytes_per_s: float = 1.25e9,
    bandwidth_spread_bytes_per_s: float = 0.0,
    latency_s: float = 1e-3,
    latency_spread_s: float = 0.0,
    shuffle: bool = False,
    rng: np.random.Generator | int = 0,
    name: str = "single-region",
    machines: Iterable[Machine] | None = None,
    coordinator: Coordinator | None = None,
) -> Cluster:
    """A cluster in one place: every node has links to all others and to the coordinator.

    Parameters
    ----------
    counts : mapping of str to int
        Nodes of each machine type; the nodes come in this order.
    bandwidth_bytes_per_s, latency_s : float
        Mean over the links; the default is 10 Gbit/s and 1 ms.
    bandwidth_spread_bytes_per_s, latency_spread_s : float, default 0
        Each pair of nodes draws its figure evenly from mean - spread to mean + spread.
    shuffle : bool, default False
        Put the nodes in random order.
    rng : numpy.random.Generator or int, default 0
        Source or seed of the random draws.
    name : str
        Name of the cluster.
    machines : iterable of Machine, optional
        Machine types to choose from; by default those that ship with helixlab.
    coordinator : Coordinator, optional
        By default the one that ships with helixlab.

    Returns
    -------
    Cluster

    Raises
    ------
    ClusterError
        An argument makes no sense.

    Examples
    --------
    >>> single_region({"A100": 4, "L4": 8, "T4": 12}, bandwidth_bytes_per_s=1e9, shuffle=True)
    Cluster('single-region': 24 nodes (4 A100, 8 L4, 12 T4), 600 links)
    """
    known, rng = known_machines(machines), generator(rng)
    kinds = listed(counts, known)
    bandwidths = uniform(bandwidth_bytes_per_s, bandwidth_spread_bytes_per_s, "bandwidth{}_bytes_per_s")
    latencies = uniform(latency_s, latency_spread_s, "latency{}_s", zero=True)
    if as_flag(shuffle, "shuffle", error=ClusterError):
        kinds = [kinds[position] for position in rng.permutation(len(kinds))]
    everybody, pairs = range(len(kinds)), all_pairs(len(kinds))
    drawn = 2 * len(kinds) + len(pairs)
    bandwidth, latency = rng.uniform(*bandwidths, drawn), rng.uniform(*latencies, drawn)
    links = spread_links(everybody, everybody, pairs, bandwidth, latency)
    return _cluster(name, [Node(*node) for node in enumerate(kinds)], links, known, coordinator)


def geo_distributed(
    regions: Sequence[Mapping[str, int]] | Mapping[str, Mapping[str, int]],
    *,
    in_region_bandwidth_bytes_per_s: float = 1.25e9,
    in_region_bandwidth_spread_bytes_per_s: float = 0.0,
    in_region_latency_s: float = 1e-3,
    in_region_latency_spread_s: float = 0.0,
    cross_region_bandwidth_bytes_per_s: float = 12.5e6,
    cross_region_bandwidth_spread_bytes_per_s: float = 0.0,
    cross_region_latency_s: float = 50e-3,
    cross_region_latency_spread_s: float = 0.0,
    coordinator_region: str | None = None,
    rng: np.random.Generator | int = 0,
    name: str = "geo-distributed",
    machines: Iterable[Machine] | None = None,
    coordinator: Coordinator | None = None,
) -> Cluster:
    """A cluster in several places: every node has links to all others, slow ones to other regions.

    Parameters
    ----------
    regions : sequence of mappings of str to int, or mapping of str to such mappings
        Nodes of each machine type, region after region. Regions without a name are called ``"region-0"``,
        ``"region-1"`` and so on.
    in_region_bandwidth_bytes_per_s, in_region_latency_s : float
        Mean over the links inside a region; the default is 10 Gbit/s and 1 ms.
    cross_region_bandwidth_bytes_per_s, cross_region_latency_s : float
        Mean over the links between regions; the default is 100 Mbit/s and 50 ms.
    in_region_bandwidth_spread_bytes_per_s, in_region_latency_spread_s : float, default 0
        Each pair of nodes draws its figure evenly from mean - spread to mean + spread.
    cross_region_bandwidth_spread_bytes_per_s, cross_region_latency_spread_s : float, default 0
        The same between regions.
    coordinator_region : str, optional
        Region of the coordinator; by default it stands alone, and all its links cross regions.
    rng, name, machines, coordinator
        As for `single_region`.

    Returns
    -------
    Cluster

    Raises
    ------
    ClusterError
        An argument makes no sense.

    Examples
    --------
    Like the paper's geo-distributed cluster (section 6.2), with other draws:

    >>> geo_distributed(
    ...     [{"A100": 4}, {"L4": 2, "T4": 8}, {"L4": 6, "T4": 4}],
    ...     in_region_bandwidth_spread_bytes_per_s=125e6,
    ...     cross_region_bandwidth_spread_bytes_per_s=2.5e6,
    ...     cross_region_latency_spread_s=10e-3,
    ...     rng=7,
    ... )
    Cluster('geo-distributed': 24 nodes (4 A100, 8 L4, 12 T4), 600 links, 3 regions)
    """
    if isinstance(regions, str | bytes) or not isinstance(regions, Sequence | Mapping) or not regions:
        raise ClusterError(f"regions is {shown(regions)}; give one mapping of machine counts for each region")
    named = regions if isinstance(regions, Mapping) else {f"region-{i}": r for i, r in enumerate(regions)}
    if coordinator_region is not None and coordinator_region not in named:
        names = ", ".join(map(str, named))
        raise ClusterError(f"coordinator_region is {shown(coordinator_region)}; use None or one of: {names}")
    near_bandwidths = uniform(
        in_region_bandwidth_bytes_per_s,
        in_region_bandwidth_spread_bytes_per_s,
        "in_region_bandwidth{}_bytes_per_s",
    )
    far_bandwidths = uniform(
        cross_region_bandwidth_bytes_per_s,
        cross_region_bandwidth_spread_bytes_per_s,
        "cross_region_bandwidth{}_bytes_per_s",
    )
    near_latencies = uniform(
        in_region_latency_s, in_region_latency_spread_s, "in_region_latency{}_s", zero=True
    )
    far_latencies = uniform(
        cross_region_latency_s, cross_region_latency_spread_s, "cross_region_latency{}_s", zero=True
    )
    known, rng = known_machines(machines), generator(rng)
    nodes: list[Node] = []
    sizes = []
    for region, counts in named.items():
        kinds = listed(counts, known, f"region {region!r}")
        nodes += [Node(index, kind, region) for index, kind in enumerate(kinds, start=len(nodes))]
        sizes.append(len(kinds))
    everybody, pairs = range(len(nodes)), all_pairs(len(nodes))
    place = np.repeat(np.arange(len(named)), sizes)
    outside = np.array([node.region != coordinator_region for node in nodes])
    far = np.concatenate([outside, outside, place[pairs[:, 0]] != place[pairs[:, 1]]])[:, None]
    bandwidth_low, bandwidth_high = np.where(far, far_bandwidths, near_bandwidths).T
    latency_low, latency_high = np.where(far, far_latencies, near_latencies).T
    bandwidth, latency = rng.uniform(bandwidth_low, bandwidth_high), rng.uniform(latency_low, latency_high)
    links = spread_links(everybody, everybody, pairs, bandwidth, latency)
    return _cluster(name, nodes, links, known, coordinator)


def random_sparse(
    counts: Mapping[str, int],
    *,
    degree: float,
    coordinator_degree: int | None = None,
    bandwidth_bytes_per_s: float = 1.25e9,
    bandwidth_spread_bytes_per_s: float = 0.0,
    latency_s: float = 1e-3,
    latency_spread_s: float = 0.0,
    shuffle: bool = False,
    rng: np.random.Generator | int = 0,
    name: str = "random-sparse",
    machines: Iterable[Machine] | None = None,
    coordinator: Coordinator | None = None,
) -> Cluster:
    """A cluster in which a node has links to some of the others only.

    The network is a random tree, which joins all nodes, and pairs drawn evenly from all others: the source
    reaches every node, and every node reaches the sink.

    Parameters
    ----------
    counts : mapping of str to int
        Nodes of each machine type; the nodes come in this order.
    degree : float
        Mean number of nodes that a node has links to, from 2 - 2/n (a tree) to n - 1 (all).
    coordinator_degree : int, optional
        Number of nodes, drawn at random, that the source has links to, and that have links to the sink;
        all by default.
    bandwidth_bytes_per_s, latency_s, bandwidth_spread_bytes_per_s, latency_spread_s, shuffle, rng, name, \
machines, coordinator
        As for `single_region`.

    Returns
    -------
    Cluster

    Raises
    ------
    ClusterError
        An argument makes no sense.

    Examples
    --------
    >>> random_sparse({"A100": 10, "T4": 90}, degree=6, coordinator_degree=20)
    Cluster('random-sparse': 100 nodes (10 A100, 90 T4), 640 links)
    """
    known, rng = known_machines(machines), generator(rng)
    kinds = listed(counts, known)
    size = len(kinds)
    bandwidths = uniform(bandwidth_bytes_per_s, bandwidth_spread_bytes_per_s, "bandwidth{}_bytes_per_s")
    latencies = uniform(latency_s, latency_spread_s, "latency{}_s", zero=True)
    degree = check_amount(degree, "degree", zero=True)
    if not size - 1 <= round(size * degree / 2) <= size * (size - 1) // 2:
        raise ClusterError(
            f"degree is {degree!r} for {size} nodes; give {2 - 2 / size:g} (a tree) to {size - 1} (all links)"
        )
    reached = size
    if coordinator_degree is not None:
        mend = f"1 to {size}, or None for all"
        reached = as_whole(
            coordinator_degree, "coordinator_degree", least=1, most=size, mend=mend, error=ClusterError
        )
    if as_flag(shuffle, "shuffle", error=ClusterError):
        kinds = [kinds[position] for position in rng.permutation(size)]
    pairs = random_pairs(size, round(size * degree / 2), rng)
    from_source = np.sort(rng.permutation(size)[:reached]).tolist()
    to_sink = np.sort(rng.permutation(size)[:reached]).tolist()
    drawn = 2 * len(to_sink) + len(pairs)
    bandwidth, latency = rng.uniform(*bandwidths, drawn), rng.uniform(*latencies, drawn)
    links = spread_links(from_source, to_sink, pairs, bandwidth, latency)
    return _cluster(name, [Node(*node) for node in enumerate(kinds)], links, known, coordinator)


def _cluster(
    name: str,
    nodes: Sequence[Node],
    links: Sequence[Link],
    known: Iterable[Machine],
    coordinator: Coordinator | None,
) -> Cluster:
    coordinator = bundled_coordinator() if coordinator is None else coordinator
    return Cluster(name, machines_in_use(known, nodes), tuple(nodes), tuple(links), coordinator)
