"""`sweep`: many runs, side by side, each kept when it is done."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from helixlab._validation import LARGEST_SEED, as_whole, plain, shown
from helixlab.contents import digest, library_digest
from helixlab.execution import Execution
from helixlab.experiments.grid import Point, grid_points
from helixlab.experiments.objective import Objective
from helixlab.experiments.problems import NOT_RUN, SweepError
from helixlab.experiments.runs import LABELS, Outcome, Packed, Run, carry_out, pack
from helixlab.experiments.store import Store
from helixlab.experiments.workers import Stopped, check_jobs, finished
from helixlab.scheduling import Scheduler
from helixlab.workload import offline, online

__all__ = ["NOT_RUN", "Interrupted", "SweepError", "carry_out_grid", "runs_of", "seeds_of", "sweep"]


def sweep(
    grid: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    *,
    seeds: int | Iterable[int] = 1,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Simulate every point of a grid with every seed.

    Parameters
    ----------
    grid : mapping, or sequence of mappings
        From the names of `simulate`'s arguments (placement, cluster, model, scheduler, execution, workload,
        on_full, kv_high_water_mark, expected_output_ratio, small_links, sample_step_s) to a value or a list
        of values: every combination is run, the last key varying fastest. Or a list of mappings to single
        values, for points picked by hand. Clusters, models, placements, schedulers and execution policies are
        names, paths, or objects of the library. Without a cluster or model it is the one that the placement
        is for. No timelines are taken unless sample_step_s says so: a sweep does not return them.
    seeds : int or sequence of int
        How many seeds (0, 1, ...), or which ones. A seed takes the place of the workload's own. All points
        get the same seeds, so that with one workload they are asked the same requests and can be compared
        seed by seed (common random numbers). Requests of your own stay as they are; schedulers that draw
        still vary.
    n_jobs : int
        Runs at a time, each in a process of its own; -1 for one a core. See Notes for more than one machine.
    store : path, optional
        Folder that keeps every finished run. Another call takes from there what it has and runs the rest, so
        that a sweep that was stopped goes on where it was.
    progress : bool, optional
        Show a progress bar; by default in notebooks and on terminals, if it takes more than a second.

    Returns
    -------
    DataFrame
        One row a point and seed, in the order of the grid: columns for the keys of the grid (for execution
        also its limits, for workload what it consists of), ``seed``, the columns of `Result.summary`; online
        what the queue did (load, growth_per_s, arrivals_per_s); with samples enough how the window moved
        (in_flight_mean, in_flight_drift, throughput_drift, trend; for both see
        `helixlab.diagnosis.steadiness`); and ``error``: None, or what went wrong with this run, whose figures
        are then NaN. What has the name of a bundled thing and another content is shown with its content hash;
        different things of one name are told apart by a number: ``"mine"``, ``"mine #2"``.

    Raises
    ------
    SweepError, UnknownNameError, FileFormatError
        The grid, seeds, n_jobs or store make no sense, or workers cannot be kept going.

    Warns
    -----
    UserWarning
        After Ctrl-C: workers are stopped, the runs that have finished are returned, the others have
        ``"not run: interrupted"`` for their ``error``, and ``attrs["partial"]`` of the table is True. What is
        in the store stays good.

    Notes
    -----
    Files in the store are named after a hash of all that determines a run: contents (not names) of cluster,
    model, placement, workload and policies, down to the bytecode of functions of your own and the values they
    use, settings, seed, and the source code of helixlab with the versions of what it calculates with. So a
    result of something else is never taken. Failed runs are not kept.

    The runs go through joblib. For a cluster of machines, start a Dask client and put ``with
    joblib.parallel_config(backend="dask"):`` around the call; `n_jobs` then is the cluster's. Results come
    back to the calling process, which alone writes to the store. The workers need the same helixlab, and the
    modules that functions of your own use; the functions themselves travel. If one run ends its Dask worker
    each time it is tried (out of memory), joblib waits without end: press Ctrl-C; the store has the rest.

    Examples
    --------
    >>> import helixlab as hx
    >>> grid = {"placement": "small10/llama-1-30b/helix", "scheduler": ["helix", "swarm"]}
    >>> workload = hx.offline(warmup_s=10, duration_s=60)
    >>> runs = hx.sweep(grid | {"workload": workload}, seeds=2)
    >>> runs[["scheduler", "mode", "seed", "error"]]
      scheduler     mode  seed error
    0     helix  offline     0  None
    1     helix  offline     1  None
    2     swarm  offline     0  None
    3     swarm  offline     1  None
    >>> means = runs.groupby("scheduler")["decode_tokens_per_s"].mean()
    >>> bool(means["helix"] > 10)
    True
    """
    try:
        return carry_out_grid(grid, seeds=seeds, n_jobs=n_jobs, store=store, progress=progress)
    except Interrupted as interrupted:
        warnings.warn(str(interrupted), stacklevel=2)
        return interrupted.runs


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with the table of what there is."""

    def __init__(self, said: str, runs: pd.DataFrame) -> None:
        super().__init__(said)
        runs.attrs["partial"] = True
        self.runs = runs


def carry_out_grid(
    grid: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    *,
    seeds: int | Iterable[int],
    n_jobs: int,
    store: str | os.PathLike[str] | None,
    progress: bool | None,
    objective: Objective | None = None,
    what: str = "sweep",
) -> pd.DataFrame:
    """`sweep`, for what is called `what`; with an objective, rows also say how each run did by it.

    Raises
    ------
    Interrupted
        After Ctrl-C; others as for `sweep`.
    """
    points, columns = grid_points(grid)
    numbers, n_jobs = seeds_of(seeds), check_jobs(n_jobs)
    kept = Store(store)
    measured = [] if objective is None else [objective]
    rows = [
        (point, seed, digest([library_digest(), point.digest, seed, *measured]))
        for point in points
        for seed in numbers
    ]
    outcomes, wanted = _known(rows, kept)
    labels = {key: point.labels | {"seed": seed} for key, (point, seed) in wanted.items()}
    failed = sum(point.error is not None for point, _, _ in rows)
    try:
        outcomes |= finished(
            runs_of(wanted, objective), labels, kept, work=carry_out, n_jobs=n_jobs, total=len(rows),
            failed=failed, progress=progress, what=what,
        )  # fmt: skip
        return _frame(rows, outcomes, columns, objective)
    except KeyboardInterrupt as stopped:  # it may come when all has run already
        known = stopped.outcomes if isinstance(stopped, Stopped) else {}
        outcomes = dict.fromkeys(wanted, Outcome(error=NOT_RUN)) | outcomes | known
        said = str(stopped) or f"{what} interrupted"
        raise Interrupted(said, _frame(rows, outcomes, columns, objective)) from None


Row = tuple[Point, int, str]
"""A point, a seed, and the key of the run."""


def seeds_of(seeds: Any) -> list[int]:
    """The seeds, from how many there are to be or which.

    Raises
    ------
    SweepError
        It says neither.

    Examples
    --------
    >>> seeds_of(3), seeds_of([5, 2])
    ([0, 1, 2], [5, 2])
    """
    mend = "how many (1 or more), or a list of different whole numbers from 0 up"
    if not isinstance(seeds, Iterable) or getattr(seeds, "ndim", 1) == 0:
        return list(range(as_whole(seeds, "seeds", least=1, mend=mend, error=SweepError)))
    numbers = [] if isinstance(seeds, str | Mapping) else list(map(plain, seeds))
    whole = all(type(number) is int and 0 <= number <= LARGEST_SEED for number in numbers)
    if not numbers or not whole or len(set(numbers)) < len(numbers):
        raise SweepError(f"seeds is {shown(seeds)}; give {mend}")
    return numbers


def _known(rows: list[Row], kept: Store) -> tuple[dict[str, Outcome], dict[str, tuple[Point, int]]]:
    """Outcomes that are there already, and what is left to run; the same run is wanted once."""
    outcomes: dict[str, Outcome] = {}
    wanted: dict[str, tuple[Point, int]] = {}
    for point, seed, key in rows:
        if point.error is None and key not in outcomes and key not in wanted:
            figures = kept.kept(key)
            if figures is None:
                wanted[key] = point, seed
            else:
                outcomes[key] = Outcome(figures)
    return outcomes, wanted


def runs_of(wanted: Mapping[str, tuple[Point, int]], objective: Objective | None = None) -> list[Run]:
    """What a worker needs for each key, point and seed."""
    ready: dict[int, Packed] = {}

    def ready_to_go(policy: Scheduler | Execution) -> Packed:
        if id(policy) not in ready:
            ready[id(policy)] = pack(policy)
        return ready[id(policy)]

    return [
        Run(
            key,
            library_digest(),
            os.getpid(),
            point.objects["cluster"],
            point.objects["model"],
            point.objects["placement"],
            ready_to_go(point.objects["scheduler"]),
            ready_to_go(point.objects["execution"]),
            replace(point.objects["workload"], seed=seed),
            point.settings,
            objective,
        )
        for key, (point, seed) in wanted.items()
    ]


def _frame(
    rows: list[Row], outcomes: dict[str, Outcome], columns: list[str], objective: Objective | None
) -> pd.DataFrame:
    results = [Outcome(error=point.error) if point.error else outcomes[key] for point, _, key in rows]
    names = next((list(each.figures) for each in results if each.figures is not None), None) or _figure_names(
        objective
    )
    missing = dict.fromkeys(names)
    records = []
    for (point, seed, _), each in zip(rows, results, strict=True):
        labels = point.labels | {"seed": seed}
        record = {name: labels[name] for name in dict.fromkeys([*columns, "seed", *LABELS])}
        records.append(record | (each.figures or missing))
    frame = pd.DataFrame(records)
    for name in frame:
        if frame[name].isna().all():
            frame[name] = np.nan
    frame["error"] = pd.Series([each.error for each in results], dtype=object)
    return frame


def _figure_names(objective: Objective | None) -> list[str]:
    """Names of a run's figures, from a short run: asked for when none has finished."""
    workload = (
        offline(warmup_s=0, duration_s=1)
        if objective is None
        else online(rate_tokens_per_s=100, duration_s=5)
    )
    [point], _ = grid_points({"placement": "small10/llama-1-30b/helix", "workload": workload})
    [run] = runs_of({"": (point, 0)}, objective)
    return list(carry_out(run)[1].figures or ())
