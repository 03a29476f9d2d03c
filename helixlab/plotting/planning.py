"""Searches for placements over time, predicted against simulated throughput, and why placements differ."""

from __future__ import annotations

from itertools import cycle
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from helixlab.plotting.style import (
    BOUND_COLOUR,
    METHOD_COLOURS,
    OTHER_COLOURS,
    PAGE_WIDTH_IN,
    axes_or_new,
    name_lines,
    name_panels,
    panels,
    plain,
    styled,
)
from helixlab.plotting.tables import require_columns

__all__ = [
    "SEARCH_COLOURS",
    "plot_congestion",
    "plot_prediction",
    "plot_predictions",
    "plot_search_progress",
    "plot_search_quality",
]


SEARCH_COLOURS: Final = (METHOD_COLOURS["helix"], *OTHER_COLOURS)
"""Colours of searches and of groups of points, in the order in which they come."""
FIRST_S: Final = 1e-3
"""Time at which an event of time 0 is drawn: a logarithmic axis has no 0."""
_FIRST_PUBLISHED_S: Final = 1e-2
"""The same beside published searches, whose times are coarser."""
LEAST_TOKENS_PER_S: Final = 1.0
"""Least incumbent that is drawn; smaller values are a solver's rounding, and no placement."""
MET: Final = 1.15
"""Largest ratio of bound to placement at which the two seem to have met in a picture."""
PUBLISHED_DASHES: Final = ((0, (4, 1.5)), (0, (1.5, 1)), (0, (5, 1.2, 1, 1.2)))
"""Dashes of published searches, which differ in grey too."""
RUNS: Final = "#4d4d4d"
WAITS: Final = "#e6d6ae"
_BOUND_DASHES: Final = (0, (3, 1.2))
_MARKERS: Final = ("o", "^", "s", "D", "v", "P")
_PREDICTIONS: Final = {"flow": "by_flow_tokens_per_s", "queueing": "by_queueing_tokens_per_s"}
_AIMS: Final = {"for-greedy": "for throughput", "for-chunked": "for throughput", "for-flow": "for flow"}


@styled
def plot_search_quality(table: pd.DataFrame, *, bound: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw the flow of the best placement so far over the time of a search; published searches are dashed.

    Parameters
    ----------
    table : DataFrame
        One row an event: run, seconds, incumbent_tokens_per_s, and published, whether it is on record.
    bound : float, optional
        Flow that no placement can exceed, drawn as a line.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"run": "Gurobi", "seconds": [0, 60, 600], "published": True,
    ...                       "incumbent_tokens_per_s": [0, 80, 100]})
    >>> ax = plot_search_quality(table)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['Gurobi']
    """
    require_columns(table, "run", "seconds", "incumbent_tokens_per_s", "published")
    ax = axes_or_new(ax, height_in=2.0)
    ax.set(xscale="log", xlabel="time of the search (s)", ylabel="max flow (tokens/s)")
    others = cycle(zip(SEARCH_COLOURS[1:], cycle(PUBLISHED_DASHES), strict=False))
    for run, rows in table.groupby("run", sort=False):
        rows = rows[rows["incumbent_tokens_per_s"] >= LEAST_TOKENS_PER_S]
        rows = rows.sort_values("seconds", kind="stable")
        if rows.empty:
            continue
        seconds = rows["seconds"].astype(float).clip(lower=_FIRST_PUBLISHED_S)
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
def plot_congestion(
    table: pd.DataFrame, *, longest_s: float | None = None, legend: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw the seconds that a request waits and runs on each visit, one bar for each node by its first layer.

    Parameters
    ----------
    table : DataFrame
        One row a node: node, machine, first_layer, wait_s, run_s, as
        `helixlab.experiments.pooling.waits_and_runs` gives them.
    longest_s : float, optional
        End of the axis, so that panels can be compared.
    legend : bool, default True
        Draw a legend of the parts.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"node": [0, 1], "machine": ["A100", "T4"], "first_layer": [0, 40],
    ...                       "wait_s": [0.1, 0.4], "run_s": [0.2, 0.3]})
    >>> [label.get_text() for label in plot_congestion(table).get_yticklabels()]
    ['A100 0', 'T4 1']
    """
    require_columns(table, "node", "machine", "first_layer", "wait_s", "run_s")
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


