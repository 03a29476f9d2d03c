"""Generators of clusters: one region, several regions, or a sparse random network.

As in the clusters of the Helix paper, a pair of nodes has the same bandwidth and latency in both directions.
Those from the coordinator to a node and back may differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from helixlab._validation import as_flag, as_generator, as_whole, plain, shown
from helixlab.cluster.cluster import (
    SINK,
    SOURCE,
    Cluster,
    Coordinator,
    Link,
    Machine,
    Node,
    both_ways,
    check_amount,
    check_machine_names,
    check_members,
)
from helixlab.cluster.machines import bundled_coordinator, bundled_machines, machines_in_use
from helixlab.errors import ClusterError

__all__ = ["geo_distributed", "random_sparse", "single_region"]


_MOST_LINKS: Final = 10_000_000
"""Largest number of links that is generated."""

_Interval = tuple[float, float] | NDArray[np.float64]
"""Lower and upper limits: one pair for all links, or rows with one column for each link."""


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
    """Generate a cluster in one region: every node has links to all others and to the coordinator.

    Parameters
    ----------
    counts : mapping of str to int
        Number of nodes of each machine type; the nodes come in this order.
    bandwidth_bytes_per_s, latency_s : float
        Mean bandwidth and latency of the links; by default 10 Gbit/s and 1 ms.
    bandwidth_spread_bytes_per_s, latency_spread_s : float, default 0
        Half the width of the interval around the mean from which each pair of nodes draws uniformly.
    shuffle : bool, default False
        True to put the nodes in random order.
    rng : numpy.random.Generator or int, default 0
        Source or seed of the random draws.
    name : str
        Name of the cluster.
    machines : iterable of Machine, optional
        Machine types to choose from; by default those that ship with helixlab.
    coordinator : Coordinator, optional
        The coordinator; by default the one that ships with helixlab.

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
    known, rng = _known_machines(machines), as_generator(rng, error=ClusterError)
    kinds = _machine_of_each_node(counts, known)
    bandwidths = _interval(bandwidth_bytes_per_s, bandwidth_spread_bytes_per_s, "bandwidth{}_bytes_per_s")
    latencies = _interval(latency_s, latency_spread_s, "latency{}_s", zero=True)
    if as_flag(shuffle, "shuffle", error=ClusterError):
        kinds = [kinds[position] for position in rng.permutation(len(kinds))]
    everybody, pairs = range(len(kinds)), _all_pairs(len(kinds))
    links = _draw_links(everybody, everybody, pairs, bandwidths, latencies, rng)
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
    """Generate a cluster in several regions: links between regions are slower than links within one.

    Parameters
    ----------
    regions : sequence of mappings of str to int, or mapping of str to such mappings
        Number of nodes of each machine type, one mapping for each region. Regions without a name are called
        ``"region-0"``, ``"region-1"`` and so on.
    in_region_bandwidth_bytes_per_s, in_region_latency_s : float
        Mean bandwidth and latency of the links within a region; by default 10 Gbit/s and 1 ms.
    cross_region_bandwidth_bytes_per_s, cross_region_latency_s : float
        Mean bandwidth and latency of the links between regions; by default 100 Mbit/s and 50 ms.
    in_region_bandwidth_spread_bytes_per_s, in_region_latency_spread_s : float, default 0
        Half the width of the interval around the mean from which each pair of nodes draws uniformly.
    cross_region_bandwidth_spread_bytes_per_s, cross_region_latency_spread_s : float, default 0
        The same spread for the links between regions.
    coordinator_region : str, optional
        Region of the coordinator; by default it is in none of them, and all its links cross regions.
    rng, name, machines, coordinator
        The same as for `single_region`.

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
    near_bandwidths = _interval(
        in_region_bandwidth_bytes_per_s,
        in_region_bandwidth_spread_bytes_per_s,
        "in_region_bandwidth{}_bytes_per_s",
    )
    far_bandwidths = _interval(
        cross_region_bandwidth_bytes_per_s,
        cross_region_bandwidth_spread_bytes_per_s,
        "cross_region_bandwidth{}_bytes_per_s",
    )
    near_latencies = _interval(
        in_region_latency_s, in_region_latency_spread_s, "in_region_latency{}_s", zero=True
    )
    far_latencies = _interval(
        cross_region_latency_s, cross_region_latency_spread_s, "cross_region_latency{}_s", zero=True
    )
    known, rng = _known_machines(machines), as_generator(rng, error=ClusterError)
    nodes: list[Node] = []
    sizes = []
    for region, counts in named.items():
        kinds = _machine_of_each_node(counts, known, f"region {region!r}")
        nodes += [Node(index, kind, region) for index, kind in enumerate(kinds, start=len(nodes))]
        sizes.append(len(kinds))
    everybody, pairs = range(len(nodes)), _all_pairs(len(nodes))
    place = np.repeat(np.arange(len(named)), sizes)
    outside = np.array([node.region != coordinator_region for node in nodes])
    far = np.concatenate([outside, outside, place[pairs[:, 0]] != place[pairs[:, 1]]])[:, None]
    bandwidths = np.where(far, far_bandwidths, near_bandwidths).T
    latencies = np.where(far, far_latencies, near_latencies).T
    links = _draw_links(everybody, everybody, pairs, bandwidths, latencies, rng)
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
    """Generate a cluster in which each node has links to only some of the others.

    The network is a random tree, which joins all nodes, and further pairs drawn uniformly. Every node is
    therefore reached from the source and reaches the sink.

    Parameters
    ----------
    counts : mapping of str to int
        Number of nodes of each machine type; the nodes come in this order.
    degree : float
        Mean number of nodes that a node has links to, from 2 - 2/n (a tree) to n - 1 (all others).
    coordinator_degree : int, optional
        Number of nodes that the source has links to, and of nodes that have links to the sink, both drawn at
        random; by default all.
    bandwidth_bytes_per_s, latency_s, bandwidth_spread_bytes_per_s, latency_spread_s, shuffle, rng, name, \
