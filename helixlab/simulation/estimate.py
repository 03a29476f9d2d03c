"""Estimate of the wall time and memory that a simulation will take, from a short pilot of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab._equality import ByContent
from helixlab._memory import free_mb, rss_mb
from helixlab.cluster import Cluster
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.simulation.driver import span_s
from helixlab.simulation.result import Result
from helixlab.simulation.simulate import LEAST_STEP_S, check_step, check_workload, simulate
from helixlab.workload import Workload, offline as offline_workload, trace_lengths

__all__ = ["Estimate", "estimate"]

PILOT_S: Final = 30.0
"""Simulated seconds of the first pilot."""
PILOT_ITERATIONS: Final = 500_000.0
"""Iterations requested in the first pilot, if these are fewer."""
PILOT_GROWTH: Final = 4.0
"""Factor by which the next pilot is longer."""
QUEUE_GROWTH: Final = 2.0
"""The same factor where far more arrives than is served, as pilots take long there."""
PILOT_EVENTS: Final = 1_500_000
"""Events after which a pilot is long enough, if the system has filled up.

Events rather than seconds, as seconds say little on a busy machine.
"""
MOST_PILOT_EVENTS: Final = 12_000_000
"""Events after which a pilot is long enough even if the system has not filled up."""
MOST_DRAWN: Final = 1_000_000
"""Requests up to which they are drawn; more are estimated from their mean."""

# The most that tables, and the work on them, were measured to take.
BYTES_PER_ITERATION: Final = 130
BYTES_PER_ITERATION_BREAKDOWN: Final = 150
BYTES_PER_NODE_SAMPLE: Final = 130
SECONDS_PER_NODE_SAMPLE: Final = 5e-7
BYTES_PER_BATCH: Final = 100
BATCHES_PER_ITERATION: Final = 4.0
BYTES_PER_REQUEST: Final = 300
BYTES_PER_REQUEST_IN_SYSTEM: Final = 2500
BYTES_PER_REQUEST_IN_SYSTEM_BREAKDOWN: Final = 700
SECONDS_PER_REQUEST: Final = 3e-6
SAMPLES_PER_EVENT: Final = 3


@dataclass(frozen=True, eq=False)
class Estimate(ByContent):
    """An estimate of what a simulation will take.

    Parameters
    ----------
    wall_s : float
        Wall time in seconds on this machine, without compiling.
    memory_mb : float
        Peak memory of the process.
    iterations : float
        Number of prompts and decodes that will be simulated.
    free_memory_mb : float
        Memory that the machine or the container has left, together with what the process has already; NaN
        if unknown.
    fits : bool
        True if the memory is there, or if that is not known.

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
        free = f"{self.free_memory_mb:.0f} MB are free, {verdict}"
        if math.isnan(self.free_memory_mb):
            free = "how much is free is not known"
        return f"about {wall} and {self.memory_mb:.0f} MB for {self.iterations:.0f} iterations; {free}"