@styled
def plot_search_progress(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the best placement so far and the bound of searches over time, both axes logarithmic.

    The line of the placements carries the name of its search where it ends, the dashed one of the bounds the
    word "bound", unless the two have met. The nearer they come the more is proved.

    Parameters
    ----------
    table : DataFrame
        One row an event: run, seconds, incumbent_tokens_per_s and bound_tokens_per_s, as the bundled
        ``published/solver_traces.csv`` and the trace of a `PlanReport` have them. A value that is missing is
        not known yet; one below 1 is a solver's rounding, and no placement.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"run": "mine", "seconds": [0.1, 2, 60],
    ...                       "incumbent_tokens_per_s": [None, 10, 12], "bound_tokens_per_s": [90, 40, 13]})
    >>> ax = plot_search_progress(table)
    >>> ax.get_xscale(), [text.get_text() for text in ax.texts]
    ('log', ['mine'])
    """
    require_columns(table, "run", "seconds", "incumbent_tokens_per_s", "bound_tokens_per_s")
    ax = axes_or_new(ax, height_in=2.2)
    ax.set(xscale="log", yscale="log")
    ends, bounds = [], []
    for number, run in enumerate(dict.fromkeys(table["run"])):
        colour = SEARCH_COLOURS[number % len(SEARCH_COLOURS)]
        rows = table[table["run"] == run].sort_values("seconds", kind="stable")
        rows = rows.assign(seconds=rows["seconds"].astype(float).clip(lower=FIRST_S))
        rows = rows.drop_duplicates("seconds", keep="last")
        seconds = rows["seconds"]
        lines: dict[str, Line2D] = {}
        for what, dashes in (("incumbent", "-"), ("bound", _BOUND_DASHES)):
            values = rows[f"{what}_tokens_per_s"].astype(float)
            known = values >= LEAST_TOKENS_PER_S
            if known.any():
                (lines[what],) = ax.plot(
                    seconds[known], values[known], drawstyle="steps-post", color=colour, linestyle=dashes
                )
                last_x, last_y = seconds[known].iloc[-1], values[known].iloc[-1]
                ax.plot(last_x, last_y, ".", color=colour, markersize=4.5)
        last = [float(np.asarray(line.get_ydata())[-1]) for line in lines.values()]
        if "bound" in lines and (len(last) == 1 or last[1] > MET * last[0]):
            lines["bound"].set_label("bound" if "incumbent" in lines else f"{run}: bound")
            bounds.append(lines["bound"])
        if "incumbent" in lines:
            lines["incumbent"].set_label(run)
            ends.append(lines["incumbent"])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_locator(LogLocator(numticks=8))
    ax.set(xlabel="time (s)", ylabel="tokens/s")
    ax.autoscale_view()
    ax.margins(x=0.05, y=0.12)
    name_lines(ax, [*ends, *bounds], below=True)
    return ax


@styled
def plot_prediction(
    table: pd.DataFrame,
    *,
    colour: str = "cluster",
    marker: str | None = None,
    band: float = 0.2,
    label: str = "decode tokens/s",
    limits: tuple[float, float] | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw predicted over simulated throughput, a point for each placement; on the diagonal both agree.

    Parameters
    ----------
    table : DataFrame
        Columns predicted_tokens_per_s and simulated_tokens_per_s, and those named below.
    colour, marker : str
        Columns by which points differ in colour, and optionally in shape.
    band : float, default 0.2
        Part by which the predictions inside the grey band are off at most.
    label : str
        Name of the metric on both axes, with its unit.
    limits : (float, float), optional
        Limits of both axes; those of the points by default.
    legend : bool, default True
        Draw a legend of the points.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"cluster": ["a", "b"], "predicted_tokens_per_s": [90.0, 210.0],
    ...                       "simulated_tokens_per_s": [100.0, 200.0]})
    >>> ax = plot_prediction(table)
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_legend().get_texts()]
    ('simulated decode tokens/s', ['a', 'b'])
    """
    by = [colour] if marker is None else [colour, marker]
    require_columns(table, "predicted_tokens_per_s", "simulated_tokens_per_s", *by)
    ax = axes_or_new(ax, height_in=2.6)
    ax.set(xscale="log", yscale="log")
    both = table[["simulated_tokens_per_s", "predicted_tokens_per_s"]].astype(float).to_numpy()
    ends = np.array([both.min() / 1.25, both.max() * 1.25] if limits is None else limits)
    ax.fill_between(ends, (1 - band) * ends, (1 + band) * ends, color="#eeeeee", linewidth=0, zorder=0)
    ax.plot(ends, ends, color="0.5", linewidth=0.8, zorder=1)
    colours = list(dict.fromkeys(table[colour]))
    shapes = [None] if marker is None else list(dict.fromkeys(table[marker]))
    for number, group in enumerate(colours):
        for kind, shape in enumerate(shapes):
            rows = table[table[colour] == group]
            rows = rows if marker is None else rows[rows[marker] == shape]
            ax.scatter(
                rows["simulated_tokens_per_s"], rows["predicted_tokens_per_s"], s=15,
                color=SEARCH_COLOURS[number % len(SEARCH_COLOURS)], marker=_MARKERS[kind % len(_MARKERS)],
                edgecolor="white", linewidth=0.4, zorder=3,
            )  # fmt: skip
    ax.set_xlim(*ends)
    ax.set_ylim(*ends)
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=f"simulated {label}", ylabel=f"predicted {label}")
    if legend:
        dots = {name: SEARCH_COLOURS[number % len(SEARCH_COLOURS)] for number, name in enumerate(colours)}
        handles = [_dot(str(name), shade, "o") for name, shade in dots.items()]
        if marker is not None:
            handles += [
                _dot(str(name), "0.4", _MARKERS[kind % len(_MARKERS)]) for kind, name in enumerate(shapes)
            ]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), handlelength=1)
    return ax


