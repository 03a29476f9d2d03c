"""Runs as tasks for worker processes: their content, their pickling, and their execution.

A task carries all that its worker needs. Functions of the user are pickled by value, with everything they
use, so that a worker needs no copy of the module they come from and cannot have another version of it.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copyreg import __newobj__  # type: ignore[attr-defined]
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

import numpy as np
from cloudpickle import (
    Pickler,
    list_registry_pickle_by_value,
    loads,
    register_pickle_by_value,
    unregister_pickle_by_value,
)
from tqdm.auto import tqdm

from helixlab._hashing import digest, installed, library_digest, library_name
from helixlab._io import json_ready
from helixlab._parents import work_for
from helixlab.cluster import Cluster
from helixlab.errors import SimulationError, SweepError
from helixlab.execution import Execution
from helixlab.experiments.objectives import Objective, objective_metrics
from helixlab.experiments.statistics import DRIFTS, load_metrics, trend_metrics
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.scheduling import Scheduler
from helixlab.simulation import Result, simulate
from helixlab.workload import Workload

__all__ = [
    "LABELS",
    "Outcome",
    "PackedPolicy",
    "Run",
    "error_text",
    "execute_run",
    "pack",
    "simulate_run",
    "unpack",
]

LABELS: Final = (
    "cluster", "model", "placement", "scheduler", "execution", "mode", "trace", "initial_requests",
    "rate_tokens_per_s", "warmup_s", "duration_s", "on_full", "seed",
)  # fmt: skip
"""Columns of a summary that say what ran; the others are metrics."""
MOST_UNPACKED: Final = 64


@dataclass(frozen=True)
class PackedPolicy:
    """A pickled scheduler or execution policy.

    Parameters
    ----------
    content : bytes
        Its type and fields, pickled by `pack`.
    digest : str
        Hash of its content.
    """

    content: bytes
    digest: str


@dataclass(frozen=True)
class Run:
    """A run with all that a worker needs for it.

    Parameters
    ----------
    key : str
        Hash of all that determines the outcome.
    library : str
        Digest of the sender's helixlab.
    sender : int
        Process id of the sender.
    cluster, model, placement, scheduler, execution, workload, settings
        Arguments of `simulate`.
    objective : Objective or None
        Latency objective to measure the run by.
    """

    key: str
    library: str
    sender: int
    cluster: Cluster
    model: Model
    placement: Placement
    scheduler: PackedPolicy
    execution: PackedPolicy
    workload: Workload
    settings: dict[str, Any]
    objective: Objective | None


@dataclass(frozen=True)
class Outcome:
    """Metrics of a finished run (None for NaN), or the error that it ended with."""

    metrics: dict[str, Any] | None = None
    error: str | None = None


def execute_run(run: Run) -> tuple[str, Outcome]:
    """Simulate a run; an error of the run is its outcome, and does not concern other runs."""
    try:
        result = simulate_run(run)
        measured = load_metrics([result]) | _trend_metrics(result)
        measured |= {} if run.objective is None else objective_metrics(result, run.objective)
    except Exception as error:
        return run.key, Outcome(error=error_text(error))
    metrics = {
        name: value.item() if hasattr(value, "item") else value
        for name, value in result.metrics.drop([*LABELS, "partial"]).items()
    }
    return run.key, Outcome(metrics=json_ready(metrics | measured))


def simulate_run(run: Run) -> Result:
    """Simulate a run in the process of a worker.

    Raises
    ------
    SweepError
        The worker has another helixlab than the process that sent the run.
    HelixlabError
        As for `simulate`.
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


