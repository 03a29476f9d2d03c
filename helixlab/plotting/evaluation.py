"""The published evaluation beside ours: one bar a method, hatched and marked by the load of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.patheffects import withStroke

from helixlab.plotting.latency import plot_latency_boxes
from helixlab.plotting.style import (
    axes_or_new,
    in_order,
    ink_on,
    method_colours,
    method_ticks,
    name_panels,
    panels,
    styled,
)
from helixlab.plotting.tables import require_columns
from helixlab.plotting.throughput import hollow, label_platforms, legend_above, mark_loads

__all__ = ["plot_evaluation"]

_SIDE: Final = {"simulation": -0.17, "prototype": 0.17}
_HATCHES: Final = {"filling": "....", "backlogged": "////", "overloaded": "xxxx"}
_OTHER_WINDOWS: Final = {
    "wait": ("nothing dropped", (0, (1.2, 0.8))),
    "long": ("nothing dropped, from 900 s", "-"),
}
_LEAST_SHARE_FOR_INSIDE: Final = 0.22
"""Least height of a bar with its number inside, as a part of the axis."""
_TEXT_POINTS: Final = 7.0
_HALO: Final = withStroke(linewidth=1.8, foreground="white")


@styled
def plot_evaluation(
    numbers: pd.DataFrame, *, label: str = "decode tokens/s", legend: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw one bar for each method: our mean with its interval, beside it hollow markers of published values.

    Parameters
    ----------
    numbers : DataFrame
        Rows of `helixlab.reproduce.comparison.beside_published` of one metric and run mode: method,
        platform, published, mean, low, high; and optionally wait_mean and long_mean, drawn as lines across
        the bar, and load, by which bars are hatched.
    label : str
        Name of the metric on the axis, with its unit.
    legend : bool, default True
        Draw a legend of markers, lines and hatches.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> numbers = pd.DataFrame({"method": ["swarm", "helix"], "platform": "simulation", "low": [95, 190],
    ...                         "published": [99.0, 201.0], "mean": [100.0, 200.0], "high": [105, 210]})
    >>> ax = plot_evaluation(numbers)
    >>> [text.get_text() for text in ax.texts]
    ['200', '100']
    """
    require_columns(numbers, "method", "platform", "published", "mean", "low", "high")
    ax = axes_or_new(ax, height_in=2.0)
    ours = numbers.drop_duplicates("method").set_index("method")
    methods = in_order(ours.index)
    colours = method_colours(methods)
    drawn = ours[["mean", "high", *(name for name in ("wait_mean", "long_mean") if name in ours)]]
    top = float(np.nanmax([*drawn.to_numpy(float).ravel(), *numbers["published"]], initial=0.0)) or 1.0
    words = [
        f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}" for mean in ours.loc[methods, "mean"].astype(float)
    ]
    # All of one size, with which the longest fits into a bar: a digit is 0.65 times as wide as high.
    bar_points = 0.6 * 72 * ax.get_window_extent().width / ax.figure.dpi / (len(methods) + 0.2)
    size_points = min(_TEXT_POINTS, bar_points / 0.65 / max(map(len, words), default=1))
    for place, method in enumerate(methods):
        row: dict[Any, Any] = ours.loc[method].to_dict()
        colour, mean, load = colours[method], float(row["mean"]), row.get("load", "")
        ax.bar(
            place, mean, width=0.68, color=colour, edgecolor="black", linewidth=0.4,
            hatch=_HATCHES.get(load if isinstance(load, str) else ""),
        )  # fmt: skip
        if np.isfinite(row["low"]):
            reach = [[mean - row["low"]], [row["high"] - mean]]
            whisker: ErrorbarContainer = ax.errorbar(
                place, mean, yerr=reach, color="black", linewidth=0.8, capsize=2.5, capthick=0.8, zorder=4
            )
            for line in whisker[2]:
                line.set_path_effects([_HALO])
        for name, (_, dashes) in _OTHER_WINDOWS.items():
            value = row.get(f"{name}_mean", np.nan)
            if np.isfinite(value):
                across: dict[str, Any] = {
                    "color": "black",
                    "linestyle": dashes,
                    "linewidth": 1.1,
                    "zorder": 3,
                }
                ax.plot([place - 0.34, place + 0.34], [value] * 2, path_effects=[_HALO], **across)
        inside = mean > _LEAST_SHARE_FOR_INSIDE * top
        text = ax.annotate(
            words[place],
            (place, 0.04 * top if inside else max(mean, *_heights(numbers, method))),
            xytext=(0, 0 if inside else 4), textcoords="offset points", ha="center", va="bottom",
            color=ink_on(colour) if inside else "black", fontsize=size_points,
        )  # fmt: skip
        if inside and _HATCHES.get(load if isinstance(load, str) else ""):
            text.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 0.8})
    platforms = [name for name in _SIDE if name in set(numbers["platform"])]
    for platform in platforms:
        rows = numbers[numbers["platform"] == platform]
        shift = _SIDE[platform]
        places = [methods.index(method) + shift for method in rows["method"]]
        ax.plot(places, rows["published"].astype(float), **hollow(platform))
    method_ticks(ax, methods)
    ax.set_xlim(-0.6, len(methods) - 0.4)
    ax.set_ylim(0, 1.1 * top)
    ax.set(xlabel="", ylabel=label)
    _label(ax, ours)
    label_platforms(ax, platforms, legend=legend)
    return ax


