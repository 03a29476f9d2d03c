"""Tasks carried out by worker processes, with a progress bar, and the store of their outcomes.

Where the workers are is joblib's business. Each finished task becomes one small file, named after everything
that determines it, so that an interrupted call can go on from there.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend

from helixlab._code_cache import share
from helixlab._hashing import digest
from helixlab._interrupts import CtrlC, deferred_ctrl_c
from helixlab._io import read_json, write_json
from helixlab._parents import work_for
from helixlab._progress import bar
from helixlab._validation import as_jobs
from helixlab.errors import FileFormatError, SweepError
from helixlab.experiments.worker import Outcome, error_text

__all__ = ["Stopped", "Store", "resume_hint", "run_tasks"]

FORMAT: Final = "helixlab-run"
VERSION: Final = 2


class Store:
    """A folder of finished runs; without a path, nothing is kept.

    Parameters
    ----------
    path : path or None
        Path of the folder, which is made if it is not there.

    Raises
    ------
    SweepError
        `path` is not a folder, or the folder cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> store.save("a1", {"events": 7, "wall_s": None}, {"scheduler": "helix"})
    >>> store.load("a1")
    {'events': 7, 'wall_s': None}
    >>> store.load("b2") is None
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

    def load(self, key: str) -> dict[str, Any] | None:
        """Read the metrics of a finished run; None if its file is missing or damaged."""
        if self.folder is None:
            return None
        path = self.folder / f"{key}.json"
        try:
            content = read_json(path) if path.is_file() else None
        except FileFormatError:
            return None
        if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict):
            return None
        metrics = content["metrics"]
        stated = [content.get(name) for name in ("format", "version", "key", "digest")]
        return metrics if stated == [FORMAT, VERSION, key, digest(metrics)] else None

    def save(self, key: str, metrics: dict[str, Any], labels: dict[str, Any]) -> None:
        """Write a finished run, whole or not at all; `labels` are for readers.

        Raises
        ------
        SweepError
            The file cannot be written.
        """
        if self.folder is None:
            return
        content = {"format": FORMAT, "version": VERSION, "key": key, "run": labels}
        try:
            write_json(self.folder / f"{key}.json", content | {"metrics": metrics, "digest": digest(metrics)})
        except OSError as error:
            raise SweepError(
                f"a finished run cannot be written to {self.folder} ({error.strerror or error}); free"
                " some space, or give another store"
            ) from None


class Task(Protocol):
    """Something that a worker can do; its outcome is kept under its key."""

    @property
    def key(self) -> str:
        """Hash of all that determines the outcome."""