@dataclass(frozen=True)
class _Pilot:
    """Wall time and iterations of a pilot."""

    wall_s: float
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
    **options: Any,
) -> Estimate:
    """Estimate wall time and memory of `simulate` with the same arguments, from a short simulation.

    Both are meant to be right within a factor of two. Online, the iterations to come are known, and all are
    counted, also those after the window. Offline, they go on as in the second half of the pilot for as long
    as there are requests. Short runs are simulated as a whole.

    Parameters
    ----------
    cluster, model, placement, workload, sample_step_s, keep_iterations, keep_batches, keep_breakdown
        Arguments of `simulate`.
    **options
        Other arguments of `simulate`.

    Returns
    -------
    Estimate

    Raises
    ------
    PlacementError, SchedulingError, SimulationError, UnknownNameError
        The same errors that `simulate` would raise.

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
    shown = ("progress", "progress_table_step_s", "partial")
    options = {name: value for name, value in options.items() if name not in shown}
    size, pilots = _first_size(workload), [_Pilot(0.0, 0.0)]
    part = _first(workload, size)
    while True:
        part_s = _arrivals_s(part)
        started = time.perf_counter()
        result = simulate(
            cluster,
            model,
            placement,
            workload=part,
            sample_step_s=0.0 if workload.online else max(span_s(part) / 20, LEAST_STEP_S),
            keep_iterations=keep_iterations,
            keep_batches=keep_batches,
            keep_breakdown=keep_breakdown,
            progress=False,
            partial=False,
            **options,
        )
        pilot_wall_s = time.perf_counter() - started
        pilots.append(_Pilot(pilot_wall_s, _iterations(result, 0.0)))
        queue_grows = workload.online and _lateness_s(result, part_s) > part_s
        if part is workload or (len(pilots) > 2 and _is_long_enough(result, part_s)):
            break
        before = part
        while part is not workload and _requests(part) == _requests(before):
            size = size.times(PILOT_GROWTH if len(pilots) == 2 or not queue_grows else QUEUE_GROWTH)
            part = _first(workload, size)
            if not workload.online or workload.requests is None:
                break
    done, demand = pilots[-1].iterations, _demand(workload)
    if part is workload:
        whole = done
    elif workload.online:
        turned_away = result.metrics[["requests_dropped", "requests_refused"]].sum()
        demand_of_part = _demand(part).iterations
        whole = demand.iterations * (min(done / demand_of_part, 1.0) if turned_away else 1.0)
    else:
        pilot_s = span_s(part)
        to_come_s = span_s(workload) - pilot_s
        whole = done + (done - _iterations(result, 0.5)) / (pilot_s / 2) * to_come_s
        whole = min(whole, demand.iterations)
    each_s = _seconds_per_iteration(pilots) + _extra_seconds_per_iteration(pilots, whole) * queue_grows
    wall_s = pilot_wall_s + max(whole - done, 0.0) * each_s
    longer = max(whole / done, 1.0) if done else 1.0
    samples = 0.0
    if sample_step_s > 0:
        # Queued requests are served after the last arrival; where nothing happens there are no samples.
        late_s = _lateness_s(result, part_s) * (longer if queue_grows else 1.0)
        steps = max(span_s(workload), _arrivals_s(workload) + late_s) / sample_step_s + 1
        samples = min(steps, SAMPLES_PER_EVENT * (result.metrics["events"] * longer + 2))
        if workload.online and not queue_grows:
            samples = min(samples, demand.requests * _samples_per_request(result, sample_step_s))
    samples *= len(cluster.nodes)
    wall_s += samples * SECONDS_PER_NODE_SAMPLE
    bytes_ = samples * BYTES_PER_NODE_SAMPLE
    if workload.online or workload.requests is not None:
        wall_s += (demand.requests - _demand(part).requests) * SECONDS_PER_REQUEST
        bytes_ += demand.requests * BYTES_PER_REQUEST
    in_system = _most_in_system(result) * (longer if queue_grows else 1.0)
    bytes_ += in_system * (
        BYTES_PER_REQUEST_IN_SYSTEM + BYTES_PER_REQUEST_IN_SYSTEM_BREAKDOWN * keep_breakdown
    )
    if keep_iterations:
        bytes_ += whole * (BYTES_PER_ITERATION + BYTES_PER_ITERATION_BREAKDOWN * keep_breakdown)
    if keep_batches:
        bytes_ += whole * BATCHES_PER_ITERATION * BYTES_PER_BATCH
    memory_mb, free_memory_mb = rss_mb() + bytes_ / 1e6, free_mb() + rss_mb()
    return Estimate(wall_s, memory_mb, whole, free_memory_mb, fits=not memory_mb > free_memory_mb)


def _is_long_enough(pilot: Result, part_s: float) -> bool:
    """Return True if the pilot can be extrapolated; while a system fills up, fewer iterations end."""
    row = pilot.metrics
    filled = row["requests_finished"] >= row["requests_in_flight"] and _lateness_s(pilot, part_s) <= part_s
    return bool(row["events"] >= (PILOT_EVENTS if filled else MOST_PILOT_EVENTS))


def _lateness_s(pilot: Result, part_s: float) -> float:
    """Return the seconds from the last arrival to the end of the last request."""
    row = pilot.metrics
    return max(float(row["last_finish_s"] - row["start_s"]) - part_s, 0.0)


def _samples_per_request(pilot: Result, step_s: float) -> float:
    """Return the most samples that a request adds: one a step while it is there, and those of a stretch."""
    stays_s = (pilot.requests["end_s"] - pilot.requests["arrival_s"]).mean()
    return float(np.nan_to_num(stays_s)) / step_s + 2 * SAMPLES_PER_EVENT


def _seconds_per_iteration(pilots: list[_Pilot]) -> float:
    """Return the wall time of one more iteration, from the last pilot and the shorter one before it."""
    before, last = pilots[-2:]
    if last.iterations <= before.iterations:
        return 0.0
    each_s = (last.wall_s - before.wall_s) / (last.iterations - before.iterations)
    # Short runs are noisy; never below a quarter of the mean.
    return max(each_s, 0.25 * last.wall_s / last.iterations)


def _extra_seconds_per_iteration(pilots: list[_Pilot], whole: float) -> float:
    """Return the extra wall time of an iteration to come, on average, where a queue keeps growing.

    The cost of an iteration grows with the queue, that of a run with the square of its iterations.
    """
    before, last = pilots[-2:]
    if not whole > last.iterations > before.iterations > 0:
        return 0.0
    each = last.wall_s / last.iterations - before.wall_s / before.iterations
    return max(each, 0.0) / (last.iterations - before.iterations) * (whole - before.iterations)


def _arrivals_s(workload: Workload) -> float:
    """Return the seconds from the start to the last arrival; given requests may arrive after the window."""
    if workload.online and workload.requests is not None:
        return float(workload.requests["arrival_s"].iloc[-1])
    return span_s(workload)


@dataclass(frozen=True)
class _Size:
    """The size of a pilot: the shorter of both limits, but at least one request if there is one."""

    span_s: float
    iterations: float

    def times(self, factor: float) -> _Size:
        return _Size(self.span_s * factor, self.iterations * factor)


def _first_size(workload: Workload) -> _Size:
    size_s = PILOT_S
    if workload.online and workload.requests is not None:
        # Where the first request comes late, the time before it teaches nothing.
        size_s += float(workload.requests["arrival_s"].iloc[0])
    elif workload.online:
        size_s = min(PILOT_S, PILOT_ITERATIONS / workload.rate_tokens_per_s)
    return _Size(size_s, PILOT_ITERATIONS)


def _first(workload: Workload, size: _Size) -> Workload:
    """Return the beginning of a workload; the workload itself if it is no longer than that."""
    if workload.online and workload.requests is not None:
        requests = workload.requests
        in_time = int((requests["arrival_s"] < size.span_s).sum())
        iterations = (requests["output_tokens"] + 1).cumsum()
        count = max(min(in_time, int((iterations <= size.iterations).sum())), 1)
        if count == len(requests):
            return workload
        requests = requests.iloc[:count]
        duration_s = max(float(requests["arrival_s"].iloc[-1]), PILOT_S)
        return replace(workload, warmup_s=0.0, duration_s=duration_s, requests=requests)
    if size.span_s >= span_s(workload):
        return workload
    return replace(workload, warmup_s=0.0, duration_s=size.span_s)


def _requests(workload: Workload) -> int:
    """Return the number of given requests."""
    return 0 if workload.requests is None else len(workload.requests)


@dataclass(frozen=True)
class _Demand:
    """The number of requests that will arrive, and of their iterations; infinite if they never end."""

    requests: float
    iterations: float


def _demand(workload: Workload) -> _Demand:
    if workload.requests is not None:
        return _Demand(len(workload.requests), float((workload.requests["output_tokens"] + 1).sum()))
    if not workload.online:
        return _Demand(math.inf, math.inf)
    lengths = trace_lengths(workload.trace)
    requests = workload.rate_tokens_per_s * workload.duration_s / lengths.sum(axis=1).mean()
    if requests > MOST_DRAWN:
        return _Demand(requests, requests * float(lengths["output_tokens"].mean() + 1))
    drawn = next(workload.batches())
    return _Demand(len(drawn), float((drawn[:, 2] + 1).sum()))


def _most_in_system(pilot: Result) -> float:
    """Return the most requests at a time, those queued included."""
    requests = pilot.requests
    moves = pd.concat([pd.Series(1, requests["arrival_s"]), pd.Series(-1, requests["end_s"])]).sort_index()
    ended = float(moves.cumsum().max()) if len(moves) else 0.0
    return ended + float(pilot.metrics["requests_in_flight"])


def _iterations(result: Result, back: float) -> float:
    """Return the iterations that had ended when a part `back` of the span was left; all of them for 0."""
    row, timeline = result.metrics, result.timeline
    if back == 0.0 and len(result.iterations):
        return float(len(result.iterations))
    if back == 0.0 and row["mode"] == "online":
        finished = result.requests[result.requests["outcome"] == "finished"]
        return float((finished["output_tokens"] + 1).sum())
    until_s = row["window_end_s"] - back * (row["window_end_s"] - row["start_s"])
    at = timeline[timeline["time_s"] <= until_s].iloc[-1]
    return float(at["finished"] + at["in_flight"] + at["decode_tokens"])
