"""Where requests wait: how long each visit of a node takes, and how much of it is waiting."""

from __future__ import annotations

import pandas as pd

from helixlab.errors import SimulationError
from helixlab.simulation import Result

__all__ = ["waits_and_runs"]


def waits_and_runs(result: Result) -> pd.DataFrame:
    """Mean seconds that a request waits and runs each time it visits a node, in the measured window.

    It waits for its turn, and for room in the KV cache. It runs with its batch, however many others are in
    it.

    Parameters
    ----------
    result : Result
        Of ``simulate(..., keep_breakdown=True, keep_batches=True)``.

    Returns
    -------
    DataFrame
        One row a node that was visited: node, machine, region, first_layer, visits, wait_s, run_s.

    Raises
    ------
    SimulationError
        The run has not kept what is needed.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> result = hx.simulate(*system, workload=hx.offline(warmup_s=20, duration_s=60),
    ...                      keep_breakdown=True, keep_batches=True)
    >>> table = waits_and_runs(result)
    >>> bool((table["run_s"] > 0).all()), bool((table["wait_s"] >= 0).all())
    (True, True)
    """
    if result.batches.empty or "batch_wait_s" not in result.nodes:
        raise SimulationError(
            f"{result!r} does not say where requests waited; simulate with keep_breakdown=True and"
            " keep_batches=True"
        )
    summary = result.summary.iloc[0]
    batches = result.batches[
        result.batches["end_s"].between(summary["window_start_s"], summary["window_end_s"])
    ]
    requests = batches["prompts"] + batches["decodes"]
    # All that visit a node run its last layers, wherever they entered.
    last = batches["first_layer"] == batches.groupby("node")["first_layer"].transform("max")
    visits = requests[last].groupby(batches["node"]).sum()
    run_s = (requests * (batches["end_s"] - batches["start_s"])).groupby(batches["node"]).sum()
    nodes = result.nodes[result.nodes["node"].isin(visits.index)]
    visited = nodes["node"].map(visits)
    return pd.DataFrame(
        {
            **{name: nodes[name] for name in ("node", "machine", "region", "first_layer")},
            "visits": visited,
            "wait_s": (nodes["batch_wait_s"] + nodes["kv_wait_s"]) / visited,
            "run_s": nodes["node"].map(run_s) / visited,
        }
    ).reset_index(drop=True)
