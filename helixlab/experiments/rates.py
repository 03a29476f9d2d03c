"""Rate sweeps: how well queries are served as more and more arrive."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab.cluster import Cluster
from helixlab.errors import UnknownNameError, WorkloadError
from helixlab.experiments.grid import KEYS
from helixlab.experiments.objective import Objective, check_objective
from helixlab.experiments.sweep import Interrupted, carry_out_grid
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.workload import online

__all__ = ["carry_out_rates", "rate_sweep"]

COLUMNS: Final = [
    "rate_tokens_per_s",
    "seed",
    "queries",
    "queries_in_time",
    "requests_per_s",
    "attainment",
    "goodput_requests_per_s",
    "decode_tokens_per_s",
    "asked_decode_tokens_per_s",
    "saturated",
    "ttft_mean_s",
    "ttft_p95_s",
    "tpot_mean_s",
    "tpot_p95_s",
    "meets_objective",
    "error",
]
SETTINGS: Final = [key for key in KEYS if key not in ("cluster", "model", "placement", "workload")]
OWN: Final = ("warmup_s", "duration_s", "seeds", "n_jobs", "store", "progress")
"""Arguments that may be given; the workload is made of them."""
LATENCIES: Final = ["ttft_mean_s", "ttft_p95_s", "tpot_mean_s", "tpot_p95_s"]
YES_OR_NO: Final = ["saturated", "meets_objective"]
WARMUP_S: Final = 600.0
DURATION_S: Final = 1800.0


def rate_sweep(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    rates_tokens_per_s: Sequence[float],
    objective: Objective,
    warmup_s: float = WARMUP_S,
    duration_s: float = DURATION_S,
    seeds: int | Iterable[int] = 1,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
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
    seeds, n_jobs, store, progress
        As for `sweep`: seeds of the requests, the same at every rate; runs at a time; where finished runs
        are kept.
    **settings
        Further arguments of `simulate`, such as scheduler and execution.

    Returns
    -------
    DataFrame
        A row for each rate and seed: rate_tokens_per_s, seed, queries (that arrived in the window),
        queries_in_time, requests_per_s (asked), attainment, goodput_requests_per_s, decode_tokens_per_s,
        asked_decode_tokens_per_s, saturated (the queue grows for as long as queries come, see
        `helixlab.diagnosis.steadiness.load`), ttft_mean_s, ttft_p95_s, tpot_mean_s, tpot_p95_s (infinite if
        queries are not served), meets_objective; and ``error``: None, or what went wrong with this run,
        which then has no figures.

    Raises
    ------
    WorkloadError
        A rate, the objective, the warm-up or the duration makes no sense.
    SweepError, UnknownNameError
        As for `sweep`.

    Warns
    -----
    UserWarning
        After Ctrl-C, as `sweep`: the runs that have finished are returned, the others have ``"not run:
        interrupted"`` for their ``error``, and ``attrs["partial"]`` of the table is True.

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
    try:
        return carry_out_rates(
            cluster,
            model,
            placement,
            rates_tokens_per_s=rates_tokens_per_s,
            objective=objective,
            warmup_s=warmup_s,
            duration_s=duration_s,
            seeds=seeds,
            n_jobs=n_jobs,
            store=store,
            progress=progress,
            **settings,
        )
    except Interrupted as interrupted:
        warnings.warn(str(interrupted), stacklevel=2)
        return interrupted.runs


def carry_out_rates(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    rates_tokens_per_s: Sequence[float],
    objective: Objective,
    warmup_s: float = WARMUP_S,
    duration_s: float = DURATION_S,
    seeds: int | Iterable[int] = 1,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """`rate_sweep`, which raises after Ctrl-C.

    Raises
    ------
    Interrupted
        After Ctrl-C; others as for `rate_sweep`.
    """
    check_objective(objective)
    rates = list(rates_tokens_per_s) if isinstance(rates_tokens_per_s, Iterable) else []
    if not rates or isinstance(rates_tokens_per_s, str):
        raise WorkloadError(f"rates_tokens_per_s is {rates_tokens_per_s!r}; give a list of at least one rate")
    for name in settings:
        if name not in SETTINGS:
            raise UnknownNameError("argument", name, [*OWN, *SETTINGS])
    common = {"cluster": cluster, "model": model, "placement": placement, **settings}
    points = [
        {**common, "workload": online(rate_tokens_per_s=rate, duration_s=duration_s, warmup_s=warmup_s)}
        for rate in rates
    ]
    try:
        runs = carry_out_grid(
            points,
            objective=objective,
            seeds=seeds,
            n_jobs=n_jobs,
            store=store,
            progress=progress,
            what="rate_sweep",
        )
    except Interrupted as interrupted:
        raise Interrupted(str(interrupted), _served(interrupted.runs)) from None
    return _served(runs)


def _served(runs: pd.DataFrame) -> pd.DataFrame:
    """The columns of a rate sweep, from those of a sweep."""
    runs = runs[COLUMNS]
    # A run's figures are kept without infinities, which JSON does not know; where queries came there is a
    # mean, so that what is missing was infinite.
    runs[LATENCIES] = runs[LATENCIES].mask(
        runs[LATENCIES].isna() & runs[["queries"]].gt(0).to_numpy(), np.inf
    )
    runs[YES_OR_NO] = runs[YES_OR_NO].astype("boolean" if runs["error"].notna().any() else "bool")
    return runs
