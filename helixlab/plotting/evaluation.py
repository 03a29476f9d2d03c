"""The published evaluation beside ours, execution policies, and rates up to saturation."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any, Final

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from helixlab.diagnosis.steady_state import GROWS
from helixlab.errors import SimulationError
from helixlab.experiments.statistics import mean_interval
from helixlab.plotting.latency import plot_latency_boxes
from helixlab.plotting.style import (
    LINES,
    PHASE_COLOURS,
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
from helixlab.plotting.tables import is_partial
from helixlab.plotting.throughput import hollow, label_platforms, legend_above
from helixlab.simulation import Result

__all__ = [
    "mark_loads",
    "plot_batches",
    "plot_evaluation",
    "plot_evaluation_latencies",
    "plot_evaluation_throughputs",
    "plot_rate_sweep",
    "plot_saturation",
    "plot_throughput_latency",
]


_SIDE: Final = {"simulation": -0.17, "prototype": 0.17}
_HATCHES: Final = {"filling": "....", "backlogged": "////", "overloaded": "xxxx"}
_SPLIT: Final = {"filling": "filling", "backlogged": "back-\nlogged", "overloaded": "over-\nloaded"}
_OTHER_WINDOWS: Final = {
    "wait": ("nothing dropped", (0, (1.2, 0.8))),
    "long": ("nothing dropped, from 900 s", "-"),
}
_ROOM_INSIDE: Final = 0.22
"""Part of the axis from which on a bar has its number inside."""
_TEXT_POINTS: Final = 7.0
_FILLS: Final[dict[str, Any]] = {"marker": "o", "markersize": 3.6, "markerfacecolor": "white"}
_GROWS: Final[dict[str, Any]] = {
    "marker": "X",
    "markersize": 4.5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.4,
}
_HALO: Final = withStroke(linewidth=1.8, foreground="white")


@styled
def plot_evaluation(
    numbers: pd.DataFrame, *, label: str = "decode tokens/s", legend: bool = True, ax: Axes | None = None
) -> Axes:
    """One bar a method: our mean with its interval, published values as hollow markers beside it.

    Parameters
    ----------
    numbers : DataFrame
        Rows of `helixlab.reproduce.comparison.beside_published` of one metric and run mode: method,
        platform, published, mean, low, high; and optionally wait_mean and long_mean, drawn as lines across
        the bar, and load, by which bars are hatched.
    label : str
        What is drawn, with its unit.
    legend : bool, default True
        Say what markers, lines and hatches mean.
    ax : Axes, optional
        Where to draw; a new figure by default.

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
        inside = mean > _ROOM_INSIDE * top
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


@styled
def mark_loads(ax: Axes, loads: pd.Series) -> Axes:
    """Write above each method whose run is not stable what it is.

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
        if loads[method] in _SPLIT:
            ax.annotate(
                _SPLIT[loads[method]], (place, 1.0), xycoords=ax.get_xaxis_transform(), ha="center",
                va="bottom", fontsize=5.5, style="italic",
            )  # fmt: skip
    return ax


@styled
def plot_saturation(
    table: pd.DataFrame,
    y: str = "decode_tokens_per_s",
    *,
    label: str = "decode tokens/s",
    log: bool = False,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """A figure of online runs over the rate that was asked, one line a method, marked by what the queue did.

    Dots are stable, hollow ones were still filling up, and where there are crosses the queue grows.

    Parameters
    ----------
    table : DataFrame
        Columns method, rate_tokens_per_s, load (see `helixlab.diagnosis.steady_state.Load`) and `y`. A sweep
        that was stopped is marked.
    y, label : str
        The column to draw, and what it is called on the axis, with its unit.
    log : bool, default False
        Draw it on a logarithmic axis.
    legend : bool, default True
        Say which line is which.
    ax : Axes, optional
        Where to draw; a new figure by default.

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
    ax.set(xlabel="asked (prompt + decode tokens/s)", ylabel=label)
    if legend:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, columnspacing=1.2)
    return ax


def _heights(numbers: pd.DataFrame, method: str) -> list[float]:
    """Everything that stands above a low bar."""
    rows = numbers[numbers["method"] == method]
    columns = [name for name in ("published", "high", "wait_mean", "long_mean") if name in rows]
    return [float(value) for value in rows[columns].to_numpy(float).ravel() if np.isfinite(value)] or [0.0]


