"""What execution policies do: nodes at work, throughput against latency, rates up to saturation."""

from __future__ import annotations

from itertools import cycle
from typing import Final

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from helixlab.errors import SimulationError
from helixlab.experiments.means import mean_interval
from helixlab.plotting.frames import is_partial
from helixlab.plotting.labels import mark_partial
from helixlab.plotting.style import LINES, PHASE_COLOURS, axes_or_new, method_colours, plain, styled
from helixlab.simulation import Result

__all__ = ["batch_strip", "rate_curves", "throughput_latency_frontier"]

BATCH_COLOURS: Final = dict(zip(("prompts", "both", "decodes"), PHASE_COLOURS.values(), strict=True))


@styled
def batch_strip(result: Result, *, from_s: float, span_s: float = 1.0, ax: Axes | None = None) -> Axes:
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
def throughput_latency_frontier(
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
def rate_curves(
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
