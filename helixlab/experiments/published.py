"""The published evaluation, run again: scenarios as data, and every number beside ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab.errors import UnknownNameError
from helixlab.experiments.means import mean_interval
from helixlab.experiments.pooled import pooled_runs
from helixlab.tables import read_table
from helixlab.workload import Workload, offline, online

__all__ = [
    "beside_published",
    "evaluate",
    "figure_names",
    "published_results",
    "rankings",
    "reference_error",
    "scenarios",
]

RUN: Final = ["figure_number", "cluster", "model", "method", "mode"]
"""What rows of one run have in common; figures 5a and 5e show one run."""
STEPS: Final = {"decode_tokens_per_s": 0.1, "prompt_latency": 0.01, "decode_latency": 0.01}
"""In which published simulations are printed."""
DRAWS: Final = ("random", "shortest-queue")
"""Schedulers that draw from a stream of their own: only their means can agree."""
TOLERANCE: Final = 0.005
TOLERANCE_OF_MEANS: Final = 0.03
TOLERANCE_OF_MANY_FLOWS: Final = 0.02
"""Of hetero42 with the Helix placement, whose maximum flow is not unique, so that the paper's own simulator
gave different results from run to run."""
FAVOURED: Final = 0.02
"""Part by which dropping may move the mean input of the queries that are let in, before it has to be said."""


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


def evaluate(
    figures: Iterable[str] | None = None,
    *,
    scale: str = "full",
    seeds: int | Sequence[int] = 5,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run the scenarios of some figures, and once more what the published way of running them hides.

    Parameters
    ----------
    figures : iterable of str, optional
        As for `scenarios`.
    scale : str
        ``"full"``, as published, or ``"smoke"``, the same in little.
    seeds, n_jobs, store, progress
        As for `sweep`. Seed 0 draws the requests of the published runs.

    Returns
    -------
    DataFrame
        One row a run, seed and variant: the columns of `scenarios` that the rows of a run share, variant,
        seed, the columns of `pooled_figures`, and error. Variants: ``"published"``, queries that fit nowhere
        are dropped; ``"wait"``, where that moved the mean input of those let in by more than 2 %: they wait;
        ``"long"``, where the window had not settled: they wait, and the window starts after 15 minutes.

    Raises
    ------
    UnknownNameError
        There is no such figure or scale.
    SweepError
        As for `sweep`.
    """
    if scale not in SPANS:
        raise UnknownNameError("scale", scale, list(SPANS))
    table = scenarios(figures)
    names = ["|".join(key) for key in table[RUN].to_numpy().tolist()]
    table["group"] = names
    shared = table.groupby("group", sort=False).agg(
        {name: "first" for name in (*RUN, "scheduler", "published")}
        | {"placement": " + ".join, "queries_in_flight_or_initial": "sum", "rate_tokens_per_s": "sum"}
    )
    settings: dict[str, Any] = {"seeds": seeds, "n_jobs": n_jobs, "store": store, "progress": progress}

    def ran(variant: str, groups: Iterable[str]) -> pd.DataFrame:
        points = {
            str(name): [_point(row, SPANS[scale], variant) for _, row in rows.iterrows()]
            for name, rows in table[table["group"].isin(list(groups))].groupby("group", sort=False)
        }
        runs = pooled_runs(points, **settings) if points else pd.DataFrame(columns=["group", "seed", "error"])
        runs.insert(1, "variant", variant)
        return runs

    first = ran("published", shared.index)
    runs = pd.concat([first, ran("wait", _favoured(first)), ran("long", _unsettled(first))])
    order = {name: at for at, name in enumerate(shared.index)}
    runs = shared.reset_index().merge(runs, on="group").drop(columns="group")
    keys = ["|".join(key) for key in runs[RUN].to_numpy().tolist()]
    return runs.iloc[np.argsort([order[key] for key in keys], kind="stable")].reset_index(drop=True)


def beside_published(runs: pd.DataFrame, figures: Iterable[str] | None = None) -> pd.DataFrame:
    """Every published number of the runs beside ours.

    Parameters
    ----------
    runs : DataFrame
        From `evaluate`.
    figures : iterable of str, optional
        Only these, as for `scenarios`.

    Returns
    -------
    DataFrame
        One row a number: figure, cluster, model, method, mode, platform, metric, published; ours; mean, low
        and high, the mean over seeds and its 95 % interval; seeds; difference, ours / published - 1;
        tolerance, and met, where the published number was simulated; wait_mean and long_mean, the means of
        those variants where they were run; load and settled: what holds for most seeds.
        Ours is the run of seed 0, which has the requests of the published one, or the mean over seeds if the
        scheduler draws or the number was measured on the prototype.
    """
    known = published_results(figures).merge(runs[[*RUN, "scheduler"]].drop_duplicates(), on=RUN)
    metrics = list(known["metric"].unique())
    means = mean_interval(runs, by=[*RUN, "variant"], values=metrics).set_index([*RUN, "variant", "value"])
    by_run = {key: rows for key, rows in runs.groupby([*RUN, "variant"])}
    rows = []
    for number in known.to_dict("records"):
        metric, run = number["metric"], tuple(number[name] for name in RUN)
        published = by_run[*run, "published"]
        of_seeds = means.loc[(*run, "published", metric)]
        mean, low, high = (float(of_seeds[name]) for name in ("mean", "low", "high"))
        same_requests = published.loc[published["seed"] == 0, metric]
        simulated = number["platform"] == "simulation"
        exact = simulated and number["scheduler"] not in DRAWS and len(same_requests) == 1
        ours = float(same_requests.iloc[0]) if exact else mean
        row = {name: number[name] for name in ("figure", *RUN[1:], "scheduler", "platform", "metric")}
        row |= {"published": number["value"], "ours": ours, "mean": mean, "low": low, "high": high}
        row |= {"seeds": int(of_seeds["runs"]), "difference": ours / number["value"] - 1}
        if simulated:
            row["tolerance"] = _tolerance(number)
            step = next(step for name, step in STEPS.items() if metric.startswith(name))
            row["met"] = abs(ours - number["value"]) <= max(
                row["tolerance"] * number["value"], 0.501 * step + 1e-12
            )
        for variant in ("wait", "long"):
            there = (*run, variant) in by_run
            row[f"{variant}_mean"] = means.loc[(*run, variant, metric), "mean"] if there else np.nan
        row["load"] = published["load"].mode().iloc[0] if number["mode"] == "online" else ""
        row["settled"] = bool(published["settled"].mean() > 0.5)
        rows.append(row)
    return pd.DataFrame(rows)


