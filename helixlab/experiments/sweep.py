"""Sweeps: every combination of a grid of arguments, simulated with every seed, side by side."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab._hashing import digest, library_digest
from helixlab._validation import LARGEST_SEED, as_jobs, as_whole, plain, plain_amount, shown
from helixlab.cluster import Cluster, cluster_names, load_cluster
from helixlab.errors import ContentError, HelixlabError, SweepError, UnknownNameError
from helixlab.execution import Execution, get_execution
from helixlab.experiments.objectives import Objective
from helixlab.experiments.runner import Stopped, Store, run_tasks
from helixlab.experiments.statistics import NOT_RUN
from helixlab.experiments.worker import (
    LABELS,
    Outcome,
    PackedPolicy,
    Run,
    error_text,
    execute_run,
    pack,
)
from helixlab.flow.small_links import RELATIVE
from helixlab.model import Model, load_model
from helixlab.placement import Placement, check_placement, load_placement
from helixlab.scheduling import Scheduler, get_scheduler
from helixlab.simulation.provenance import shown_name
from helixlab.simulation.simulate import KV_RULES
from helixlab.workload import Workload, offline, online

__all__ = [
    "KEYS",
    "Interrupted",
    "Point",
    "grid_points",
    "run_grid",
    "runs_of",
    "seeds_of",
    "sweep",
]


OBJECTS: Final[dict[str, tuple[type, Callable[[Any], Any]]]] = {
    "cluster": (Cluster, load_cluster),
    "model": (Model, load_model),
    "placement": (Placement, load_placement),
    "scheduler": (Scheduler, get_scheduler),
    "execution": (Execution, get_execution),
}
"""Arguments that may be given by name: their type, and the function that finds them."""
SETTINGS: Final = ("on_full", "kv_high_water_mark", "expected_output_ratio", "small_links", "sample_step_s")
KEYS: Final = (*OBJECTS, "workload", *SETTINGS)
ALWAYS_SHOWN: Final = {
    "execution": ("execution", "chunk_tokens", "max_prompt_chunks_per_batch", "max_decode_per_batch"),
    "workload": ("mode", "trace", "initial_requests", "rate_tokens_per_s", "warmup_s", "duration_s"),
}
"""Columns that are always shown, for arguments with more than a name; others are shown where they differ."""


@dataclass(frozen=True)
class Point:
    """A point of a grid.

    Parameters
    ----------
    objects : dict
        Cluster, model, placement, scheduler, execution and workload, by argument.
    settings : dict
        The other arguments of `helixlab.simulate`.
    labels : dict
        Labels of its rows: columns of all keys, in the order of `KEYS`.
    digest : str
        Hash of all content.
    error : str or None
        Reason why it cannot be run: its placement is for another cluster or model.
    """

    objects: dict[str, Any]
    settings: dict[str, Any]
    labels: dict[str, Any]
    digest: str
    error: str | None


def grid_points(grid: Any) -> tuple[list[Point], list[str]]:
    """List the points of a grid in its order, and the columns of its keys.

    Raises
    ------
    SweepError, UnknownNameError, FileFormatError
        A key or value of the grid makes no sense.

    Examples
    --------
    >>> points, columns = grid_points(
    ...     {"placement": "small10/llama-1-30b/helix", "scheduler": ["helix", "swarm"]}
    ... )
    >>> columns, [point.labels["scheduler"] for point in points]
    (['placement', 'scheduler'], ['helix', 'swarm'])
    """
    chosen = _combinations(grid)
    asked = list(dict.fromkeys(key for each in chosen for key in each))
    found: dict[tuple[str, Any], Any] = {}
    whole = [_completed(each, found) for each in chosen]
    digests = {id(thing): _digest(thing) for each in whole for thing in each.values() if _is_object(thing)}
    labels: dict[str, dict[str, dict[str, Any]]] = {}
    for key in (*OBJECTS, "workload"):
        labels[key] = _labels(key, {digests[id(each[key])]: each[key] for each in whole})
    errors: dict[tuple[int, ...], str | None] = {}
    points = []
    for each in whole:
        objects = {key: value for key, value in each.items() if key not in SETTINGS}
        settings = {key: each[key] for key in SETTINGS}
        trio = (objects["placement"], objects["cluster"], objects["model"])
        if (ids := tuple(map(id, trio))) not in errors:
            errors[ids] = _mismatch(*trio)
        shown = [labels[key][digests[id(thing)]] for key, thing in objects.items()]
        points.append(
            Point(
                objects,
                settings,
                {name: value for part in (*shown, settings) for name, value in part.items()},
                digest([{key: digests[id(thing)] for key, thing in objects.items()}, settings], "the grid"),
                errors[ids],
            )
        )
    columns = []
    for key in asked:
        columns += [key] if key in SETTINGS else list(next(iter(labels[key].values())))
    return points, columns


def _combinations(grid: Any) -> list[dict[str, Any]]:
    """List the points as they are written, one dict each."""
    if isinstance(grid, Mapping):
        values = {key: _values(key, value) for key, value in _checked_keys(grid).items()}
        return [dict(zip(values, each, strict=True)) for each in product(*values.values())]
    if isinstance(grid, str) or not isinstance(grid, Iterable):
        raise SweepError(f"grid is {grid!r}; give a mapping of lists, or a list of mappings of single values")
    chosen = []
    for each in grid:
        if not isinstance(each, Mapping):
            raise SweepError(f"grid has the point {each!r}; give each as a mapping of single values")
        for key, value in _checked_keys(each).items():
            if _is_several(value):
                raise SweepError(
                    f"{key} of a point is {value!r}; give single values, or one mapping of lists for every"
                    " combination"
                )
        chosen.append(dict(each))
    if not chosen:
        raise SweepError("grid has no points; give at least one")
    return chosen


def _checked_keys(grid: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in grid:
        if key not in KEYS:
            raise UnknownNameError("grid key", key, KEYS)
    if "placement" not in grid:
        raise SweepError(f"grid has {', '.join(grid) or 'nothing in it'}; give it a 'placement' at least")
    return grid


def _is_several(value: Any) -> bool:
    single = isinstance(value, str | bytes | os.PathLike | Mapping) or getattr(value, "ndim", 1) == 0
    return isinstance(value, Iterable) and not single


def _values(key: str, value: Any) -> list[Any]:
    if not _is_several(value):
        return [value]
    if isinstance(value, set | frozenset):
        raise SweepError(f"grid[{key!r}] is a set, which has no order; give a list")
    values = list(value)
    if not values:
        raise SweepError(f"grid[{key!r}] is empty; give at least one value, or leave the key out")
    return values


def _is_object(thing: Any) -> bool:
    return isinstance(thing, (*(kind for kind, _ in OBJECTS.values()), Workload))


def _completed(chosen: dict[str, Any], found: dict[tuple[str, Any], Any]) -> dict[str, Any]:
    """Complete the arguments of a point: look up each name once (in `found`), and fill in defaults."""

    def get(key: str, value: Any) -> Any:
        kind, look_up = OBJECTS[key]
        if isinstance(value, kind):
            return value
        if not isinstance(value, str | os.PathLike):
            raise SweepError(f"grid[{key!r}] has {value!r}; give a name, or a {kind.__name__}")
        if (key, value) not in found:
            found[key, value] = look_up(value)
        return found[key, value]

    placement = get("placement", chosen["placement"])
    if "cluster" in chosen:
        cluster = get("cluster", chosen["cluster"])
    elif placement.part is not None:
        cluster = placement.part
    elif placement.cluster in cluster_names():
        cluster = get("cluster", placement.cluster)
    else:
        raise SweepError(
            f"placement {placement.name!r} is for cluster {placement.cluster!r}, which does not come with"
            " helixlab; give the grid a 'cluster'"
        )
    model = get("model", chosen.get("model", placement.model))
    workload = chosen.get("workload")
    if workload is None:
        workload = found.setdefault(("workload", None), offline())
    if not isinstance(workload, Workload):
        raise SweepError(
            f"grid['workload'] has {workload!r}; make workloads with offline(...) or online(...)"
        )
    mark, ratio = KV_RULES[workload.mode]
    defaults = {
        "on_full": "wait",
        "kv_high_water_mark": mark,
        "expected_output_ratio": ratio,
        "small_links": RELATIVE,
        "sample_step_s": 0.0,
    }
    given = {key: chosen[key] for key in SETTINGS if chosen.get(key) is not None}
    given = {key: plain_amount(value) for key, value in given.items()}
    return {
        "cluster": cluster,
        "model": model,
        "placement": placement,
        "scheduler": get("scheduler", chosen.get("scheduler", "helix")),
        "execution": get("execution", chosen.get("execution", "greedy")),
        "workload": workload,
        **defaults,
        **given,
    }


def _digest(thing: Any) -> str:
    try:
        return digest(replace(thing, seed=0) if isinstance(thing, Workload) else thing, repr(thing))
    except ContentError as error:
        raise SweepError(str(error)) from None


def _mismatch(placement: Placement, cluster: Cluster, model: Model) -> str | None:
    try:
        check_placement(placement, cluster, model)
    except HelixlabError as error:
        return error_text(error)
    return None


def _labels(key: str, things: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Label every object by its digest, so that no two of them read alike."""
    known = {digest: _shown(key, thing) for digest, thing in things.items()}
    columns = list(next(iter(known.values())))
    always = ALWAYS_SHOWN.get(key, (key,))
    kept = [c for c in columns if c in always or len({repr(each[c]) for each in known.values()}) > 1]
    if len({repr([each[c] for c in kept]) for each in known.values()}) < len(known):
        named = "trace" if key == "workload" else key
        kept += [named] if named not in kept else []
        times: Counter[str] = Counter()
        for each in known.values():
            same = repr([each[c] for c in kept])
            times[same] += 1
            if times[same] > 1:
                each[named] = f"{each[named]} #{times[same]}"
    return {digest: {c: each[c] for c in kept} for digest, each in known.items()}


