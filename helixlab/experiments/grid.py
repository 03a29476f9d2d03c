"""The grid of a sweep: which runs there are, and what their rows say."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Final

from helixlab._validation import plain_amount
from helixlab.cluster import Cluster, cluster_names, load_cluster
from helixlab.contents import digest
from helixlab.errors import ContentError, HelixlabError, UnknownNameError
from helixlab.execution import Execution, get_execution
from helixlab.experiments.problems import SweepError
from helixlab.experiments.runs import described
from helixlab.flow.small_links import RELATIVE
from helixlab.model import Model, load_model
from helixlab.placement import Placement, check_placement, load_placement
from helixlab.scheduling import Scheduler, get_scheduler
from helixlab.simulation.names import shown_name
from helixlab.simulation.run import KV_RULES
from helixlab.workload import Workload, offline

__all__ = ["KEYS", "Point", "grid_points"]

OBJECTS: Final[dict[str, tuple[type, Callable[[Any], Any]]]] = {
    "cluster": (Cluster, load_cluster),
    "model": (Model, load_model),
    "placement": (Placement, load_placement),
    "scheduler": (Scheduler, get_scheduler),
    "execution": (Execution, get_execution),
}
"""What has a name, and how it is found by it."""
SETTINGS: Final = ("on_full", "kv_high_water_mark", "expected_output_ratio", "small_links", "sample_step_s")
KEYS: Final = (*OBJECTS, "workload", *SETTINGS)
ALWAYS_SHOWN: Final = {
    "execution": ("execution", "chunk_tokens", "max_prompt_chunks_per_batch", "max_decode_per_batch"),
    "workload": ("mode", "trace", "initial_queries", "rate_tokens_per_s", "warmup_s", "duration_s"),
}
"""Columns of what has more than a name; the others are shown where they differ."""


@dataclass(frozen=True)
class Point:
    """One point of a grid.

    Parameters
    ----------
    objects : dict
        Cluster, model, placement, scheduler, execution and workload.
    settings : dict
        The other arguments of `helixlab.simulate`.
    labels : dict
        What its rows say: columns of all keys, in the order of `KEYS`.
    digest : str
        Of all content.
    error : str or None
        Why it cannot be run: the placement is for another cluster or model.
    """

    objects: dict[str, Any]
    settings: dict[str, Any]
    labels: dict[str, Any]
    digest: str
    error: str | None


def grid_points(grid: Any) -> tuple[list[Point], list[str]]:
    """The points of a grid in its order, and the columns of its keys.

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
            errors[ids] = _misfit(*trio)
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
    """The points as they are written, one dict each."""
    if isinstance(grid, Mapping):
        values = {key: _values(key, value) for key, value in _known(grid).items()}
        return [dict(zip(values, each, strict=True)) for each in product(*values.values())]
    if isinstance(grid, str) or not isinstance(grid, Iterable):
        raise SweepError(f"grid is {grid!r}; give a mapping of lists, or a list of mappings of single values")
    chosen = []
    for each in grid:
        if not isinstance(each, Mapping):
            raise SweepError(f"grid has the point {each!r}; give each as a mapping of single values")
        for key, value in _known(each).items():
            if _is_several(value):
                raise SweepError(
                    f"{key} of a point is {value!r}; give single values, or one mapping of lists for every"
                    " combination"
                )
        chosen.append(dict(each))
    if not chosen:
        raise SweepError("grid has no points; give at least one")
    return chosen


def _known(grid: Mapping[str, Any]) -> Mapping[str, Any]:
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
    """All arguments of one point: names looked up, what is left out filled in; `found` is looked up once."""

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
    usual = {
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
        **usual,
        **given,
    }


def _digest(thing: Any) -> str:
    try:
        return digest(replace(thing, seed=0) if isinstance(thing, Workload) else thing, repr(thing))
    except ContentError as error:
        raise SweepError(str(error)) from None


def _misfit(placement: Placement, cluster: Cluster, model: Model) -> str | None:
    try:
        check_placement(placement, cluster, model)
    except HelixlabError as error:
        return described(error)
    return None


def _labels(key: str, things: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Columns of every thing by its digest, so that no two of them read alike."""
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
