"""Statistics of runs that differ in their seed: means with confidence intervals, trends and loads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from helixlab._validation import as_number
from helixlab.diagnosis.steady_state import LABELS, TRENDS, Drift, drift, load_of, window_blocks
from helixlab.errors import HelixlabError, UnknownNameError
from helixlab.simulation import Result

__all__ = [
    "DRIFTS",
    "NOT_RUN",
    "load_metrics",
    "mean_interval",
    "trend_metrics",
    "trends",
    "worst_load",
]

NOT_RUN: Final = "not run: interrupted"
"""Error of the runs that an interrupted sweep did not come to."""
COLUMNS: Final = ("value", "mean", "low", "high", "runs", "failed", "not_run")
DRIFTS: Final = ("in_flight_drift", "throughput_drift")


def mean_interval(
    runs: pd.DataFrame, *, by: str | Sequence[str], values: str | Sequence[str], level: float = 0.95
) -> pd.DataFrame:
    """Take means over seeds, each with its confidence interval by Student's t.

    With ``n`` runs of mean ``m`` and sample standard deviation ``s``, the interval is
    ``m ± t * s / sqrt(n)``, where ``t`` is the quantile of Student's distribution with ``n - 1`` degrees
    of freedom.

    Parameters
    ----------
    runs : DataFrame
        Table of `sweep` or `rate_sweep`: a row for each run and seed.
    by : str or sequence of str
        Columns that say what ran. Rows that agree in all of them should differ in nothing but the seed;
        without any column, all rows are one group.
    values : str or sequence of str
        Columns to take means of.
    level : float
        Confidence level of the interval.

    Returns
    -------
    DataFrame
        A row for each combination of `by`, in the order in which they first come, and each value: the
        columns of `by`, ``value`` (its name), ``mean``, ``low`` and ``high``, ``runs`` (number of runs
        behind the mean), ``failed`` (number of runs with an ``error``, which are left out) and ``not_run``
        (number of runs that an interrupted sweep did not come to). NaN is left out too. The interval is NaN
        for a single run, which says nothing of the spread, and where the mean is infinite. Means of an
        interrupted sweep, or of interrupted runs, have ``attrs["partial"]`` as the sweep has.

    Raises
    ------
    UnknownNameError
        A column is missing.
    HelixlabError
        A column holds no numbers, `level` makes no sense, or a seed occurs twice in one group, so that its
        rows differ in something else too.

    Examples
    --------
    >>> import helixlab as hx
    >>> grid = {"placement": "small10/llama-1-30b/helix", "scheduler": ["helix", "swarm"]}
    >>> workload = hx.offline(warmup_s=10, duration_s=60)
    >>> runs = hx.sweep(grid | {"workload": workload}, seeds=3)
    >>> means = hx.mean_interval(runs, by="scheduler", values="decode_tokens_per_s")
    >>> means[["scheduler", "value", "runs", "failed"]]
      scheduler                value  runs  failed
    0     helix  decode_tokens_per_s     3       0
    1     swarm  decode_tokens_per_s     3       0
    >>> bool((means["low"] < means["mean"]).all())
    True
    """
    if not isinstance(runs, pd.DataFrame):
        raise HelixlabError(f"runs is {runs!r:.60}; give a DataFrame, as sweep does")
    groups, names = _columns(by), _columns(values)
    for name in (*groups, *names):
        if name not in runs:
            raise UnknownNameError("column", name, list(runs.columns))
    if not names:
        raise HelixlabError("values is empty; give the name of at least one column")
    for name in names:
        if not pd.api.types.is_numeric_dtype(runs[name]):
            raise HelixlabError(f"column {name!r} holds no numbers ({runs[name].dtype}); give another value")
    mend = "a number between 0 and 1, usually 0.95"
    level = as_number(level, "level", above=0, below=1, mend=mend, error=HelixlabError)
    if taken := sorted({*COLUMNS} & {*groups}):
        raise HelixlabError(f"by has {taken[0]!r}, which the answer has too; rename that column")
    keys: Any = [runs[name] for name in groups] or (lambda row: 0)
    records = []
    for key, rows in runs.groupby(keys, sort=False, dropna=False):
        errors = rows["error"] if "error" in rows else pd.Series(None, index=rows.index, dtype=object)
        left_out, unrun = errors.notna(), errors == NOT_RUN
        counts = {"failed": int((left_out & ~unrun).sum()), "not_run": int(unrun.sum())}
        named = dict(zip(groups, key, strict=True)) if groups else {}
        if "seed" in rows and rows["seed"].duplicated().any():
            again = rows.loc[rows["seed"].duplicated(), "seed"].iloc[0]
            raise HelixlabError(
                f"seed {again} comes twice among the runs of {named or 'all rows'}; add to `by` the columns"
                " in which these runs differ"
            )
        for name in names:
            sample = rows.loc[~left_out, name].dropna().to_numpy(dtype=float)
            records.append(named | {"value": name} | _interval(sample, level) | counts)
    means = pd.DataFrame(records, columns=[*groups, *COLUMNS])
    stopped = "partial" in runs and bool(runs["partial"].eq(True).any())
    if stopped or runs.attrs.get("partial") or means["not_run"].any():
        means.attrs["partial"] = True
    return means


def _columns(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _interval(sample: Any, level: float) -> dict[str, Any]:
    count = len(sample)
    mean = float(sample.mean()) if count else np.nan
    half = np.nan
    if count > 1 and np.isfinite(mean):
        half = float(stdtrit(count - 1, (1 + level) / 2) * sample.std(ddof=1) / np.sqrt(count))
    return {"mean": mean, "low": mean - half, "high": mean + half, "runs": count}


def trends(runs: pd.DataFrame, *, by: str | Sequence[str]) -> pd.Series:
    """Judge for each group of runs whether its windows had settled.

    A single run may hide a drift in its scatter, or drift by chance. Therefore the seeds are taken together:
    their mean drift and its 95 % interval count. A single seed is judged by the blocks of its window.

    Parameters
    ----------
    runs : DataFrame
        Table of `pooled_runs` or `evaluate`: a row for each run and seed.
    by : str or sequence of str
        Columns that say what ran.

    Returns
    -------
    Series
        Trend by group, in the order in which they first come: ``"settled"``, ``"undecided"`` or
        ``"moving"``, the worse of requests in flight and throughput; see
        `helixlab.diagnosis.steady_state.Drift`.

    Examples
    --------
    >>> runs = pd.DataFrame({"method": ["a", "a", "a", "b"], "in_flight_drift": [0.01, 0.02, 0.01, 0.0],
    ...                      "throughput_drift": [0.08, 0.09, 0.1, 0.0], "trend": "settled"})
    >>> trends(runs, by="method").to_dict()
    {'a': 'moving', 'b': 'settled'}
    """
    keys = [by] if isinstance(by, str) else list(by)
    means = mean_interval(runs, by=keys, values=DRIFTS)
    margins = (means["high"] - means["mean"]).fillna(np.inf)
    judged = [Drift(*each).trend for each in zip(means["mean"], margins, strict=True)]
    ranks = means.assign(rank=[TRENDS.index(trend) for trend in judged])
    worst = ranks.groupby(keys, sort=False)["rank"].max().map(dict(enumerate(TRENDS)))
    groups = runs.groupby(keys, sort=False)["trend"]
    return worst.where(groups.size() > 1, groups.first()).rename("trend")


def trend_metrics(results: Sequence[Result]) -> dict[str, Any]:
    """Measure how runs side by side moved in their windows, as a whole.

    Returns
    -------
    dict
        in_flight_mean, in_flight_drift, throughput_drift (relative, from the first half of the window to the
        second), and trend, the worse of the two, see `helixlab.diagnosis.steady_state.Drift`.

    Raises
    ------
    SimulationError
        A run has no timeline, or one with too few samples.
    """
    every = [window_blocks(result) for result in results]
    in_flight, decoded = (np.sum([blocks[name] for blocks in every], axis=0) for name in every[0])
    drifts = drift(in_flight), drift(decoded)
    return {
        "in_flight_mean": float(in_flight.mean()),
        **{name: each.relative for name, each in zip(DRIFTS, drifts, strict=True)},
        "trend": max((each.trend for each in drifts), key=TRENDS.index),
    }


def load_metrics(results: Sequence[Result]) -> dict[str, Any]:
    """Measure what the queues of runs side by side did, see `helixlab.diagnosis.steady_state.Load`.

    Returns
    -------
    dict
        load, the worst label; growth_per_s and arrivals_per_s, sums. Offline runs have none: an empty text,
        and NaN.
    """
    loads = [load_of(result) for result in results if result.metrics["mode"] == "online"]
    return {
        "load": worst_load(each.label for each in loads),
        "growth_per_s": sum(each.growth_per_s for each in loads) if loads else np.nan,
        "arrivals_per_s": sum(each.arrivals_per_s for each in loads) if loads else np.nan,
    }


def worst_load(labels: Iterable[str]) -> str:
    """Pick the worst of these labels of loads; empty where there are none.

    Examples
    --------
    >>> worst_load(["stable", "backlogged", "filling"])
    'backlogged'
    """
    return max(labels, key=LABELS.index, default="")
