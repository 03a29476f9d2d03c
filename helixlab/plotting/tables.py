"""Tables for figures: runs side by side, several runs of one method pooled.

A method may be several runs at once: separate pipelines are placements on parts of a cluster, each run on its
own. Their throughputs add up, and their latencies are those of one pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab.diagnosis.steady_state import load_of
from helixlab.errors import SimulationError, UnknownNameError
from helixlab.experiments.statistics import NOT_RUN, worst_load
from helixlab.plotting.style import in_order
from helixlab.simulation import Result
from helixlab.simulation.metrics import latency_metrics

__all__ = [
    "comparison_table",
    "is_partial",
    "latency_quantiles",
    "partial_methods",
    "require_columns",
    "window_latencies",
]

Runs = Mapping[str, Result | Sequence[Result]]
_NAMES: Final = ("placement", "placement_hash", "scheduler", "seed")
_SUMS: Final = (
    "decode_tokens_per_s",
    "max_flow_tokens_per_s",
    "requests_fed",
    "requests_finished",
    "requests_queued",
    "requests_dropped",
)


def window_latencies(result: Result | Sequence[Result], phase: str) -> pd.Series:
    """Collect the latencies in seconds of all iterations that ended in the measured windows of the runs.

    Parameters
    ----------
    result : Result or sequence of Result
        One run, or the runs of one method.
    phase : str
        ``"prompt"`` or ``"decode"``.

    Raises
    ------
    SimulationError
        The phase is unknown, or a run kept no iterations.
    """
    if phase not in ("prompt", "decode"):
        raise SimulationError(f"phase must be 'prompt' or 'decode', got {phase!r}")
    pieces = []
    for run in _listed(result):
        if run.iterations.empty and run.metrics["requests_finished"] > 0:
            raise SimulationError(
                f"{run!r} kept no iterations and so no latencies; simulate with keep_iterations=True"
            )
        ended = run.in_window(run.iterations)
        pieces.append(ended.loc[(ended["iteration"] == 0) == (phase == "prompt"), "latency_s"])
    return pd.concat(pieces, ignore_index=True)


def comparison_table(runs: Runs) -> pd.DataFrame:
    """Sum up each method in one row: throughput, flow and requests added over its runs, latencies pooled.

    Parameters
    ----------
    runs : mapping of str to Result or sequence of Result
        The runs of each method.

    Returns
    -------
    DataFrame
        Columns: method, placement, placement_hash, scheduler, seed (of several runs: each once, with a plus
        between), runs, partial (whether one of them was stopped), decode_tokens_per_s,
        max_flow_tokens_per_s, requests_fed, requests_finished, requests_queued,
        requests_dropped, for prompt and decode latency the mean and percentiles, as in `Result.summary`, and
        load, the worst of the runs, where all are online.
        Methods in the order in which figures show them.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=30, rng=0))
    >>> table = comparison_table({"helix": result, "twice": [result, result]})
    >>> one, two = table["decode_tokens_per_s"]
    >>> bool(two == 2 * one), bool(table["prompt_latency_p50_s"].nunique() == 1)
    (True, True)
    """
    rows = []
    for method in in_order(runs):
        several = _listed(runs[method])
        sums = {name: sum(run.metrics[name] for run in several) for name in _SUMS}
        figures = {
            name: value
            for phase in ("prompt", "decode")
            for name, value in latency_metrics(window_latencies(several, phase).to_numpy(), phase).items()
        }
        partial = any(run.metrics["partial"] for run in several)
        named = {name: _joined(run.metrics[name] for run in several) for name in _NAMES}
        load = (
            {"load": worst_load(load_of(run).label for run in several)}
            if all(run.metrics["mode"] == "online" for run in several)
            else {}
        )
        rows.append(
            {"method": method, **named, "runs": len(several), "partial": partial, **sums, **figures, **load}
        )
    return pd.DataFrame(rows)


def latency_quantiles(runs: Runs, phase: str, *, points: int = 201) -> pd.DataFrame:
    """Take quantiles of the latencies, few enough to draw, for `plot_latency_cdf`.

    Parameters
    ----------
    runs : mapping of str to Result or sequence of Result
        The runs of each method.
    phase : str
        ``"prompt"`` or ``"decode"``.
    points : int, default 201
        Number of quantiles of each method, evenly from 0 to 1.

    Returns
    -------
    DataFrame
        Columns: method, partial, quantile, latency_s. A method without a latency has no rows.
    """
    quantiles = np.linspace(0, 1, points)
    pieces = []
    for method in in_order(runs):
        latency_s = window_latencies(runs[method], phase)
        if len(latency_s):
            values = np.quantile(latency_s.to_numpy(), quantiles)
            partial = _is_partial(_listed(runs[method]))
            pieces.append(
                pd.DataFrame(
                    {"method": method, "partial": partial, "quantile": quantiles, "latency_s": values}
                )
            )
    columns = ["method", "partial", "quantile", "latency_s"]
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=columns)


def require_columns(table: pd.DataFrame, *names: str) -> None:
    """Refuse a table without a column that a plot needs, and say which columns it has.

    Raises
    ------
    UnknownNameError
        The table lacks a column.

    Examples
    --------
    >>> require_columns(pd.DataFrame({"method": ["helix"]}), "method", "mean")
    Traceback (most recent call last):
    helixlab.errors.UnknownNameError: unknown column 'mean'; Known: method
    """
    for name in names:
        if name not in table:
            raise UnknownNameError("column", name, list(map(str, table)))


def partial_methods(table: pd.DataFrame) -> set[str]:
    """Find the methods with a run that was stopped or not run; none where the table does not say."""
    return set(table.loc[_unfinished(table), "method"])


def is_partial(table: pd.DataFrame) -> bool:
    """Check whether a table of a sweep or of means lacks runs, or has runs that were stopped.

    Examples
    --------
    >>> table = pd.DataFrame({"scheduler": ["helix", "swarm"], "error": [None, "not run: interrupted"]})
    >>> is_partial(table), is_partial(table.head(1))
    (True, False)
    """
    # Rows that were not run may have been left out already; what a table is of is known all the same.
    return bool(table.attrs.get("partial")) or bool(_unfinished(table).any())


def _unfinished(table: pd.DataFrame) -> np.ndarray:
    """Mark the rows with a run that was stopped, or not run."""
    found = np.zeros(len(table), dtype=bool)
    if "partial" in table:
        found |= table["partial"].eq(True).to_numpy(dtype=bool)
    if "error" in table:
        found |= table["error"].eq(NOT_RUN).to_numpy(dtype=bool)
    if "not_run" in table:
        found |= table["not_run"].gt(0).to_numpy(dtype=bool)
    return found


def _joined(values: Iterable[Any]) -> Any:
    """Return the value that all share, or list each once."""
    once = list(dict.fromkeys(values))
    return once[0] if len(once) == 1 else " + ".join(map(str, once))


def _is_partial(several: Sequence[Result]) -> bool:
    return any(run.metrics["partial"] for run in several)


def _listed(result: Result | Sequence[Result]) -> list[Result]:
    return [result] if isinstance(result, Result) else list(result)
