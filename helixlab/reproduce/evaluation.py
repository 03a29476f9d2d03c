"""The published evaluation, run again: its runs and variants, and the tables and findings made of them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab.errors import SweepError, UnknownNameError
from helixlab.experiments.pooling import LATER, pooled_runs
from helixlab.experiments.statistics import trends
from helixlab.reproduce.comparison import beside_published, rankings
from helixlab.reproduce.published import DRAWS, RUN, published_wide, scenarios
from helixlab.workload import Workload, offline, online

__all__ = ["LATENCIES", "Evaluation", "evaluate", "published_evaluation"]

LATENCIES: Final = [
    f"{phase}_latency_{statistic}_s"
    for phase in ("prompt", "decode")
    for statistic in ("mean", "p5", "p25", "p50", "p75", "p95")
]
VARIANTS: Final = ("same-requests", "wait", "long")
"""Other ways of running published scenarios, described in `evaluate`."""
FAVOURED: Final = 0.02
"""Part by which dropping may move the mean input of admitted requests before the run is repeated without."""


@dataclass(frozen=True)
class _Spans:
    """Warm-ups and durations of windows, in seconds."""

    offline: tuple[float, float]
    online: tuple[float, float]
    long_offline: tuple[float, float]
    long_online: tuple[float, float]


SPANS: Final = {
    "full": _Spans((60, 600), (0, 1800), (900, 900), (900, 1800)),
    "smoke": _Spans((10, 30), (0, 60), (40, 40), (30, 60)),
}
"""Windows by scale. ``full`` has the published ones; its long window starts after 15 minutes."""


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
    """Run published scenarios, and again in variants where the published settings hide something.

    Parameters
    ----------
    table : DataFrame
        Rows of `scenarios`, with all rows of a run.
    scale : str
        ``"full"``, as published, or ``"smoke"``, the same with short windows.
    seeds, n_jobs, store, progress
        As for `sweep`. Seed 0 draws the requests of the published runs.
    variants : collection of str
        Variants below to run beside ``"published"``, where they apply; by default all.

    Returns
    -------
    DataFrame
        One row for each run, seed and variant: the columns of `scenarios` that the rows of a run share,
        variant, seed, and the columns of `pooled_metrics`. Variants:

        - ``"published"``: requests that fit nowhere are dropped.
        - ``"same-requests"``, online with schedulers that draw: the requests are those of seed 0 with every
          seed.
        - ``"wait"``, where dropping moved the mean input of admitted requests by more than 2 %: requests
          that fit nowhere wait.
        - ``"long"``, where the window of a run had not settled, or the seeds are too few to say, for it and
          all others of its cluster, model and mode: requests wait, and the window starts after 15 minutes.

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
        "wait": _groups_favoured(first),
        "long": _groups_unsettled(first, shared),
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
    if workload.online:  # fine enough for the long window
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
    """Split off the metrics of the later window, for online runs in which no request was dropped."""
    again = [name for name in map(str, runs.columns) if name.startswith(LATER)]
    first = runs.drop(columns=again)
    if not again:
        return first, first.iloc[:0]
    dropped = runs.groupby("group")["requests_dropped"].transform("sum") > 0
    those = runs[runs[again[0]].notna() & ~dropped]
    of_later = {name.removeprefix(LATER): those[name] for name in again}
    return first, first.loc[those.index].assign(**of_later)


def _groups_favoured(runs: pd.DataFrame) -> list[str]:
    """List the groups in which admitted requests have other inputs than all requests."""
    inputs = runs.groupby("group")[["input_tokens_mean_accepted", "input_tokens_mean_asked"]].mean()
    moved = inputs["input_tokens_mean_accepted"] / inputs["input_tokens_mean_asked"] - 1
    return list(moved.index[moved.abs() > FAVOURED])


def _groups_unsettled(runs: pd.DataFrame, shared: pd.DataFrame) -> list[str]:
    """List groups that had not settled, and all they are compared with: windows are long for all or none."""
    found = trends(runs, by="group")
    groups = found.index[found != "settled"]
    comparisons = shared[["cluster", "model", "mode"]].agg("|".join, axis=1)
    return list(shared.index[comparisons.isin(comparisons[groups])])


