"""The planner of helixlab: the placement with the greatest flow, and how much more there could be."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from helixlab._validation import as_generator, as_jobs, as_whole
from helixlab.cluster import Cluster
from helixlab.errors import PlacementError, UnknownNameError
from helixlab.execution import Execution, get_execution
from helixlab.flow import upper_bound
from helixlab.model import Model
from helixlab.placement import Placement, PlanReport
from helixlab.planning.baselines import plan_homogeneous, plan_petals, plan_swarm
from helixlab.planning.beam_search import Block
from helixlab.planning.coverage import Kinds, climb, climb_together, laid_out, least_cover, pods
from helixlab.planning.flow_kernel import LEAST, Network, network_of
from helixlab.planning.layout import (
    Layout,
    even_shares,
    layout_of,
    placement_of,
    planning_throughput,
    progress_bar,
    require_room,
    time_limit,
)
from helixlab.planning.prices import coverage_bound
from helixlab.planning.record import GAP, Record, Watch
from helixlab.planning.regions import anneal_best, explore, lower_by_links, regions_of, self_sufficient
from helixlab.planning.throughput import Trials, chains, divisions, refine

__all__ = ["Chain", "chain_along_links", "helix_candidates", "plan_helix"]


STEPS: Final = 100_000
"""After so many nodes that were gone on to, the search gives up."""


class Chain(NamedTuple):
    """What the search for a chain came to."""

    layout: Layout | None
    """Layers as even as they can be; None if no chain was found."""
    exhausted: bool
    """Whether the search tried every way, so that there is no chain if it found none."""


def chain_along_links(network: Network, model_layers: int) -> Chain:
    """One chain from source to sink, over links that there are, of nodes with room for the model.

    A placement serves anything only if it has such a chain. The search goes on to the nodes with the fewest
    ways on first, and turns back where there is none; on clusters of some ten nodes it misses no chain.

    Examples
    --------
    >>> from helixlab.cluster import single_region
    >>> from helixlab.model import load_model
    >>> from helixlab.planning.flow_kernel import network_of
    >>> model = load_model("llama-1-30b")
    >>> chain = chain_along_links(network_of(single_region({"A100": 4}), model), model.layers)
    >>> chain.layout.start, chain.layout.end
    ((0, 15, 30, 45), (15, 30, 45, 60))
    """
    size, most = len(network.most), network.most.tolist()
    joined = (network.link > LEAST) & (network.most > 0)
    ways_on = joined.sum(axis=1) + size * (network.to_sink > LEAST)
    onward = [sorted(np.flatnonzero(row).tolist(), key=lambda j: (ways_on[j], j)) for row in joined]
    begins = np.flatnonzero((network.from_source > LEAST) & (network.most > 0)).tolist()
    chain: list[int] = []
    room = 0
    following = [iter(sorted(begins, key=lambda j: (ways_on[j], j)))]
    for _ in range(STEPS):
        # A layer for each node at least.
        node = None
        if len(chain) < model_layers:
            node = next((j for j in following[-1] if j not in chain), None)
        if node is None:
            following.pop()
            if not following:
                return Chain(None, True)
            room -= most[chain.pop()]
            continue
        chain.append(node)
        room += most[node]
        if room >= model_layers and network.to_sink[node] > LEAST:
            return Chain(_laid_out(chain, network, model_layers), False)
        following.append(iter(onward[node]))
    return Chain(None, False)


def _laid_out(chain: list[int], network: Network, model_layers: int) -> Layout:
    start, end = np.zeros((2, len(network.most)), dtype=np.int64)
    reached = 0
    shares = even_shares(model_layers, [int(network.most[node]) for node in chain])
    for node, share in zip(chain, shares, strict=True):
        start[node], end[node] = reached, reached + share
        reached += share
    return Layout.of(start, end)


OBJECTIVES: Final = ("flow", "throughput")
STARTS: Final = 12
"""Placements of great flow from which the search for throughput starts."""
ORDERS: Final = 4
"""In which nodes join, of the Petals planner, whose placements are starts too."""
FOR_FLOW: Final = 0.2
"""Part of the time limit for finding the former."""
WIDTHS: Final = (100, 300, 1000)
"""States kept at each layer where links bind, one round of searching after the other."""


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
        What to place on what.
    objective : str
        What is to be greatest: ``"throughput"``, the decode tokens/s that are simulated, offline and with the
        Helix scheduler; or ``"flow"``, the maximum flow, which is what the paper plans for.
    execution : str or Execution
        How nodes form batches, which decides what is served; for flow it decides nothing.
    rng : numpy.random.Generator or int, default 0
        Decides between equals and draws the steps of the annealing. Without a time limit the same seed gives
        the same placement.
    time_limit_s : float, optional
        End after about so many seconds with the best that was found. Without it the search ends by itself:
        for flow after a few seconds where links do not bind, for throughput after some minutes.
    n_jobs : int, optional
        Simulations side by side, as for `sweep`; by default one for each processor. The placement does not
        depend on it. For flow nothing is simulated.
    progress : bool, optional
        Show incumbent, bound and gap; by default in notebooks and on terminals.

    Returns
    -------
    Placement
        With all links that can be used, or all inside of groups of nodes that each serve the model. For flow
        its report says ``"optimal"`` where the bound is met (to 0.01%), ``"time limit"`` or ``"feasible"``
        where it is not. For throughput it says ``"heuristic"`` or ``"time limit"``, and its objective is in
        decode tokens/s, of simulations that a tight time limit makes shorter and less certain; no bound is
        known. Ctrl-C ends either with the best so far, and ``"interrupted"``; with no objective where nothing
        was simulated yet.

    Raises
    ------
    PlacementError
        The model does not fit, nothing was found that links join, or an argument makes no sense.
    UnknownNameError
        No such objective or execution policy.

    Notes
    -----
    Where links do not bind, `helixlab.planning.coverage` finds the best placement or one very close to it.
    Where they do, placements that are best for a simpler network (`helixlab.planning.regions`) are improved
    by annealing on the maximum flow itself.

    For throughput (`helixlab.planning.throughput`) these and those of the simpler planners are varied, and so
    are chains of all nodes of a group, for many ways to divide the cluster into groups
    (`helixlab.planning.throughput`). What a queueing model foretells (`predict`) proposes, and simulations
    decide, with other requests than those of the seeds 0, 1, 2 ... that studies use.

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
    jobs = -1 if n_jobs is None else as_jobs(n_jobs, error=PlacementError)
    threads = jobs if jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + jobs)
    execution = get_execution(execution)
    if objective == "flow":
        return _plans(cluster, model, 1, rng, time_limit_s, progress)[0]
    began = time.perf_counter()
    generator, time_limit_s = as_generator(rng, error=PlacementError), time_limit(time_limit_s)
    for_flow_s = None if time_limit_s is None else FOR_FLOW * time_limit_s
    found = _plans(cluster, model, STARTS, generator, for_flow_s, progress)
    spent_s = time.perf_counter() - began
    if found[0].report is not None and found[0].report.status == "interrupted":
        return _interrupted(found[0], began)
    try:
        placements = [*found, *_quick_placements(cluster, model, generator, ORDERS)]
        left_s = None if time_limit_s is None else time_limit_s - spent_s
        with progress_bar("helix", shown=progress) as on_progress:
            trials = Trials(cluster, model, execution, generator, Watch(left_s, on_progress))
            together = [layout_of(placement, len(cluster.nodes)) for placement in placements]
            apart = [chains(cluster, model, group) for group in divisions(cluster, model)]
            best, report = refine(trials, [together, apart], n_jobs=threads)
    except KeyboardInterrupt:  # before anything was simulated: the plan of greatest flow is what there is
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
    """Several good placements, the one that serves most first: what `plan_helix` came upon.

    Their reports are alike but for the objective.

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
    table = planning_throughput(cluster, model)
    require_room(cluster, model, {machine: len(values) - 1 for machine, values in table.items()})
    generator, time_limit_s = as_generator(rng, error=PlacementError), time_limit(time_limit_s)
    network = network_of(cluster, model)
    with progress_bar("helix", shown=progress) as on_progress:
        watch = Watch(time_limit_s, on_progress)
        record = Record(network, model.layers, upper_bound(cluster, model), watch)
        interrupted = False
        try:
            _search(cluster, model, record, generator)
        except KeyboardInterrupt:
            if not record.pool:
                raise
            interrupted = True
    if not record.pool:
        raise PlacementError(
            f"no path from source to sink: the search has found no chain of linked nodes of cluster"
            f" {cluster.name!r} that holds the {model.layers} layers of {model.name} and passes on anything;"
            " add links, widen them, or add nodes"
        )
    status = "optimal" if record.closed else "time limit" if watch.late() else "feasible"
    if interrupted:
        status = "interrupted"
    report = PlanReport(status, None, record.bound, watch.seconds, tuple(watch.trace))
    return tuple(
        replace(placement_of(found, cluster, model), report=replace(report, objective_tokens_per_s=flow))
        for found, flow in record.best(count)
    )


