"""Goodput: how many requests a second are served as quickly as was promised."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd
from joblib import effective_n_jobs

from helixlab._equality import ByContent
from helixlab._validation import as_number
from helixlab.cluster import Cluster
from helixlab.errors import SimulationError, WorkloadError
from helixlab.experiments.bracket import Bracket, rates_ahead
from helixlab.experiments.objective import Objective, check_objective
from helixlab.experiments.rates import COLUMNS, YES_OR_NO, carry_out_rates
from helixlab.experiments.store import Store
from helixlab.experiments.sweep import Interrupted, seeds_of
from helixlab.experiments.workers import check_jobs, way_on
from helixlab.flow import max_flow
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.progress import bar

__all__ = ["Goodput", "goodput"]

MOST_TIMES_EXPECTED: Final = 16
"""Of the rate that a search for the goodput starts from: beyond it, the objective is none."""


@dataclass(frozen=True, eq=False)
class Goodput(ByContent):
    """The largest rate at which an objective is met, and the runs that showed it.

    Parameters
    ----------
    objective : Objective
    rate_tokens_per_s : float
        Prompt and decode tokens that arrive per second at that rate; 0 if none was found. In a partial one
        the largest rate at which the objective is known to be met: the goodput may be more.
    requests_per_s : float
        The same in queries.
    goodput_requests_per_s : float
        Of these, the ones that met the objective.
    runs : DataFrame
        The runs that the search went by, in the form of `rate_sweep`; in a partial one all that were begun.
    missed_at_tokens_per_s : float
        The smallest rate at which the objective is known to be missed; infinite if none is.
    partial : bool
        Whether the search was interrupted.
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
    n_jobs: int = 1,
    progress: bool | None = None,
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
        What counts as served in time, and for how many it must hold: with several seeds, for that part
        of the queries of all of them.
    tolerance : float
        The rate is found to within this part of itself.
    most_tokens_per_s : float, optional
        Where the search starts from; by default what the maximum flow promises, and twice that if the
        objective is met there.
    n_jobs : int
        Runs at a time, see `sweep`. Beyond one a seed, they are of rates that the search may come to next;
        what it finds, and its table of runs, is the same for any n_jobs.
    progress : bool, optional
        Show a progress bar of the rates tried, as for `sweep`.
    **settings
        Arguments of `rate_sweep` and `simulate`: warmup_s, duration_s, seeds, store, scheduler, execution,
        and so on.

    Returns
    -------
    Goodput

    Raises
    ------
    WorkloadError
        The tolerance makes no sense, the objective is met at any rate, or no query arrives in the
        first run; others as for `rate_sweep`.
    SimulationError
        A run failed; the message says at which rate and why.

    Warns
    -----
    UserWarning
        After Ctrl-C: workers are stopped, and what is known of the goodput by then is returned, marked as
        partial. Its runs have the marks of `rate_sweep`. What is in the store stays good: the same call goes
        on from there. Before any run has finished, KeyboardInterrupt is raised.

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
    seeds = seeds_of(settings.pop("seeds", 1))
    at_a_time = max(1, effective_n_jobs(check_jobs(n_jobs)) // len(seeds))
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
                    table = carry_out_rates(
                        cluster,
                        model,
                        placement,
                        rates_tokens_per_s=rates,
                        objective=objective,
                        seeds=seeds,
                        n_jobs=n_jobs,
                        progress=False,
                        **settings,
                    )
                    tried |= {each: rows for each, rows in table.groupby("rate_tokens_per_s")}
                    shown.update(len(rates))
                path.append(tried[rate])
                part = _attainment(tried[rate])
                if math.isnan(part) and len(path) == 1:
                    raise WorkloadError(
                        f"no query arrives in the window at {rate:g} tokens/s: simulate longer (duration_s),"
                        " or start the search higher with most_tokens_per_s"
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
        warnings.warn(_in_words(found, Store(settings.get("store"))), stacklevel=2)
        return found
    return _at(bracket, objective, tried, pd.concat(path))


def _at(
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
    """What is known at Ctrl-C, from whole rates and from those that were under way; None for nothing."""
    begun, known = [*tried.values()], dict(tried)
    if unfinished is not None:
        # Columns without a value have no type that would go with those of the rates that are whole.
        begun.append(unfinished.dropna(axis="columns", how="all") if begun else unfinished)
        known |= {each: rows for each, rows in unfinished.groupby("rate_tokens_per_s")}
    if not any(rows["error"].isna().any() for rows in known.values()):
        return None
    parts = {rate: _attainment(rows) for rate, rows in known.items() if rows["error"].isna().all()}
    met = {rate: part >= objective.attainment for rate, part in parts.items() if not math.isnan(part)}
    runs = pd.concat(begun)[COLUMNS]
    runs[YES_OR_NO] = runs[YES_OR_NO].astype("boolean")
    found = _at(bracket.narrowed(met), objective, known, runs)
    found.runs.attrs["partial"] = True
    return replace(found, partial=True)


def _in_words(found: Goodput, kept: Store) -> str:
    """How far an interrupted search came, and how to go on."""
    low, high = found.rate_tokens_per_s, found.missed_at_tokens_per_s
    met = f"met at {low:g} tokens/s" if low else "not known to be met at any rate"
    missed = f"missed at {high:g} tokens/s" if high < math.inf else "not known to be missed at any"
    finished = int(found.runs["error"].isna().sum())
    return f"goodput interrupted; the objective is {met} and {missed}; {way_on(finished, kept)}"


def _attainment(runs: pd.DataFrame) -> float:
    """Part of all queries of these runs that were served in time; NaN without queries."""
    failed = runs.dropna(subset="error")
    if len(failed):
        first = failed.iloc[0]
        raise SimulationError(
            f"at {first['rate_tokens_per_s']:g} tokens/s with seed {first['seed']}: {first['error']}"
        )
    queries = int(runs["queries"].sum())
    return int(runs["queries_in_time"].sum()) / queries if queries else math.nan
