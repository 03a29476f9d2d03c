"""The published evaluation as data, run again, and what the published way of running it hides."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab._data import read_table
from helixlab.errors import SweepError, UnknownNameError
from helixlab.experiments.pooling import LATER, pooled_runs
from helixlab.experiments.statistics import trends
from helixlab.workload import Workload, offline, online

__all__ = ["DRAWS", "RUN", "evaluate", "figure_names", "published_results", "published_wide", "scenarios"]


RUN: Final = ["figure_number", "cluster", "model", "method", "mode"]
"""What rows of one run have in common; figures 5a and 5e show one run."""
DRAWS: Final = ("random", "shortest-queue")
"""Schedulers that draw. In published runs they drew from another stream, so that only means can agree;
offline it was that of the lengths, so that not even their requests are known."""


def figure_names() -> list[str]:
    """Figures and tables of the paper that there are numbers of.

    Examples
    --------
    >>> figure_names()[:4]
    ['5a', '5b', '5c', '5d']
    """
    results = read_table("published/results.csv")
    names = results["figure"].drop_duplicates()
    return sorted(names, key=lambda name: (_number(name).zfill(3), name))


def scenarios(figures: Iterable[str] | None = None) -> pd.DataFrame:
    """What ran for the published numbers: the bundled table, and the number of the figure.

    Parameters
    ----------
    figures : iterable of str, optional
        Names such as ``"5a"``, or ``"5"`` for all of its panels; all by default.

    Returns
    -------
    DataFrame
        Columns of ``published/scenarios.csv``, figure_number, and published: False for what ran on the
        prototype only, where how it was loaded is assumed to be as in the simulation of the same figure.

    Raises
    ------
    UnknownNameError
        There is no such figure.

    Examples
    --------
    >>> scenarios(["10a"])["scheduler"].tolist()
    ['helix', 'swarm', 'random', 'shortest-queue', 'helix', 'swarm', 'random']
    """
    parts = {"published/scenarios.csv": True, "published/prototype_scenarios.csv": False}
    table = pd.concat([read_table(name).assign(published=here) for name, here in parts.items()])
    table.insert(0, "figure_number", table["figure"].map(_number))
    if figures is not None:
        # The run behind figure 5e, the latencies, is listed under 5b, the throughput.
        chosen = published_results(figures)[RUN].drop_duplicates()
        table = table.merge(chosen, on=RUN)
    return table.reset_index(drop=True)


def published_results(figures: Iterable[str] | None = None) -> pd.DataFrame:
    """The published numbers of some figures, with the number of the figure.

    Raises
    ------
    UnknownNameError
        There is no such figure.

    Examples
    --------
    >>> published_results(["5b"])[["method", "platform", "value"]].head(2)
      method    platform  value
    0  helix  simulation  216.7
    1  swarm  simulation  104.9
    """
    table = read_table("published/results.csv")
    table.insert(0, "figure_number", table["figure"].map(_number))
    if figures is not None:
        asked = list(figures)
        known = {*table["figure"], *table["figure_number"]}
        for name in asked:
            if name not in known:
                raise UnknownNameError("figure", name, sorted(known))
        table = table[table["figure"].isin(asked) | table["figure_number"].isin(asked)]
    return table.reset_index(drop=True)


def published_wide(figures: Iterable[str] | None = None) -> pd.DataFrame:
    """The published numbers of some figures with a column for each metric, as figures of latencies take them.

    Returns
    -------
    DataFrame
        One row a run and platform: figure_number, cluster, model, method, mode, platform, and the metrics.

    Examples
    --------
    >>> published_wide(["5g"])[["method", "platform", "prompt_latency_p50_s"]].dropna()
         method    platform  prompt_latency_p50_s
    1     helix  simulation                  2.64
    3  separate  simulation                  0.80
    5     swarm  simulation                  3.32
    """
    known = published_results(figures)
    wide = known.pivot_table(index=[*RUN, "platform"], columns="metric", values="value", aggfunc="first")
    wide.columns.name = None
    return wide.reset_index()


def _number(figure: str) -> str:
    return figure.rstrip("abcdefghijklmnopqrstuvwxyz")


VARIANTS: Final = ("same-requests", "wait", "long")
"""In which published scenarios are run once more; `evaluate` says what they are."""
FAVOURED: Final = 0.02
"""Part by which dropping may move the mean input of admitted requests before it has to be said."""


@dataclass(frozen=True)
class _Spans:
    """Windows in seconds: warm-up and duration."""

    offline: tuple[float, float]
    online: tuple[float, float]
    long_offline: tuple[float, float]
    long_online: tuple[float, float]


SPANS: Final = {
    "full": _Spans((60, 600), (0, 1800), (900, 900), (900, 1800)),
    "smoke": _Spans((10, 30), (0, 60), (40, 40), (30, 60)),
}
"""``full`` is what was published; the long window starts after 15 minutes."""


def evaluate(
    table: pd.DataFrame,
    *,
    scale: str = "full",
    seeds: int | Sequence[int] = 5,
    variants: Collection[str] = VARIANTS,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Run published scenarios, and once more what the published way of running them hides.

    Parameters
    ----------
    table : DataFrame
        Rows of `helixlab.reproduce.evaluation.scenarios`; those of one run all or not at all.
    scale : str
        ``"full"``, as published, or ``"smoke"``, the same in little.
    seeds, n_jobs, store, progress
        As for `sweep`. Seed 0 draws the requests of the published runs.
    variants : collection of str
        Which of those below to run beside ``"published"``, where they apply; by default all.

    Returns
    -------
    DataFrame
        One row a run, seed and variant: the columns of `scenarios` that the rows of a run share, variant,
        seed, and the columns of `pooled_figures`. Variants: ``"published"``, requests that fit nowhere
        are dropped; ``"same-requests"``, online with schedulers that draw: the requests are those of seed 0
        whatever the seed; ``"wait"``, where dropping moved the mean input of those let in by more than 2 %:
        they wait; ``"long"``, where the window of a run had not settled, or seeds are too few to
        say, for it and all others of its cluster, model and mode: they wait, and the window starts after 15
        minutes.

    Raises
    ------
    UnknownNameError
        There is no such scale or variant.
    SweepError
        As for `sweep`, and if a run fails.
    """
    if scale not in SPANS:
        raise UnknownNameError("scale", scale, list(SPANS))
    for name in variants:
        if name not in VARIANTS:
            raise UnknownNameError("variant", name, VARIANTS)
    names = ["|".join(key) for key in table[RUN].to_numpy().tolist()]
    table = table.assign(group=names)
    shared = table.groupby("group", sort=False).agg(
        {name: "first" for name in (*RUN, "scheduler", "published")}
        | {"placement": " + ".join, "requests_in_flight_or_initial": "sum", "rate_tokens_per_s": "sum"}
    )
    settings: dict[str, Any] = {"seeds": seeds, "n_jobs": n_jobs, "store": store, "progress": progress}
    later_s = SPANS[scale].long_online[0] if "long" in variants else None

    def ran(variant: str, groups: Iterable[str], later_s: float | None = None) -> pd.DataFrame:
        points = {
            str(name): [_point(row, SPANS[scale], variant) for _, row in rows.iterrows()]
            for name, rows in table[table["group"].isin(list(groups))].groupby("group", sort=False)
        }
        runs = pooled_runs(points, later_s=later_s, **settings).assign(variant=variant)
        for _, failed in runs[runs["error"].notna()].iterrows():
            raise SweepError(f"run {failed['group']} with seed {failed['seed']} failed: {failed['error']}")
        return runs.drop(columns="error")

    first, of_later = _two_windows(ran("published", shared.index, later_s))
    applying: dict[str, Iterable[str]] = {
        "same-requests": shared.index[(shared["mode"] == "online") & shared["scheduler"].isin(DRAWS)],
        "wait": _favoured(first),
        "long": _compared_with(first, shared),
    }
    parts = [first]
    for variant in (name for name in VARIANTS if name in variants):
        groups = list(applying[variant])
        if variant == "long":
            # Where nothing was dropped, a run in which requests wait is the same run.
            there = of_later[of_later["group"].isin(groups)].assign(variant=variant)
            groups = [name for name in groups if name not in set(there["group"])]
            parts += [there] if len(there) else []
        parts += [ran(variant, groups)] if groups else []
    runs = pd.concat(parts)
    order = {name: at for at, name in enumerate(shared.index)}
    runs = shared.reset_index().merge(runs, on="group").drop(columns="group")
    keys = ["|".join(key) for key in runs[RUN].to_numpy().tolist()]
    return runs.iloc[np.argsort([order[key] for key in keys], kind="stable")].reset_index(drop=True)


