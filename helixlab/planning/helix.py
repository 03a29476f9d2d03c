"""Planner of helixlab: the placement with the greatest flow or throughput, and a bound on the flow.

The bound is the least of `helixlab.flow.upper_bound`, the bound by prices of layers
(`helixlab.planning.prices`), the flow that a complete search has excluded (`helixlab.planning.coverage`)
and the bound where links bind (`helixlab.planning.regions`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from joblib import effective_n_jobs

from helixlab._validation import as_generator, as_jobs, as_whole
from helixlab.cluster import Cluster
from helixlab.errors import PlacementError, UnknownNameError
from helixlab.execution import Execution, get_execution
from helixlab.flow import upper_bound
from helixlab.model import Model
from helixlab.placement import Placement, PlanReport
from helixlab.planning.baselines import plan_homogeneous, plan_petals, plan_swarm
from helixlab.planning.beam_search import Block
from helixlab.planning.coverage import Kinds, climb, climb_together, least_cover, node_layers, split_into_pods
from helixlab.planning.flow_kernel import LEAST, Network, network_of
from helixlab.planning.layout import (
    Layout,
    SearchStatus,
    even_shares,
    layout_of,
    most_layers_by_machine,
    placement_of,
    planning_throughput,
    progress_bar,
    require_capacity,
    time_limit,
)
from helixlab.planning.prices import coverage_bound
from helixlab.planning.record import GAP, Record, SearchClock
from helixlab.planning.regions import anneal_best, explore, lower_by_links, regions_of, self_sufficient_groups
from helixlab.planning.throughput import Trials, chain_layout, divisions, refine

__all__ = ["Chain", "find_chain", "helix_candidates", "plan_helix"]


OBJECTIVES: Final = ("flow", "throughput")
STEPS: Final = 100_000
"""Largest number of steps of the search for a chain."""
WIDTHS: Final = (100, 300, 1000)
"""Numbers of states kept at each layer by successive searches where links bind."""
STARTS: Final = 12
"""Number of placements with great flow from which the search for throughput starts."""
FOR_FLOW: Final = 0.2
"""Fraction of the time limit that is spent on finding them."""
ORDERS: Final = 4
"""Number of random orders in which the Petals planner plans further starts."""


def plan_helix(
    cluster: Cluster,
    model: Model,
    *,
    objective: str = "throughput",
    execution: str | Execution = "greedy",
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    n_jobs: int | None = None,
    progress: bool | None = None,
) -> Placement:
    """Plan for the greatest throughput, or for the greatest maximum flow with a bound on it.

    Parameters
    ----------
    cluster, model
        Cluster to plan for, and model to place on it.
    objective : str
        Quantity to maximise: ``"throughput"``, the decode tokens/s of simulations, offline and with the Helix
        scheduler; or ``"flow"``, the maximum flow, as in the paper.
    execution : str or Execution
        Policy by which nodes form batches. The maximum flow does not depend on it.
    rng : numpy.random.Generator or int, default 0
        Source or seed of the steps of the annealing and of the choice between ties. Without a time limit, the
        same seed gives the same placement.
    time_limit_s : float, optional
        Seconds after which the search ends with the best placement so far, approximately. Without a limit the
        search ends by itself: for flow after a few seconds where links do not bind, for throughput after some
        minutes.
    n_jobs : int, optional
        Number of simulations that run side by side, as for `sweep`; by default one for each processor. The
        placement does not depend on it. For flow, nothing is simulated.
    progress : bool, optional
        Show incumbent, bound and gap; by default in notebooks and on terminals.

    Returns
    -------
    Placement
        Placement with all usable links, or with all usable links within groups of nodes that each serve the
        model. For flow, the status in its report is ``"optimal"`` where the bound is reached (to 0.01%), else
        ``"time limit"`` or ``"feasible"``. For throughput, the status is ``"heuristic"`` or ``"time limit"``;
        the objective is in decode tokens/s, from simulations that a tight time limit makes shorter and less
        certain; and no bound is known. Ctrl-C ends both searches with the best placement so far and the
        status ``"interrupted"``, without an objective if nothing was simulated yet.

    Raises
    ------
    PlacementError
        The model does not fit, no chain of linked nodes was found, or an argument makes no sense.
    UnknownNameError
        There is no such objective or execution policy.

    Notes
    -----
    Where links do not bind, `helixlab.planning.coverage` finds the best placement or one very close to it.
    Where they do, placements that are best for a simpler network (`helixlab.planning.regions`) are improved
    by annealing on the maximum flow itself.

    For throughput (`helixlab.planning.throughput`), the search varies these placements, those of the simpler
    planners, and chains of all nodes of a group for many divisions of the cluster into groups. The
    predictions of a queueing model (`predict`) propose, and simulations decide. Their requests are other than
    those of the seeds 0, 1, 2 ... that studies use.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> placement = plan_helix(load_cluster("single24"), load_model("llama-2-70b"), objective="flow")
    >>> placement.report.status, round(placement.report.objective_tokens_per_s, 3)
    ('optimal', 2045.641)
    """
    if objective not in OBJECTIVES:
        raise UnknownNameError("planning objective", objective, OBJECTIVES)
    threads = effective_n_jobs(-1 if n_jobs is None else as_jobs(n_jobs, error=PlacementError))
    execution = get_execution(execution)
    if objective == "flow":
        return _plans(cluster, model, 1, rng, time_limit_s, progress)[0]
    began = time.perf_counter()
    generator, time_limit_s = as_generator(rng, error=PlacementError), time_limit(time_limit_s)
    for_flow_s = None if time_limit_s is None else FOR_FLOW * time_limit_s
    found = _plans(cluster, model, STARTS, generator, for_flow_s, progress)
    spent_s = time.perf_counter() - began
    if found[0].report is not None and found[0].report.status == SearchStatus.INTERRUPTED:
        return _interrupted(found[0], began)
    try:
        placements = [*found, *_quick_placements(cluster, model, generator, ORDERS)]
        left_s = None if time_limit_s is None else time_limit_s - spent_s
        with progress_bar("helix", shown=progress) as on_progress:
            trials = Trials(cluster, model, execution, generator, SearchClock(left_s, on_progress))
            together = [layout_of(placement, len(cluster.nodes)) for placement in placements]
            apart = [chain_layout(cluster, model, group) for group in divisions(cluster, model)]
            best, report = refine(trials, [together, apart], n_jobs=threads)
    except KeyboardInterrupt:  # nothing was simulated yet
        return _interrupted(found[0], began)
    trace = tuple((spent_s + seconds, rate, bound) for seconds, rate, bound in report.trace)
    report = replace(report, wall_s=time.perf_counter() - began, trace=trace)
    return replace(placement_of(best, cluster, model), report=report)


def helix_candidates(
    cluster: Cluster,
    model: Model,
    *,
    count: int = 16,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    progress: bool | None = None,
) -> tuple[Placement, ...]:
    """Plan for flow, and return the best placements that the search found, best first.

    Their reports differ in the objective only.

    Parameters
    ----------
    cluster, model, rng, time_limit_s, progress
        As for `plan_helix`.
    count : int
        Largest number of placements.

    Raises
    ------
    PlacementError
        As for `plan_helix`.
    """
    count = as_whole(count, "count", least=1, error=PlacementError)
    return _plans(cluster, model, count, rng, time_limit_s, progress)


def _plans(
    cluster: Cluster,
    model: Model,
    count: int,
    rng: np.random.Generator | int,
    time_limit_s: float | None,
    progress: bool | None,
) -> tuple[Placement, ...]:
    """Return the placements of greatest flow, at most `count`."""
    table = planning_throughput(cluster, model)
    require_capacity(cluster, model, most_layers_by_machine(table))
    generator, time_limit_s = as_generator(rng, error=PlacementError), time_limit(time_limit_s)
    network = network_of(cluster, model)
    with progress_bar("helix", shown=progress) as on_progress:
        clock = SearchClock(time_limit_s, on_progress)
        record = Record(network, model.layers, upper_bound(cluster, model), clock)
        interrupted = False
        try:
            _search(cluster, model, record, generator)
        except KeyboardInterrupt:
            if not record.pool:
                raise
            interrupted = True
    if not record.pool:
        raise PlacementError(
            f"no path from source to sink: the search found no chain of linked nodes in cluster"
            f" {cluster.name!r} that can hold the {model.layers} layers of {model.name};"
            " add links, widen them, or add nodes"
        )
    if interrupted:
        status = SearchStatus.INTERRUPTED
    elif record.closed:
        status = SearchStatus.OPTIMAL
    else:
        status = SearchStatus.TIME_LIMIT if clock.is_late() else SearchStatus.FEASIBLE
    report = PlanReport(status.value, None, record.bound, clock.seconds, tuple(clock.trace))
    return tuple(
        replace(placement_of(found, cluster, model), report=replace(report, objective_tokens_per_s=flow))
        for found, flow in record.best(count)
    )


def _interrupted(placement: Placement, began: float) -> Placement:
    """Mark a placement as the result of an interrupted search, with unknown throughput."""
    report = PlanReport(SearchStatus.INTERRUPTED.value, wall_s=time.perf_counter() - began)
    return replace(placement, report=report)


def _quick_placements(
    cluster: Cluster, model: Model, rng: np.random.Generator, orders: int
) -> Iterator[Placement]:
    """Generate the placements of the simple planners, those of Petals for several orders of the nodes."""
    for planner in (*[plan_petals] * orders, plan_swarm, plan_homogeneous):
        with suppress(PlacementError):  # each fails on some clusters
            yield planner(cluster, model, rng=rng)


def _search(cluster: Cluster, model: Model, record: Record, rng: np.random.Generator) -> None:
    """Search for the placement of greatest flow, and for a bound; both are kept in the record."""
    size, seed = len(cluster.nodes), int(rng.integers(2**31))
    for placement in _quick_placements(cluster, model, rng, 1):
        record.offer(*layout_of(placement, size).arrays)
    if not record.pool:
        chain, exhausted = find_chain(record.network, model.layers)
        if chain is not None:
            record.offer(*chain.arrays)
        elif exhausted:
            return
    regions = regions_of(cluster, model, record.network)
    binds = False  # whether links reduce the flow of a placement

    def offer(groups: Sequence[tuple[Kinds, Sequence[Block]]]) -> None:
        nonlocal binds
        spans = [node_layers(blocks, kinds, size) for kinds, blocks in groups]
        start, end = np.sum(spans, axis=0)
        flow = record.offer(start, end)
        cover = sum(least_cover(blocks, kinds, model.layers) for kinds, blocks in groups)
        binds = binds or flow < cover * (1 - GAP)

    groups = split_into_pods(regions.types, model.layers)
    alone = self_sufficient_groups(regions, model.layers)
    if len(groups) == 1:
        climb(
            regions.types, model.layers, record.bound,
            offer=lambda blocks: offer([(regions.types, blocks)]), on_bound=record.record_bound,
            is_over=lambda: binds or record.is_over(), low=record.flow, seed=seed,
        )  # fmt: skip
    else:
        speeds, counts = regions.types.speeds, regions.types.counts
        record.record_bound(
            coverage_bound(speeds, counts, model.layers, record.bound, stopped=record.is_over)
        )
    if len(groups) > 1 or (binds and alone):
        climb_together(alone or groups, model.layers, offer=offer, is_over=record.is_over, seed=seed)
    if len(groups) == 1 and binds:
        for width in WIDTHS:
            explore(regions, record, width, seed)
            if width == WIDTHS[0]:
                lower_by_links(regions, record, seed)
    if binds:
        anneal_best(record, seed)


class Chain(NamedTuple):
    """Result of the search for a chain."""

    layout: Layout | None
    """Chain with layers as even as possible; None if no chain was found."""
    exhausted: bool
    """True where the search tried every chain and found none."""


def find_chain(network: Network, model_layers: int) -> Chain:
    """Find a chain of linked nodes from source to sink that can hold the model.

    Without such a chain, no placement serves anything. The search is depth-first with backtracking, and
    visits the nodes with the fewest outgoing links first. On clusters of some ten nodes it misses no chain.

    Examples
    --------
    >>> from helixlab.cluster import single_region
    >>> from helixlab.model import load_model
    >>> from helixlab.planning.flow_kernel import network_of
    >>> model = load_model("llama-1-30b")
    >>> chain = find_chain(network_of(single_region({"A100": 4}), model), model.layers)
    >>> chain.layout.start, chain.layout.end
    ((0, 15, 30, 45), (15, 30, 45, 60))
    """
    size, most = len(network.most), network.most.tolist()
    joined = (network.link > LEAST) & (network.most > 0)
    outgoing = joined.sum(axis=1) + size * (network.to_sink > LEAST)
    onward = [sorted(np.flatnonzero(row).tolist(), key=lambda j: (outgoing[j], j)) for row in joined]
    entries = np.flatnonzero((network.from_source > LEAST) & (network.most > 0)).tolist()
    chain: list[int] = []
    capacity = 0
    following = [iter(sorted(entries, key=lambda j: (outgoing[j], j)))]
    for _ in range(STEPS):
        # Each node of the chain holds at least one layer.
        node = None
        if len(chain) < model_layers:
            node = next((j for j in following[-1] if j not in chain), None)
        if node is None:
            following.pop()
            if not following:
                return Chain(None, True)
            capacity -= most[chain.pop()]
            continue
        chain.append(node)
        capacity += most[node]
        if capacity >= model_layers and network.to_sink[node] > LEAST:
            return Chain(_as_layout(chain, network, model_layers), False)
        following.append(iter(onward[node]))
    return Chain(None, False)


def _as_layout(chain: list[int], network: Network, model_layers: int) -> Layout:
    """Divide the layers evenly among the nodes of a chain."""
    start, end = np.zeros((2, len(network.most)), dtype=np.int64)
    reached = 0
    shares = even_shares(model_layers, [int(network.most[node]) for node in chain])
    for node, share in zip(chain, shares, strict=True):
        start[node], end[node] = reached, reached + share
        reached += share
    return Layout.of(start, end)
