"""What a simulation will take, before it is run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Final

from helixlab._equality import ByContent
from helixlab.cluster import Cluster
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.simulation.memory import free_mb, rss_mb
from helixlab.simulation.result import Result
from helixlab.simulation.run import check_step, check_workload, simulate
from helixlab.workload import Workload
from helixlab.workload import offline as offline_workload

__all__ = ["Estimate", "estimate"]

PILOT_S: Final = 30.0
PILOT_GROWS: Final = 4.0
PILOT_EVENTS: Final = 1_500_000
MOST_PILOT_EVENTS: Final = 12_000_000
"""The pilot starts with so many simulated seconds, and grows until it has so many events and has filled up,
or has so many that this must do, or is the whole run. Events, as on a busy machine seconds tell little."""
QUEUE_GROWS: Final = 2.0
"""The same where far more comes than is served, and pilots are long."""
BYTES_AN_ITERATION: Final = 130
BYTES_AN_ITERATION_BREAKDOWN: Final = 150
BYTES_A_NODE_SAMPLE: Final = 130
SECONDS_A_NODE_SAMPLE: Final = 5e-7
BYTES_A_BATCH: Final = 100
BATCHES_AN_ITERATION: Final = 4.0
"""What the tables and the work on them take at the most, measured."""


@dataclass(frozen=True, eq=False)
class Estimate(ByContent):
    """What a simulation will take.

    Parameters
    ----------
    wall_s : float
        Seconds, on this machine, compiling left aside.
    memory_mb : float
        The most memory that the process will have.
    iterations : float
        Prompts and decodes that will be simulated.
    free_memory_mb : float
        What the machine or the container has left, with what the process has already; NaN if it does not
        tell.
    fits : bool
        Whether the memory is there.

    Examples
    --------
    >>> print(Estimate(1.23, 310.0, 1e5, 8000.0, True))
    about 1.2 s and 310 MB for 100000 iterations; 8000 MB are free, it fits
    """

    wall_s: float
    memory_mb: float
    iterations: float
    free_memory_mb: float
    fits: bool

    def __str__(self) -> str:
        wall = f"{self.wall_s:.1f} s" if self.wall_s < 120 else f"{self.wall_s / 60:.0f} min"
        verdict = "it fits" if self.fits else "it does NOT fit: simulate less, or with keep_iterations=False"
        return (
            f"about {wall} and {self.memory_mb:.0f} MB for {self.iterations:.0f} iterations;"
            f" {self.free_memory_mb:.0f} MB are free, {verdict}"
        )


@dataclass(frozen=True)
class _Pilot:
    taken_s: float
    iterations: float


def estimate(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    workload: Workload | None = None,
    sample_step_s: float = 5.0,
    keep_iterations: bool = True,
    keep_batches: bool = False,
    keep_breakdown: bool = False,
    **how: Any,
) -> Estimate:
    """Wall time and memory of `simulate` with the same arguments, from a short simulation.

    Both are meant to be right within a factor of two. Online the iterations to come are known; offline
    they go on as in the second half of the pilot, as far as there are requests.

    Parameters
    ----------
    cluster, model, placement, workload, sample_step_s, keep_iterations, keep_batches, keep_breakdown
        As for `simulate`.
    **how
        Its other arguments.

    Returns
    -------
    Estimate

    Raises
    ------
    PlacementError, SchedulingError, SimulationError, UnknownNameError
        As `simulate` would.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> hx.estimate(cluster, model, placement, workload=hx.offline(duration_s=86_400)).iterations > 1e5
    True
    """
    workload = offline_workload() if workload is None else workload
    check_workload(workload)
    check_step("sample_step_s", sample_step_s, "timeline")
    how = {name: value for name, value in how.items() if name not in ("progress", "watch_step_s", "partial")}
    span_s = _span_s(workload)
    # Where the first request comes late there is nothing to learn from what is before it.
    pilot_s, pilots = _first_arrival_s(workload) + PILOT_S, [_Pilot(0.0, 0.0)]
    while True:
        part = workload if pilot_s >= span_s else _first(workload, pilot_s)
        started = time.perf_counter()
        result = simulate(
            cluster,
            model,
            placement,
            workload=part,
            sample_step_s=pilot_s / 20,
            keep_iterations=keep_iterations,
            keep_batches=keep_batches,
            keep_breakdown=keep_breakdown,
            progress=False,
            partial=False,
            **how,
        )
        taken_s = time.perf_counter() - started
        pilots.append(_Pilot(taken_s, _iterations(result, 0.0)))
        queues = workload.online and _late_s(result) > pilot_s
        if pilot_s >= span_s or (len(pilots) > 2 and _tells(result, pilot_s)):
            break
        pilot_s *= PILOT_GROWS if len(pilots) == 2 or not queues else QUEUE_GROWS
    done = pilots[-1].iterations
    if part is workload:
        whole = done
    elif workload.online:
        turned_away = result.summary[["queries_dropped", "queries_refused"]].iloc[0].sum()
        served = done / _asked(part) if turned_away else 1.0
        whole = _asked(workload) * min(served, 1.0)
    else:
        whole = done + (done - _iterations(result, 0.5)) / (pilot_s / 2) * (span_s - pilot_s)
        if workload.requests is not None:
            whole = min(whole, _asked(workload))
    wall_s = taken_s + max(whole - done, 0.0) * (_each_s(pilots) + _more_each_s(pilots, whole) * queues)
    samples = span_s / sample_step_s * len(cluster.nodes) if sample_step_s > 0 else 0.0
    wall_s += samples * SECONDS_A_NODE_SAMPLE
    bytes_ = samples * BYTES_A_NODE_SAMPLE
    if keep_iterations:
        bytes_ += whole * (BYTES_AN_ITERATION + BYTES_AN_ITERATION_BREAKDOWN * keep_breakdown)
    if keep_batches:
        bytes_ += whole * BATCHES_AN_ITERATION * BYTES_A_BATCH
    memory_mb, has_mb = rss_mb() + bytes_ / 1e6, free_mb() + rss_mb()
    return Estimate(wall_s, memory_mb, whole, has_mb, fits=not memory_mb > has_mb)


def _tells(pilot: Result, pilot_s: float) -> bool:
    """Whether it is long enough to go by; while a system fills up, fewer iterations end than later."""
    row = pilot.summary.iloc[0]
    filled = row["queries_finished"] >= row["queries_in_flight"] and _late_s(pilot) <= pilot_s
    return bool(row["events"] >= (PILOT_EVENTS if filled else MOST_PILOT_EVENTS))


def _late_s(pilot: Result) -> float:
    """How long after the last arrival the last query ends."""
    row = pilot.summary.iloc[0]
    return max(float(row["last_finish_s"] - row["window_end_s"]), 0.0)


def _each_s(pilots: list[_Pilot]) -> float:
    """Seconds an iteration takes: what the last pilot took more than the one before, which had fewer."""
    before, last = pilots[-2:]
    if last.iterations <= before.iterations:
        return 0.0
    each_s = (last.taken_s - before.taken_s) / (last.iterations - before.iterations)
    # Short runs are noisy; never below a quarter of the mean.
    return max(each_s, 0.25 * last.taken_s / last.iterations)


def _more_each_s(pilots: list[_Pilot], whole: float) -> float:
    """What an iteration to come takes longer, on the mean, where a queue grows for as long as queries come.

    Its cost grows with the queue, that of a run with the square of its iterations.
    """
    before, last = pilots[-2:]
    if not whole > last.iterations > before.iterations > 0:
        return 0.0
    each = last.taken_s / last.iterations - before.taken_s / before.iterations
    return max(each, 0.0) / (last.iterations - before.iterations) * (whole - before.iterations)


def _span_s(workload: Workload) -> float:
    return workload.duration_s + (0.0 if workload.online else workload.warmup_s)


def _first(workload: Workload, span_s: float) -> Workload:
    """The beginning of it."""
    if not workload.online:
        return replace(workload, warmup_s=0.0, duration_s=span_s)
    if workload.requests is None:
        return replace(workload, warmup_s=0.0, duration_s=span_s)
    requests = workload.requests[workload.requests["arrival_s"] < span_s]
    return replace(workload, warmup_s=0.0, duration_s=span_s, requests=requests)


def _first_arrival_s(workload: Workload) -> float:
    first = next((batch[0, 0] for batch in workload.batches() if len(batch)), 0.0)
    return float(first) if workload.online else 0.0


def _asked(workload: Workload) -> float:
    """Iterations of all queries that will arrive."""
    return float(sum((batch[:, 2] + 1).sum() for batch in workload.batches()))


def _iterations(result: Result, back: float) -> float:
    """Iterations that had ended that part of the span before its end, by the timeline; all of them for 0."""
    row, timeline = result.summary.iloc[0], result.timeline
    if back == 0.0:
        sampled = row["queries_finished"] + row["queries_in_flight"] + timeline["decode_tokens"].iloc[-1]
        return float(max(sampled, len(result.iterations)))  # a run may end before its first sample
    until_s = row["window_end_s"] - back * (row["window_end_s"] - row["start_s"])
    at = timeline[timeline["time_s"] <= until_s].iloc[-1]
    return float(at["finished"] + at["in_flight"] + at["decode_tokens"])