def _point(row: pd.Series, spans: _Spans, variant: str) -> dict[str, Any]:
    workload = _workload(row, spans, long=variant == "long")
    if variant == "same-requests":
        columns = ["arrival_s", "input_tokens", "output_tokens"]
        requests = pd.DataFrame(next(workload.batches()), columns=columns)
        if len(requests):  # there may be none in a short time
            requests = requests.astype(dict.fromkeys(columns[1:], int))
            workload = online(requests=requests, warmup_s=workload.warmup_s, duration_s=workload.duration_s)
    measured_s = workload.duration_s
    if workload.online:  # so fine that it will do for the long window
        measured_s -= spans.long_online[0]
    return {
        "cluster": row["cluster"],
        "model": row["model"],
        "placement": row["placement"],
        "scheduler": row["scheduler"],
        "workload": workload,
        "on_full": "wait" if variant in ("wait", "long") else "drop",
        "sample_step_s": measured_s / 120,
    }


def _workload(row: pd.Series, spans: _Spans, *, long: bool) -> Workload:
    if row["mode"] == "online":
        warmup_s, duration_s = spans.long_online if long else spans.online
        rate = float(row["rate_tokens_per_s"])
        return online(rate_tokens_per_s=rate, warmup_s=warmup_s, duration_s=duration_s)
    warmup_s, duration_s = spans.long_offline if long else spans.offline
    initial = int(row["requests_in_flight_or_initial"])
    return offline(initial_requests=initial, warmup_s=warmup_s, duration_s=duration_s)