@dataclass(frozen=True)
class Evaluation:
    """Published figures run again, with the tables that compare both.

    Parameters
    ----------
    figures : tuple of str
        Figures of the paper.
    runs : DataFrame
        Runs, as `evaluate` gives them.
    numbers : DataFrame
        Published numbers beside ours, as `beside_published` gives them.
    """

    figures: tuple[str, ...]
    runs: pd.DataFrame
    numbers: pd.DataFrame

    @cached_property
    def throughput(self) -> pd.DataFrame:
        """Rows of `numbers` that are decode throughputs."""
        return self.numbers[self.numbers["metric"] == "decode_tokens_per_s"]

    @cached_property
    def online_runs(self) -> pd.DataFrame:
        """Online runs as published, which the latencies come from."""
        return self.runs[(self.runs["mode"] == "online") & (self.runs["variant"] == "published")]

    @cached_property
    def latencies(self) -> pd.DataFrame:
        """Latencies of online runs as published, as means over seeds by model and method, and the load."""
        keys = ["model", "method"]
        loads = self.online_runs.groupby(keys)["load"].agg(_most_frequent)
        return _mean_latencies(self.online_runs).merge(loads.reset_index(), on=keys)

    @cached_property
    def later_latencies(self) -> pd.DataFrame:
        """Latencies of the online runs with a long window."""
        return _mean_latencies(self.runs[(self.runs["mode"] == "online") & (self.runs["variant"] == "long")])

    @cached_property
    def published_latencies(self) -> pd.DataFrame:
        """Published latencies, simulated and measured, with a column for each metric."""
        known = published_wide(self.figures)
        return known[(known["mode"] == "online") & known["platform"].isin(["simulation", "prototype"])]

    @cached_property
    def latency_figures(self) -> pd.Series:
        """Figure of the paper with the latencies, by model and phase."""
        shown = self.numbers[self.numbers["metric"].isin(LATENCIES)]
        phases = shown["metric"].str.split("_").str[0].rename("phase")
        return shown.groupby(["model", phases])["figure"].first()

    @cached_property
    def judged(self) -> pd.DataFrame:
        """Numbers of the simulator, each met or not, and its distance from ours."""
        judged = self.numbers[self.numbers["met"].notna()]
        return judged.assign(met=judged["met"].astype(bool), distance=judged["difference"].abs())

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """Count of numbers met, mean and largest difference, by method and mode."""
        return self.judged.groupby(["method", "mode"], sort=False).agg(
            numbers=("met", "size"),
            met=("met", "sum"),
            mean_difference=("distance", "mean"),
            largest=("distance", "max"),
        )

    @cached_property
    def misses(self) -> pd.DataFrame:
        """Numbers of the simulator that are not met."""
        return self.judged[~self.judged["met"]]

    @cached_property
    def rankings(self) -> pd.DataFrame:
        """Order of the methods, published and ours, as `helixlab.reproduce.rankings` gives it."""
        return rankings(self.numbers)

    @cached_property
    def throughput_rankings(self) -> pd.DataFrame:
        """Order of the methods by simulated throughput."""
        order = self.rankings
        return order[(order["platform"] == "simulation") & (order["metric"] == "decode_tokens_per_s")]

    @cached_property
    def checks(self) -> pd.DataFrame:
        """Drift, admitted inputs, load and trend of every run and variant, as means over seeds."""
        keys = ["model", "mode", "method", "variant"]
        means = dict.fromkeys(
            ("decode_tokens_per_s", "in_flight_drift", "throughput_drift", "input_tokens_mean_accepted",
             "input_tokens_mean_asked"),
            "mean",
        )  # fmt: skip
        checks = self.runs.groupby(keys, sort=False).agg({**means, "load": _most_frequent})
        return checks.join(trends(self.runs, by=keys)).reset_index()

    @cached_property
    def helix_factors(self) -> pd.DataFrame:
        """Throughput of Helix over that of each other method, by model and mode, as published."""
        published = self.runs[self.runs["variant"] == "published"]
        means = published.groupby(["model", "mode", "method"])["decode_tokens_per_s"].mean().unstack()
        return means.rdiv(means["helix"], axis=0).drop(columns="helix")


def published_evaluation(
    figures: Iterable[str],
    *,
    scale: str = "full",
    seeds: int | Sequence[int] = 5,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Run the scenarios of some figures of the paper, and compare all of their numbers.

    Parameters
    ----------
    figures : iterable of str
        Names of figures such as ``"5a"``, or ``"5"`` for all of its panels.
    scale, seeds, n_jobs, store, progress
        As for `evaluate`.

    Returns
    -------
    Evaluation

    Raises
    ------
    UnknownNameError, SweepError
        As for `evaluate`.
    """
    figures = tuple(figures)
    runs = evaluate(
        scenarios(figures), scale=scale, seeds=seeds, n_jobs=n_jobs, store=store, progress=progress
    )
    return Evaluation(figures, runs, beside_published(runs, figures))


def _mean_latencies(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.groupby(["model", "method"])[LATENCIES].mean().reset_index()


def _most_frequent(labels: pd.Series) -> Any:
    return labels.mode().iloc[0] if labels.notna().any() else ""
