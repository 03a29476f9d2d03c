"""Whether runs had settled in their windows, and could have gone on like that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab.diagnosis.steadiness import LABELS, TRENDS, Drift, drift, load_of, window_blocks
from helixlab.experiments.means import mean_interval
from helixlab.simulation import Result

__all__ = ["DRIFTS", "load_figures", "trend_figures", "trends", "worst_load"]

DRIFTS: Final = ("in_flight_drift", "throughput_drift")


def trends(runs: pd.DataFrame, *, by: str | Sequence[str]) -> pd.Series:
    """Trend of the windows of each group of runs.

    A run alone may hide a drift in its scatter, or drift by chance, so the seeds are taken together: what
    counts is their mean drift, and its 95 % interval. A single seed is judged by the blocks of its window.

    Parameters
    ----------
    runs : DataFrame
        From `pooled_runs` or `evaluate`: a row for each run and seed.
    by : str or sequence of str
        Columns that say what ran.

    Returns
    -------
    Series
        By group, in the order in which they first come: ``"settled"``, ``"undecided"`` or ``"moving"``, the
        worse of queries in flight and throughput, see `helixlab.diagnosis.steadiness.Drift`.

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


def trend_figures(results: Sequence[Result]) -> dict[str, Any]:
    """How runs side by side moved in their windows, as a whole.

    Returns
    -------
    dict
        in_flight_mean, in_flight_drift, throughput_drift (relative, from the first half of the window to the
        second), and trend, the worse of the two, see `helixlab.diagnosis.steadiness.Drift`.

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


def load_figures(results: Sequence[Result]) -> dict[str, Any]:
    """What the queues of runs side by side did, see `helixlab.diagnosis.steadiness.Load`.

    Returns
    -------
    dict
        load, the worst label, growth_per_s and arrivals_per_s, sums. Offline there are none: an empty text,
        and NaN.
    """
    loads = [load_of(result) for result in results if result.summary["mode"].item() == "online"]
    return {
        "load": worst_load(each.label for each in loads),
        "growth_per_s": sum(each.growth_per_s for each in loads) if loads else np.nan,
        "arrivals_per_s": sum(each.arrivals_per_s for each in loads) if loads else np.nan,
    }


def worst_load(labels: Iterable[str]) -> str:
    """The worst of these labels; empty where there are none.

    Examples
    --------
    >>> worst_load(["stable", "backlogged", "filling"])
    'backlogged'
    """
    return max(labels, key=LABELS.index, default="")