TaskT = TypeVar("TaskT", bound=Task)


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with the outcomes known by then.

    Parameters
    ----------
    message : str
        Progress so far, and how to go on.
    outcomes : dict
        Outcomes of the finished tasks by their keys.
    """

    def __init__(self, message: str, outcomes: dict[str, Outcome]) -> None:
        super().__init__(message)
        self.outcomes = outcomes


class _WorkersStopped(Exception):
    """An error that joblib raised, in one sentence."""


def run_tasks(
    tasks: Sequence[TaskT],
    labels: Mapping[str, dict[str, Any]],
    store: Store,
    *,
    work: Callable[[TaskT], tuple[str, Outcome]],
    n_jobs: int = 1,
    total: int | None = None,
    failed: int = 0,
    progress: bool | None = None,
    caller: str = "sweep",
) -> dict[str, Outcome]:
    """Have workers carry out tasks, and keep each outcome in the store as soon as it is there.

    Parameters
    ----------
    tasks : sequence of Run or the like
        Tasks, each with all that a worker needs and a ``key``.
    labels : mapping
        Labels for readers of the stored file, by key.
    store : Store
        Store of finished runs.
    work : callable
        Module-level function that turns a task into its key and outcome.
    n_jobs : int
        Number of tasks at a time, as for `sweep`.
    total, failed : int
        Number of tasks for the progress bar, including those known already, and how many of those failed.
    progress : bool, optional
        Show a progress bar, as for `sweep`.
    caller : str
        Name of the public function, for the progress bar and in errors.

    Returns
    -------
    dict of str to Outcome
        Outcomes by key.

    Raises
    ------
    SweepError
        `n_jobs` makes no sense, or workers keep stopping.
    Stopped
        After Ctrl-C, with the outcomes known by then.
    """
    n_jobs = as_jobs(n_jobs, error=SweepError)
    total = len(tasks) if total is None else total
    done = total - len(tasks)
    outcomes: dict[str, Outcome] = {}
    try:
        with (
            _deferred_ctrl_c(n_jobs) as ctrl_c,
            bar(progress, total=total, initial=done, unit="run", desc=caller) as shown,
            closing(_outcomes(tasks, work, n_jobs)) as coming,
        ):
            shown.set_postfix_str(f"{done - failed} finished, {failed} failed", refresh=False)
            for key, outcome in coming:
                if outcome.metrics is not None:
                    store.save(key, outcome.metrics, labels[key])
                outcomes[key] = outcome
                done, failed = done + 1, failed + (outcome.error is not None)
                shown.set_postfix_str(f"{done - failed} finished, {failed} failed", refresh=False)
                shown.update()
                if ctrl_c.pressed:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        hint = resume_hint(done - failed, store, total)
        raise Stopped(f"{caller} interrupted; {hint}", outcomes) from None
    except _WorkersStopped as stopped:
        raise SweepError(f"{stopped}; {resume_hint(done - failed, store, total)}") from stopped.__cause__
    return outcomes


def resume_hint(finished: int, store: Store, total: int | None = None) -> str:
    """Say how to go on after an interruption.

    Parameters
    ----------
    finished : int
        Number of finished runs.
    store : Store
        Store that keeps them, if it has a folder.
    total : int, optional
        Number of runs in all, where it is known.

    Examples
    --------
    >>> resume_hint(3, Store(None), 4)
    'nothing was kept: give a store to be able to go on'
    """
    if store.folder is None:
        return "nothing was kept: give a store to be able to go on"
    of_all = "" if total is None else f" of {total}"
    runs = "run is" if finished == 1 and total is None else "runs are"
    return (
        f"{finished}{of_all} {runs} kept in {store.folder}, call it again with store={str(store.folder)!r} to"
        " go on"
    )


def _deferred_ctrl_c(n_jobs: int) -> AbstractContextManager[CtrlC]:
    """Note Ctrl-C between runs where they are made in this process.

    Raised at once, it might come inside of compiled code that drops errors, and be lost. While other
    processes make the runs, it is raised as usual.
    """
    return deferred_ctrl_c() if effective_n_jobs(n_jobs) == 1 else nullcontext(CtrlC())


def _outcomes(
    tasks: Sequence[TaskT], work: Callable[[TaskT], tuple[str, Outcome]], n_jobs: int
) -> Generator[tuple[str, Outcome]]:
    """Yield outcomes as they come from joblib's workers."""
    if not tasks:
        return
    try:
        share()
        # One run a task, so that each is kept as soon as it is done.
        parallel = Parallel(
            n_jobs=min(n_jobs, len(tasks)),
            batch_size=1,
            return_as="generator_unordered",
            max_nbytes=None,
            **_worker_start(),
        )
        outcomes = parallel(delayed(work)(task) for task in tasks)
        try:
            for each in outcomes:  # noqa: UP028, `yield from` would close it by itself
                yield each
        finally:
            with warnings.catch_warnings():  # ending early drops runs on purpose
                warnings.simplefilter("ignore", UserWarning)
                outcomes.close()
    except Exception as error:  # errors of runs are outcomes
        raise _WorkersStopped(
            f"the workers stopped ({error_text(error)}); if memory ran out, try a smaller n_jobs"
        ) from error


def _worker_start() -> dict[str, Any]:
    """Let local workers end with this process, from before they load anything, as arguments of joblib.

    Later would be too late: their parent may be killed while they load.
    """
    backend, _ = get_active_backend()
    if type(backend).__name__ != "LokyBackend":
        return {}
    return {"initializer": work_for, "initargs": (os.getpid(),)}