@styled
def plot_predictions(served: pd.DataFrame) -> np.ndarray:
    """Draw predictions over what was simulated: by flow above, by queueing below, a column for each policy.

    Parameters
    ----------
    served : DataFrame
        Table of `helixlab.experiments.plan_metrics`: cluster, plan, policy, by_flow_tokens_per_s,
        by_queueing_tokens_per_s, decode_tokens_per_s.

    Returns
    -------
    array of Axes
        Two rows of panels of `plot_prediction`.

    Examples
    --------
    >>> served = pd.DataFrame({"cluster": "a", "plan": "for-flow", "policy": ["greedy", "chunked"],
    ...                        "by_flow_tokens_per_s": 90.0, "by_queueing_tokens_per_s": 60.0,
    ...                        "decode_tokens_per_s": 50.0})
    >>> axes = plot_predictions(served)
    >>> axes[1, 0].get_title(loc="left")
    'by queueing, greedy nodes'
    """
    require_columns(served, "cluster", "plan", "policy", *_PREDICTIONS.values(), "decode_tokens_per_s")
    policies = list(dict.fromkeys(served["policy"]))
    every = served[[*_PREDICTIONS.values(), "decode_tokens_per_s"]].to_numpy(float)
    limits = 0.8 * float(np.nanmin(every)), 1.25 * float(np.nanmax(every))
    _, axes = panels(
        2, len(policies), width_in=PAGE_WIDTH_IN, height_in=5.6, sharex=True, sharey=True, squeeze=False
    )
    for row, (source, column) in zip(axes, _PREDICTIONS.items(), strict=True):
        for ax, policy in zip(row, policies, strict=True):
            shown = served[served["policy"] == policy].assign(plan=lambda rows: rows["plan"].replace(_AIMS))
            names = {column: "predicted_tokens_per_s", "decode_tokens_per_s": "simulated_tokens_per_s"}
            legend = ax is axes[0, -1]
            plot_prediction(shown.rename(columns=names), marker="plan", limits=limits, legend=legend, ax=ax)
        name_panels(row, [f"by {source}, {policy} nodes" for policy in policies])
    return np.asarray(axes)


def _dot(name: str, shade: str, marker: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=shade, markersize=4, label=name)