machines, coordinator
        The same as for `single_region`.

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
    known, rng = _known_machines(machines), as_generator(rng, error=ClusterError)
    kinds = _machine_of_each_node(counts, known)
    size = len(kinds)
    bandwidths = _interval(bandwidth_bytes_per_s, bandwidth_spread_bytes_per_s, "bandwidth{}_bytes_per_s")
    latencies = _interval(latency_s, latency_spread_s, "latency{}_s", zero=True)
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
    pairs = _random_pairs(size, round(size * degree / 2), rng)
    from_source = np.sort(rng.permutation(size)[:reached]).tolist()
    to_sink = np.sort(rng.permutation(size)[:reached]).tolist()
    links = _draw_links(from_source, to_sink, pairs, bandwidths, latencies, rng)
    return _cluster(name, [Node(*node) for node in enumerate(kinds)], links, known, coordinator)


def _known_machines(machines: Iterable[Machine] | None) -> tuple[Machine, ...]:
    """Check the machine types to choose from; None stands for those that ship with helixlab."""
    known = bundled_machines() if machines is None else tuple(machines)
    check_members(known, Machine, "machines")
    check_machine_names(known)
    return known


def _machine_of_each_node(
    counts: Mapping[str, int], known: Iterable[Machine], what: str = "counts"
) -> list[str]:
    """List the machine type of each node, one type after another."""
    if not isinstance(counts, Mapping):
        raise ClusterError(f"{what} is {shown(counts)}; give a mapping such as {{'A100': 4, 'T4': 12}}")
    names = [machine.name for machine in known]
    nodes: list[str] = []
    for name, count in counts.items():
        if name not in names:
            raise ClusterError(
                f"{what} asks for machine type {shown(name)}; give it as a Machine in machines=[...], "
                f"or use one of: {', '.join(names)}"
            )
        mend = f"a whole number of nodes, 0 or more and at most {_MOST_LINKS}"
        wanted = as_whole(
            count, f"{what}[{name!r}]", least=0, most=_MOST_LINKS, mend=mend, error=ClusterError
        )
        nodes += [plain(name)] * wanted
    if not nodes:
        raise ClusterError(f"{what} is {shown(counts)}, which is 0 nodes; ask for at least one")
    return nodes