def _two_windows(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Figures in the windows, and those from later on of the online runs in which no request was dropped."""
    again = [name for name in map(str, runs.columns) if name.startswith(LATER)]
    first = runs.drop(columns=again)
    if not again:
        return first, first.iloc[:0]
    dropped = runs.groupby("group")["requests_dropped"].transform("sum") > 0
    those = runs[runs[again[0]].notna() & ~dropped]
    of_later = {name.removeprefix(LATER): those[name] for name in again}
    return first, first.loc[those.index].assign(**of_later)


def _favoured(runs: pd.DataFrame) -> list[str]:
    """Groups in which those let in are not those that asked."""
    inputs = runs.groupby("group")[["input_tokens_mean_accepted", "input_tokens_mean_asked"]].mean()
    moved = inputs["input_tokens_mean_accepted"] / inputs["input_tokens_mean_asked"] - 1
    return list(moved.index[moved.abs() > FAVOURED])


def _compared_with(runs: pd.DataFrame, shared: pd.DataFrame) -> list[str]:
    """What had not settled, and all that is run beside it: a window is long for all of them or for none."""
    found = trends(runs, by="group")
    groups = found.index[found != "settled"]
    comparisons = shared[["cluster", "model", "mode"]].agg("|".join, axis=1)
    return list(shared.index[comparisons.isin(comparisons[groups])])
