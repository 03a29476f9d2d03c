"""Samples of the measured window, and means over them that know how long each sample stands.

Where nothing happens samples are left out (see `helixlab.simulation.samples`), so that rows of a timeline
are not all of the same length. A row stands for the sample times from its own to that of the next row.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from helixlab.simulation import Result

__all__ = ["STEPS", "held_s", "mean_of", "node_means", "node_samples", "samples"]

STEPS: Final = "steps"
"""Column of the samples of a window: how many sample times in it a row stands for."""


def samples(result: Result, table: pd.DataFrame, until_s: float = np.inf) -> pd.DataFrame:
    """Rows of the timeline, or of that of nodes, that stand for part of the window, with `STEPS`.

    Parameters
    ----------
    result : Result
        Of `simulate`.
    table : DataFrame
        Its timeline or node_timeline.
    until_s : float
        Where the window is taken to end, if that is earlier.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> requests = pd.DataFrame({"arrival_s": [0, 99], "input_tokens": 9, "output_tokens": 1})
    >>> result = hx.simulate(*system, workload=hx.online(requests=requests, duration_s=99))
    >>> samples(result, result.timeline)["steps"].tolist()
    [1, 1, 17, 1]
    """
    first_s, last_s = (float(result.summary[f"window_{end}_s"].item()) for end in ("start", "end"))
    times = result.timeline["time_s"].to_numpy(float)
    steps = _steps(result, times)
    step_s = float(result.provenance["settings"]["sample_step_s"])
    if len(times):
        before = np.ceil(np.maximum(first_s - times, 0.0) / step_s)
        up_to_end = np.floor((min(last_s, until_s) - times) / step_s) + 1
        steps = np.maximum(np.minimum(up_to_end, steps) - before, 0).astype(np.int64)
    weighed = table.assign(**{STEPS: steps[np.searchsorted(times, table["time_s"])]})
    return weighed[weighed[STEPS] > 0]


def _steps(result: Result, times: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many sample times each row of the timeline stands for."""
    step_s = float(result.provenance["settings"]["sample_step_s"])
    if not len(times):
        return np.zeros(0, np.int64)
    return np.append(np.maximum(np.rint(np.diff(times) / step_s), 1), 1).astype(np.int64)


def node_samples(result: Result) -> pd.DataFrame:
    """Samples of the measured window of the nodes that hold layers."""
    nodes = result.nodes
    holding = nodes.loc[nodes["end_layer"] > nodes["first_layer"], "node"]
    inside = samples(result, result.node_timeline)
    return inside[inside["node"].isin(holding)]


def mean_of(rows: pd.DataFrame, values: pd.Series) -> float:
    """Mean over the time that samples stand for; NaN of none."""
    if (rows[STEPS] == 1).all():
        return float(values.mean())
    return float((values * rows[STEPS]).sum() / rows[STEPS].sum())


def node_means(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Mean of each node over the time that its samples stand for."""
    sums = rows[columns].mul(rows[STEPS], axis=0).groupby(rows["node"]).sum()
    return sums.div(rows.groupby("node")[STEPS].sum(), axis=0)


def held_s(result: Result) -> float:
    """Seconds that all queries of the run together were held at the coordinator; NaN if that is not known."""
    if "held_s" in result.iterations and not result.summary["queries_in_flight"].item():
        return float(result.iterations["held_s"].sum())
    timeline = result.timeline
    if timeline.empty:
        return float("nan")
    steps = _steps(result, timeline["time_s"].to_numpy(float))
    return float((timeline["held"] * steps).sum() * result.provenance["settings"]["sample_step_s"])
