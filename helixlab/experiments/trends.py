"""Whether runs that differ only in their seed had settled in their windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from helixlab.diagnosis.steadiness import TRENDS, Drift
from helixlab.experiments.means import mean_interval

__all__ = ["trends"]

DRIFTS: Final = ["in_flight_drift", "throughput_drift"]


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