def _interrupted(placement: Placement, began: float) -> Placement:
    """A placement of which is not known how many decode tokens/s it serves."""
    return replace(placement, report=PlanReport("interrupted", wall_s=time.perf_counter() - began))


def _quick_placements(
    cluster: Cluster, model: Model, rng: np.random.Generator, orders: int
) -> Iterator[Placement]:
    """Of the simple planners."""
    for planner in (*[plan_petals] * orders, plan_swarm, plan_homogeneous):
        with suppress(PlacementError):  # each fails on clusters that the others can plan for
            yield planner(cluster, model, rng=rng)


def _search(cluster: Cluster, model: Model, record: Record, rng: np.random.Generator) -> None:
    size, seed = len(cluster.nodes), int(rng.integers(2**31))
    for placement in _quick_placements(cluster, model, rng, 1):
        record.offer(*layout_of(placement, size).arrays)
    if not record.pool:
        chain, exhausted = chain_along_links(record.network, model.layers)
        if chain is not None:
            record.offer(*chain.arrays)
        elif exhausted:
            return
    regions = regions_of(cluster, model, record.network)
    binds = False

    def offer(groups: Sequence[tuple[Kinds, Sequence[Block]]]) -> None:
        nonlocal binds
        placed_at = [laid_out(blocks, kinds, size) for kinds, blocks in groups]
        start, end = np.sum(placed_at, axis=0)
        flow = record.offer(start, end)
        cover = sum(least_cover(blocks, kinds, model.layers) for kinds, blocks in groups)
        binds = binds or flow < cover * (1 - GAP)

    groups, alone = pods(regions.types, model.layers), self_sufficient(regions, model.layers)
    if len(groups) == 1:
        climb(
            regions.types, model.layers, record.bound,
            offer=lambda blocks: offer([(regions.types, blocks)]), lower=record.lower,
            over=lambda: binds or record.over(), low=record.flow, seed=seed,
        )  # fmt: skip
    else:
        speeds, counts = regions.types.speeds, regions.types.counts
        record.lower(coverage_bound(speeds, counts, model.layers, record.bound, stopped=record.over))
    if len(groups) > 1 or (binds and alone):
        climb_together(alone or groups, model.layers, offer=offer, over=record.over, seed=seed)
    if len(groups) == 1 and binds:
        for width in WIDTHS:
            explore(regions, record, width, seed)
            if width == WIDTHS[0]:
                lower_by_links(regions, record, seed)
    if binds:
        anneal_best(record, seed)
