"""Search for the chunk and batch limits that suit a placement."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab._equality import ByContent
from helixlab._validation import as_number
from helixlab.cluster import Cluster
from helixlab.errors import SimulationError
from helixlab.execution import Execution, chunked
from helixlab.experiments.runner import Store, resume_hint
from helixlab.experiments.statistics import NOT_RUN
from helixlab.experiments.sweep import Interrupted, run_grid
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.workload import Workload, offline

__all__ = ["Tuning", "tune_execution"]

CHUNK_TOKENS: Final = (32, 64, 128, 256, 512)
MAX_DECODE_PER_BATCH: Final = (16, 32, 48, 64, 128)
MAX_PROMPT_CHUNKS_PER_BATCH: Final = (1, 2)
FINALISTS: Final = 6
SHORT_WARMUP_S: Final = 300.0
SHORT_DURATION_S: Final = 150.0


@dataclass(frozen=True, eq=False)
class Tuning(ByContent):
    """Result of `tune_execution`.

    Parameters
    ----------
    execution : Execution
        Best policy that keeps to the limits. In a partial tuning, the best of what has run; ``meets_goal`` of
        the first finalist says whether it keeps to the limits.
    finalists : DataFrame
        Runs that it was chosen from, best first, with the columns of `sweep`. ``meets_goal`` says whether
        the run kept to the limits; ``on_frontier``, whether no other such run is at least as good in
        throughput, mean decode latency and p95 prompt latency, and better in one of them. In a partial
        tuning these are short runs if no final run has ended well.
    candidates : DataFrame
        Short runs in which all candidates were tried first.
    partial : bool
        True if the search was interrupted; its tables then have ``attrs["partial"]`` and the marks of
        `sweep`.
    """

    execution: Execution
    finalists: pd.DataFrame
    candidates: pd.DataFrame
    partial: bool = False

    def __repr__(self) -> str:
        what, best = "Partial tuning" if self.partial else "Tuning", self.finalists.iloc[0]
        ran = int((self.candidates["error"] != NOT_RUN).sum())
        return (
            f"{what}({self.execution!r}: {best['decode_tokens_per_s']:.1f} decode tokens/s; the best of {ran}"
            f" that ran, of {len(self.candidates)})"
        )


def tune_execution(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    p95_decode_latency_s: float | None = None,
    p95_prompt_latency_s: float | None = 20.0,
    chunk_tokens: int | Iterable[int] = CHUNK_TOKENS,
    max_decode_per_batch: int | Iterable[int | None] | None = MAX_DECODE_PER_BATCH,
    max_prompt_chunks_per_batch: int | Iterable[int | None] | None = MAX_PROMPT_CHUNKS_PER_BATCH,
    scheduler: Any = "helix",
    workload: Workload | None = None,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    memory_floor: bool = True,
    prompt_cost_factor: float = 1.0,
    kv_reread_factor: float = 1.0,
) -> Tuning:
    """Pick chunk and batch limits by simulation, for the highest throughput within limits on latency.

    Every combination runs briefly; the best ones run again for as long as `workload` says.

    Parameters
    ----------
    cluster, model, placement
        As for `simulate`.
    p95_decode_latency_s, p95_prompt_latency_s : float, optional
        Largest 95th percentile of the latency, in seconds; None for no limit. Small chunks may overload the
        slowest node, which shows in prompts that take tens of seconds.
    chunk_tokens, max_decode_per_batch, max_prompt_chunks_per_batch : int or sequence of int
        Values to try, see `chunked`; None for no limit but the machine's.
    scheduler : str or Scheduler
        Scheduler that routes the requests.
    workload : Workload, optional
        Workload of the final runs; by default offline, 600 s after 600 s of warm-up.
    n_jobs, store, progress
        As for `sweep`.
    memory_floor, prompt_cost_factor, kv_reread_factor
        As for `chunked`.

    Returns
    -------
    Tuning

    Raises
    ------
    SimulationError
        No candidate keeps to the limits (the message says how close the best came), none can be run, or an
        argument makes no sense.
    SchedulingError
        A value to try makes no sense.

    Warns
    -----
    UserWarning
        After Ctrl-C: workers are stopped, and the best of what has run by then is returned, marked as
        partial. The store stays valid: the same call goes on from there. Before any run has finished,
        KeyboardInterrupt is raised.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> tuning = hx.tune_execution(*system, chunk_tokens=[64, 256], max_decode_per_batch=[8, 32],
    ...                            max_prompt_chunks_per_batch=[1], p95_prompt_latency_s=None,
    ...                            workload=hx.offline(warmup_s=30, duration_s=60))
    >>> tuning.execution.chunk_tokens in (64, 256)
    True
    """
    final = offline(warmup_s=600.0, duration_s=600.0) if workload is None else workload
    if not isinstance(final, Workload):
        raise SimulationError(f"workload is {workload!r}; make a workload with offline(...) or online(...)")
    given = {
        "decode_latency_p95_s": _limit("p95_decode_latency_s", p95_decode_latency_s),
        "prompt_latency_p95_s": _limit("p95_prompt_latency_s", p95_prompt_latency_s),
    }
    limits = {name: limit for name, limit in given.items() if limit is not None}
    short = final
    if not final.online:
        short = offline(
            initial_requests=final.initial_requests,
            warmup_s=min(SHORT_WARMUP_S, final.warmup_s),
            duration_s=min(SHORT_DURATION_S, final.duration_s),
            rng=final.seed,
            requests=final.requests,
            **({} if final.requests is not None else {"trace": final.trace}),
        )
    policies = [
        chunked(
            chunk_tokens=chunk,
            max_decode_per_batch=decodes,
            max_prompt_chunks_per_batch=chunks,
            memory_floor=memory_floor,
            prompt_cost_factor=prompt_cost_factor,
            kv_reread_factor=kv_reread_factor,
        )
        for chunk in _several(chunk_tokens)
        for decodes in _several(max_decode_per_batch)
        for chunks in _several(max_prompt_chunks_per_batch)
    ]
    if not policies:
        raise SimulationError(
            "there is nothing to try: give at least one value each of chunk_tokens, max_decode_per_batch and"
            " max_prompt_chunks_per_batch"
        )

    def run(rows: Sequence[int], served: Workload) -> pd.DataFrame:
        """Run these policies; best first, each under the number of its policy."""
        common = {"cluster": cluster, "model": model, "placement": placement, "scheduler": scheduler}
        points = [{**common, "execution": policies[row], "workload": served} for row in rows]
        options: dict[str, Any] = {
            "seeds": [served.seed],
            "n_jobs": n_jobs,
            "store": store,
            "progress": progress,
        }
        runs = None
        try:
            runs = run_grid(points, **options, caller="tune_execution")
            return _ranked(runs, rows, limits)
        except KeyboardInterrupt as stopped:  # it may come when all has run already
            runs = stopped.runs if isinstance(stopped, Interrupted) else runs
            if runs is None:
                raise
            raise Interrupted(str(stopped), _ranked(runs, rows, limits)) from None

    candidates = finals = None
    try:
        candidates = run(range(len(policies)), short)
        finalists = candidates if short == final else run(candidates.index[:FINALISTS].tolist(), final)
    except KeyboardInterrupt as stopped:
        unfinished = stopped.runs if isinstance(stopped, Interrupted) else None
        if candidates is None:
            candidates = unfinished
        else:
            finals = unfinished
        found = _so_far(policies, candidates, finals)
        if found is None:
            raise
        warnings.warn(_interruption(found, [candidates, finals], limits, Store(store)), stacklevel=2)
        return found
    if finalists["error"].notna().all():
        raise SimulationError(f"no candidate could be run: {finalists['error'].iloc[0]}")
    if not finalists["meets_goal"].any():
        wanted = _wanted(limits)
        lowest = finalists[list(limits)].min().to_dict()
        raise SimulationError(
            f"no candidate keeps to {wanted}: the lowest were {lowest}; allow more, or try other values"
        )
    return Tuning(
        policies[finalists.index[0]], finalists.reset_index(drop=True), candidates.reset_index(drop=True)
    )


def _several(values: Any) -> list[Any]:
    single = isinstance(values, str) or getattr(values, "ndim", 1) == 0
    return list(values) if isinstance(values, Iterable) and not single else [values]


def _limit(name: str, value: Any) -> float | None:
    if value is None:
        return None
    mend = "a number above 0, or None for no limit"
    return as_number(value, name, above=0, most=math.inf, mend=mend, error=SimulationError)


def _wanted(limits: Mapping[str, float]) -> str:
    return ", ".join(f"{name} <= {limit:g}" for name, limit in limits.items())


def _ranked(runs: pd.DataFrame, rows: Sequence[int], limits: Mapping[str, float]) -> pd.DataFrame:
    """Sort the runs of the policies with these numbers: best first, those that did not run last."""
    runs.index = pd.Index(rows)
    within = [runs[name] <= limit for name, limit in limits.items()]
    runs["meets_goal"] = np.logical_and.reduce([runs["error"].isna(), *within])
    runs["on_frontier"] = _on_frontier(runs[runs["meets_goal"]]).reindex(runs.index, fill_value=False)
    return runs.sort_values(["meets_goal", "decode_tokens_per_s"], ascending=False, kind="stable")


def _so_far(
    policies: Sequence[Execution], candidates: pd.DataFrame | None, finals: pd.DataFrame | None
) -> Tuning | None:
    """Choose the best of what has run at Ctrl-C; None if nothing has."""
    if candidates is None:
        return None
    finalists = candidates
    if finals is not None:
        # A policy that missed the goal in its final run is out, whatever its short run showed.
        known = finals.index[finals["error"] != NOT_RUN]
        finalists = finals if finals["meets_goal"].any() else candidates.drop(index=known)
    if finalists["error"].notna().all():
        return None
    best = finalists.index[0]
    finalists, candidates = finalists.reset_index(drop=True), candidates.reset_index(drop=True)
    finalists.attrs["partial"] = candidates.attrs["partial"] = True
    return Tuning(policies[best], finalists, candidates, partial=True)


def _interruption(
    found: Tuning, tables: Iterable[pd.DataFrame | None], limits: Mapping[str, float], store: Store
) -> str:
    """Say what an interrupted search found, and how to go on."""
    ran = sum(int(table["error"].isna().sum()) for table in tables if table is not None)
    misses = "" if found.finalists["meets_goal"].iloc[0] else f", which does not keep to {_wanted(limits)}"
    best = f"the best so far is {found.execution!r}{misses}"
    return f"tune_execution interrupted; {best}; {resume_hint(ran, store)}"


def _on_frontier(runs: pd.DataFrame) -> pd.Series:
    """Mark the runs that no other run beats: as good in throughput and both latencies, and better in one."""
    costs = runs[["decode_latency_mean_s", "prompt_latency_p95_s"]].assign(lost=-runs["decode_tokens_per_s"])
    theirs = costs.to_numpy(dtype=float)
    beaten = [bool(((theirs <= own).all(axis=1) & (theirs < own).any(axis=1)).any()) for own in theirs]
    return ~pd.Series(beaten, index=runs.index, dtype=bool)
