"""Where the time of a token goes."""

from __future__ import annotations

import pandas as pd

from helixlab.errors import SimulationError
from helixlab.simulation import Result
from helixlab.simulation.breakdown import PARTS

__all__ = ["has_breakdown", "time_breakdown"]


def has_breakdown(result: Result) -> bool:
    """Whether the run noted where time goes, and anything ended in its window."""
    return "compute_s" in result.iterations and not in_window(result).empty


def in_window(result: Result) -> pd.DataFrame:
    """The iterations that ended in the measured window."""
    first_s, last_s = (result.summary[f"window_{end}_s"].item() for end in ("start", "end"))
    return result.iterations[result.iterations["end_s"].between(first_s, last_s)]


def time_breakdown(result: Result) -> pd.DataFrame:
    """Mean seconds of each part of the latency, of prompts and of decodes in the measured window.

    Parameters
    ----------
    result : Result
        Of ``simulate(..., keep_breakdown=True)``.

    Returns
    -------
    DataFrame
        One row a phase, ``"prompt"`` and ``"decode"``: iterations, latency_s and its parts (see `Result`),
        which add up to it.

    Raises
    ------
    SimulationError
        The run has not noted where time goes.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> workload = hx.offline(duration_s=20, rng=0)
    >>> result = hx.simulate(cluster, model, placement, workload=workload, keep_breakdown=True)
    >>> table = time_breakdown(result).set_index("phase")
    >>> parts = table.drop(columns=["iterations", "latency_s"]).sum(axis=1)
    >>> bool((abs(parts - table["latency_s"]) < 1e-9).all())
    True
    """
    if "compute_s" not in result.iterations:
        raise SimulationError("the run has not noted where time goes; simulate with keep_breakdown=True")
    window = in_window(result)
    rows = []
    for phase, chosen in (("prompt", window["iteration"] == 0), ("decode", window["iteration"] > 0)):
        means = window.loc[chosen, ["latency_s", *PARTS]].mean()
        rows.append({"phase": phase, "iterations": int(chosen.sum()), **means})
    table = pd.DataFrame(rows)
    table.attrs["origin"] = result.origin
    return table