def rankings(numbers: pd.DataFrame) -> pd.DataFrame:
    """The order of the methods in every figure, published and ours.

    Parameters
    ----------
    numbers : DataFrame
        From `beside_published`.

    Returns
    -------
    DataFrame
        One row a figure, cluster, model, mode, platform and metric with two methods or more: published and
        ours, the methods from the largest value to the smallest, and same: whether no two of them changed
        places. Methods that are printed with the same number have no order.
    """
    rows = []
    keys = ["figure", "cluster", "model", "mode", "platform", "metric"]
    for key, group in numbers.groupby(keys, sort=False):
        if len(group) < 2:
            continue
        theirs, mine = (group.set_index("method")[name] for name in ("published", "mean"))
        apart = [
            (one, other) for one in theirs.index for other in theirs.index if theirs[one] > theirs[other]
        ]
        rows.append(
            dict(zip(keys, key, strict=True))
            | {
                "published": _order(theirs),
                "ours": _order(mine),
                "same": all(mine[one] >= mine[other] for one, other in apart),
            }
        )
    return pd.DataFrame(rows, columns=[*keys, "published", "ours", "same"])


def reference_error(figures: Iterable[str] | None = None) -> pd.DataFrame:
    """How far the published simulations are from what was measured on the prototype.

    Returns
    -------
    DataFrame
        One row a number that was both simulated and measured: figure, cluster, model, method, mode, metric,
        prototype, simulation, difference.

    Examples
    --------
    >>> error = reference_error()["difference"].abs()
    >>> len(error), bool(0 < error.mean() < 0.15)
    (12, True)
    """
    known = published_results(figures)
    known = known[known["platform"].isin(["simulation", "prototype"])]
    keys = ["figure", "cluster", "model", "method", "mode", "metric"]
    wide = known.pivot(index=keys, columns="platform", values="value")
    wide = wide.reindex(columns=["prototype", "simulation"]).dropna().reset_index()
    wide.columns.name = None
    return wide.assign(difference=wide["simulation"] / wide["prototype"] - 1)


def _number(figure: str) -> str:
    return figure.rstrip("abcdefghijklmnopqrstuvwxyz")


def _order(values: pd.Series) -> str:
    return " > ".join(values.sort_values(ascending=False, kind="stable").index)


def _point(row: pd.Series, spans: _Spans, variant: str) -> dict[str, Any]:
    workload = _workload(row, spans, long=variant == "long")
    measured_s = workload.duration_s - (workload.warmup_s if workload.online else 0)
    return {
        "cluster": row["cluster"],
        "model": row["model"],
        "placement": row["placement"],
        "scheduler": row["scheduler"],
        "workload": workload,
        "on_full": "drop" if variant == "published" else "wait",
        "sample_step_s": measured_s / 120,
    }


def _workload(row: pd.Series, spans: _Spans, *, long: bool) -> Workload:
    if row["mode"] == "online":
        warmup_s, duration_s = spans.long_online if long else spans.online
        rate = float(row["rate_tokens_per_s"])
        return online(rate_tokens_per_s=rate, warmup_s=warmup_s, duration_s=duration_s)
    warmup_s, duration_s = spans.long_offline if long else spans.offline
    initial = int(row["queries_in_flight_or_initial"])
    return offline(initial_queries=initial, warmup_s=warmup_s, duration_s=duration_s)


def _favoured(runs: pd.DataFrame) -> list[str]:
    """Groups in which those let in are not those that asked."""
    inputs = runs.groupby("group")[["input_tokens_mean_accepted", "input_tokens_mean_asked"]].mean()
    moved = inputs["input_tokens_mean_accepted"] / inputs["input_tokens_mean_asked"] - 1
    return list(moved.index[moved.abs() > FAVOURED])


def _unsettled(runs: pd.DataFrame) -> list[str]:
    settled = runs.groupby("group")["settled"].mean()
    return list(settled.index[settled < 0.5])


def _tolerance(number: Mapping[Any, Any]) -> float:
    if number["scheduler"] in DRAWS:
        return TOLERANCE_OF_MEANS
    of_many_flows = number["cluster"] == "hetero42" and number["method"] == "helix"
    return TOLERANCE_OF_MANY_FLOWS if of_many_flows else TOLERANCE
