"""Goodput: how many requests a second are served as quickly as was promised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from helixlab.cluster import Cluster
from helixlab.errors import WorkloadError
from helixlab.flow import max_flow
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.simulation import Result, simulate
from helixlab.workload import online

__all__ = ["Goodput", "Objective", "goodput", "query_latencies", "rate_sweep"]

MOST_TIMES_EXPECTED = 16
"""Of the rate that a search for the goodput starts from: beyond it, the objective is none."""
SATURATED_BELOW = 0.95
"""A system is saturated when it decodes less than this part of what is asked of it."""


@dataclass(frozen=True)
class Objective:
    """What users are promised, and how many of them must get it.

    Parameters
    ----------
    ttft_s : float
        Most seconds from arrival to the first token (time to first token).
    tpot_s : float
        Most seconds per token after it, on the mean over a query (time per output token).
    attainment : float
        Part of the queries for which both must hold.

    Raises
    ------
    WorkloadError
        A value makes no sense.

    Examples
    --------
    >>> Objective(ttft_s=5, tpot_s=1.5)
    Objective(ttft_s=5, tpot_s=1.5, attainment=0.9)
    """

    ttft_s: float
    tpot_s: float
    attainment: float = 0.9

    def __post_init__(self) -> None:
        for name, most in (("ttft_s", math.inf), ("tpot_s", math.inf), ("attainment", 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
                raise WorkloadError(f"{name} must be a number above 0 and at most {most:g}, got {value!r}")


@dataclass(frozen=True)
class Goodput:
    """The largest rate at which an objective is met, and the runs that showed it.

    Parameters
    ----------
    objective : Objective
    rate_tokens_per_s : float
        Prompt and decode tokens that arrive per second at that rate; 0 if none was found.
    requests_per_s : float
        The same in queries.
    goodput_requests_per_s : float
        Of these, the ones that met the objective.
    runs : DataFrame
        Every run tried, in the form of `rate_sweep`.
    """

    objective: Objective
    rate_tokens_per_s: float
    requests_per_s: float
    goodput_requests_per_s: float
    runs: pd.DataFrame


def query_latencies(result: Result) -> pd.DataFrame:
    """What the queries that arrived in the measured window had to wait for their tokens.

    Returns
    -------
    DataFrame
        Columns query, arrival_s, ttft_s, tpot_s; infinite for queries that were not served to their end.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> result = hx.simulate(*system, workload=hx.online(rate_tokens_per_s=100, duration_s=30))
    >>> bool((query_latencies(result)["ttft_s"] > 0).all())
    True
    """
    summary = result.summary.iloc[0]
    queries = result.queries[
        result.queries["arrival_s"].between(summary["window_start_s"], summary["window_end_s"])
    ].sort_values("query")
    finished = queries["outcome"] == "finished"
    ttft_s = queries["prompt_done_s"] - queries["arrival_s"]
    tpot_s = (queries["end_s"] - queries["prompt_done_s"]) / queries["output_tokens"]
    return pd.DataFrame(
        {
            "query": queries["query"],
            "arrival_s": queries["arrival_s"],
            "ttft_s": ttft_s.where(finished, np.inf),
            "tpot_s": tpot_s.where(finished, np.inf),
        }
    ).reset_index(drop=True)


def rate_sweep(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    rates_tokens_per_s: Sequence[float],
    objective: Objective,
    warmup_s: float = 600.0,
    duration_s: float = 1800.0,
    rng: int = 0,
    progress: bool = False,
    **settings: Any,
) -> pd.DataFrame:
    """Serve queries online at several rates.

    Parameters
    ----------
    cluster, model, placement
        As for `simulate`.
    rates_tokens_per_s : sequence of float
        Prompt and decode tokens that arrive per second.
    objective : Objective
        What counts as served in time.
    warmup_s, duration_s : float
        Queries arrive for `duration_s`; those of the warm-up are served but not counted. A query of
        240 tokens may take minutes: what is decoded reaches what is asked only after such a time.
    rng : int
        Seed of the requests, the same at every rate.
    progress : bool
        Show a progress bar.
    **settings
        Further arguments of `simulate`, such as scheduler and execution.

    Returns
    -------
    DataFrame
        A row for each rate: rate_tokens_per_s, requests_per_s (asked), attainment, goodput_requests_per_s,
        decode_tokens_per_s, asked_decode_tokens_per_s, saturated (less than 95 % of what is asked is
        decoded while it arrives), ttft_mean_s, ttft_p95_s, tpot_mean_s, tpot_p95_s, meets_objective.

    Raises
    ------
    WorkloadError, PlacementError, SchedulingError, SimulationError
        As for `online` and `simulate`.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> table = hx.rate_sweep(*system, rates_tokens_per_s=[50, 5000], duration_s=60, warmup_s=10,
    ...                       objective=hx.Objective(ttft_s=10, tpot_s=2))
    >>> table["meets_objective"].tolist()
    [True, False]
    """
    _check_objective(objective)
    rows = []
    for rate in tqdm(rates_tokens_per_s, desc="rates", disable=not progress, leave=False):
        workload = online(rate_tokens_per_s=rate, duration_s=duration_s, warmup_s=warmup_s, rng=rng)
        result = simulate(
            cluster,
            model,
            placement,
            workload=workload,
            **{"sample_step_s": 0, **settings},
        )
        rows.append({"rate_tokens_per_s": float(rate), **_figures(result, objective)})
    return pd.DataFrame(rows)


def _check_objective(objective: object) -> None:
    if not isinstance(objective, Objective):
        raise WorkloadError(f"objective must be an Objective(ttft_s=..., tpot_s=...), got {objective!r}")


def _figures(result: Result, objective: Objective) -> dict[str, Any]:
    summary = result.summary.iloc[0]
    window_s = float(summary["window_end_s"] - summary["window_start_s"])
    latencies = query_latencies(result)
    in_time = (latencies["ttft_s"] <= objective.ttft_s) & (latencies["tpot_s"] <= objective.tpot_s)
    attainment = float(in_time.mean()) if len(latencies) else math.nan
    arriving_s = float(summary["window_end_s"] - summary["start_s"])
    asked = result.queries["output_tokens"].sum() / arriving_s
    decoded = float(summary["decode_tokens_per_s"])
    figures: dict[str, Any] = {
        "requests_per_s": len(latencies) / window_s,
        "attainment": attainment,
        "goodput_requests_per_s": float(in_time.sum()) / window_s,
        "decode_tokens_per_s": decoded,
        "asked_decode_tokens_per_s": float(asked),
        "saturated": bool(decoded < SATURATED_BELOW * asked),
    }
    for what in ("ttft_s", "tpot_s"):
        values = latencies[what].to_numpy()
        name = what.removesuffix("_s")
        figures[f"{name}_mean_s"] = float(values.mean()) if len(values) else math.nan
        figures[f"{name}_p95_s"] = (
            float(np.quantile(values, 0.95, method="higher")) if len(values) else math.nan
        )
    return figures | {"meets_objective": bool(attainment >= objective.attainment)}


def goodput(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    objective: Objective,
    tolerance: float = 0.02,
    most_tokens_per_s: float | None = None,
    progress: bool = False,
    **settings: Any,
) -> Goodput:
    """The largest rate of queries for which an objective is met, by bisection over online runs.

    Goodput is what DistServe (Zhong et al., OSDI 2024) calls the requests per second that are served
    within their latency objectives.

    Parameters
    ----------
    cluster, model, placement
        As for `simulate`.
    objective : Objective
        What counts as served in time, and for how many it must hold.
    tolerance : float
        The rate is found to within this part of itself.
    most_tokens_per_s : float, optional
        Where the search starts from; by default what the maximum flow promises, and twice that if the
        objective is met there.
    progress : bool
        Show a progress bar of the runs.
    **settings
        Arguments of `rate_sweep` and `simulate`: warmup_s, duration_s, rng, scheduler, execution, ...

    Returns
    -------
    Goodput

    Raises
    ------
    WorkloadError
        The tolerance makes no sense, the objective is met at any rate, or no query arrives in the
        first run; others as for `rate_sweep`.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> found = hx.goodput(*system, objective=hx.Objective(ttft_s=20, tpot_s=3), tolerance=0.2,
    ...                    warmup_s=10, duration_s=60)
    >>> 0 < found.goodput_requests_per_s <= found.requests_per_s
    True
    """
    _check_objective(objective)
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 < tolerance < 1:
        raise WorkloadError(f"tolerance must be between 0 and 1, got {tolerance!r}")
    most = most_tokens_per_s
    if most is None:
        most = max_flow(cluster, model, placement).value_tokens_per_s
    low, high = 0.0, math.inf
    rate = most
    runs: list[pd.DataFrame] = []
    with tqdm(desc="goodput", unit="run", disable=not progress, leave=False) as bar:
        while True:
            run = rate_sweep(
                cluster, model, placement, rates_tokens_per_s=[rate], objective=objective, **settings
            )
            runs.append(run)
            bar.update()
            if len(runs) == 1 and run["attainment"].isna().item():
                raise WorkloadError(
                    f"no query arrives in the window at {rate:g} tokens/s: simulate longer (duration_s), or"
                    " start the search higher with most_tokens_per_s"
                )
            if run["meets_objective"].item():
                low = rate
            else:
                high = rate
            if high == math.inf:
                if rate > MOST_TIMES_EXPECTED * most:
                    raise WorkloadError(
                        f"{objective} is still met at {rate:g} tokens/s; ask for something tighter, or start"
                        " the search higher with most_tokens_per_s"
                    )
                rate = 2 * rate
            elif low == 0 and rate < 1e-3 * most:
                break  # it is not met even by a trickle
            elif high - low <= tolerance * high:
                break
            else:
                rate = (low + high) / 2
    table = pd.concat(runs, ignore_index=True).sort_values("rate_tokens_per_s", ignore_index=True)
    best = table[table["rate_tokens_per_s"] == low]
    if best.empty:
        return Goodput(objective, 0.0, 0.0, 0.0, table)
    row = best.iloc[0]
    return Goodput(
        objective,
        low,
        float(row["requests_per_s"]),
        float(row["goodput_requests_per_s"]),
        table,
    )
