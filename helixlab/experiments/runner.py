"""Runs in worker processes: what is sent to a worker, what it does with it, and where its outcome is kept.

Functions of helixlab and of installed packages travel as names. Those of the user travel by value, with all
they use, so that a worker needs no copy of the module they come from, and cannot have another version of it.
A finished run is one small file, named after everything that determines it.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend
from tqdm.auto import tqdm

from helixlab._code_cache import share
from helixlab._hashing import digest, globals_read, installed, library_digest, library_name
from helixlab._interrupts import CtrlC, deferred_ctrl_c
from helixlab._io import json_ready, read_json, write_json
from helixlab._parents import work_for
from helixlab._progress import bar
from helixlab._validation import as_jobs
from helixlab.cluster import Cluster
from helixlab.errors import FileFormatError, SimulationError, SweepError
from helixlab.execution import Execution
from helixlab.experiments.objectives import Objective, latency_metrics
from helixlab.experiments.statistics import DRIFTS, load_figures, trend_figures
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.scheduling import Scheduler
from helixlab.simulation import Result, simulate
from helixlab.workload import Workload

__all__ = [
    "ByName",
    "ByValue",
    "Outcome",
    "Packed",
    "Run",
    "Stopped",
    "Store",
    "carried_out",
    "carry_out",
    "check_jobs",
    "finished",
    "pack",
    "sent",
    "taken",
    "unpack",
    "way_on",
]


@dataclass(frozen=True)
class ByName:
    """A module, or a function in it."""

    module: str
    name: str = ""


@dataclass(frozen=True, eq=False)
class ByValue:
    """A function of the user's; its global names and enclosed values are sent ones too."""

    code: CodeType
    module: str
    defaults: Any
    keyword_defaults: Any
    dispatcher: type | None
    options: dict[str, Any]
    globals: dict[str, Any] = field(default_factory=dict)
    enclosed: list[tuple[Any, ...]] = field(default_factory=list)


def sent(value: Any, memory: dict[int, Any] | None = None) -> Any:
    """Replace functions and modules by what `taken` makes them of again; the rest stays.

    Examples
    --------
    >>> factor = 3
    >>> def times(number):
    ...     return factor * number
    >>> taken(sent(times))(14)
    42
    >>> sent(sent)
    ByName(module='helixlab.experiments.runner', name='sent')
    """
    memory = {} if memory is None else memory
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(sent(item, memory) for item in value)
    if isinstance(value, ModuleType):
        return ByName(value.__name__)
    own = library_name(value)
    if own is not None:
        return ByName(*own)
    function = getattr(value, "py_func", value)  # what numba has compiled
    if not isinstance(function, FunctionType):
        return value
    if installed(function.__module__) is not None and "." not in function.__qualname__:
        return ByName(function.__module__, function.__name__)
    if id(value) not in memory:
        memory[id(value)] = shipped = ByValue(
            function.__code__,
            function.__module__,
            sent(function.__defaults__, memory),
            function.__kwdefaults__,
            None if function is value else type(value),
            dict(getattr(value, "targetoptions", {})),
        )
        shipped.globals.update({name: sent(each, memory) for name, each in globals_read(function)})
        for cell in function.__closure__ or ():
            shipped.enclosed.append((sent(cell.cell_contents, memory),) if _is_set(cell) else ())
    return memory[id(value)]


def taken(value: Any, memory: dict[int, Any] | None = None) -> Any:
    """Undo `sent`.

    Raises
    ------
    ImportError, AttributeError
        A module or function is not here.
    """
    memory = {} if memory is None else memory
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(taken(item, memory) for item in value)
    if isinstance(value, ByName):
        module = import_module(value.module)
        return getattr(module, value.name) if value.name else module
    if not isinstance(value, ByValue):
        return value
    if id(value) not in memory:
        cells = tuple(CellType() for _ in value.enclosed)
        defaults = taken(value.defaults, memory)
        function = FunctionType(value.code, {}, value.code.co_name, defaults, cells)
        function.__module__, function.__kwdefaults__ = value.module, value.keyword_defaults
        made = function if value.dispatcher is None else value.dispatcher(function, {}, value.options)
        memory[id(value)] = made
        function.__globals__.update({name: taken(each, memory) for name, each in value.globals.items()})
        for cell, content in zip(cells, value.enclosed, strict=True):
            if content:
                cell.cell_contents = taken(content[0], memory)
    return memory[id(value)]


