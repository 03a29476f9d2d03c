"""Latency: boxes from percentiles, and whole distributions."""

from __future__ import annotations

from itertools import cycle
from typing import Any, Final

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from helixlab.plotting.style import (
    axes_or_new,
    in_order,
    ink_on,
    method_colours,
    method_label,
    method_ticks,
    styled,
)
from helixlab.plotting.tables import partial_methods, require_columns
from helixlab.plotting.throughput import hollow, label_platforms

__all__ = ["plot_latency_boxes", "plot_latency_cdf"]

_BOX: Final = {"whislo": 5, "q1": 25, "med": 50, "q3": 75, "whishi": 95}
_MEAN: Final[dict[str, Any]] = {
    "marker": "X",
    "linestyle": "none",
    "color": "white",
    "markeredgecolor": "black",
    "markersize": 4,
    "markeredgewidth": 0.5,
    "zorder": 4,
}
"""Marker of the mean: a cross, unlike any marker of a published value, visible on light and dark boxes."""
_DASHES: Final = ("", (4, 1.2), (1, 1), (5, 1, 1, 1), (7, 1.5), (3, 1, 1, 1, 1, 1))
_SIDES: Final = {"simulation": 0.31, "prototype": 0.43}
"""Distance of published values from the middle of the box, by platform."""
_LATER: Final = 0.31
"""Distance of the values of a later window, on the other side."""


@styled
def plot_latency_boxes(
    table: pd.DataFrame,
    phase: str = "prompt",
    *,
    published: pd.DataFrame | None = None,
    later: pd.DataFrame | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw one box for each method: the 5th, 25th, 50th, 75th and 95th percentile, and the mean as a cross.

    Parameters
    ----------
    table : DataFrame
        One row a method: ``method`` and ``{phase}_latency_p5_s`` to ``{phase}_latency_p95_s`` and
        ``{phase}_latency_mean_s``, as `comparison_table` gives them.
    phase : str, default "prompt"
        ``"prompt"`` or ``"decode"``.
    published : DataFrame, optional
        The same columns and ``platform``, values that are not known being NaN. Percentiles are drawn as
        hollow markers beside the box, and so is the mean: circles from a simulator, diamonds measured.
    later : DataFrame, optional
        The columns of `table`, of a window that begins later: its percentiles are dashes beside the box.
    legend : bool, default True
        Draw a legend of the markers.
    {ax}

    Returns
    -------
    Axes
    """
    columns = {what: f"{phase}_latency_p{percent}_s" for what, percent in _BOX.items()}
    require_columns(table, "method", *columns.values(), f"{phase}_latency_mean_s")
    ax = axes_or_new(ax, height_in=2.0)
    rows = table.drop_duplicates("method").set_index("method")
    methods = in_order(table["method"])
    colours = method_colours(methods)
    boxes: list[dict[str, Any]] = [
        {what: float(rows.loc[method, column]) for what, column in columns.items()} | {"fliers": []}  # type: ignore[arg-type]
        for method in methods
    ]
    black = {"color": "black", "linewidth": 0.7}
    # seaborn's boxplot passes on what matplotlib no longer takes without a warning.
    drawn = ax.bxp(
        boxes, positions=range(len(methods)), widths=0.42, patch_artist=True, showfliers=False,
        boxprops={"edgecolor": "black", "linewidth": 0.5}, whiskerprops=black, capprops=black,
    )  # fmt: skip
    for method, box, median in zip(methods, drawn["boxes"], drawn["medians"], strict=True):
        box.set_facecolor(colours[method])
        median.set(color=ink_on(colours[method]), linewidth=1.2)
    for place, method in enumerate(methods):
        mean = float(rows.loc[method, f"{phase}_latency_mean_s"])  # type: ignore[arg-type]
        ax.plot(place, mean, label="mean of the box" if place == 0 else None, **_MEAN)
    if later is not None and len(later):
        dashes: dict[str, Any] = {"marker": "_", "markersize": 4, "markeredgewidth": 0.9, "color": "black"}
        known = later[later["method"].isin(methods)]
        for column in columns.values():
            places = [methods.index(method) - _LATER for method in known["method"]]
            label = "nothing dropped, from 900 s" if column == columns["med"] else None
            ax.plot(places, known[column].astype(float), linestyle="none", label=label, **dashes)
    platforms = _published_latencies(ax, methods, phase, published) if published is not None else []
    method_ticks(ax, methods, partial_methods(table))
    ax.set_xlim(-0.55, len(methods) - 0.35)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(f"{phase} latency (s)")
    label_platforms(ax, platforms, legend=legend)
    return ax


def _published_latencies(ax: Axes, methods: list[str], phase: str, published: pd.DataFrame) -> list[str]:
    platforms = set()
    for row in published.to_dict("records"):
        if row["method"] not in methods:
            continue
        place, platform = methods.index(row["method"]), row["platform"]
        values = [
            row.get(f"{phase}_latency_{what}_s", np.nan)
            for what in (*(f"p{p}" for p in _BOX.values()), "mean")
        ]
        known = [value for value in values if np.isfinite(value)]
        if known:
            marker = hollow(platform) | {"markersize": 2.8, "markeredgewidth": 0.6}
            ax.plot([place + _SIDES.get(platform, 0.37)] * len(known), known, **marker)
            platforms.add(platform)
    return sorted(platforms)


@styled
def plot_latency_cdf(quantiles: pd.DataFrame, *, phase: str = "prompt", ax: Axes | None = None) -> Axes:
    """Draw the cumulative distribution of latencies, one line for each method, on a logarithmic axis.

    Parameters
    ----------
    quantiles : DataFrame
        Columns ``method``, ``quantile`` (0 to 1) and ``latency_s``, as `latency_quantiles` gives them.
    phase : str, default "prompt"
        ``"prompt"`` or ``"decode"``, for the name of the axis.
    {ax}

    Returns
    -------
    Axes
    """
    require_columns(quantiles, "method", "quantile", "latency_s")
    ax = axes_or_new(ax, height_in=2.0)
    methods, stopped = in_order(quantiles["method"]), partial_methods(quantiles)
    if methods:
        # The table holds the distribution already; an ecdfplot would take its rows for the latencies.
        sns.lineplot(
            quantiles, x="latency_s", y="quantile", estimator=None, hue="method", hue_order=methods,
            palette=method_colours(methods), style="method", style_order=methods,
            dashes=dict(zip(methods, cycle(_DASHES), strict=False)), legend=False, ax=ax,
        )  # fmt: skip
        # Above the axes, since no corner is free of lines for all distributions.
        ax.legend(
            list(ax.get_lines())[-len(methods) :],
            [
                method_label(method).replace("\n", " ") + " (partial)" * (method in stopped)
                for method in methods
            ],
            loc="lower left", bbox_to_anchor=(0, 1), ncols=4 if len(methods) < 5 else 3, columnspacing=0.9,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(0, 1)
    ax.set_xlabel(f"{phase} latency (s)")
    ax.set_ylabel(f"part of {phase}s" if phase == "prompt" else "part of decode iterations")
    ax.grid(visible=True, axis="both")
    return ax
