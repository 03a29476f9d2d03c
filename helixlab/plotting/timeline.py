"""Runs over time: requests, tokens per second, KV caches, use of the nodes, and single batches."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from helixlab._validation import as_number
from helixlab.errors import SimulationError
from helixlab.plotting.style import (
    BOUND_COLOUR,
    LINES,
    OTHER_COLOURS,
    PAGE_WIDTH_IN,
    PHASE_COLOURS,
    axes_or_new,
    mark_partial,
    name_lines,
    panels,
    plain,
    styled,
)
from helixlab.simulation import Result

__all__ = [
    "check_timeline",
    "even_rows",
    "plot_batches",
    "plot_node_use",
    "plot_timeline",
    "plot_tokens",
    "resampled",
]


_RATE_COLOURS: Final = {"prompt + decode": "#8a8a8a", "decode": PHASE_COLOURS["decode"]}
_BATCH_COLOURS: Final = dict(zip(("prompts", "both", "decodes"), PHASE_COLOURS.values(), strict=True))
_REQUESTS: Final = {"in_flight": "in flight", "queued": "queued", "finished": "finished"}
_RATE_PHASES: Final = {"prompt_tokens_per_s": "prompt", "decode_tokens_per_s": "decode"}
_MOST_POINTS: Final = 100_000
"""Largest number of points of a line; a line that would have more gets a coarser step than the samples."""
_MUCH_MORE: Final = 1.5
_WHY_ABOVE: Final = "At first there are prompts only.\nThey cost less by the token\nthan the mix of max flow."
_USES: Final = {
    "busy_fraction": "part of the time busy",
    "kv_used_fraction": "part of the KV cache in use",
    "kv_expected_fraction": "part of the KV cache expected to be used",
}


def check_timeline(result: Result) -> None:
    """Refuse a run whose timeline has fewer than the two samples that a line takes.

    Raises
    ------
    SimulationError
        The run has fewer.
    """
    samples, step_s = len(result.timeline), float(result.provenance["settings"]["sample_step_s"])
    if samples == 0 and not step_s > 0:
        raise SimulationError("the run has no timeline to draw; simulate with sample_step_s above 0")
    if samples < 2:
        raise SimulationError(
            f"the run is too short for its timeline, which has {samples} of the two samples that a line"
            f" takes; simulate for longer, or with sample_step_s below {step_s:g}"
        )


def even_rows(result: Result, step_s: float | None = None) -> pd.DataFrame:
    """Bring the timeline into steps of the same length, filling in the rows in which nothing happened.

    Parameters
    ----------
    result : Result
        Run with a timeline.
    step_s : float, optional
        A multiple of the step at which samples were taken, which is the default, or, where that makes too
        many rows for a picture, the least that does not.

    Returns
    -------
    DataFrame
        The columns of the timeline but for tokens/s, which are the mean over the step, and row: that of the
        timeline, the last up to that time.

    Raises
    ------
    SimulationError
        The run has no timeline, or the step is no multiple of its own, or makes too many rows.
    """
    check_timeline(result)
    timeline, own_s = result.timeline, float(result.provenance["settings"]["sample_step_s"])
    times = timeline["time_s"].to_numpy(float)
    taken = np.append(0, np.cumsum(np.maximum(np.rint(np.diff(times) / own_s), 1))).astype(np.int64)
    fewest = -(-int(taken[-1]) // _MOST_POINTS)
    every = max(fewest, 1) if step_s is None else round(step_s / own_s)
    if every < 1 or (step_s is not None and abs(every * own_s - step_s) > 1e-6 * own_s):
        raise SimulationError(
            f"step_s is {step_s:g}; give a multiple of {own_s:g}, the step at which the run was recorded"
        )
    if every < fewest:
        raise SimulationError(
            f"step_s is {step_s:g}, which makes {taken[-1] // every} steps of the"
            f" {times[-1] - times[0]:g} seconds; give {fewest * own_s:g} or more"
        )
    sample = np.arange(0, taken[-1] + 1, every)
    row = np.searchsorted(taken, sample, side="right") - 1
    table = timeline.iloc[row].reset_index(drop=True)
    table["time_s"] += (sample - taken[row]) * own_s
    for tokens in ("prompt_tokens", "decode_tokens"):
        table[f"{tokens}_per_s"] = table[tokens].diff() / table["time_s"].diff()
    return table.assign(row=row)


@styled
def plot_tokens(result: Result, *, smooth_s: float = 30.0, ax: Axes | None = None) -> Axes:
    """Draw the tokens per second of a run, decodes and all, with the maximum flow of the placement.

    The maximum flow counts prompt and decode tokens in their typical mix, so it is to be compared with all
    tokens, once that mix is reached: prompts alone cost less by the token. Thin lines are the samples, thick
    ones their moving average. The time before the measured window is shaded.

    Parameters
    ----------
    {result_with_timeline}
    smooth_s : float, default 30
        Length of the moving average, in seconds.
    {ax}

    Returns
    -------
    Axes

    Raises
    ------
    SimulationError
        The run has no timeline.
    """
    timeline, summary = even_rows(result), result.metrics
    ax = axes_or_new(ax, height_in=2.0)
    start_s, last_s = result.window_s
    origin_s = float(summary["start_s"])
    timeline = timeline[timeline["time_s"].between(origin_s, last_s)]
    step_s = max(float(timeline["time_s"].diff().median()), 1e-9)
    samples = max(1, round(smooth_s / step_s))
    rates = pd.DataFrame(
        {
            "prompt + decode": timeline["prompt_tokens_per_s"] + timeline["decode_tokens_per_s"],
            "decode": timeline["decode_tokens_per_s"],
        }
    ).set_index(timeline["time_s"] - origin_s)
    smooth = rates.rolling(samples, min_periods=1, center=True).mean()
    for table, options in ((rates, {"linewidth": 0.4, "alpha": 0.45}), (smooth, {})):
        sns.lineplot(
            table, estimator=None, palette=_RATE_COLOURS, dashes=False, legend=False, ax=ax, **options
        )
    bound = float(summary["max_flow_tokens_per_s"])
    ax.plot([0, last_s - origin_s], [bound, bound], color=BOUND_COLOUR, linestyle=(0, (4, 1.5)), linewidth=1)
    lines = list(ax.get_lines())[-3:]
    for line, name in zip(lines, (*_RATE_COLOURS, "max flow"), strict=True):
        line.set_label(name)
    if start_s > origin_s:
        ax.axvspan(0, start_s - origin_s, color="#eeeeee", linewidth=0, zorder=0)
        ax.annotate(
            "warm-up", ((start_s - origin_s) / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", ha="center", va="bottom", fontsize=6, color="#666666",
        )  # fmt: skip
    ax.set_xlim(0, last_s - origin_s)
    ax.set_ylim(0, 1.08 * max(bound, float(np.nanmax(rates.to_numpy()))))
    ax.set(xlabel="time since the model is loaded (s)", ylabel="tokens/s")
    if result.metrics["partial"]:
        mark_partial(ax)
    name_lines(ax, lines)
    thin = Line2D([], [], color="#444444", linewidth=0.4, label=f"every {step_s:g} s")
    thick = Line2D([], [], color="#444444", label=f"mean over {samples * step_s:g} s")
    # Above what names the warm-up.
    ax.legend(handles=[thin, thick], loc="lower left", bbox_to_anchor=(0, 1.06), ncols=2)
    tokens_per_s = smooth["prompt + decode"].to_numpy()
    peak = int(np.nanargmax(tokens_per_s))
    if tokens_per_s[peak] > _MUCH_MORE * bound and peak < len(tokens_per_s) / 3:
        ax.text(
            0.99, 0.97, _WHY_ABOVE, transform=ax.transAxes, ha="right", va="top", fontsize=5.5,
            color="#444444",
        )  # fmt: skip
    return ax


@styled
def plot_node_use(
    result: Result, what: str = "busy_fraction", *, colourbar: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw the use of each node over time: one row for each node, by machine type and first layer.

    Nodes whose compute binds the maximum flow have a star.

    Parameters
    ----------
    {result_with_timeline}
    what : str, default "busy_fraction"
        ``"busy_fraction"``, ``"kv_used_fraction"`` or ``"kv_expected_fraction"``.
    colourbar : bool, default True
        Draw the scale.
    {ax}

    Returns
    -------
    Axes

    Raises
    ------
    SimulationError
        `what` is unknown, or the run has no timeline.
    """
    if what not in _USES:
        raise SimulationError(f"what must be one of {', '.join(_USES)}, got {what!r}")
    check_timeline(result)
    summary = result.metrics
    origin_s = float(summary["start_s"])
    samples = result.node_timeline
    samples = samples[samples["time_s"].between(origin_s, result.window_s[1])]
    wide = samples.pivot(index="node", columns="time_s", values=what)
    nodes = result.serving_nodes.sort_values(["machine", "first_layer", "node"])
    bottlenecks = result.bottlenecks
    binding = set(bottlenecks.loc[bottlenecks["kind"] == "compute", "sender"])
    ax = axes_or_new(ax, height_in=0.7 + 0.085 * len(nodes))
    # A sample stands for the time since the one before it.
    times = wide.columns.to_numpy(dtype=float) - origin_s
    values = wide.loc[nodes["node"]].to_numpy(dtype=float)[:, 1:]
    mesh = ax.pcolormesh(
        times, np.arange(len(nodes) + 1), values, cmap="YlGnBu", vmin=0, vmax=1, rasterized=True
    )
    ax.set_ylim(len(nodes), 0)
    ax.set_yticks(
        np.arange(len(nodes)) + 0.5,
        [
            f"{'* ' * (node in binding)}{plain(machine)} {node}"
            for machine, node in zip(nodes["machine"], nodes["node"], strict=True)
        ],
        fontsize=5,
    )
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("time since the model is loaded (s)" + "; * binds the maximum flow" * bool(binding))
    if result.metrics["partial"]:
        mark_partial(ax)
    if colourbar:
        bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02, aspect=30)
        bar.set_label(_USES[what])
        bar.outline.set_linewidth(0.4)
    return ax


def resampled(result: Result, step_s: float | None = None) -> pd.DataFrame:
    """Take the timeline of a run at a chosen step, for `plot_timeline`.

    Parameters
    ----------
    result : Result
        Run with a timeline.
    step_s : float, optional
        A multiple of the step it was recorded at, which is the default, but for runs so long that a coarser
        one does. Counts are those at the end of a step, tokens/s the mean over it.

    Returns
    -------
    DataFrame
        Columns: time_s (since the models are loaded), in_flight, queued, finished, prompt_tokens_per_s,
        decode_tokens_per_s, kv_used_mean_fraction, kv_used_max_fraction, kv_expected_max_fraction (over
        nodes), bottleneck_kv_expected_fraction (of the fullest layer), busy_mean_fraction.

    Raises
    ------
    SimulationError
        The run has no timeline, or the step is no multiple of its own or too fine.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=40, rng=0))
    >>> resampled(result, 20)["time_s"].tolist()
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    if step_s is not None:
        step_s = as_number(step_s, "step_s", mend="a number of seconds", error=SimulationError)
    kept = even_rows(result, step_s)
    times, row = result.timeline["time_s"], kept["row"].to_numpy()
    nodes = result.serving_nodes["node"]
    samples = result.node_timeline[result.node_timeline["node"].isin(nodes)]
    by_time = samples.groupby("time_s")
    table = pd.DataFrame(
        {
            "time_s": kept["time_s"] - result.metrics["start_s"],
            **{name: kept[name] for name in _REQUESTS},
            **{name: kept[name] for name in _RATE_PHASES},
        }
    )
    for name, values in {
        "kv_used_mean_fraction": by_time["kv_used_fraction"].mean(),
        "kv_used_max_fraction": by_time["kv_used_fraction"].max(),
        "kv_expected_max_fraction": by_time["kv_expected_fraction"].max(),
    }.items():
        table[name] = values.to_numpy()[row]
    table["bottleneck_kv_expected_fraction"] = kept["bottleneck_kv_expected_fraction"]
    # Busy seconds up to each sample grow evenly from one row to the next.
    busy_s = np.cumsum(by_time["busy_fraction"].mean().fillna(0.0) * times.diff().fillna(0.0).to_numpy())
    at_step_s = np.interp(kept["time_s"], times, busy_s)
    table["busy_mean_fraction"] = np.append(np.nan, np.diff(at_step_s) / np.diff(kept["time_s"]))
    return table


@styled
def plot_timeline(result: Result, *, step_s: float | None = None) -> np.ndarray:
    """Draw a run over time: requests, tokens/s, KV caches and the use of the nodes, with what ran below.

    Parameters
    ----------
    {result_with_timeline}
    step_s : float, optional
        As for `resampled`. The picture of the nodes is at the step of the recording.

    Returns
    -------
    array of Axes
        Two rows of two panels.

    Raises
    ------
    SimulationError
        The run has no timeline, or the step is no multiple of its own or too fine.
    """
    table = resampled(result, step_s)
    start_s, end_s = (time_s - float(result.metrics["start_s"]) for time_s in result.window_s)
    table = table[table["time_s"] <= end_s]
    figure, axes = panels(2, 2, width_in=PAGE_WIDTH_IN, height_in=4.2)
    (requests, rates), (caches, busy) = axes
    kv = {
        "used, mean": table["kv_used_mean_fraction"],
        "used, fullest node": table["kv_used_max_fraction"],
    }
    if table["kv_expected_max_fraction"].any():  # not all schedulers expect anything
        kv["expected, fullest node"] = table["kv_expected_max_fraction"]
        kv["expected, fullest layer"] = table["bottleneck_kv_expected_fraction"]
    phases = [PHASE_COLOURS[name] for name in _RATE_PHASES.values()]
    for ax, lines, label, colours in (
        (requests, {name: table[column] for column, name in _REQUESTS.items()}, "requests", OTHER_COLOURS),
        (rates, {name: table[column] for column, name in _RATE_PHASES.items()}, "tokens/s", phases),
        (caches, kv, "part of the KV cache", OTHER_COLOURS),
    ):
        for (name, values), colour, dashes in zip(lines.items(), colours, LINES, strict=False):
            # What stays at 0 lies on the axis, and is to be seen there.
            seen: dict[str, Any] = {"color": colour, "linestyle": dashes, "clip_on": False, "zorder": 3}
            ax.plot(table["time_s"], values, label=name, **seen)
        if start_s > 0:
            ax.axvspan(0, start_s, color="#eeeeee", linewidth=0, zorder=0, label="warm-up")
        ax.set(xlabel="time since the model is loaded (s)", ylabel=label)
        ax.set_ylim(bottom=0)
        ax.set_xlim(0, end_s)
        ax.legend(fontsize=6)
    plot_node_use(result, ax=busy)
    row = result.metrics
    partial = "partial run: " if row["partial"] else ""
    title = figure.suptitle(
        f"{partial}{row['placement']}, {row['scheduler']}, {row['execution']}",
        fontsize=7.5, fontweight="bold", x=0.01, ha="left",
    )  # fmt: skip
    origin = figure.supxlabel(
        result.origin.replace("; execution", ";\nexecution"), fontsize=4.5, color="#666666"
    )
    for text in (title, origin):
        text.set_parse_math(False)  # a name is no formula, whatever dollar signs it has
    return np.asarray(axes)


@styled
def plot_batches(result: Result, *, from_s: float, span_s: float = 1.0, ax: Axes | None = None) -> Axes:
    """Draw the batches of every node over a short span: prompts, decodes, both, or nothing.

    A white line separates two batches.

    Parameters
    ----------
    result : Result
        Run with its batches kept.
    from_s, span_s : float
        Start and length of the span, in simulated seconds.
    {ax}

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
    nodes = result.serving_nodes.sort_values(["first_layer", "end_layer", "node"])
    ax = axes_or_new(ax, height_in=0.8 + 0.11 * len(nodes))
    for row, (node, machine) in enumerate(zip(nodes["node"], nodes["machine"], strict=True)):
        own = shown[shown["node"] == node]
        start = (own["start_s"].clip(lower=from_s) - from_s).to_numpy()
        length = own["end_s"].clip(upper=from_s + span_s).to_numpy() - from_s - start
        kinds = np.select([own["decodes"] == 0, own["prompts"] == 0], ["prompts", "decodes"], "both")
        colours = [_BATCH_COLOURS[kind] for kind in kinds]
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
        handles=[Patch(color=colour, label=kind) for kind, colour in _BATCH_COLOURS.items()],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        columnspacing=1,
    )
    return ax
