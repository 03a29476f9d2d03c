"""The published evaluation as data: what ran, and the numbers in figures and tables of the paper."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pandas as pd

from helixlab._data import read_table
from helixlab.errors import UnknownNameError

__all__ = [
    "DRAWS",
    "RUN",
    "figure_names",
    "published_results",
    "published_sizes",
    "published_traces",
    "published_wide",
    "scenarios",
]

RUN: Final = ["figure_number", "cluster", "model", "method", "mode"]
"""Columns that rows of one run have in common; figures 5a and 5e show one run."""
DRAWS: Final = ("random", "shortest-queue")
"""Schedulers that draw. In published runs they drew from another stream, so that only means can agree;
offline it was that of the lengths, so that not even their requests are known."""


def figure_names() -> list[str]:
    """List the figures and tables of the paper that have published numbers.

    Examples
    --------
    >>> figure_names()[:4]
    ['5a', '5b', '5c', '5d']
    """
    results = read_table("published/results.csv")
    names = results["figure"].drop_duplicates()
    return sorted(names, key=lambda name: (_number(name).zfill(3), name))


def scenarios(figures: Iterable[str] | None = None) -> pd.DataFrame:
    """Read what ran for the published numbers, with the number of the figure.

    Parameters
    ----------
    figures : iterable of str, optional
        Names of figures such as ``"5a"``, or ``"5"`` for all of its panels; all by default.

    Returns
    -------
    DataFrame
        Columns of ``published/scenarios.csv``, figure_number, and published: False for what ran on the
        prototype only, whose load is assumed to be that of the simulation of the same figure.

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
    """Read the published numbers of some figures, with the number of the figure.

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
    """Read the published numbers of some figures with a column for each metric, for plots of latencies.

    Returns
    -------
    DataFrame
        One row for each run and platform: figure_number, cluster, model, method, mode, platform, and the
        metrics.

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


def published_sizes() -> pd.DataFrame:
    """Read the published sizes of the planner's programs: rows, columns and nonzeros by run.

    Examples
    --------
    >>> "single24" in set(published_sizes()["run"])
    True
    """
    return read_table("published/problem_sizes.csv")


def published_traces() -> pd.DataFrame:
    """Read the published progress of the solver: incumbent and bound over time, by run.

    Examples
    --------
    >>> list(published_traces())
    ['run', 'seconds', 'incumbent_tokens_per_s', 'bound_tokens_per_s']
    """
    return read_table("published/solver_traces.csv")


def _number(figure: str) -> str:
    return figure.rstrip("abcdefghijklmnopqrstuvwxyz")