@styled
def plot_evaluation_throughputs(numbers: pd.DataFrame) -> list[Axes]:
    """Draw `plot_evaluation` for each model and run mode, in two columns of panels.

    Parameters
    ----------
    numbers : DataFrame
        Throughputs of `helixlab.reproduce.published_evaluation`: the columns of `plot_evaluation`, figure,
        model and mode.

    Returns
    -------
    list of Axes
        Axes of the panels, all of one figure.
    """
    shown = list(numbers.groupby(["model", "mode"], sort=False))
    rows = -(-len(shown) // 2)
    figure, axes = panels(rows, 2, width_in=3.5, height_in=0.5 + 1.75 * rows, squeeze=False)
    for ax, (_, of_panel) in zip(axes.flat, shown, strict=False):
        plot_evaluation(of_panel, legend=False, ax=ax)
    names = [
        f"{of_panel['figure'].iloc[0]}  {str(model).split('-')[-1].upper()}, {mode}"
        for (model, mode), of_panel in shown
    ]
    name_panels(axes.flat[: len(shown)], names)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    legend_above(figure, columns=2)
    return list(axes.flat)


@styled
def plot_evaluation_latencies(
    latencies: pd.DataFrame,
    *,
    later: pd.DataFrame,
    published: pd.DataFrame,
    figures: Mapping[tuple[str, str], str] | pd.Series,
) -> list[Axes]:
    """Draw `plot_latency_boxes` of prompts and decodes for each model, and mark loads that are not stable.

    Parameters
    ----------
    latencies : DataFrame
        Columns model, method and load, and those of `plot_latency_boxes`.
    later, published : DataFrame
        As for `plot_latency_boxes`, with a column model.
    figures : mapping or Series
        Figure of the paper by model and phase, which names the panel.

    Returns
    -------
    list of Axes
        Axes of the panels, all of one figure.
    """
    models = list(latencies["model"].unique())
    figure, axes = panels(len(models), 2, width_in=3.5, height_in=0.4 + 1.8 * len(models), squeeze=False)
    places = [(model, phase) for model in models for phase in ("prompt", "decode")]
    for ax, (model, phase) in zip(axes.flat, places, strict=True):
        rows, *others = (table[table["model"] == model] for table in (latencies, published, later))
        plot_latency_boxes(rows, phase, published=others[0], later=others[1], legend=False, ax=ax)
        mark_loads(ax, rows.set_index("method")["load"])
    names = [f"{figures.get(place, '')}  {place[0].split('-')[-1].upper()}" for place in places]
    name_panels(axes.flat, names, above_legend=bool((latencies["load"] != "stable").any()))
    legend_above(figure, columns=2)
    return list(axes.flat)


def _heights(numbers: pd.DataFrame, method: str) -> list[float]:
    """List the heights of everything that stands above a low bar."""
    rows = numbers[numbers["method"] == method]
    columns = [name for name in ("published", "high", "wait_mean", "long_mean") if name in rows]
    return [float(value) for value in rows[columns].to_numpy(float).ravel() if np.isfinite(value)] or [0.0]


def _label(ax: Axes, ours: pd.DataFrame) -> None:
    """Add the entries of the legend that are no published values."""
    for name, (words, dashes) in _OTHER_WINDOWS.items():
        if f"{name}_mean" in ours and ours[f"{name}_mean"].notna().any():
            ax.plot([], [], color="black", linestyle=dashes, linewidth=1.1, label=words)
    for name, hatch in _HATCHES.items():
        if "load" in ours and (ours["load"] == name).any():
            ax.bar([0], [0], facecolor="white", edgecolor="black", linewidth=0.4, hatch=hatch, label=name)