def _is_set(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


FORMAT: Final = "helixlab-run"
VERSION: Final = 1


class Store:
    """A folder of finished runs. Without a path nothing is kept.

    Parameters
    ----------
    path : path or None
        It is made if it is not there.

    Raises
    ------
    SweepError
        `path` is no folder, or nothing can be written there.

    Examples
    --------
    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> store.keep("a1", {"events": 7, "wall_s": None}, {"scheduler": "helix"})
    >>> store.kept("a1")
    {'events': 7, 'wall_s': None}
    >>> store.kept("b2") is None
    True
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        if path is not None and not isinstance(path, str | os.PathLike):
            raise SweepError(f"store is {path!r}; give the path of a folder, or None to keep nothing")
        self.folder = None if path is None else Path(path)
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SweepError(
                    f"store {self.folder} cannot be a folder ({error.strerror or error}); give another path"
                ) from None

    def kept(self, key: str) -> dict[str, Any] | None:
        """Figures of a finished run; None if it is not there, or its file is not whole."""
        if self.folder is None:
            return None
        path = self.folder / f"{key}.json"
        try:
            content = read_json(path) if path.is_file() else None
        except FileFormatError:
            return None
        if not isinstance(content, dict) or not isinstance(content.get("figures"), dict):
            return None
        figures = content["figures"]
        stated = [content.get(name) for name in ("format", "version", "key", "digest")]
        return figures if stated == [FORMAT, VERSION, key, digest(figures)] else None

    def keep(self, key: str, figures: dict[str, Any], labels: dict[str, Any]) -> None:
        """Write a finished run, whole or not at all; `labels` are for readers.

        Raises
        ------
        SweepError
            It cannot be written.
        """
        if self.folder is None:
            return
        content = {"format": FORMAT, "version": VERSION, "key": key, "run": labels}
        try:
            write_json(self.folder / f"{key}.json", content | {"figures": figures, "digest": digest(figures)})
        except OSError as error:
            raise SweepError(
                f"a finished run cannot be written to {self.folder} ({error.strerror or error}); make room,"
                " or give another store"
            ) from None


def check_jobs(n_jobs: Any) -> int:
    """The number of runs at a time, as joblib takes it.

    Raises
    ------
    SweepError
        It makes no sense.

    Examples
    --------
    >>> check_jobs(2)
    2
    """
    return as_jobs(n_jobs, error=SweepError)


class Keyed(Protocol):
    """What is sent to a worker, under the key of its outcome."""

    @property
    def key(self) -> str:
        """A hash of all that determines the outcome."""


Task = TypeVar("Task", bound=Keyed)


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with the outcomes that there are."""

    def __init__(self, said: str, outcomes: dict[str, Outcome]) -> None:
        super().__init__(said)
        self.outcomes = outcomes


class _WorkersStopped(Exception):
    """What joblib raised, in a sentence."""


def finished(
    tasks: Sequence[Task],
    labels: Mapping[str, dict[str, Any]],
    kept: Store,
    *,
    work: Callable[[Task], tuple[str, Outcome]],
    n_jobs: int = 1,
    total: int | None = None,
    failed: int = 0,
    progress: bool | None = None,
    what: str = "sweep",
) -> dict[str, Outcome]:
    """Outcomes of tasks by their keys, each kept in the store when it is done.

    Parameters
    ----------
    tasks : sequence of Run or the like
        What a worker needs, under a ``key``.
    labels : mapping
        What the file of each key says to readers.
    kept : Store
    work : callable
        A function of a module: the key and the outcome of a task.
    n_jobs : int
        Tasks at a time, as for `sweep`.
    total, failed : int
        For the progress bar: tasks in all, those known already included, and how many of them failed.
    progress : bool, optional
    what : str
        What the progress bar and errors call it.

    Raises
    ------
    SweepError
        `n_jobs` makes no sense, or workers cannot be kept going.
    Stopped
        After Ctrl-C, with how far it came.
    """
    total = len(tasks) if total is None else total
    done = total - len(tasks)
    outcomes: dict[str, Outcome] = {}
    try:
        with (
            _hearing(check_jobs(n_jobs)) as ctrl_c,
            bar(progress, total=total, initial=done, unit="run", desc=what) as shown,
            closing(_carried_out(tasks, work, check_jobs(n_jobs))) as coming,
        ):
            shown.set_postfix_str(f"{done - failed} finished, {failed} failed", refresh=False)
            for key, outcome in coming:
                if outcome.figures is not None:
                    kept.keep(key, outcome.figures, labels[key])
                outcomes[key] = outcome
                done, failed = done + 1, failed + (outcome.error is not None)
                shown.set_postfix_str(f"{done - failed} finished, {failed} failed", refresh=False)
                shown.update()
                if ctrl_c.pressed:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise Stopped(f"{what} interrupted; {way_on(done - failed, kept, total)}", outcomes) from None
    except _WorkersStopped as stopped:
        raise SweepError(f"{stopped}; {way_on(done - failed, kept, total)}") from stopped.__cause__
    return outcomes


def _hearing(n_jobs: int) -> AbstractContextManager[CtrlC]:
    """Ctrl-C is noted where runs are made in this process, and heard by each of them.

    Raised wherever it comes, it may come inside of compiled code that drops errors, and be lost. Where others
    make the runs, it is raised while they are waited for.
    """
    return deferred_ctrl_c() if effective_n_jobs(n_jobs) == 1 else nullcontext(CtrlC())


def _carried_out(
    tasks: Sequence[Task], work: Callable[[Task], tuple[str, Outcome]], n_jobs: int
) -> Generator[tuple[str, Outcome]]:
    """Outcomes as they come. Where they are made is joblib's business."""
    if not tasks:
        return
    try:
        n_jobs = min(n_jobs, len(tasks))
        share()
        # One run a task, so that each is kept as soon as it is done.
        parallel = Parallel(
            n_jobs=n_jobs,
            batch_size=1,
            return_as="generator_unordered",
            max_nbytes=None,
            **_first_thing(),
        )
        outcomes = parallel(delayed(work)(task) for task in tasks)
        try:
            for each in outcomes:  # noqa: UP028, `yield from` would close it by itself
                yield each
        finally:
            with warnings.catch_warnings():  # that runs are dropped when it ends early is meant
                warnings.simplefilter("ignore", UserWarning)
                outcomes.close()
    except Exception as error:  # runs bring their own errors as outcomes
        raise _WorkersStopped(
            f"the workers stopped ({described(error)}); if memory ran out, try a smaller n_jobs"
        ) from error


def _first_thing() -> dict[str, Any]:
    """What worker processes of this machine do before they load anything, as joblib takes it.

    Later it would be too late: while they load, their parent may be killed.
    """
    backend, _ = get_active_backend()
    if type(backend).__name__ != "LokyBackend":
        return {}
    return {"initializer": work_for, "initargs": (os.getpid(),)}


def way_on(finished: int, kept: Store, total: int | None = None) -> str:
    """How to go on after so many finished runs, of a total where that is known.

    Examples
    --------
    >>> way_on(3, Store(None), 4)
    'nothing was kept: give a store to be able to go on'
    """
    if kept.folder is None:
        return "nothing was kept: give a store to be able to go on"
    of_all = "" if total is None else f" of {total}"
    runs = "run is" if finished == 1 and total is None else "runs are"
    return (
        f"{finished}{of_all} {runs} kept in {kept.folder}, call it again with store={str(kept.folder)!r} to"
        " go on"
    )


LABELS: Final = (
    "cluster", "model", "placement", "scheduler", "execution", "mode", "trace", "initial_requests",
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
        measured |= {} if run.objective is None else latency_metrics(result, run.objective)
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
