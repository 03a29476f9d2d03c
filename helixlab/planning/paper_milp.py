"""Planner that solves the placement program of the Helix paper (Mei et al., ASPLOS 2025, section 4)."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from helixlab._validation import as_generator
from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.errors import PlacementError
from helixlab.flow import max_flow
from helixlab.model import Model
from helixlab.placement import End, NodeLayers, Placement, PlanReport
from helixlab.planning.baselines import plan_homogeneous, plan_petals, plan_swarm
from helixlab.planning.layout import SearchStatus, placed, progress_bar, time_limit
from helixlab.planning.paper_program import PaperProgram, keep_fastest_links, solve_problem
from helixlab.planning.solver import Limits

__all__ = ["plan_paper_milp"]

CHAINS_TRIED: Final = 10_000
"""Number of partial chains after which the search for a chain of nodes gives up."""


def plan_paper_milp(
    cluster: Cluster,
    model: Model,
    *,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    partial_inference: bool = False,
    keep_links_per_node: int | None = None,
    start: Placement | Literal["heuristics"] | None = "heuristics",
    relative_gap: float = 1e-4,
    target_tokens_per_s: float | None = None,
    stall_s: float | None = None,
    threads: int = 1,
    progress: bool | None = None,
) -> Placement:
    """Solve the paper's placement program.

    The search ends when the best placement is proved, or earlier: after some time, at a throughput, when it
    makes no progress, or at Ctrl-C. It always returns the best placement so far.

    Parameters
    ----------
    cluster, model
        Cluster to plan for, and model to place on it.
    rng : numpy.random.Generator or int, default 0
        Source or seed of the heuristic placements and of the solver's seed.
    time_limit_s : float, optional
        Seconds after which the solver stops.
    partial_inference : bool
        True if a request may enter a node at a layer after its first one.
    keep_links_per_node : int, optional
        Number of fastest links to keep for each node, see `keep_fastest_links`; the paper's study keeps 12.
        By default all links are kept.
    start : Placement, "heuristics" or None
        Placement to start from; or the best of those by `plan_petals`, `plan_swarm`, `plan_homogeneous` and
        of a chain of linked nodes; or none.
    relative_gap : float
        Relative gap between the bound and the best placement at which the search ends.
    target_tokens_per_s : float, optional
        Flow at which the search ends: at the first placement that serves at least this much.
    stall_s : float, optional
        Seconds without a better placement after which the search ends.
    threads : int
        Largest number of threads.
    progress : bool, optional
        Show incumbent, bound and gap; by default in notebooks and on terminals.

    Returns
    -------
    Placement
        Placement with all usable links of the (pruned) cluster. Its report states why the search ended, the
        objective of the program, the bound, and the trace of both. The bound holds for the program that was
        solved: for these links, with or without partial inference. Where links bind, the `max_flow` of the
        placement may be slightly below the objective: the program sends activations from node to node, and
        the flow graph sends the token as well.

    Raises
    ------
    PlacementError
        The model does not fit, the program cannot express the start, or nothing was found in time.

    Notes
    -----
    Mei et al., ASPLOS 2025, section 4. Pruning, heuristic starts and stopping early are the paper's remedies
    for long searches. With HiGHS, the program is more suited for study than for planning; `PaperProgram` says
    why.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> cluster, model = load_cluster("small10"), load_model("llama-1-30b")
    >>> placement = plan_paper_milp(cluster, model, target_tokens_per_s=286)
    >>> placement.report.status, round(placement.report.objective_tokens_per_s, 3)
    ('target reached', 286.587)
    """
    began = time.perf_counter()
    if keep_links_per_node is not None:
        cluster = keep_fastest_links(cluster, keep_links_per_node)
    generator, time_limit_s = as_generator(rng, error=PlacementError), time_limit(time_limit_s)
    program = PaperProgram(cluster, model, partial_inference=partial_inference)
    if start == "heuristics":
        start = _best_heuristic(program, generator)
    elif start is not None and not isinstance(start, Placement):
        raise PlacementError(f"start is {start!r}; give a placement, 'heuristics' or None")
    limits = Limits(
        time_limit_s=time_limit_s,
        relative_gap=relative_gap,
        target=target_tokens_per_s,
        stall_s=stall_s,
        seed=int(generator.integers(2**31)),
        threads=threads,
    )
    with progress_bar("paper-milp", shown=progress) as on_progress:
        found = solve_problem(
            program.problem,
            start=None if start is None else program.start_from(start),
            limits=limits,
            on_progress=on_progress,
        )
    if found.objective is None or found.objective <= program.noise_tokens_per_s:
        mend = (
            "there is none that serves anything: add links, or keep more of them"
            if found.status == SearchStatus.OPTIMAL
            else "give it more time, or a placement of another planner to start from"
        )
        raise PlacementError(
            f"the paper's program found no placement of {model.name} on {cluster.name!r} in"
            f" {found.wall_s:.1f} s ({found.status}); {mend}"
        )
    layers = program.found()
    placement = placed(cluster, model, "paper-milp", layers, program.links_between(layers))
    wall_s = time.perf_counter() - began
    report = PlanReport(found.status.value, found.objective, found.bound, wall_s, found.trace)
    return replace(placement, report=report)


def _best_heuristic(program: PaperProgram, rng: np.random.Generator) -> Placement | None:
    """Return the heuristic placement with the greatest flow over the links of the program, if any."""
    cluster, model = program.cluster, program.model
    tried = [_chain(program)]
    for planner in (plan_petals, plan_swarm, plan_homogeneous):
        with suppress(PlacementError):  # each fails on some clusters
            tried.append(planner(cluster, model, rng=rng).layers)
    best, most = None, 0.0
    for layers in tried:
        placement = placed(cluster, model, "heuristic", layers, program.links_between(layers))
        with suppress(PlacementError):  # no path, which is common where links were pruned
            flow = max_flow(cluster, model, placement).value_tokens_per_s
            if flow > most:
                best, most = placement, flow
    return best


def _chain(program: PaperProgram) -> tuple[NodeLayers, ...]:
    """Find a chain of linked nodes, each with all layers it can hold; empty if the search gives up."""
    onward: dict[End, set[int]] = {SOURCE: set()} | {node: set() for node in program.nodes}
    for link in program.links:
        if isinstance(link.receiver, int):
            onward[link.sender].add(link.receiver)
    exits = {link.sender for link in program.links if link.receiver == SINK}
    model_layers = program.model.layers
    chains: list[tuple[NodeLayers, ...]] = [()]
    for _ in range(CHAINS_TRIED):
        if not chains:
            break
        chain = chains.pop()
        last, reached = (chain[-1].node, chain[-1].end_layer) if chain else (SOURCE, 0)
        if reached < model_layers:
            fresh = onward[last] - {held.node for held in chain}
            # In this order, the node that can hold most layers is tried next.
            for most, node in sorted((program.most_layers[node], node) for node in fresh):
                chains.append((*chain, NodeLayers(node, reached, min(reached + most, model_layers))))
        elif last in exits:
            return chain
    return ()
