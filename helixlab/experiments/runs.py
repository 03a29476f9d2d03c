"""One run of a sweep: what is sent to a worker, and what the worker does with it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Final

import numpy as np
from tqdm.auto import tqdm

from helixlab.cluster import Cluster
from helixlab.contents import digest, library_digest
from helixlab.errors import SimulationError
from helixlab.execution import Execution
from helixlab.experiments.functions import sent, taken
from helixlab.experiments.objective import Objective, latency_figures
from helixlab.experiments.problems import SweepError
from helixlab.experiments.trends import DRIFTS, load_figures, trend_figures
from helixlab.files import json_ready
from helixlab.model import Model
from helixlab.parents import work_for
from helixlab.placement import Placement
from helixlab.scheduling import Scheduler
from helixlab.simulation import Result, simulate
from helixlab.workload import Workload

__all__ = ["Outcome", "Packed", "Run", "carried_out", "carry_out", "pack", "unpack"]

LABELS: Final = (
    "cluster", "model", "placement", "scheduler", "execution", "mode", "trace", "initial_queries",
    "rate_tokens_per_s", "warmup_s", "duration_s", "on_full", "seed",
)  # fmt: skip
"""Columns of a summary that say what ran; the rest are figures."""


@dataclass(frozen=True)
class Packed:
    """A scheduler or an execution policy on its way to another process: its fields, and its digest."""

    kind: type[Scheduler] | type[Execution]
    values: dict[str, Any]
    digest: str


@dataclass(frozen=True)
class Run:
    """All that a worker needs; with an objective, it also says how the run did by it."""

    key: str
    library: str
    sender: int
    cluster: Cluster
    model: Model
    placement: Placement
    scheduler: Packed
    execution: Packed
    workload: Workload
    settings: dict[str, Any]
    objective: Objective | None


@dataclass(frozen=True)
class Outcome:
    """Figures of a finished run (None for NaN), or why there are none."""

    figures: dict[str, Any] | None = None
    error: str | None = None


def pack(thing: Scheduler | Execution) -> Packed:
    """Make a scheduler or an execution policy ready to travel.

    Examples
    --------
    >>> from helixlab.scheduling import get_scheduler
    >>> unpack(pack(get_scheduler("swarm")))
    Scheduler('swarm')
    """
    values = {field.name: sent(getattr(thing, field.name)) for field in fields(thing)}
    return Packed(type(thing), values, digest(thing, repr(thing)))


_COMPILED: dict[str, Any] = {}
"""What was unpacked before, so that every process compiles a function once."""
_MOST_COMPILED: Final = 64


def unpack(packed: Packed) -> Any:
    """The scheduler or execution policy, its functions compiled.

    Raises
    ------
    SchedulingError
        A function does not compile.
    SweepError
        What the functions use is not the same here as where they were packed.
    """
    if packed.digest not in _COMPILED:
        thing = packed.kind(**{name: taken(value) for name, value in packed.values.items()})
        if digest(thing, repr(thing)) != packed.digest:
            raise SweepError(
                f"{thing!r} is not the same in the worker process as where sweep was called: a module that"
                " its functions use was changed after it was imported, or differs there; restart Python"
            )
        while len(_COMPILED) >= _MOST_COMPILED:
            _COMPILED.pop(next(iter(_COMPILED)))
        _COMPILED[packed.digest] = _compiled(thing)
    return _COMPILED[packed.digest]


def _compiled(thing: Scheduler | Execution) -> Scheduler | Execution:
    if isinstance(thing, Execution):
        return replace(thing, admits=thing.compiled_admits())
    choose, on_start, on_ready, on_finish = thing.compiled_hooks()
    return replace(thing, choose=choose, on_start=on_start, on_ready=on_ready, on_finish=on_finish)


def carry_out(run: Run) -> tuple[str, Outcome]:
    """Simulate; whatever goes wrong with this run is its outcome and no concern of the others."""
    try:
        result = carried_out(run)
        measured = load_figures([result]) | _trend(result)
        measured |= {} if run.objective is None else latency_figures(result, run.objective)
    except Exception as error:
        return run.key, Outcome(error=described(error))
    row = result.summary.drop(columns=[*LABELS, "partial"]).iloc[0]
    figures = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
    return run.key, Outcome(figures=json_ready(figures | measured))


def _trend(result: Result) -> dict[str, Any]:
    """Of the window, where there are samples enough to tell; a sweep takes none unless it is asked to."""
    try:
        return trend_figures([result])
    except SimulationError:
        return {**dict.fromkeys(("in_flight_mean", *DRIFTS), np.nan), "trend": ""}


def carried_out(run: Run) -> Result:
    """The result of a run, in the process of a worker.

    Raises
    ------
    SweepError
        The worker has another helixlab than the process that sent the run.
    HelixlabError
        As `simulate`.
    """
    if os.getppid() == run.sender:
        _prepare_worker(run.sender)
    if library_digest() != run.library:
        raise SweepError(
            "the worker process has another helixlab, or other versions of what it calculates with, than"
            " where sweep was called; install the same in both, and restart Python after a change"
        )
    return simulate(
        run.cluster,
        run.model,
        run.placement,
        scheduler=unpack(run.scheduler),
        execution=unpack(run.execution),
        workload=run.workload,
        **run.settings,
        progress=False,
        partial=False,
    )


def described(error: Exception) -> str:
    """Type and message in one line.

    Examples
    --------
    >>> described(ValueError("no good"))
    'ValueError: no good'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@cache
def _prepare_worker(sender: int) -> None:
    """Let this process, which `sender` started, be its worker, whatever started it did already."""
    work_for(sender)
    tqdm.set_lock(threading.RLock())  # the usual one, across processes, would be left behind
