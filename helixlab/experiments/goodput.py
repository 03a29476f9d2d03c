"""Goodput: requests per second served within latency objectives, and the rate sweeps behind it."""

from __future__ import annotations

import math
import os
import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from joblib import effective_n_jobs

from helixlab._equality import ByContent
from helixlab._progress import bar
from helixlab._validation import as_jobs, as_number
from helixlab.cluster import Cluster
from helixlab.errors import SimulationError, SweepError, UnknownNameError, WorkloadError
from helixlab.experiments.objectives import Objective, check_objective
from helixlab.experiments.runner import Store, resume_hint
from helixlab.experiments.sweep import KEYS, Interrupted, run_grid, seeds_of
from helixlab.flow import max_flow
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.workload import online

__all__ = ["Bracket", "Goodput", "goodput", "rate_sweep", "rates_ahead"]

WARMUP_S: Final = 600.0
DURATION_S: Final = 1800.0
COLUMNS: Final = [
    "rate_tokens_per_s",
    "seed",
    "requests",
    "requests_in_time",
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
LATENCIES: Final = ["ttft_mean_s", "ttft_p95_s", "tpot_mean_s", "tpot_p95_s"]
FLAGS: Final = ["saturated", "meets_objective"]
SETTINGS: Final = [key for key in KEYS if key not in ("cluster", "model", "placement", "workload")]
"""Arguments of `simulate` that may be given beside the named ones."""
NAMED: Final = ("warmup_s", "duration_s", "seeds", "n_jobs", "store", "progress")
LEAST_OF_EXPECTED: Final = 1e-3
"""Part of the rate a search starts from, below which it ends without a goodput."""
MOST_TIMES_EXPECTED: Final = 16
"""Multiple of the rate a search starts from, beyond which the objective asks for nothing."""


@dataclass(frozen=True)
class _RateSweep:
    """Arguments of a rate sweep but for its rates, checked when they are used."""

    system: Mapping[str, Any]
    objective: Objective
    warmup_s: float
    duration_s: float
    seeds: int | Iterable[int]
    n_jobs: int
    store: str | os.PathLike[str] | None

    def run(self, rates: Sequence[float], progress: bool | None) -> pd.DataFrame:
        """Serve requests at these rates.

        Raises
        ------
        Interrupted
            After Ctrl-C; others as for `rate_sweep`.
        """
        for name in self.system:
            if name not in (*SETTINGS, "cluster", "model", "placement"):
                raise UnknownNameError("argument", name, [*NAMED, *SETTINGS])
        workloads = [
            online(rate_tokens_per_s=rate, duration_s=self.duration_s, warmup_s=self.warmup_s)
            for rate in rates
        ]
        points = [{**self.system, "workload": workload} for workload in workloads]
        try:
            runs = run_grid(
                points,
                objective=self.objective,
                seeds=self.seeds,
                n_jobs=self.n_jobs,
                store=self.store,
                progress=progress,
                caller="rate_sweep",
            )
        except Interrupted as interrupted:
            raise Interrupted(str(interrupted), _rate_columns(interrupted.runs)) from None
        return _rate_columns(runs)


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
    """Serve requests online at several rates.

    Parameters
    ----------
    cluster, model, placement
        As for `simulate`.
    rates_tokens_per_s : sequence of float
        Prompt and decode tokens that arrive per second.
    objective : Objective
        Latency objective that requests are measured by.
    warmup_s, duration_s : float
        Requests arrive for `duration_s`; those of the warm-up are served but not counted. A request of
        240 tokens may take minutes; only after that long do decoded tokens keep up with those asked.
    seeds, n_jobs, store, progress
        As for `sweep`: seeds of the requests, the same at every rate; number of runs at a time; folder that
        keeps finished runs; progress bar.
    **settings
        Further arguments of `simulate`, such as scheduler and execution.

    Returns
    -------
    DataFrame
        A row for each rate and seed: rate_tokens_per_s, seed, requests (that arrived in the window),
        requests_in_time, requests_per_s (asked), attainment, goodput_requests_per_s, decode_tokens_per_s,
        asked_decode_tokens_per_s, saturated (the queue grows for as long as requests come, see
        `helixlab.diagnosis.steady_state.load`), ttft_mean_s, ttft_p95_s, tpot_mean_s, tpot_p95_s (infinite if
        requests are not served), meets_objective; and ``error``: None, or what went wrong with this run,
        whose metrics are then missing.

    Raises
    ------
    WorkloadError
        A rate, the objective, the warm-up or the duration makes no sense.
    SweepError, UnknownNameError
        As for `sweep`.

    Warns
    -----
    UserWarning
        After Ctrl-C, as for `sweep`: the finished runs are returned, the others have ``"not run:
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
    check_objective(objective)
    rates = list(rates_tokens_per_s) if isinstance(rates_tokens_per_s, Iterable) else []
    if not rates or isinstance(rates_tokens_per_s, str):
        raise WorkloadError(f"rates_tokens_per_s is {rates_tokens_per_s!r}; give a list of at least one rate")
    system = {"cluster": cluster, "model": model, "placement": placement, **settings}
    try:
        return _RateSweep(system, objective, warmup_s, duration_s, seeds, n_jobs, store).run(rates, progress)
    except Interrupted as interrupted:
        warnings.warn(str(interrupted), stacklevel=2)
        return interrupted.runs


def _rate_columns(runs: pd.DataFrame) -> pd.DataFrame:
    """Make the columns of a rate sweep from those of a sweep."""
    runs = runs[COLUMNS]
    # Metrics are kept without infinities, which JSON does not know. Where requests arrived there is a mean,
    # so that a missing one was infinite.
    runs[LATENCIES] = runs[LATENCIES].mask(
        runs[LATENCIES].isna() & runs[["requests"]].gt(0).to_numpy(), np.inf
    )
    runs[FLAGS] = runs[FLAGS].astype("boolean" if runs["error"].notna().any() else "bool")
    return runs


@dataclass(frozen=True, eq=False)
class Goodput(ByContent):
    """Largest rate at which an objective is met, and the runs that show it.

    Parameters
    ----------
    objective : Objective
        Latency objective that was searched for.
    rate_tokens_per_s : float
        Prompt and decode tokens that arrive per second at that rate; 0 if none was found. After an
        interruption, the largest rate at which the objective is known to be met: the goodput may be more.
    requests_per_s : float
        Requests that arrive per second at that rate.
    goodput_requests_per_s : float
        Requests per second that met the objective.
    runs : DataFrame
        Runs that decided the search, in the form of `rate_sweep`; after an interruption, all that were begun.
    missed_at_tokens_per_s : float
        Smallest rate at which the objective is known to be missed; infinite if there is none.
    partial : bool
        True if the search was interrupted.
    """

    objective: Objective
    rate_tokens_per_s: float
    requests_per_s: float
    goodput_requests_per_s: float
    runs: pd.DataFrame
    missed_at_tokens_per_s: float = math.inf
    partial: bool = False

    def __repr__(self) -> str:
        what = "Partial goodput" if self.partial else "Goodput"
        high = self.missed_at_tokens_per_s
        missed = f", missed at {high:g} tokens/s" if high < math.inf else ""
        return (
            f"{what}({self.goodput_requests_per_s:.3g} requests/s in time at {self.rate_tokens_per_s:g}"
            f" tokens/s{missed})"
        )


def goodput(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    objective: Objective,
    tolerance: float = 0.02,
    most_tokens_per_s: float | None = None,
    warmup_s: float = WARMUP_S,
    duration_s: float = DURATION_S,
    seeds: int | Iterable[int] = 1,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Goodput:
    """Search for the largest rate of requests at which an objective is met, by bisection over online runs.

    Goodput is what DistServe (Zhong et al., OSDI 2024) calls the requests per second that are served
    within their latency objectives.

    Parameters
    ----------
    cluster, model, placement
        As for `simulate`.
    objective : Objective
        Latency objective. With several seeds, its attainment is that of the requests of all of them.
    tolerance : float
        Relative tolerance of the rate.
    most_tokens_per_s : float, optional
        Rate that the search starts from; by default the maximum flow, and twice that if the objective is met
        there.
    warmup_s, duration_s, seeds, store
        As for `rate_sweep`.
    n_jobs : int
        Number of runs at a time, see `sweep`. Beyond one per seed, they are of rates that the search may come
        to next; its result, and its table of runs, is the same for any n_jobs.
    progress : bool, optional
        Show a progress bar of the rates tried, as for `sweep`.
    **settings
        Further arguments of `simulate`, such as scheduler and execution.

    Returns
    -------
    Goodput

    Raises
    ------
    WorkloadError
        The tolerance makes no sense, the objective is met at any rate, or no request arrives in the
        first run; others as for `rate_sweep`.
    SimulationError
        A run failed; the message says at which rate and why.

    Warns
    -----
    UserWarning
        After Ctrl-C: workers are stopped, and what is known of the goodput by then is returned, marked as
        partial. Its runs have the marks of `rate_sweep`. The store stays valid: the same call goes on from
        there. Before any run has finished, KeyboardInterrupt is raised.

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
    check_objective(objective)
    tolerance = as_number(tolerance, "tolerance", above=0, below=1, error=WorkloadError)
    if most_tokens_per_s is not None:
        most_tokens_per_s = as_number(most_tokens_per_s, "most_tokens_per_s", above=0, error=WorkloadError)
    seeds = seeds_of(seeds)
    at_a_time = max(1, effective_n_jobs(as_jobs(n_jobs, error=SweepError)) // len(seeds))
    system = {"cluster": cluster, "model": model, "placement": placement, **settings}
    sweep = _RateSweep(system, objective, warmup_s, duration_s, seeds, n_jobs, store)
    most = most_tokens_per_s
    if most is None:
        most = max_flow(cluster, model, placement).value_tokens_per_s
    bracket, path = Bracket(0.0, math.inf), []
    tried: dict[Any, pd.DataFrame] = {}
    try:
        with bar(progress, desc="goodput", unit="rate", leave=False) as shown:
            while (rate := bracket.next_rate(most, tolerance)) is not None:
                if rate not in tried:
                    rates = rates_ahead(bracket, most, tolerance, at_a_time)
                    table = sweep.run(rates, progress=False)
                    tried |= {each: rows for each, rows in table.groupby("rate_tokens_per_s")}
                    shown.update(len(rates))
                path.append(tried[rate])
                part = _attainment(tried[rate])
                if math.isnan(part) and len(path) == 1:
                    raise WorkloadError(
                        f"no request arrives in the window at {rate:g} tokens/s: simulate longer"
                        " (duration_s), or start the search higher with most_tokens_per_s"
                    )
                bracket = bracket.after(rate, met=part >= objective.attainment)
                if bracket.high == math.inf and rate > MOST_TIMES_EXPECTED * most:
                    raise WorkloadError(
                        f"{objective} is still met at {rate:g} tokens/s; ask for something tighter, or start"
                        " the search higher with most_tokens_per_s"
                    )
    except KeyboardInterrupt as stopped:
        unfinished = stopped.runs if isinstance(stopped, Interrupted) else None
        found = _so_far(objective, bracket, tried, unfinished)
        if found is None:
            raise
        warnings.warn(_interruption(found, Store(store)), stacklevel=2)
        return found
    return _goodput_at(bracket, objective, tried, pd.concat(path))


class Bracket(NamedTuple):
    """Bracket of the goodput.

    Parameters
    ----------
    low : float
        Largest rate at which the objective is known to be met; 0 for none.
    high : float
        Smallest rate at which it is known to be missed; infinite for none.
    """

    low: float
    high: float

    def next_rate(self, most: float, tolerance: float) -> float | None:
        """Choose the rate to try next; None at the end of the search."""
        if self.high == math.inf:
            return 2 * self.low if self.low else most
        if self.low == 0 and self.high < LEAST_OF_EXPECTED * most:
            return None  # not met even by a trickle
        if self.high - self.low <= tolerance * self.high:
            return None
        return (self.low + self.high) / 2

    def after(self, rate: float, met: bool) -> Bracket:
        """Narrow the bracket by a rate inside of it, at which the objective is met or missed."""
        return Bracket(rate, self.high) if met else Bracket(self.low, rate)

    def narrowed(self, met: Mapping[float, bool]) -> Bracket:
        """Narrow the bracket by rates in any order, as the search would have done one by one.

        Examples
        --------
        >>> Bracket(50, 200).narrowed({25: False, 75: True, 100: False, 150: True})
        Bracket(low=75, high=100)
        """
        inside = {rate: is_met for rate, is_met in met.items() if self.low < rate < self.high}
        high = min([self.high, *(rate for rate, is_met in inside.items() if not is_met)])
        low = max([self.low, *(rate for rate, is_met in inside.items() if is_met and rate < high)])
        return Bracket(low, high)


def rates_ahead(bracket: Bracket, most: float, tolerance: float, count: int) -> list[float]:
    """List rates that the search may come to next: the nearest first, lower ones before higher ones."""
    rates: list[float] = []
    brackets = deque([bracket])
    while brackets and len(rates) < count:
        each = brackets.popleft()
        rate = each.next_rate(most, tolerance)
        if rate is None:
            continue
        rates.append(rate)
        brackets.append(each.after(rate, met=False))
        if each.high < math.inf:  # upwards without end only step by step: overload is slow to simulate
            brackets.append(each.after(rate, met=True))
    return rates


def _goodput_at(
    bracket: Bracket, objective: Objective, tried: Mapping[Any, pd.DataFrame], runs: pd.DataFrame
) -> Goodput:
    best = tried.get(bracket.low)
    return Goodput(
        objective,
        bracket.low,
        0.0 if best is None else float(best["requests_per_s"].mean()),
        0.0 if best is None else float(best["goodput_requests_per_s"].mean()),
        runs.sort_values(["rate_tokens_per_s", "seed"], ignore_index=True),
        missed_at_tokens_per_s=bracket.high,
    )


def _so_far(
    objective: Objective,
    bracket: Bracket,
    tried: Mapping[Any, pd.DataFrame],
    unfinished: pd.DataFrame | None,
) -> Goodput | None:
    """Judge the rates so far at Ctrl-C, finished and unfinished; None if nothing has run."""
    begun, known = [*tried.values()], dict(tried)
    if unfinished is not None:
        # Columns without a value have no type that goes with those of finished rates.
        begun.append(unfinished.dropna(axis="columns", how="all") if begun else unfinished)
        known |= {each: rows for each, rows in unfinished.groupby("rate_tokens_per_s")}
    if not any(rows["error"].isna().any() for rows in known.values()):
        return None
    parts = {rate: _attainment(rows) for rate, rows in known.items() if rows["error"].isna().all()}
    met = {rate: part >= objective.attainment for rate, part in parts.items() if not math.isnan(part)}
    runs = pd.concat(begun)[COLUMNS]
    runs[FLAGS] = runs[FLAGS].astype("boolean")
    found = _goodput_at(bracket.narrowed(met), objective, known, runs)
    found.runs.attrs["partial"] = True
    return replace(found, partial=True)


def _interruption(found: Goodput, store: Store) -> str:
    """Say how far an interrupted search came, and how to go on."""
    low, high = found.rate_tokens_per_s, found.missed_at_tokens_per_s
    met = f"met at {low:g} tokens/s" if low else "not known to be met at any rate"
    missed = f"missed at {high:g} tokens/s" if high < math.inf else "not known to be missed at any"
    finished = int(found.runs["error"].isna().sum())
    return f"goodput interrupted; the objective is {met} and {missed}; {resume_hint(finished, store)}"


def _attainment(runs: pd.DataFrame) -> float:
    """Compute the part of all requests of these runs that were served in time; NaN without requests."""
    failed = runs.dropna(subset="error")
    if len(failed):
        first = failed.iloc[0]
        raise SimulationError(
            f"at {first['rate_tokens_per_s']:g} tokens/s with seed {first['seed']}: {first['error']}"
        )
    requests = int(runs["requests"].sum())
    return int(runs["requests_in_time"].sum()) / requests if requests else math.nan
