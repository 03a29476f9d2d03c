"""What the generators of clusters draw and check: node types, pairs of nodes, bandwidths and latencies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from helixlab._validation import as_generator, as_whole, plain, shown
from helixlab.cluster.bundled import bundled_machines
from helixlab.cluster.checks import check_amount, check_machine_names, check_members
from helixlab.cluster.parts import SINK, SOURCE, Link, Machine, both_ways
from helixlab.errors import ClusterError

__all__ = ["all_pairs", "generator", "known_machines", "listed", "random_pairs", "spread_links", "uniform"]

_MOST_LINKS: Final = 10_000_000


def generator(rng: np.random.Generator | int) -> np.random.Generator:
    """The generator itself, or one seeded with `rng`."""
    return as_generator(rng, error=ClusterError)


def known_machines(machines: Iterable[Machine] | None) -> tuple[Machine, ...]:
    """The machine types to choose from; those that ship with helixlab for None."""
    known = bundled_machines() if machines is None else tuple(machines)
    check_members(known, Machine, "machines")
    check_machine_names(known)
    return known


def listed(counts: Mapping[str, int], known: Iterable[Machine], what: str = "counts") -> list[str]:
    """One machine name a node, type after type."""
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


def uniform(mean: float, spread: float, name: str, zero: bool = False) -> tuple[float, float]:
    """The interval from mean - spread to mean + spread.

    `name` has a gap for ``_spread``; with `zero` the interval may touch 0.
    """
    mean = check_amount(mean, name.format(""), zero)
    spread = check_amount(spread, name.format("_spread"), zero=True)
    if spread > mean or (spread == mean and not zero):
        raise ClusterError(
            f"{name.format('_spread')} is {spread:g} around a mean of {mean:g}; make it smaller, "
            f"so that nothing falls {'below 0' if zero else 'to 0'}"
        )
    return mean - spread, mean + spread


def all_pairs(size: int) -> NDArray[np.intp]:
    """All pairs of nodes i < j, in order."""
    _refuse_too_many(size, size * (size - 1) // 2)
    return np.column_stack(np.triu_indices(size, k=1))


def random_pairs(size: int, wanted: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Different pairs i < j, in order, that join all nodes."""
    _refuse_too_many(size, wanted)
    order = rng.permutation(size).tolist()
    # Each node in a random order gets a link to one before it: a tree over all of them.
    tree = [(order[late], order[rng.integers(late)]) for late in range(1, size)]
    chosen = {(min(pair), max(pair)) for pair in tree}
    if wanted > size * (size - 1) // 4:  # dense: draw from the list of all others, which is not much longer
        rest = [pair for pair in map(tuple, all_pairs(size).tolist()) if pair not in chosen]
        chosen.update(rest[place] for place in rng.permutation(len(rest))[: wanted - len(chosen)])
    while len(chosen) < wanted:  # sparse: draw until there are enough different ones
        one, other = rng.integers(size, size=2).tolist()
        if one != other:
            chosen.add((min(one, other), max(one, other)))
    return np.array(sorted(chosen), dtype=np.intp).reshape(-1, 2)


def spread_links(
    from_source: Sequence[int],
    to_sink: Sequence[int],
    pairs: NDArray[np.intp],
    bandwidth: NDArray[np.float64],
    latency: NDArray[np.float64],
) -> list[Link]:
    """Links out of the source, into the sink, then both ways of each pair, which share their figures."""
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
