"""Throughput: bars of methods, over a latency, and over the rate at which requests arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any, Final

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from helixlab.diagnosis.steady_state import GROWS
from helixlab.experiments.statistics import mean_interval, worst_load
from helixlab.plotting.style import (
    BOUND_COLOUR,
    LINES,
    PAGE_WIDTH_IN,
    axes_or_new,
    in_order,
    ink_on,
    mark_partial,
    method_colours,
    method_label,
    method_ticks,
    name_panels,
    panels,
    plain,
    styled,
)
from helixlab.plotting.tables import is_partial, partial_methods, require_columns

__all__ = [
    "PLATFORM_MARKERS",
    "hollow",
    "label_platforms",
    "legend_above",
    "mark_loads",
    "plot_method_panels",
    "plot_planned_and_served",
    "plot_rate_panels",
    "plot_rate_sweep",
    "plot_saturation",
    "plot_throughput",
    "plot_throughput_latency",
    "plot_throughput_panels",
    "plot_tuning",
    "value_label",
]

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
"""Height of a number above a bar or marker, as a part of the highest value."""
_HALO: Final = withStroke(linewidth=1.8, foreground="white")
_OFFSETS: Final = {"simulation": -0.18, "prototype": 0.18}
_SPLIT_LOADS: Final = {"filling": "filling", "backlogged": "back-\nlogged", "overloaded": "over-\nloaded"}
_VALUE_LABELS: Final = {
    "busy_percent": "GPUs busy (% of the time)",
    "decode_latency_mean_s": "mean decode latency (s)",
    "decode_tokens_per_s": "decode tokens/s",
    "goodput_requests_per_s": "requests in time, per second",
    "max_flow_tokens_per_s": "max flow (tokens/s)",
    "prompt_latency_mean_s": "mean prompt latency (s)",
    "prompt_latency_p95_s": "95th percentile of prompt latency (s)",
}
_FILLS: Final[dict[str, Any]] = {"marker": "o", "markersize": 3.6, "markerfacecolor": "white"}
_GROWS: Final[dict[str, Any]] = {
    "marker": "X",
    "markersize": 4.5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.4,
}


def value_label(column: str) -> str:
    """Name of a column on an axis, with its unit.

    Examples
    --------
    >>> value_label("decode_tokens_per_s"), value_label("mine_s")
    ('decode tokens/s', 'mine_s')
    """
    return _VALUE_LABELS.get(column, plain(column))


def hollow(platform: str) -> dict[str, Any]:
    """Style a published value: an empty marker in black."""
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
        Figure of panels drawn with ``legend=False``.
    columns : int, optional
        Number of columns of the legend; by default it is one line.
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


def _common_foot(heights: dict[str, float], marks: dict[str, list[float]], label: float) -> float:
    """Find the lowest height at which a number fits into all these bars and lies on no marker, 0 if none."""

    def is_free(foot: float) -> bool:
        return all(
            foot + label <= height
            and not any(foot - 0.35 * label < mark < foot + label for mark in marks[method])
            for method, height in heights.items()
        )

    above_marks = sorted(mark + 0.35 * label for method in heights for mark in marks[method])
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
    label: str | None = None,
    bound: float | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw one bar for each method, with its value, and published values as hollow markers.

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
        Column to draw, and its name on the axis, with its unit.
    bound : float, optional
        Value that no method can exceed, drawn as a line.
    legend : bool, default True
        Draw a legend of the markers.
    {ax}

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
    require_columns(table, "method", value)
    label = value_label(value) if label is None else label
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


@styled
def plot_throughput_panels(
    table: pd.DataFrame,
    *,
    rows: str,
    columns: str,
    value: str = "decode_tokens_per_s",
    label: str | None = None,
    loads: bool = False,
    order: Sequence[str] | None = None,
    width_in: float | None = None,
    height_in: float = 3.9,
    sharey: bool | str = False,
) -> np.ndarray:
    """Draw `plot_throughput` in a grid of panels, one for each pair of values of two columns.

    Parameters
    ----------
    table : DataFrame
        Columns as for `plot_throughput`, and those named below.
    rows, columns : str
        Columns of the table whose values tell the rows and the columns of the grid apart.
    value, label : str
        Column to draw, and its name on the axis, with its unit.
    loads : bool, default False
        Write the worst load of a method above its bar where a run is not stable, by the column load.
    order : sequence of str, optional
        Values of the columns of the grid, from left to right; by default as they come.
    width_in, height_in : float, optional
        Size of the figure in inches; by default 2.35 inches wide for each column.
    sharey : bool or str, default False
        Panels that share their vertical axis, as for `matplotlib.pyplot.subplots`.

    Returns
    -------
    array of Axes
        Rows of panels.

    Examples
    --------
    >>> table = pd.DataFrame({"cluster": ["a", "b"], "execution": "greedy", "method": "helix",
    ...                       "decode_tokens_per_s": [120.0, 250.0]})
    >>> axes = plot_throughput_panels(table, rows="execution", columns="cluster")
    >>> [ax.get_title(loc="left") for ax in axes[0]]
    ['a, greedy', 'b, greedy']
    """
    for name in (rows, columns):
        require_columns(table, name)
    down = list(dict.fromkeys(table[rows]))
    across = list(dict.fromkeys(table[columns]) if order is None else order)
    width_in = 2.35 * len(across) if width_in is None else width_in
    _, axes = panels(
        len(down), len(across), width_in=width_in, height_in=height_in, squeeze=False, sharey=sharey
    )
    unstable = loads and bool((table["load"] != "stable").any())
    for row, of_row in zip(axes, down, strict=True):
        for ax, of_column in zip(row, across, strict=True):
            shown = table[(table[rows] == of_row) & (table[columns] == of_column)]
            plot_throughput(shown, value=value, label=label, ax=ax)
            if loads:
                mark_loads(ax, shown.groupby("method")["load"].agg(worst_load))
        name_panels(row, [f"{of_column}, {of_row}" for of_column in across], above_legend=unstable)
    return np.asarray(axes)


@styled
def plot_method_panels(table: pd.DataFrame, values: Sequence[str]) -> np.ndarray:
    """Draw several columns of a table by method, two panels a row.

    Parameters
    ----------
    table : DataFrame
        Rows as for `plot_throughput`.
    values : sequence of str
        Columns to draw, an even number of them.

    Returns
    -------
    array of Axes
        Rows of two panels.

    Examples
    --------
    >>> table = pd.DataFrame({"method": ["helix"], "decode_tokens_per_s": 9.0, "busy_percent": 40.0})
    >>> [ax.get_ylabel() for ax in plot_method_panels(table, ["decode_tokens_per_s", "busy_percent"])[0]]
    ['decode tokens/s', 'GPUs busy (% of the time)']
    """
    rows = -(-len(values) // 2)
    _, axes = panels(rows, 2, width_in=PAGE_WIDTH_IN, height_in=2.2 * rows, squeeze=False)
    for ax, value in zip(axes.flat, values, strict=True):
        plot_throughput(table, value=value, ax=ax)
    return np.asarray(axes)


@styled
def plot_planned_and_served(runs: pd.DataFrame) -> np.ndarray:
    """Draw the planned flow of each method beside its throughput under each execution policy.

    Parameters
    ----------
    runs : DataFrame
        A row for each run and seed: cluster, method, execution, max_flow_tokens_per_s, decode_tokens_per_s.

    Returns
    -------
    array of Axes
        One row of panels for each cluster: the planned flow, then one panel for each execution policy.

    Examples
    --------
    >>> runs = pd.DataFrame({"cluster": "a", "execution": "greedy", "method": ["helix", "swarm"],
    ...                      "max_flow_tokens_per_s": [300.0, 200.0], "decode_tokens_per_s": [60.0, 50.0]})
    >>> [ax.get_title(loc="left") for ax in plot_planned_and_served(runs)[0]]
    ['planned flow', 'greedy']
    """
    require_columns(runs, "cluster", "execution")
    clusters, policies = (list(dict.fromkeys(runs[name])) for name in ("cluster", "execution"))
    size = {"width_in": PAGE_WIDTH_IN, "height_in": 0.4 + 1.55 * len(clusters)}
    _, axes = panels(len(clusters), 1 + len(policies), squeeze=False, **size)
    for row, cluster in zip(axes, clusters, strict=True):
        here = runs[runs["cluster"] == cluster]
        planned = here.drop_duplicates("method")
        label = f"{cluster}: planned tokens/s"
        plot_throughput(planned, value="max_flow_tokens_per_s", label=label, ax=row[0])
        for ax, policy in zip(row[1:], policies, strict=True):
            plot_throughput(here[here["execution"] == policy], ax=ax)
        name_panels(row, ["planned flow", *policies])
    return np.asarray(axes)


@styled
def mark_loads(ax: Axes, loads: pd.Series) -> Axes:
    """Write the load above each method whose run is not stable.

    Parameters
    ----------
    ax : Axes
        With one place a method, in the fixed order, as `plot_evaluation` and `plot_latency_boxes` draw them.
    loads : Series
        Label of the load by method, see `helixlab.diagnosis.steady_state.Load`.

    Returns
    -------
    Axes

    Examples
    --------
    >>> ax = axes_or_new(None)
    >>> loads = pd.Series({"swarm": "overloaded", "helix": "stable"})
    >>> len(mark_loads(ax, loads).texts)
    1
    """
    for place, method in enumerate(in_order(loads.index)):
        if loads[method] in _SPLIT_LOADS:
            ax.annotate(
                _SPLIT_LOADS[loads[method]], (place, 1.0), xycoords=ax.get_xaxis_transform(), ha="center",
                va="bottom", fontsize=5.5, style="italic",
            )  # fmt: skip
    return ax


@styled
def plot_throughput_latency(
    table: pd.DataFrame,
    *,
    x: str = "decode_latency_mean_s",
    label: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw throughput over a latency of many runs; a line joins those that none beats in both.

    Parameters
    ----------
    table : DataFrame
        Columns decode_tokens_per_s, `x`, meets_goal, chunk_tokens, as `helixlab.tune_execution` gives them.
        Runs that miss the goal are crosses, and beat none. Runs that failed are left out; a sweep that was
        stopped is marked. The axis of a latency that spans more than a factor of ten is logarithmic.
    x, label : str
        Column of the latency, and its name on the axis.
    legend : bool, default True
        Draw a legend of the chunk sizes.
    {ax}

    Returns
    -------
    Axes
    """
    require_columns(table, "decode_tokens_per_s", x, "meets_goal", "chunk_tokens")
    ax = axes_or_new(ax, height_in=2.4)
    if is_partial(table):
        mark_partial(ax, "partial sweep")
    shown = table.dropna(subset=["decode_tokens_per_s", x])
    quickest_first = shown[shown["meets_goal"]].sort_values(
        [x, "decode_tokens_per_s"], ascending=[True, False]
    )
    most = quickest_first["decode_tokens_per_s"].cummax().shift(fill_value=-np.inf)
    frontier = quickest_first[quickest_first["decode_tokens_per_s"] > most]
    ax.plot(frontier[x], frontier["decode_tokens_per_s"], color="0.6", linewidth=1)
    chunks = shown.groupby("chunk_tokens")
    for colour, (tokens, runs) in zip(sns.color_palette("viridis", len(chunks)), chunks, strict=True):
        ax.scatter([], [], s=18, color=colour, label=f"{tokens:.0f}")
        for meets, marker in ((True, "o"), (False, "x")):
            rows = runs[runs["meets_goal"] == meets]
            ax.scatter(rows[x], rows["decode_tokens_per_s"], s=18, color=colour, marker=marker)
    if not shown["meets_goal"].all():
        ax.scatter([], [], s=18, color="0.3", marker="x", label="misses the goal")
    if shown[x].max() > 10 * shown[x].min():
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(value_label(x) if label is None else label)
    ax.set_ylabel("decode tokens/s")
    ax.set_ylim(bottom=0)
    if legend:
        ax.legend(title="chunk (tokens)", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


@styled
def plot_tuning(candidates: pd.DataFrame) -> np.ndarray:
    """Draw the trials of a tuning over the mean latency of decodes, and over the latency of prompts.

    Parameters
    ----------
    candidates : DataFrame
        Trials of `helixlab.tune_execution`.

    Returns
    -------
    array of Axes
        Two panels of `plot_throughput_latency`.

    Examples
    --------
    >>> trials = pd.DataFrame({"decode_tokens_per_s": [90.0], "decode_latency_mean_s": [0.5],
    ...                        "prompt_latency_p95_s": [9.0], "meets_goal": [True], "chunk_tokens": [64]})
    >>> [ax.get_xlabel() for ax in plot_tuning(trials)]
    ['mean decode latency (s)', '95th percentile of prompt latency (s)']
    """
    _, axes = panels(1, 2, width_in=PAGE_WIDTH_IN)
    plot_throughput_latency(candidates, legend=False, ax=axes[0])
    plot_throughput_latency(candidates, x="prompt_latency_p95_s", ax=axes[1])
    return np.asarray(axes)


@styled
def plot_rate_sweep(
    table: pd.DataFrame,
    *,
    y: str = "decode_tokens_per_s",
    label: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric over the rate of arrivals, one line for each method; a cross marks where it saturates.

    Parameters
    ----------
    table : DataFrame
        Columns rate_tokens_per_s, saturated and `y`, as `helixlab.rate_sweep` gives them, and optionally
        method. Several seeds of a rate give their mean with its 95 % confidence interval; the rate
        saturates if most of them do. Runs that failed are left out; a sweep that was stopped is marked.
    y, label : str
        Column to draw, and its name on the axis, with its unit; both have defaults.
    legend : bool, default True
        Draw a legend of the lines.
    {ax}

    Returns
    -------
    Axes
    """
    require_columns(table, "rate_tokens_per_s", "saturated", y)
    ax = axes_or_new(ax, height_in=2.2)
    if is_partial(table):
        mark_partial(ax, "partial sweep")
    if "error" in table:
        table = table[table["error"].isna()]
    methods = table["method"] if "method" in table else pd.Series("served", index=table.index)
    colours = method_colours(methods)
    for method, dashes in zip(dict.fromkeys(methods), cycle(LINES), strict=False):
        rows = table[methods == method]
        means = mean_interval(rows, by="rate_tokens_per_s", values=y).sort_values("rate_tokens_per_s")
        rates, colour = means["rate_tokens_per_s"], colours[method]
        ax.plot(rates, means["mean"], marker=".", color=colour, linestyle=dashes, label=method)
        if means["high"].notna().any():
            half = means["high"] - means["mean"]
            ax.errorbar(rates, means["mean"], half, fmt="none", color=colour, capsize=2, linewidth=0.8)
        saturated = rows.groupby("rate_tokens_per_s")["saturated"].mean().reindex(rates) > 0.5
        if saturated.any():
            first = means[saturated.to_numpy()].iloc[0]
            ax.plot(first["rate_tokens_per_s"], first["mean"], "x", color=colour, markersize=7)
    ax.plot([], [], "x", color="0.3", label="saturated from here")
    ax.set_xlabel("prompt and decode tokens/s arriving")
    ax.set_ylabel(value_label(y) if label is None else label)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    if legend:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


@styled
def plot_rate_panels(table: pd.DataFrame) -> np.ndarray:
    """Draw throughput and goodput over the rate of arrivals, side by side.

    Parameters
    ----------
    table : DataFrame
        Table of `helixlab.rate_sweep`, as for `plot_rate_sweep`.

    Returns
    -------
    array of Axes
        Two panels of `plot_rate_sweep`.

    Examples
    --------
    >>> table = pd.DataFrame({"rate_tokens_per_s": [100, 200], "saturated": [False, True],
    ...                       "decode_tokens_per_s": [20.0, 30.0], "goodput_requests_per_s": [0.1, 0.0]})
    >>> [ax.get_ylabel() for ax in plot_rate_panels(table)]
    ['decode tokens/s', 'requests in time, per second']
    """
    _, axes = panels(1, 2, width_in=PAGE_WIDTH_IN)
    plot_rate_sweep(table, legend=False, ax=axes[0])
    plot_rate_sweep(table, y="goodput_requests_per_s", ax=axes[1])
    return np.asarray(axes)


@styled
def plot_saturation(
    table: pd.DataFrame,
    y: str = "decode_tokens_per_s",
    *,
    label: str | None = None,
    log: bool = False,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric of online runs over the rate of arrivals, one line for each method, marked by the load.

    Dots are stable, hollow ones were still filling up, and where there are crosses the queue grows.

    Parameters
    ----------
    table : DataFrame
        Columns method, rate_tokens_per_s, load (see `helixlab.diagnosis.steady_state.Load`) and `y`. A sweep
        that was stopped is marked.
    y, label : str
        Column to draw, and its name on the axis, with its unit; both have defaults.
    log : bool, default False
        Draw it on a logarithmic axis.
    legend : bool, default True
        Draw a legend of the lines.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"method": "helix", "rate_tokens_per_s": [100, 200],
    ...                       "load": ["stable", "overloaded"], "decode_tokens_per_s": [20.0, 30.0]})
    >>> ax = plot_saturation(table)
    >>> [str(line.get_marker()) for line in ax.get_lines()]
    ['None', 'o', 'o', 'X', 'X']
    """
    require_columns(table, "method", "rate_tokens_per_s", "load", y)
    ax = axes_or_new(ax, height_in=2.0)
    if is_partial(table):
        mark_partial(ax, "partial sweep")
    methods = in_order(table["method"])
    colours = method_colours(methods)
    for number, method in enumerate(methods):
        rows = table[table["method"] == method].sort_values("rate_tokens_per_s")
        x, values = rows["rate_tokens_per_s"].astype(float), rows[y].astype(float)
        name = method_label(method).replace("\n", " ")
        ax.plot(x, values, color=colours[method], linestyle=LINES[number % len(LINES)], label=name)
        grows, fills = rows["load"].isin(GROWS).to_numpy(), (rows["load"] == "filling").to_numpy()
        dots: dict[str, Any] = {"linestyle": "none", "color": colours[method], "zorder": 4}
        ax.plot(x[~grows & ~fills], values[~grows & ~fills], marker="o", markersize=3, **dots)
        ax.plot(x[fills], values[fills], **dots | _FILLS)
        ax.plot(x[grows], values[grows], **dots | _GROWS)
    grey: dict[str, Any] = {"linestyle": "none", "color": "0.3"}
    if (table["load"] == "filling").any():
        ax.plot([], [], label="still filling up", **grey | _FILLS)
    ax.plot([], [], label="queue grows", **grey | _GROWS)
    if log:
        ax.set_yscale("log")
        least, most = ax.get_ylim()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most > 10 * least else (1, 1.5, 2, 3, 5, 7)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(bottom=0)
    ax.set_xlim(left=0)
    ylabel = value_label(y) if label is None else label
    ax.set(xlabel="asked (prompt + decode tokens/s)", ylabel=ylabel)
    if legend:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, columnspacing=1.2)
    return ax