def _interval(mean: float, spread: float, name: str, zero: bool = False) -> tuple[float, float]:
    """Check the interval from mean - spread to mean + spread.

    `name` has a placeholder for ``_spread``; with `zero` the interval may touch 0.
    """
    mean = check_amount(mean, name.format(""), zero)
    spread = check_amount(spread, name.format("_spread"), zero=True)
    if spread > mean or (spread == mean and not zero):
        raise ClusterError(
            f"{name.format('_spread')} is {spread:g} around a mean of {mean:g}; make it smaller, "
            f"so that nothing falls {'below 0' if zero else 'to 0'}"
        )
    return mean - spread, mean + spread


def _all_pairs(size: int) -> NDArray[np.intp]:
    """List all pairs of nodes i < j, in order."""
    _refuse_too_many(size, size * (size - 1) // 2)
    return np.column_stack(np.triu_indices(size, k=1))


def _random_pairs(size: int, wanted: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw different pairs i < j that join all nodes; return them in order."""
    _refuse_too_many(size, wanted)
    order = rng.permutation(size).tolist()
    # In a random order, each node gets a link to one before it: a tree over all of them.
    tree = [(order[late], order[rng.integers(late)]) for late in range(1, size)]
    chosen = {(min(pair), max(pair)) for pair in tree}
    if wanted > size * (size - 1) // 4:  # dense: draw from the list of all others, which is not much longer
        rest = [pair for pair in map(tuple, _all_pairs(size).tolist()) if pair not in chosen]
        chosen.update(rest[place] for place in rng.permutation(len(rest))[: wanted - len(chosen)])
    while len(chosen) < wanted:  # sparse: draw until there are enough different ones
        one, other = rng.integers(size, size=2).tolist()
        if one != other:
            chosen.add((min(one, other), max(one, other)))
    return np.array(sorted(chosen), dtype=np.intp).reshape(-1, 2)


def _draw_links(
    from_source: Sequence[int],
    to_sink: Sequence[int],
    pairs: NDArray[np.intp],
    bandwidths: _Interval,
    latencies: _Interval,
    rng: np.random.Generator,
) -> list[Link]:
    """Link the coordinator and each pair of nodes; the two links of a pair share one draw."""
    drawn = len(from_source) + len(to_sink) + len(pairs)
    bandwidth, latency = (rng.uniform(low, high, drawn) for low, high in (bandwidths, latencies))
    ends: Iterable[tuple[Any, Any]] = chain(
        ((SOURCE, node) for node in from_source), ((node, SINK) for node in to_sink), pairs.tolist()
    )
    links: list[Link] = []
    for (one, other), bytes_per_s, seconds in zip(ends, bandwidth.tolist(), latency.tolist(), strict=True):
        links.extend(both_ways(one, other, bytes_per_s, seconds))
    return links


def _refuse_too_many(nodes: int, pairs: int) -> None:
    if 2 * (nodes + pairs) > _MOST_LINKS:
        raise ClusterError(
            f"{nodes} nodes would have {2 * (nodes + pairs)} links, more than {_MOST_LINKS}; "
            "ask for fewer nodes, or for random_sparse with a small degree"
        )


def _cluster(
    name: str,
    nodes: Sequence[Node],
    links: Sequence[Link],
    known: Iterable[Machine],
    coordinator: Coordinator | None,
) -> Cluster:
    coordinator = bundled_coordinator() if coordinator is None else coordinator
    return Cluster(name, machines_in_use(known, nodes), tuple(nodes), tuple(links), coordinator)