def error_text(error: Exception) -> str:
    """Describe an error by its type and message, in one line.

    Examples
    --------
    >>> error_text(ValueError("no good"))
    'ValueError: no good'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _trend_metrics(result: Result) -> dict[str, Any]:
    """Trend of the window, empty with too few samples; a sweep takes none unless it is asked to."""
    try:
        return trend_metrics([result])
    except SimulationError:
        return {**dict.fromkeys(("in_flight_mean", *DRIFTS), np.nan), "trend": ""}


@cache
def _prepare_worker(sender: int) -> None:
    """Let this process be a worker of `sender`, which started it, whatever pool it belongs to."""
    work_for(sender)
    tqdm.set_lock(threading.RLock())  # the usual lock, across processes, would be left behind


# Policies on their way to a worker


def pack(policy: Scheduler | Execution) -> PackedPolicy:
    """Pickle a scheduler or an execution policy for another process.

    Examples
    --------
    >>> from helixlab.scheduling import get_scheduler
    >>> unpack(pack(get_scheduler("swarm")))
    Scheduler('swarm')
    """
    values = {field.name: getattr(policy, field.name) for field in fields(policy)}
    return PackedPolicy(_dumps((type(policy), values)), digest(policy, repr(policy)))


_UNPACKED: dict[str, Any] = {}
"""Policies that were unpacked before, so that every process compiles a function once."""


def unpack(packed: PackedPolicy) -> Any:
    """Load a scheduler or an execution policy, and compile its functions.

    Only what our own process, or the one that started this worker, has packed is unpickled; never a file.

    Raises
    ------
    SchedulingError
        A function does not compile.
    SweepError
        What the functions use is not the same here as where they were packed.
    """
    if packed.digest not in _UNPACKED:
        kind, values = loads(packed.content)
        policy = kind(**values)
        # Pickling says nothing of what it takes by name: modules of the user, and installed packages.
        # The digest covers their content too, and so notices a helper that was changed in between.
        if digest(policy, repr(policy)) != packed.digest:
            raise SweepError(
                f"{policy!r} is not the same in the worker process as where sweep was called: a module that"
                " its functions use was changed after it was imported, or differs there; restart Python"
            )
        while len(_UNPACKED) >= MOST_UNPACKED:
            _UNPACKED.pop(next(iter(_UNPACKED)))
        _UNPACKED[packed.digest] = _compiled(policy)
    return _UNPACKED[packed.digest]


def _compiled(policy: Scheduler | Execution) -> Scheduler | Execution:
    if isinstance(policy, Execution):
        return replace(policy, admits=policy.compiled_admits())
    choose, on_start, on_ready, on_finish = policy.compiled_hooks()
    return replace(policy, choose=choose, on_start=on_start, on_ready=on_ready, on_finish=on_finish)


def _dumps(value: Any) -> bytes:
    with io.BytesIO() as file, _modules_by_value() as by_value:
        _PolicyPickler(file, by_value).dump(value)
        return file.getvalue()


@contextmanager
def _modules_by_value() -> Iterator[Callable[[str], None]]:
    """Let modules be named whose functions and classes cloudpickle takes by value, until the block ends."""
    before = list_registry_pickle_by_value()

    def by_value(module: str) -> None:
        register_pickle_by_value(sys.modules[module])

    try:
        yield by_value
    finally:
        for module in list_registry_pickle_by_value() - before:
            unregister_pickle_by_value(sys.modules[module])


class _PolicyPickler(Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """A cloudpickle that takes helixlab's own things and modules by name, and what is the user's by value."""

    def __init__(self, file: io.BytesIO, by_value: Callable[[str], None]) -> None:
        super().__init__(file)
        self.by_value = by_value

    def reducer_override(self, value: Any) -> Any:
        """Reduce what cloudpickle would take in another form, as `pickle` asks for it."""
        if isinstance(value, ModuleType):
            return import_module, (value.__name__,)
        if isinstance(value, type | FunctionType):
            if _is_users(value.__module__):
                self.by_value(value.__module__)
            return super().reducer_override(value)
        name = library_name(value)
        if name is not None:  # a compiled function, which a worker would have to compile again
            return _named, name
        function = getattr(value, "py_func", None)
        if isinstance(function, FunctionType):
            # numba's own pickling gives back the same dispatcher within a process, compiles for all
            # signatures that it has met, and loses the defaults of a function that calls itself.
            kind, options = type(value), dict(value.targetoptions)
            return __newobj__, (kind,), (function, options), None, None, _fill
        return NotImplemented


def _is_users(name: str | None) -> bool:
    """Tell whether a loaded module is neither part of helixlab nor installed anywhere."""
    module = sys.modules.get(name or "")
    if module is None or name == "__main__" or f"{name}.".startswith("helixlab."):
        return False
    folders = Path(getattr(module, "__file__", None) or "").parts
    return installed(name) is None and not {"site-packages", "dist-packages"} & {*folders}


def _named(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def _fill(dispatcher: Any, state: tuple[FunctionType, dict[str, Any]]) -> None:
    function, options = state
    dispatcher.__init__(function, {}, options)