def _label(ax: Axes, ours: pd.DataFrame) -> None:
    """Entries of the legend for what is not a published value."""
    for name, (words, dashes) in _OTHER_WINDOWS.items():
        if f"{name}_mean" in ours and ours[f"{name}_mean"].notna().any():
            ax.plot([], [], color="black", linestyle=dashes, linewidth=1.1, label=words)
    for name, hatch in _HATCHES.items():
        if "load" in ours and (ours["load"] == name).any():
            ax.bar([0], [0], facecolor="white", edgecolor="black", linewidth=0.4, hatch=hatch, label=name)


BATCH_COLOURS: Final = dict(zip(("prompts", "both", "decodes"), PHASE_COLOURS.values(), strict=True))


@styled
def plot_batches(result: Result, *, from_s: float, span_s: float = 1.0, ax: Axes | None = None) -> Axes:
    """What every node works on over a short span: batches of prompts, of decodes, of both, or nothing.

    A white line parts two batches.

    Parameters
    ----------
    result : Result
        A run with its batches kept.
    from_s, span_s : float
        The span, in simulated seconds.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    SimulationError
        The run has no batches in that span.
    """
    batches = result.batches
    shown = batches[(batches["end_s"] > from_s) & (batches["start_s"] < from_s + span_s)]
    if shown.empty:
        raise SimulationError(
            f"the run has no batches from {from_s} s for {span_s} s; simulate with keep_batches=True, or show"
            " another span"
        )
    nodes = result.nodes[result.nodes["end_layer"] > 0].sort_values(["first_layer", "end_layer", "node"])
    ax = axes_or_new(ax, height_in=0.8 + 0.11 * len(nodes))
    for row, (node, machine) in enumerate(zip(nodes["node"], nodes["machine"], strict=True)):
        own = shown[shown["node"] == node]
        start = (own["start_s"].clip(lower=from_s) - from_s).to_numpy()
        length = own["end_s"].clip(upper=from_s + span_s).to_numpy() - from_s - start
        kinds = np.select([own["decodes"] == 0, own["prompts"] == 0], ["prompts", "decodes"], "both")
        colours = [BATCH_COLOURS[kind] for kind in kinds]
        ax.broken_barh(
            list(zip(start, length, strict=True)),
            (row - 0.4, 0.8),
            facecolor=colours,
            edgecolor="white",
            linewidth=0.25,
        )
        ax.text(
            -0.008,
            row,
            f"{plain(machine)} {node}",
            transform=ax.get_yaxis_transform(),
            ha="right",
            va="center",
        )
    ax.set_xlim(0, span_s)
    ax.set_ylim(len(nodes) - 0.4, -0.6)
    ax.set_yticks([])
    ax.set_xlabel(f"simulated time after {from_s:g} s (s)")
    ax.set_ylabel("nodes, by their first layer", labelpad=34)
    ax.legend(
        handles=[Patch(color=colour, label=kind) for kind, colour in BATCH_COLOURS.items()],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        columnspacing=1,
    )
    return ax


@styled
def plot_throughput_latency(
    table: pd.DataFrame,
    *,
    x: str = "decode_latency_mean_s",
    label: str = "mean decode latency (s)",
    ax: Axes | None = None,
) -> Axes:
    """Throughput against a latency of many runs; those that none beats in both are joined by a line.

    Parameters
    ----------
    table : DataFrame
        Columns decode_tokens_per_s, `x`, meets_goal, chunk_tokens, as `helixlab.tune_execution` gives them.
        Runs that miss the goal are crosses, and beat none. Runs that failed are left out; a sweep that was
        stopped is marked. The axis of a latency that spans more than a factor of ten is logarithmic.
    x, label : str
        The latency, and what to call it.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
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
    ax.set_xlabel(label)
    ax.set_ylabel("decode tokens/s")
    ax.set_ylim(bottom=0)
    ax.legend(title="chunk (tokens)", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


@styled
def plot_rate_sweep(
    table: pd.DataFrame,
    *,
    y: str = "decode_tokens_per_s",
    label: str = "decode tokens/s",
    ax: Axes | None = None,
) -> Axes:
    """A figure over the rate of arrivals, one line a method; a cross marks the first rate that saturates.

    Parameters
    ----------
    table : DataFrame
        Columns rate_tokens_per_s, saturated and `y`, as `helixlab.rate_sweep` gives them, and optionally
        method. Several seeds of a rate give their mean with its 95 % confidence interval; the rate
        saturates if most of them do. Runs that failed are left out; a sweep that was stopped is marked.
    y, label : str
        The column to show, and what to call it.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
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
    ax.set_ylabel(label)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax
