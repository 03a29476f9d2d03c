"""A run over time in one figure: queries, tokens per second, KV caches, and how busy nodes were."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helixlab._validation import as_number
from helixlab.errors import SimulationError
from helixlab.plotting.style import LINES, OTHER_COLOURS, PAGE_WIDTH_IN, PHASE_COLOURS, panels, styled
from helixlab.plotting.timeline import check_timeline, node_use_picture
from helixlab.simulation import Result

__all__ = ["resampled", "timeline_picture"]

_QUERIES: Final = {"in_flight": "in flight", "held": "held", "finished": "finished"}
_RATES: Final = {"prompt_tokens_per_s": "prompt", "decode_tokens_per_s": "decode"}


def resampled(result: Result, step_s: float | None = None) -> pd.DataFrame:
    """The timeline of a run at a chosen step: what `timeline_picture` draws.

    Parameters
    ----------
    result : Result
        A run with a timeline.
    step_s : float, optional
        A multiple of the step it was recorded at, which is the default. Counts are those at the end of a
        step, tokens/s the mean over it.

    Returns
    -------
    DataFrame
        Columns: time_s (since the models are loaded), in_flight, held, finished, prompt_tokens_per_s,
        decode_tokens_per_s, kv_used_mean_fraction, kv_used_max_fraction, kv_expected_max_fraction (over
        nodes), bottleneck_kv_expected_fraction (of the fullest layer), busy_mean_fraction.

    Raises
    ------
    SimulationError
        The run has no timeline, or the step is no multiple of its own.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=40, rng=0))
    >>> resampled(result, 20)["time_s"].tolist()
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    timeline = result.timeline
    check_timeline(result)
    if step_s is not None:
        step_s = as_number(step_s, "step_s", mend="a number of seconds", error=SimulationError)
    own_s = float(timeline["time_s"].diff().median())
    every = 1 if step_s is None else round(step_s / own_s)
    if every < 1 or (step_s is not None and abs(every * own_s - step_s) > 1e-6 * own_s):
        raise SimulationError(
            f"step_s is {step_s:g}; give a multiple of {own_s:g}, the step at which the run was recorded"
        )
    kept = timeline.iloc[::every].reset_index(drop=True)
    nodes = result.nodes.loc[result.nodes["end_layer"] > result.nodes["first_layer"], "node"]
    samples = result.node_timeline[result.node_timeline["node"].isin(nodes)]
    by_time = samples.groupby("time_s")
    table = pd.DataFrame(
        {
            "time_s": kept["time_s"] - result.summary["start_s"].item(),
            **{name: kept[name] for name in _QUERIES},
            **{
                f"{phase}_tokens_per_s": kept[f"{phase}_tokens"].diff() / kept["time_s"].diff()
                for phase in ("prompt", "decode")
            },
        }
    )
    for name, values in {
        "kv_used_mean_fraction": by_time["kv_used_fraction"].mean(),
        "kv_used_max_fraction": by_time["kv_used_fraction"].max(),
        "kv_expected_max_fraction": by_time["kv_expected_fraction"].max(),
    }.items():
        table[name] = values.loc[kept["time_s"]].to_numpy()
    table["bottleneck_kv_expected_fraction"] = kept["bottleneck_kv_expected_fraction"]
    busy = by_time["busy_fraction"].mean().to_numpy()
    # A step's use is the mean of the samples that it spans.
    spans = [busy[max(1, at - every + 1) : at + 1] for at in range(0, len(timeline), every)]
    table["busy_mean_fraction"] = [float(np.mean(span)) if len(span) else np.nan for span in spans]
    return table


@styled
def timeline_picture(result: Result, *, step_s: float | None = None) -> Figure:
    """A run over time: queries, tokens/s, KV caches, and how busy each node was, with what ran below.

    Parameters
    ----------
    result : Result
        A run with a timeline.
    step_s : float, optional
        As for `resampled`. The picture of the nodes is at the step of the recording.

    Returns
    -------
    Figure

    Raises
    ------
    SimulationError
        The run has no timeline, or the step is no multiple of its own.
    """
    table = resampled(result, step_s)
    start_s, end_s = (
        result.summary[f"window_{end}_s"].item() - result.summary["start_s"].item()
        for end in ("start", "end")
    )
    table = table[table["time_s"] <= end_s]
    figure, axes = panels(2, 2, width_in=PAGE_WIDTH_IN, height_in=4.2)
    (queries, rates), (caches, busy) = axes
    kv = {
        "used, mean": table["kv_used_mean_fraction"],
        "used, fullest node": table["kv_used_max_fraction"],
    }
    if table["kv_expected_max_fraction"].any():  # not all schedulers expect anything
        kv["expected, fullest node"] = table["kv_expected_max_fraction"]
        kv["expected, fullest layer"] = table["bottleneck_kv_expected_fraction"]
    phases = [PHASE_COLOURS[name] for name in _RATES.values()]
    for ax, lines, label, colours in (
        (queries, {name: table[column] for column, name in _QUERIES.items()}, "queries", OTHER_COLOURS),
        (rates, {name: table[column] for column, name in _RATES.items()}, "tokens/s", phases),
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
    node_use_picture(result, ax=busy)
    row = result.summary.iloc[0]
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
    return figure
