"""Bars of throughput, one a method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from helixlab.experiments.statistics import mean_interval
from helixlab.plotting.style import (
    BOUND_COLOUR,
    axes_or_new,
    in_order,
    ink_on,
    mark_partial,
    method_colours,
    method_ticks,
    styled,
)
from helixlab.plotting.tables import is_partial, partial_methods

__all__ = ["PLATFORM_MARKERS", "hollow", "label_platforms", "legend_above", "plot_throughput"]

PLATFORM_MARKERS: Final[dict[str, str]] = {"simulation": "o", "prototype": "D", "solver": "s", "planned": "^"}
"""Marker of a value to compare with, by where it was found."""
_PLATFORM_LABELS: Final = {
    "simulation": "published, simulated",
    "prototype": "published, measured",
    "solver": "published, solver",
    "planned": "planned here",
}
_LEAST_SHARE_FOR_INSIDE: Final = 0.22
_LABEL_SHARE: Final = 0.13
"""Room that a number takes above a bar or marker, as a part of the highest value."""
_HALO: Final = withStroke(linewidth=1.8, foreground="white")
_OFFSETS: Final = {"simulation": -0.18, "prototype": 0.18}


def hollow(platform: str) -> dict[str, Any]:
    """How a published value is drawn: an empty marker in black."""
    return {
        "marker": PLATFORM_MARKERS[platform],
        "linestyle": "none",
        "markerfacecolor": "white",
        "markeredgecolor": "black",
        "markersize": 4 if platform == "simulation" else 3.6,
        "zorder": 5,
        "clip_on": False,
    }


def label_platforms(ax: Axes, platforms: Iterable[str], *, legend: bool) -> None:
    """Name the published values of the axes for a legend, and draw it above them if asked for."""
    for platform in PLATFORM_MARKERS:
        if platform in platforms:
            # Unclipped artists without data would count as being at the figure's corner.
            ax.plot([], [], label=_PLATFORM_LABELS[platform], **hollow(platform) | {"clip_on": True})
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=1, columnspacing=1.2)


@styled
def legend_above(figure: Figure, *, columns: int | None = None) -> None:
    """Draw one legend above all panels of a figure, each entry once.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Of panels drawn with ``legend=False``.
    columns : int, optional
        Of the legend; by default it is one line.
    """
    entries: dict[Any, Any] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        dashed = any(isinstance(handle, Line2D) and handle.is_dashed() for handle in entries.values())
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside upper right",
            ncols=columns or len(entries),
            handlelength=2.6 if dashed else 1,
        )


def _common_foot(heights: dict[str, float], marks: dict[str, list[float]], room: float) -> float:
    """The lowest height at which a number fits into all of these bars and lies on no marker, 0 if none."""

    def is_free(foot: float) -> bool:
        return all(
            foot + room <= height
            and not any(foot - 0.35 * room < mark < foot + room for mark in marks[method])
            for method, height in heights.items()
        )

    above_marks = sorted(mark + 0.35 * room for method in heights for mark in marks[method])
    return next(filter(is_free, [0.0, *above_marks]), 0.0)


def _interval(sample: pd.Series) -> tuple[float, float]:
    of_sample = mean_interval(pd.DataFrame({"value": sample}), by=[], values="value")
    return float(of_sample["low"].item()), float(of_sample["high"].item())


@styled
def plot_throughput(
    table: pd.DataFrame,
    *,
    published: pd.DataFrame | None = None,
    value: str = "decode_tokens_per_s",
    label: str = "decode tokens/s",
    bound: float | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """One bar a method, with its value, and published values as hollow markers.

    Parameters
    ----------
    table : DataFrame
        ``method`` and the column `value`. Several rows of a method are those of several seeds: the bar is
        their mean, with its 95 % interval as in `mean_interval`. Methods with a run that was stopped, or
        that a sweep did not come to, are marked: where a column says so, ``partial`` of runs, ``error`` of
        sweeps, ``not_run`` of means. Where only ``attrs["partial"]`` does, the axes are.
    published : DataFrame, optional
        Columns ``method``, ``platform`` (``"simulation"``, ``"prototype"``, ``"solver"``, or ``"planned"``)
        and `value`; only the methods of `table` are drawn.
    value, label : str
        The column to draw, and what it is called on the axis, with its unit.
    bound : float, optional
        What no method can exceed, a line.
    legend : bool, default True
        Say what the markers mean.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"method": ["swarm", "helix"], "decode_tokens_per_s": [120.0, 250.0]})
    >>> ax = plot_throughput(table)
    >>> [tick.get_text() for tick in ax.get_xticklabels()]
    ['Helix', 'Swarm']
    """
    ax = axes_or_new(ax, height_in=2.0)
    methods = in_order(table["method"])
    of_methods = mean_interval(table[["method", value]], by="method", values=value).set_index("method")
    means, reach = of_methods["mean"], of_methods["high"].fillna(of_methods["mean"])
    colours = method_colours(methods)
    shown = pd.DataFrame(columns=["method", "platform", value]) if published is None else published
    shown = shown[shown["method"].isin(methods) & shown[value].notna()]
    highest = tallest = max([float(reach.max()), *shown[value].astype(float)])
    sns.barplot(
        table, x="method", y=value, order=methods, hue="method", hue_order=methods, palette=colours,
        saturation=1, width=0.68, edgecolor="black", linewidth=0.4, legend=False, ax=ax,
        errorbar=_interval if of_methods["runs"].max() > 1 else None, capsize=0.2,
        err_kws={"color": "black", "linewidth": 0.8, "path_effects": [_HALO]},
    )  # fmt: skip
    marks_of = {
        method: sorted(shown.loc[shown["method"] == method, value].astype(float)) for method in methods
    }
    wide = {m: float(means[m]) for m in methods if means[m] >= _LEAST_SHARE_FOR_INSIDE * highest}
    foot = _common_foot(wide, marks_of, _LABEL_SHARE * max(highest, bound or 0.0))
    for place, method in enumerate(methods):
        height, marks, inside = float(means[method]), marks_of[method], method in wide
        top = float(reach[method])
        if np.isnan(height):
            ax.annotate("no value", (place, 0), (0, 4), textcoords="offset points", ha="center", va="bottom")
            continue
        for mark in marks:  # a number that would lie on a marker goes above it
            if top - 0.25 * _LABEL_SHARE * highest < mark < top + _LABEL_SHARE * highest:
                top = max(top, mark)
        if not inside:
            tallest = max(tallest, top + 0.5 * _LABEL_SHARE * highest)
        ax.annotate(
            f"{height:.0f}" if height >= 10 else f"{height:.3g}",
            (place, foot if inside else top),
            xytext=(0, 3 if inside else 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=ink_on(colours[method]) if inside else "black",
        )
    platforms = list(dict.fromkeys(shown["platform"]))
    for platform in platforms:
        of_platform = shown[shown["platform"] == platform]
        shift = _OFFSETS.get(platform, 0.0) if len(platforms) > 1 else 0.0
        places = [methods.index(method) + shift for method in of_platform["method"]]
        ax.plot(places, of_platform[value].astype(float), **hollow(platform))
    if bound is not None:
        ax.axhline(bound, color=BOUND_COLOUR, linestyle=(0, (4, 1.5)), linewidth=1)
        ax.annotate(
            f"upper bound {bound:.0f}", (1, bound), xycoords=("axes fraction", "data"), xytext=(0, 2),
            textcoords="offset points", ha="right", va="bottom", fontsize=6.5, color=BOUND_COLOUR,
        )  # fmt: skip
        tallest = max(tallest, 1.06 * bound)
    stopped = partial_methods(table)
    method_ticks(ax, methods, stopped)
    ax.set_xlim(-0.6, len(methods) - 0.4)
    if is_partial(table) and not stopped:
        mark_partial(ax, "partial sweep")
        tallest *= 1.1  # the words stand above the bars
    ax.set_ylim(0, 1.08 * tallest if tallest > 0 else 1)
    ax.set(xlabel="", ylabel=label)
    label_platforms(ax, platforms, legend=legend)
    return ax
