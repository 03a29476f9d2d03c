"""Searches for placements over time, and what is foretold of placements against what is simulated."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from helixlab.plotting.labels import name_lines
from helixlab.plotting.style import METHOD_COLOURS, OTHER_COLOURS, axes_or_new, styled

__all__ = ["SEARCH_COLOURS", "predicted_against_simulated", "search_progress"]

SEARCH_COLOURS: Final = (METHOD_COLOURS["helix"], *OTHER_COLOURS)
"""Of searches and of groups of points, in the order in which they come."""
FIRST_S: Final = 1e-3
"""What was known before is drawn here: a logarithmic axis has no 0."""
LEAST_TOKENS_PER_S: Final = 1.0
MET: Final = 1.15
"""A bound within this factor of the placement has met it, as far as can be seen."""
_BOUND_DASHES: Final = (0, (3, 1.2))
_MARKERS: Final = ("o", "^", "s", "D", "v", "P")


@styled
def search_progress(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Best placement so far and bound of searches over time, both axes logarithmic.

    The line of the placements carries the name of its search where it ends, the dashed one of the bounds the
    word "bound", unless the two have met. The nearer they come the more is proved.

    Parameters
    ----------
    table : DataFrame
        One row an event: run, seconds, incumbent_tokens_per_s and bound_tokens_per_s, as the bundled
        ``published/solver_traces.csv`` and the trace of a `PlanReport` have them. A value that is missing is
        not known yet; one below 1 is a solver's rounding, and no placement.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"run": "mine", "seconds": [0.1, 2, 60],
    ...                       "incumbent_tokens_per_s": [None, 10, 12], "bound_tokens_per_s": [90, 40, 13]})
    >>> ax = search_progress(table)
    >>> ax.get_xscale(), [text.get_text() for text in ax.texts]
    ('log', ['mine'])
    """
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
def predicted_against_simulated(
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
    """What was foretold over what was simulated, a point a placement; on the diagonal both agree.

    Parameters
    ----------
    table : DataFrame
        Columns predicted_tokens_per_s and simulated_tokens_per_s, and those named below.
    colour, marker : str
        Columns by which points differ in colour, and optionally in shape.
    band : float, default 0.2
        Part by which the predictions inside the grey band are off at most.
    label : str
        What is foretold, with its unit.
    limits : (float, float), optional
        Of both axes; those of the points by default.
    legend : bool, default True
        Say which points are which.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Examples
    --------
    >>> table = pd.DataFrame({"cluster": ["a", "b"], "predicted_tokens_per_s": [90.0, 210.0],
    ...                       "simulated_tokens_per_s": [100.0, 200.0]})
    >>> ax = predicted_against_simulated(table)
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_legend().get_texts()]
    ('simulated decode tokens/s', ['a', 'b'])
    """
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


def _dot(name: str, shade: str, marker: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=shade, markersize=4, label=name)
