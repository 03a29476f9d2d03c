"""Planning where links bind.

Nodes of one machine type in one region are interchangeable, and so are their links.

A token leaves a node after the last layer of the node, over a link to a node that holds the next layer. So
the flow past a layer boundary is at most what the links carry from the nodes that end there to the nodes
that begin there. With this limit, the beam search finds placements that seldom cross regions, and do so over
many links at once. With the widest link of each class in place of the mean one, it proves bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import Cluster
from helixlab.model import Model
from helixlab.planning.annealing import anneal, walk_from
from helixlab.planning.beam_search import Block, search
from helixlab.planning.coverage import Kinds, node_layers, split_into_pods
from helixlab.planning.flow_kernel import LEAST, Network, flow_workspace
from helixlab.planning.layout import Layout, planning_throughput
from helixlab.planning.prices import layer_prices
from helixlab.planning.record import GAP, Record

__all__ = ["Regions", "anneal_best", "explore", "lower_by_links", "regions_of", "self_sufficient_groups"]

FLOWS: Final = np.linspace(0.0, 1.0, 13)[1:]
"""Flows that are tried, as fractions of the distance from the best flow to the bound."""
STEPS: Final = 50e6
"""Largest number of steps of one search."""
PROOF_WIDTH: Final = 2000
PROOF_STEPS: Final = 10e6
"""Number of states kept at each layer, and largest number of steps, of a search that should prove a bound."""
PROOF_PRECISION: Final = GAP / 2
"""Relative precision of the bound."""
ANNEALED: Final = 8
"""Number of best placements that are annealed."""
STEPS_A_NODE: Final = 30_000
"""Steps of one annealing for each node."""
ANNEALING_WORK: Final = 1e9
"""Largest product of the steps of one annealing and the square of the number of nodes, which is roughly
proportional to its wall time."""
WARM: Final = 0.015
COLD: Final = 0.001
"""Temperature at the start and at the end of the annealing, as a fraction of the flow."""
SLICE_WORK: Final = 1e6
"""The same product for the slice of an annealing after which the clock is checked."""


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Nodes by machine type and region, and the links between them.

    Parameters
    ----------
    kinds : Kinds
        Nodes by machine type and region.
    region : sequence of int
        Region of each kind.
    like : sequence of int
        Machine type of each kind, as an index of `types`.
    types : Kinds
        Nodes by machine type alone.
    widest, mean : arrays ``[kind, kind]``
        Tokens/s of the widest and of the mean link from nodes of one kind to nodes of another.
    """

    kinds: Kinds
    region: Sequence[int]
    like: Sequence[int]
    types: Kinds
    widest: NDArray[np.float64]
    mean: NDArray[np.float64]


def regions_of(cluster: Cluster, model: Model, network: Network) -> Regions:
    """Sort the nodes of a cluster by machine type and region; leave out nodes that can hold no layer."""
    table = planning_throughput(cluster, model)
    machines = [machine for machine, values in table.items() if len(values) > 1]
    by_kind: dict[tuple[str, str], list[int]] = {}
    for node in cluster.nodes:
        if node.machine in machines:
            by_kind.setdefault((node.machine, node.region), []).append(node.index)
    nodes = list(by_kind.values())
    widest, mean = np.zeros((2, len(nodes), len(nodes)))
    for a, senders in enumerate(nodes):
        for b, receivers in enumerate(nodes):
            between = network.link[np.ix_(senders, receivers)]
            pairs = max(between.size - (len(senders) if a == b else 0), 1)
            widest[a, b], mean[a, b] = between.max(), between.sum() / pairs
    return Regions(
        Kinds(nodes, [table[machine] for machine, _ in by_kind]),
        [cluster.regions.index(region) for _, region in by_kind],
        [machines.index(machine) for machine, _ in by_kind],
        Kinds(
            [[n.index for n in cluster.nodes if n.machine == machine] for machine in machines],
            [table[machine] for machine in machines],
        ),
        widest,
        mean,
    )


def lower_by_links(regions: Regions, record: Record, seed: int) -> None:
    """Lower the bound for as long as searches with the widest links prove that a flow cannot be reached.

    Placements that the searches find are offered to the record.
    """
    low = max(record.flow, LEAST)
    while record.bound - low > PROOF_PRECISION * record.bound and not record.is_over():
        flow = (low + record.bound) / 2
        prices = layer_prices(regions.types.speeds, regions.types.counts, flow, every=True)
        found = search(
            prices.for_kinds(regions.like), regions.kinds.speeds, regions.kinds.counts, record.layers,
            width=PROOF_WIDTH, link=regions.widest, more=True, seed=seed, steps=PROOF_STEPS,
            stopped=record.is_over,
        )  # fmt: skip
        _offer_all(found.placements, regions.kinds, record)
        if found.excluded:
            record.record_bound(flow)
        else:
            low = flow


def explore(regions: Regions, record: Record, width: int, seed: int) -> None:
    """Offer placements whose links suffice if every link carries what the mean link of its class carries."""
    for flow in record.flow + FLOWS * (record.bound - record.flow):
        if record.is_over():
            return
        prices = layer_prices(regions.types.speeds, regions.types.counts, flow)
        found = search(
            prices.for_kinds(regions.like), regions.kinds.speeds, regions.kinds.counts, record.layers,
            width=width, link=regions.mean, all_of_them=True, seed=seed, steps=STEPS, stopped=record.is_over,
        )  # fmt: skip
        _offer_all(found.placements, regions.kinds, record)


def self_sufficient_groups(regions: Regions, model_layers: int) -> list[Kinds]:
    """List the nodes of each region that can hold the model by itself, in groups small enough to search."""
    groups = []
    for region in sorted(set(regions.region)):
        own = [kind for kind, each in enumerate(regions.region) if each == region]
        kinds = Kinds([regions.kinds.nodes[k] for k in own], [regions.kinds.speeds[k] for k in own])
        if kinds.capacity >= model_layers:
            groups += split_into_pods(kinds, model_layers)
    return groups


def anneal_best(record: Record, seed: int) -> None:
    """Anneal the best placements on the maximum flow, each for the same number of steps."""
    size = len(record.network.most)
    workspace = flow_workspace(size)
    steps = int(min(STEPS_A_NODE * size, ANNEALING_WORK / size**2))
    slices = -(-steps * size**2 // int(SLICE_WORK))
    done: set[Layout] = set()
    for number in range(ANNEALED):
        ahead = [found for found, _ in record.best(ANNEALED) if found not in done]
        if not ahead or record.is_over():
            return
        done.add(ahead[0])
        start, end = ahead[0].arrays
        walk = walk_from(start, end, record.layers, seed + number)
        for part in range(slices):
            warm, cold = (record.flow * WARM * (COLD / WARM) ** ((part + later) / slices) for later in (0, 1))
            anneal(record.network, workspace, walk, record.layers, warm, cold, steps // slices)
            if record.is_over():
                break
        record.offer(walk.best_start, walk.best_end)
        done.add(Layout.of(walk.best_start, walk.best_end))


def _offer_all(placements: Sequence[Sequence[Block]], kinds: Kinds, record: Record) -> None:
    """Offer placements that are given as blocks to the record."""
    for blocks in placements:
        record.offer(*node_layers(blocks, kinds, len(record.network.most)))
