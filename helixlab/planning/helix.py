"""The planner of helixlab: the placement that serves most, and how much more there could be."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import numpy as np

from helixlab.cluster import Cluster
from helixlab.errors import PlacementError, UnknownNameError
from helixlab.flow import upper_bound
from helixlab.model import Model
from helixlab.placement.placement import NodeLayers, Placement, PlanReport, usable_links
from helixlab.planning.common import placed, planning_throughput, progress_bar, require_room
from helixlab.planning.coverage import Kinds, climb, climb_together, least_cover, pods, spans
from helixlab.planning.homogeneous import plan_homogeneous
from helixlab.planning.network import network_of
from helixlab.planning.petals import plan_petals
from helixlab.planning.prices import coverage_bound
from helixlab.planning.record import GAP, Record, Spans
from helixlab.planning.regions import anneal_best, explore, lower_by_links, regions_of, self_sufficient
from helixlab.planning.search import Block
from helixlab.planning.swarm import plan_swarm

__all__ = ["helix_candidates", "plan_helix"]

OBJECTIVES: Final = ("flow",)
WIDTHS: Final = (100, 300, 1000)
"""States kept at each layer where links bind, one round of searching after the other."""


def plan_helix(
    cluster: Cluster,
    model: Model,
    *,
    objective: str = "flow",
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    progress: bool = False,
) -> Placement:
    """Plan for the greatest maximum flow, with a bound on it.

    Parameters
    ----------
    cluster, model
        What to place on what.
    objective : str
        What is to be greatest: ``"flow"``.
    rng : numpy.random.Generator or int, default 0
        Decides between equals and draws the steps of the annealing. Without a time limit the same seed gives
        the same placement.
    time_limit_s : float, optional
        End after so many seconds with the best that was found; without it the search ends by itself, after a
        few seconds where links do not bind.
    progress : bool
        Show incumbent, bound and gap on stderr.

    Returns
    -------
    Placement
        With all links that can be used. Its report says ``"optimal"`` where the bound is met (to 0.01%),
        ``"time limit"`` or ``"feasible"`` where it is not.

    Raises
    ------
    PlacementError
        The model does not fit, or nothing was found that links join.
    UnknownNameError
        No such objective.

    Notes
    -----
    Where links do not bind, `helixlab.planning.coverage` finds the best placement or one very close to it.
    Where they do, placements that are best for a simpler network (`helixlab.planning.regions`) are improved
    by annealing on the maximum flow itself.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> placement = plan_helix(load_cluster("single24"), load_model("llama-2-70b"))
    >>> placement.report.status, round(placement.report.objective_tokens_per_s, 3)
    ('optimal', 2045.641)
    """
    return _plans(cluster, model, 1, objective, rng, time_limit_s, progress)[0]


def helix_candidates(
    cluster: Cluster,
    model: Model,
    *,
    count: int = 16,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    progress: bool = False,
) -> tuple[Placement, ...]:
    """Several good placements, the one that serves most first: what `plan_helix` came upon.

    Their reports are alike but for the objective.
    """
    return _plans(cluster, model, count, "flow", rng, time_limit_s, progress)


def _plans(
    cluster: Cluster,
    model: Model,
    count: int,
    objective: str,
    rng: np.random.Generator | int,
    time_limit_s: float | None,
    progress: bool,
) -> tuple[Placement, ...]:
    if objective not in OBJECTIVES:
        raise UnknownNameError("planning objective", objective, OBJECTIVES)
    table = planning_throughput(cluster, model)
    require_room(cluster, model, {machine: len(values) - 1 for machine, values in table.items()})
    generator = np.random.default_rng(rng)
    network = network_of(cluster, model)
    with progress_bar("helix", shown=progress) as on_progress:
        record = Record(network, model.layers, upper_bound(cluster, model), time_limit_s, on_progress)
        _search(cluster, model, record, generator)
    if not record.pool:
        raise PlacementError(
            f"no path from source to sink in any placement of {model.name} that was found on cluster"
            f" {cluster.name!r}; add links between the nodes, or give it more time"
        )
    status = "optimal" if record.closed else "time limit" if record.late else "feasible"
    report = PlanReport(status, None, record.bound, record.seconds, tuple(record.trace))
    return tuple(
        replace(_placement(cluster, model, found), report=replace(report, objective_tokens_per_s=flow))
        for found, flow in record.best(count)
    )


def _placement(cluster: Cluster, model: Model, found: Spans) -> Placement:
    layers = [
        NodeLayers(i, start, end) for i, (start, end) in enumerate(zip(*found, strict=True)) if end > start
    ]
    return placed(cluster, model, "helix", layers, usable_links(cluster, layers, model.layers))


def _search(cluster: Cluster, model: Model, record: Record, rng: np.random.Generator) -> None:
    size, seed = len(cluster.nodes), int(rng.integers(2**31))
    for planner in (plan_petals, plan_swarm, plan_homogeneous):
        start, end = np.zeros((2, size), dtype=np.int64)
        with suppress(PlacementError):  # each fails on clusters that the others can plan for
            for held in planner(cluster, model, rng=rng).layers:
                start[held.node], end[held.node] = held.first_layer, held.end_layer
            record.offer(start, end)
    regions = regions_of(cluster, model, record.network)
    binds = False

    def offer(groups: Sequence[tuple[Kinds, Sequence[Block]]]) -> None:
        nonlocal binds
        placed_at = [spans(blocks, kinds, size) for kinds, blocks in groups]
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
