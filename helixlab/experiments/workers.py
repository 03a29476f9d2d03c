"""Tasks done side by side by worker processes, each outcome kept as soon as it is there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, Protocol, TypeVar

from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend

from helixlab._validation import as_jobs
from helixlab.code_cache import share
from helixlab.experiments.problems import SweepError
from helixlab.experiments.runs import Outcome, described
from helixlab.experiments.store import Store
from helixlab.interrupts import CtrlC, hearing_ctrl_c
from helixlab.parents import work_for
from helixlab.progress import bar

__all__ = ["Stopped", "check_jobs", "finished", "way_on"]


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
    return hearing_ctrl_c() if effective_n_jobs(n_jobs) == 1 else nullcontext(CtrlC())


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
