"""Means over runs that differ only in their seed, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from helixlab._validation import as_number
from helixlab.errors import HelixlabError, UnknownNameError
from helixlab.experiments.problems import NOT_RUN

__all__ = ["mean_interval"]

COLUMNS: Final = ("value", "mean", "low", "high", "runs", "failed", "not_run")


def mean_interval(
    runs: pd.DataFrame, *, by: str | Sequence[str], values: str | Sequence[str], level: float = 0.95
) -> pd.DataFrame:
    """Means over seeds, each with its confidence interval by Student's t.

    With ``n`` runs of mean ``m`` and sample standard deviation ``s``, the interval is
    ``m ± t * s / sqrt(n)``, where ``t`` is the quantile of Student's distribution with ``n - 1`` degrees
    of freedom.

    Parameters
    ----------
    runs : DataFrame
        A row for each run and seed, as `sweep` and `rate_sweep` give them.
    by : str or sequence of str
        Columns that say what ran: rows that agree in all of these are runs of one thing, which should
        differ in nothing but the seed. Without any, all rows are.
    values : str or sequence of str
        Columns to take means of.
    level : float
        How sure the interval is.

    Returns
    -------
    DataFrame
        A row for each combination of `by`, in the order in which they first come, and each value: the
        columns of `by`, ``value`` (its name), ``mean``, ``low`` and ``high``, ``runs`` (how many the mean
        is of), ``failed`` (how many have an ``error``, and were left out) and ``not_run`` (how many an
        interrupted sweep did not come to). NaN is left out too. The interval is NaN for a single run, which
        cannot tell how far another would be, and where the mean is infinite. Means of a sweep that was
        interrupted, or of runs that were, have ``attrs["partial"]`` as the sweep has.

    Raises
    ------
    UnknownNameError
        A column is not there.
    HelixlabError
        A column holds no numbers, `level` makes no sense, or a seed comes twice in one group: then its
        rows differ in something else too, and are no sample of one thing.

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
    groups, figures = _columns(by), _columns(values)
    for name in (*groups, *figures):
        if name not in runs:
            raise UnknownNameError("column", name, list(runs.columns))
    if not figures:
        raise HelixlabError("values is empty; give the name of at least one column")
    for name in figures:
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
        for name in figures:
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