def _shown(key: str, thing: Any) -> dict[str, Any]:
    if isinstance(thing, Execution):
        return {"execution": shown_name(thing), **thing.parameters}
    if isinstance(thing, Workload):
        shown = {f.name: getattr(thing, f.name) for f in fields(thing) if f.name not in ("seed", "requests")}
        return shown | {"trace": thing.source}
    return {key: shown_name(thing)}


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
        Mapping from names of arguments of `simulate` (placement, cluster, model, scheduler, execution,
        workload, on_full, kv_high_water_mark, expected_output_ratio, small_links, sample_step_s) to a value
        or a list of values. Every combination is run; the last key varies fastest. A list of mappings to
        single values gives points picked by hand. Clusters, models, placements, schedulers and execution
        policies are names, paths, or objects of the library. The default cluster and model are those of the
        placement. No timelines are sampled unless sample_step_s says so: a sweep does not return them.
    seeds : int or sequence of int
        Number of seeds (0, 1, ...), or a list of them. A seed replaces that of the workload. All points get
        the same seeds, so that with one workload they serve the same requests and can be compared seed by
        seed (common random numbers). Requests of your own stay as they are; schedulers that draw still vary.
    n_jobs : int
        Number of runs at a time, each in a process of its own; -1 for one per core. See Notes for several
        machines.
    store : path, optional
        Folder that keeps every finished run. A later call takes from there what it has and runs the rest, so
        that an interrupted sweep can go on.
    progress : bool, optional
        Show a progress bar; by default in notebooks and on terminals, if the call takes more than a second.

    Returns
    -------
    DataFrame
        One row for each point and seed, in the order of the grid: columns for the keys of the grid (for
        execution also its limits, for workload its parts), ``seed``, and the columns of `Result.summary`.
        Online runs have load, growth_per_s and arrivals_per_s of their queue. Runs with enough samples have
        in_flight_mean, in_flight_drift, throughput_drift and trend of their window (for both see
        `helixlab.diagnosis.steady_state`). ``error`` is None, or what went wrong with this run, whose metrics
        are then NaN. An object with the name of a bundled one but other content is shown with its content
        hash; different objects of one name are numbered: ``"mine"``, ``"mine #2"``.

    Raises
    ------
    SweepError, UnknownNameError, FileFormatError
        The grid, seeds, n_jobs or store make no sense, or workers cannot be kept going.

    Warns
    -----
    UserWarning
        After Ctrl-C: workers are stopped, the finished runs are returned, the others have ``"not run:
        interrupted"`` for their ``error``, and ``attrs["partial"]`` of the table is True. The store stays
        valid.

    Notes
    -----
    Files in the store are named after a hash of all that determines a run: contents (not names) of cluster,
    model, placement, workload and policies, down to the bytecode of functions of your own and the values they
    use, settings, seed, and the source code of helixlab with the versions of the packages it calculates with.
    Therefore a result of something else is never taken. Failed runs are not kept.

    The runs go through joblib. For a cluster of machines, start a Dask client and put ``with
    joblib.parallel_config(backend="dask"):`` around the call; the cluster then sets the number of jobs.
    Outcomes come back to the calling process, which alone writes to the store. The workers need the same
    helixlab, and modules that functions of your own use as modules (``helpers.rate(...)``); the functions
    themselves are sent. If a run ends its Dask worker each time it is tried (out of memory), joblib waits
    without end: press Ctrl-C; the store has the other runs.

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
        return run_grid(grid, seeds=seeds, n_jobs=n_jobs, store=store, progress=progress)
    except Interrupted as interrupted:
        warnings.warn(str(interrupted), stacklevel=2)
        return interrupted.runs


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with the table of the runs so far.

    Parameters
    ----------
    message : str
        Progress so far, and how to go on.
    runs : DataFrame
        Table of all runs; those that have not run have an ``error`` that says so.
    """

    def __init__(self, message: str, runs: pd.DataFrame) -> None:
        super().__init__(message)
        runs.attrs["partial"] = True
        self.runs = runs


def run_grid(
    grid: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    *,
    seeds: int | Iterable[int],
    n_jobs: int,
    store: str | os.PathLike[str] | None,
    progress: bool | None,
    objective: Objective | None = None,
    caller: str = "sweep",
) -> pd.DataFrame:
    """Do what `sweep` does for the function `caller`; with an objective, measure each run by it too.

    Raises
    ------
    Interrupted
        After Ctrl-C; others as for `sweep`.
    """
    points, columns = grid_points(grid)
    numbers, n_jobs = seeds_of(seeds), as_jobs(n_jobs, error=SweepError)
    finished = Store(store)
    measured = [] if objective is None else [objective]
    rows = [
        (point, seed, digest([library_digest(), point.digest, seed, *measured]))
        for point in points
        for seed in numbers
    ]
    outcomes, wanted = _split_by_store(rows, finished)
    labels = {key: point.labels | {"seed": seed} for key, (point, seed) in wanted.items()}
    failed = sum(point.error is not None for point, _, _ in rows)
    try:
        outcomes |= run_tasks(
            runs_of(wanted, objective), labels, finished, work=execute_run, n_jobs=n_jobs, total=len(rows),
            failed=failed, progress=progress, caller=caller,
        )  # fmt: skip
        return _sweep_table(rows, outcomes, columns, objective)
    except KeyboardInterrupt as stopped:  # it may come when all has run already
        known = stopped.outcomes if isinstance(stopped, Stopped) else {}
        outcomes = dict.fromkeys(wanted, Outcome(error=NOT_RUN)) | outcomes | known
        message = str(stopped) or f"{caller} interrupted"
        raise Interrupted(message, _sweep_table(rows, outcomes, columns, objective)) from None


Row = tuple[Point, int, str]
"""Point, seed, and key of a run."""


def seeds_of(seeds: Any) -> list[int]:
    """List the seeds, given their number or the seeds themselves.

    Raises
    ------
    SweepError
        `seeds` is neither.

    Examples
    --------
    >>> seeds_of(3), seeds_of([5, 2])
    ([0, 1, 2], [5, 2])
    """
    mend = "a number of seeds (1 or more), or a list of different whole numbers from 0 up"
    if not isinstance(seeds, Iterable) or getattr(seeds, "ndim", 1) == 0:
        return list(range(as_whole(seeds, "seeds", least=1, mend=mend, error=SweepError)))
    numbers = [] if isinstance(seeds, str | Mapping) else list(map(plain, seeds))
    whole = all(type(number) is int and 0 <= number <= LARGEST_SEED for number in numbers)
    if not numbers or not whole or len(set(numbers)) < len(numbers):
        raise SweepError(f"seeds is {shown(seeds)}; give {mend}")
    return numbers


def _split_by_store(rows: list[Row], store: Store) -> tuple[dict[str, Outcome], dict[str, tuple[Point, int]]]:
    """Split rows into outcomes that the store has, and runs that are left to do, each once."""
    outcomes: dict[str, Outcome] = {}
    wanted: dict[str, tuple[Point, int]] = {}
    for point, seed, key in rows:
        if point.error is None and key not in outcomes and key not in wanted:
            metrics = store.load(key)
            if metrics is None:
                wanted[key] = point, seed
            else:
                outcomes[key] = Outcome(metrics)
    return outcomes, wanted


def runs_of(wanted: Mapping[str, tuple[Point, int]], objective: Objective | None = None) -> list[Run]:
    """Make the runs for workers, by their keys."""
    packed: dict[int, PackedPolicy] = {}

    def packed_once(policy: Scheduler | Execution) -> PackedPolicy:
        if id(policy) not in packed:
            packed[id(policy)] = pack(policy)
        return packed[id(policy)]

    return [
        Run(
            key,
            library_digest(),
            os.getpid(),
            point.objects["cluster"],
            point.objects["model"],
            point.objects["placement"],
            packed_once(point.objects["scheduler"]),
            packed_once(point.objects["execution"]),
            replace(point.objects["workload"], seed=seed),
            point.settings,
            objective,
        )
        for key, (point, seed) in wanted.items()
    ]


def _sweep_table(
    rows: list[Row], outcomes: dict[str, Outcome], columns: list[str], objective: Objective | None
) -> pd.DataFrame:
    """Build the table of a sweep, one row for each point and seed."""
    results = [Outcome(error=point.error) if point.error else outcomes[key] for point, _, key in rows]
    names = next((list(each.metrics) for each in results if each.metrics is not None), None)
    names = names or _metric_names(objective)
    missing = dict.fromkeys(names)
    records = []
    for (point, seed, _), each in zip(rows, results, strict=True):
        labels = point.labels | {"seed": seed}
        record = {name: labels[name] for name in dict.fromkeys([*columns, "seed", *LABELS])}
        records.append(record | (each.metrics or missing))
    frame = pd.DataFrame(records)
    for name in frame:
        if frame[name].isna().all():
            frame[name] = np.nan
    frame["error"] = pd.Series([each.error for each in results], dtype=object)
    return frame


def _metric_names(objective: Objective | None) -> list[str]:
    """List the names of a run's metrics, from a short run, for when no run has finished."""
    workload = (
        offline(warmup_s=0, duration_s=1)
        if objective is None
        else online(rate_tokens_per_s=100, duration_s=5)
    )
    [point], _ = grid_points({"placement": "small10/llama-1-30b/helix", "workload": workload})
    [run] = runs_of({"": (point, 0)}, objective)
    return list(execute_run(run)[1].metrics or ())
