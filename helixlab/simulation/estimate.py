"""What a simulation will take, before it is run."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from helixlab._equality import ByContent
from helixlab._memory import free_mb, rss_mb
from helixlab.cluster import Cluster
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.simulation.result import Result
from helixlab.simulation.simulate import LEAST_STEP_S, check_step, check_workload, simulate
from helixlab.workload import Workload, trace_lengths
from helixlab.workload import offline as offline_workload

__all__ = ["Estimate", "estimate"]

PILOT_S: Final = 30.0
PILOT_ITERATIONS: Final = 500_000.0
PILOT_GROWS: Final = 4.0
PILOT_EVENTS: Final = 1_500_000
MOST_PILOT_EVENTS: Final = 12_000_000
"""The pilot starts with so many simulated seconds, or iterations asked for, if these are sooner, and grows
until it has so many events and has filled up, or has so many that this must do, or is the whole run. Events,
as on a busy machine seconds tell little."""
MOST_DRAWN: Final = 1_000_000
"""Requests from which on they are reckoned by their mean rather than drawn."""
QUEUE_GROWS: Final = 2.0
"""The same where far more comes than is served, and pilots are long."""
BYTES_AN_ITERATION: Final = 130
BYTES_AN_ITERATION_BREAKDOWN: Final = 150
BYTES_A_NODE_SAMPLE: Final = 130
SECONDS_A_NODE_SAMPLE: Final = 5e-7
BYTES_A_BATCH: Final = 100
BATCHES_AN_ITERATION: Final = 4.0
BYTES_A_REQUEST: Final = 300
BYTES_A_REQUEST_IN_SYSTEM: Final = 2500
BYTES_A_REQUEST_IN_SYSTEM_BREAKDOWN: Final = 700
SECONDS_A_REQUEST: Final = 3e-6
SAMPLES_AN_EVENT: Final = 3
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
        Whether the memory is there; True where that is not known.

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

    Both are meant to be right within a factor of two. Online the iterations to come are known, and all are
    counted, also those that come after the window; offline they go on as in the second half of the pilot, as
    far as there are requests. Short runs are simulated as a whole.

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
    how = {
        name: value
        for name, value in how.items()
        if name not in ("progress", "progress_table_step_s", "partial")
    }
    size, pilots = _first_size(workload), [_Pilot(0.0, 0.0)]
    part = _first(workload, size)
    while True:
        part_s = _came_s(part)
        started = time.perf_counter()
        result = simulate(
            cluster,
            model,
            placement,
            workload=part,
            sample_step_s=0.0 if workload.online else max(_span_s(part) / 20, LEAST_STEP_S),
            keep_iterations=keep_iterations,
            keep_batches=keep_batches,
            keep_breakdown=keep_breakdown,
            progress=False,
            partial=False,
            **how,
        )
        taken_s = time.perf_counter() - started
        pilots.append(_Pilot(taken_s, _iterations(result, 0.0)))
        queues = workload.online and _late_s(result, part_s) > part_s
        if part is workload or (len(pilots) > 2 and _tells(result, part_s)):
            break
        before = part
        while part is not workload and _requests(part) == _requests(before):
            size = size.times(PILOT_GROWS if len(pilots) == 2 or not queues else QUEUE_GROWS)
            part = _first(workload, size)
            if not workload.online or workload.requests is None:
                break
    done, asked = pilots[-1].iterations, _asked(workload)
    if part is workload:
        whole = done
    elif workload.online:
        turned_away = result.summary[["requests_dropped", "requests_refused"]].iloc[0].sum()
        asked_of_part = _asked(part).iterations
        whole = asked.iterations * (min(done / asked_of_part, 1.0) if turned_away else 1.0)
    else:
        pilot_s = _span_s(part)
        to_come_s = _span_s(workload) - pilot_s
        whole = done + (done - _iterations(result, 0.5)) / (pilot_s / 2) * to_come_s
        whole = min(whole, asked.iterations)
    wall_s = taken_s + max(whole - done, 0.0) * (_each_s(pilots) + _more_each_s(pilots, whole) * queues)
    longer = max(whole / done, 1.0) if done else 1.0
    samples = 0.0
    if sample_step_s > 0:
        # Behind the last request to come those that queue are served; where nothing happens there are none.
        late_s = _late_s(result, part_s) * (longer if queues else 1.0)
        steps = max(_span_s(workload), _came_s(workload) + late_s) / sample_step_s + 1
        samples = min(steps, SAMPLES_AN_EVENT * (result.summary["events"].item() * longer + 2))
    samples *= len(cluster.nodes)
    wall_s += samples * SECONDS_A_NODE_SAMPLE
    bytes_ = samples * BYTES_A_NODE_SAMPLE
    if workload.online or workload.requests is not None:
        wall_s += (asked.requests - _asked(part).requests) * SECONDS_A_REQUEST
        bytes_ += asked.requests * BYTES_A_REQUEST
    in_system = _most_in_system(result) * (longer if queues else 1.0)
    bytes_ += in_system * (BYTES_A_REQUEST_IN_SYSTEM + BYTES_A_REQUEST_IN_SYSTEM_BREAKDOWN * keep_breakdown)
    if keep_iterations:
        bytes_ += whole * (BYTES_AN_ITERATION + BYTES_AN_ITERATION_BREAKDOWN * keep_breakdown)
    if keep_batches:
        bytes_ += whole * BATCHES_AN_ITERATION * BYTES_A_BATCH
    memory_mb, has_mb = rss_mb() + bytes_ / 1e6, free_mb() + rss_mb()
    return Estimate(wall_s, memory_mb, whole, has_mb, fits=not memory_mb > has_mb)


def _tells(pilot: Result, part_s: float) -> bool:
    """Whether it is long enough to go by; while a system fills up, fewer iterations end than later."""
    row = pilot.summary.iloc[0]
    filled = row["requests_finished"] >= row["requests_in_flight"] and _late_s(pilot, part_s) <= part_s
    return bool(row["events"] >= (PILOT_EVENTS if filled else MOST_PILOT_EVENTS))


def _late_s(pilot: Result, part_s: float) -> float:
    """How long after the last arrival the last request ends."""
    row = pilot.summary.iloc[0]
    return max(float(row["last_finish_s"] - row["start_s"]) - part_s, 0.0)


def _each_s(pilots: list[_Pilot]) -> float:
    """Seconds an iteration takes: what the last pilot took more than the one before, which had fewer."""
    before, last = pilots[-2:]
    if last.iterations <= before.iterations:
        return 0.0
    each_s = (last.taken_s - before.taken_s) / (last.iterations - before.iterations)
    # Short runs are noisy; never below a quarter of the mean.
    return max(each_s, 0.25 * last.taken_s / last.iterations)


def _more_each_s(pilots: list[_Pilot], whole: float) -> float:
    """What an iteration to come takes longer, on the mean, where a queue grows for as long as requests come.

    Its cost grows with the queue, that of a run with the square of its iterations.
    """
    before, last = pilots[-2:]
    if not whole > last.iterations > before.iterations > 0:
        return 0.0
    each = last.taken_s / last.iterations - before.taken_s / before.iterations
    return max(each, 0.0) / (last.iterations - before.iterations) * (whole - before.iterations)


def _span_s(workload: Workload) -> float:
    """From the start to the end of the window."""
    return workload.duration_s + (0.0 if workload.online else workload.warmup_s)


def _came_s(workload: Workload) -> float:
    """From the start to the last arrival: given requests all arrive, whatever the window is."""
    if workload.online and workload.requests is not None:
        return float(workload.requests["arrival_s"].iloc[-1])
    return _span_s(workload)


@dataclass(frozen=True)
class _Size:
    """Of a pilot: it is as short as both say, but has a request if there is one."""

    span_s: float
    iterations: float

    def times(self, factor: float) -> _Size:
        return _Size(self.span_s * factor, self.iterations * factor)


def _first_size(workload: Workload) -> _Size:
    span_s = PILOT_S
    if workload.online and workload.requests is not None:
        # Where the first request comes late there is nothing to learn from what is before it.
        span_s += float(workload.requests["arrival_s"].iloc[0])
    elif workload.online:
        span_s = min(PILOT_S, PILOT_ITERATIONS / workload.rate_tokens_per_s)
    return _Size(span_s, PILOT_ITERATIONS)


def _first(workload: Workload, size: _Size) -> Workload:
    """The beginning of it, or all of it where that is as short."""
    if workload.online and workload.requests is not None:
        requests = workload.requests
        in_time = int((requests["arrival_s"] < size.span_s).sum())
        iterations = (requests["output_tokens"] + 1).cumsum()
        few = max(min(in_time, int((iterations <= size.iterations).sum())), 1)
        if few == len(requests):
            return workload
        requests = requests.iloc[:few]
        duration_s = max(float(requests["arrival_s"].iloc[-1]), PILOT_S)
        return replace(workload, warmup_s=0.0, duration_s=duration_s, requests=requests)
    if size.span_s >= _span_s(workload):
        return workload
    return replace(workload, warmup_s=0.0, duration_s=size.span_s)


def _requests(workload: Workload) -> int:
    """How many were given."""
    return 0 if workload.requests is None else len(workload.requests)


@dataclass(frozen=True)
class _Asked:
    """How many requests will come, and iterations of theirs; infinite where there is no end to them."""

    requests: float
    iterations: float


def _asked(workload: Workload) -> _Asked:
    if workload.requests is not None:
        return _Asked(len(workload.requests), float((workload.requests["output_tokens"] + 1).sum()))
    if not workload.online:
        return _Asked(math.inf, math.inf)
    lengths = trace_lengths(workload.trace)
    requests = workload.rate_tokens_per_s * workload.duration_s / lengths.sum(axis=1).mean()
    if requests > MOST_DRAWN:
        return _Asked(requests, requests * float(lengths["output_tokens"].mean() + 1))
    drawn = next(workload.batches())
    return _Asked(len(drawn), float((drawn[:, 2] + 1).sum()))


def _most_in_system(pilot: Result) -> float:
    """The most requests at a time, those held included."""
    requests = pilot.requests
    moves = pd.concat([pd.Series(1, requests["arrival_s"]), pd.Series(-1, requests["end_s"])]).sort_index()
    ended = float(moves.cumsum().max()) if len(moves) else 0.0
    return ended + float(pilot.summary["requests_in_flight"].item())


def _iterations(result: Result, back: float) -> float:
    """Iterations that had ended that part of the span before its end, by the timeline; all of them for 0."""
    row, timeline = result.summary.iloc[0], result.timeline
    if back == 0.0 and len(result.iterations):
        return float(len(result.iterations))
    if back == 0.0 and row["mode"] == "online":
        finished = result.requests[result.requests["outcome"] == "finished"]
        return float((finished["output_tokens"] + 1).sum())
    until_s = row["window_end_s"] - back * (row["window_end_s"] - row["start_s"])
    at = timeline[timeline["time_s"] <= until_s].iloc[-1]
    return float(at["finished"] + at["in_flight"] + at["decode_tokens"])
