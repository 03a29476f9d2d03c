"""Why placements and schedulers differ: quality of a search over time, and where requests wait."""

from __future__ import annotations

from itertools import cycle
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from helixlab.plotting.planning import SEARCH_COLOURS
from helixlab.plotting.style import BOUND_COLOUR, axes_or_new, plain, styled

__all__ = ["congestion_picture", "search_quality"]

FIRST_S: Final = 1e-2
"""What was known before is drawn here: a logarithmic axis has no 0."""
LEAST_TOKENS_PER_S: Final = 1.0
"""Less is a solver's rounding, and no placement."""
PUBLISHED_DASHES: Final = ((0, (4, 1.5)), (0, (1.5, 1)), (0, (5, 1.2, 1, 1.2)))
"""All of them dashed, and told apart in grey."""
RUNS: Final = "#4d4d4d"
WAITS: Final = "#e6d6ae"


@styled
def search_quality(table: pd.DataFrame, *, bound: float | None = None, ax: Axes | None = None) -> Axes:
    """Flow of the best placement so far, over the time of the search; published searches are dashed.

    Parameters
    ----------
    table : DataFrame
        One row an event: run, seconds, incumbent_tokens_per_s, and published, whether it is on record.
    bound : float, optional
        What no placement can exceed, a line.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"run": "Gurobi", "seconds": [0, 60, 600], "published": True,
    ...                       "incumbent_tokens_per_s": [0, 80, 100]})
    >>> ax = search_quality(table)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['Gurobi']
    """
    ax = axes_or_new(ax, height_in=2.0)
    ax.set(xscale="log", xlabel="time of the search (s)", ylabel="max flow (tokens/s)")
    others = cycle(zip(SEARCH_COLOURS[1:], cycle(PUBLISHED_DASHES), strict=False))
    for run, rows in table.groupby("run", sort=False):
        rows = rows[rows["incumbent_tokens_per_s"] >= LEAST_TOKENS_PER_S]
        rows = rows.sort_values("seconds", kind="stable")
        if rows.empty:
            continue
        seconds = rows["seconds"].astype(float).clip(lower=FIRST_S)
        best = rows["incumbent_tokens_per_s"].astype(float).cummax()
        published = bool(rows["published"].iloc[0])
        colour, dashes = next(others) if published else (SEARCH_COLOURS[0], "-")
        ax.plot(seconds, best, drawstyle="steps-post", color=colour, linestyle=dashes, label=str(run))
        ax.plot(seconds.iloc[-1], best.iloc[-1], ".", color=colour, markersize=4.5)
    top = float(table["incumbent_tokens_per_s"].max())
    if bound is not None:
        ax.axhline(bound, color=BOUND_COLOUR, linestyle=(0, (1, 1)), linewidth=1)
        ax.annotate(
            f"upper bound {bound:.0f}", (0, bound), xycoords=("axes fraction", "data"), xytext=(2, 2),
            textcoords="offset points", ha="left", va="bottom", fontsize=6.5, color=BOUND_COLOUR,
        )  # fmt: skip
        top = max(top, bound)
    ax.set_ylim(0, 1.15 * top)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="lower left", handlelength=2.2, borderaxespad=0.2)  # searches begin and end above it
    return ax


@styled
def congestion_picture(
    table: pd.DataFrame, *, longest_s: float | None = None, legend: bool = True, ax: Axes | None = None
) -> Axes:
    """How long a request waits and runs each time it visits a node: one bar a node, by its first layer.

    Parameters
    ----------
    table : DataFrame
        One row a node: node, machine, first_layer, wait_s, run_s, as
        `helixlab.experiments.congestion.waits_and_runs` gives them.
    longest_s : float, optional
        End of the axis, so that panels can be compared.
    legend : bool, default True
        Say which part is which.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"node": [0, 1], "machine": ["A100", "T4"], "first_layer": [0, 40],
    ...                       "wait_s": [0.1, 0.4], "run_s": [0.2, 0.3]})
    >>> [label.get_text() for label in congestion_picture(table).get_yticklabels()]
    ['A100 0', 'T4 1']
    """
    shown = table.sort_values(["first_layer", "node"]).reset_index(drop=True)
    ax = axes_or_new(ax, height_in=0.6 + 0.1 * len(shown))
    places = np.arange(len(shown))
    edge: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.3, "height": 0.78}
    ax.barh(places, shown["run_s"], color=RUNS, label="runs", **edge)
    ax.barh(places, shown["wait_s"], left=shown["run_s"], color=WAITS, hatch="////", label="waits", **edge)
    names = [
        f"{plain(machine)} {node}" for machine, node in zip(shown["machine"], shown["node"], strict=True)
    ]
    ax.set_yticks(places, names, fontsize=5)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(0, longest_s)
    ax.set_xlabel("seconds per visit")
    if legend:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=1, columnspacing=1)
    return ax
