"""Entry point of planning: `plan` calls a planner by the name of its method."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from inspect import Parameter, signature
from typing import Any, Final

import numpy as np

from helixlab._interrupts import loaded
from helixlab._validation import as_generator
from helixlab.cluster import Cluster
from helixlab.errors import PlacementError, UnknownNameError, memory_for
from helixlab.model import Model
from helixlab.placement.placement import Placement, PlanReport, check_placement
from helixlab.planning.baselines import plan_homogeneous, plan_petals, plan_separate, plan_swarm
from helixlab.planning.layout import SearchStatus, time_limit

__all__ = ["METHODS", "plan"]

METHODS: Final[dict[str, Callable[..., Placement] | str]] = {
    "helix": "plan_helix",
    "homogeneous": plan_homogeneous,
    "paper-milp": "plan_paper_milp",
    "petals": plan_petals,
    "separate": plan_separate,
    "swarm": plan_swarm,
}
"""Planners by method name: functions of cluster, model, `rng`, `time_limit_s`, and options of their own.

A planner that needs a solver or the compiler is given by its name in `helixlab.planning`, which loads it on
first use. A planner that searches or proves a bound sets the placement's `PlanReport` itself.
"""


def plan(
    cluster: Cluster,
    model: Model,
    *,
    method: str = "helix",
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Placement:
    """Plan which node holds which layers.

    Parameters
    ----------
    cluster, model
        Cluster to plan for, and model to place on it.
    method : str, default "helix"
        Name of the method, one of `METHODS`.
    rng : numpy.random.Generator or int, default 0
        Source or seed of the random draws, for methods that draw.
    time_limit_s : float, optional
        Seconds after which a search ends, for methods that search. The others take no time.
    progress : bool, optional
        Show the state of a search, for methods that search; by default in notebooks and on terminals, if the
        search takes more than a second.
    **options
        Options of the method, described by its planner: `plan_petals`, `plan_separate`, `plan_paper_milp` ...

    Returns
    -------
    Placement
        Valid placement with a report.

    Raises
    ------
    UnknownNameError
        There is no such method.
    PlacementError
        The method cannot place the model on the cluster, or an argument makes no sense.
    OutOfMemoryError
        The method needs more memory than there is.

    Warns
    -----
    UserWarning
        Ctrl-C ended the search. The placement is the best so far, and its name ends with "(interrupted)".

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> placement = plan(load_cluster("single24"), load_model("llama-2-70b"), method="swarm")
    >>> placement
    Placement('single24/llama-2-70b/swarm' 922187eb: swarm, llama-2-70b on single24, 24 nodes, 32 links)
    >>> placement.report.status
    'heuristic'
    """
    if method not in METHODS:
        raise UnknownNameError("placement method", method, METHODS)
    named = METHODS[method]
    planner = getattr(loaded("helixlab.planning"), named) if isinstance(named, str) else named
    _check_options(method, planner, options)
    limit_s = time_limit(time_limit_s)
    generator = as_generator(rng, error=PlacementError)
    if "progress" in signature(planner).parameters:
        options["progress"] = progress
    started = time.perf_counter()
    with memory_for(
        "planning", "plan for a part of the cluster, or with a smaller n_jobs or keep_links_per_node"
    ):
        placement = planner(cluster, model, rng=generator, time_limit_s=limit_s, **options)
    if placement.report is None:
        report = PlanReport(SearchStatus.HEURISTIC.value, wall_s=time.perf_counter() - started)
        placement = replace(placement, report=report)
    check_placement(placement, cluster, model)
    if placement.report is not None and placement.report.status == SearchStatus.INTERRUPTED:
        # Results and plots show the name.
        placement = replace(placement, name=f"{placement.name} (interrupted)")
        warnings.warn("interrupted; the placement is the best that was found so far", stacklevel=2)
    return placement


def _check_options(method: str, planner: Callable[..., Placement], options: dict[str, Any]) -> None:
    """Raise if a planner does not have one of the options."""
    parameters = signature(planner).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return
    common = ("cluster", "model", "rng", "time_limit_s", "progress")
    known = [parameter.name for parameter in parameters if parameter.name not in common]
    for name in options:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise PlacementError(f"method {method!r} has no option {name!r}; {has}")
