"""The driver of the engine: it feeds requests, empties logs and enlarges tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from helixlab._interrupts import CtrlC
from helixlab.engine.constants import EngineError, Status
from helixlab.engine.loop import advance, draw_request
from helixlab.engine.state import ARRIVAL, State
from helixlab.errors import SchedulingError
from helixlab.execution import Execution
from helixlab.scheduling import Scheduler
from helixlab.simulation.progress_table import ProgressTable
from helixlab.simulation.setup import enlarged, short_of_rows
from helixlab.workload import Workload

__all__ = ["Recording", "drive", "span_s"]

FEED_DELAY_S: Final = 0.1
"""Seconds from the end of a prompt or request to the next request that it lets in."""
FEED_KV_LIMIT: Final = 0.8
"""Expected KV use of the fullest layer up to which requests are fed."""
EVENTS_PER_CALL: Final = 1_000_000
"""Events after which the engine returns, so that Ctrl-C and progress are handled."""


@dataclass
class Recording:
    """The logs of a run, and its state at the window and at the end.

    Parameters
    ----------
    state : State
        State at the end.
    window_s : tuple of float
        Start and end of the measured window.
    runs_at_window, nodes_at_window, links_at_window : list of arrays
        Tables when the window started and ended.
    iterations, iteration_parts, request_logs, batches, samples, node_samples : list of arrays
        Pieces of the logs, in order.
    partial : bool
        True if the run was stopped before its end.
    """

    state: State
    window_s: tuple[float, float]
    runs_at_window: list[NDArray[np.void]] = field(default_factory=list)
    nodes_at_window: list[NDArray[np.void]] = field(default_factory=list)
    links_at_window: list[NDArray[np.void]] = field(default_factory=list)
    iterations: list[NDArray[np.void]] = field(default_factory=list)
    iteration_parts: list[NDArray[np.float64]] = field(default_factory=list)
    request_logs: list[NDArray[np.void]] = field(default_factory=list)
    batches: list[NDArray[np.void]] = field(default_factory=list)
    samples: list[NDArray[np.void]] = field(default_factory=list)
    node_samples: list[NDArray[np.float64]] = field(default_factory=list)
    partial: bool = False

    def snapshot(self) -> None:
        """Keep a copy of the tables: at the start, and at both ends of the window."""
        self.runs_at_window.append(self.state.run.copy())
        self.nodes_at_window.append(self.state.nodes.copy())
        self.links_at_window.append(self.state.links.copy())

    def stop(self, start_s: float) -> None:
        """End the recording early: cut the window short or, if it has not begun, make it the run so far."""
        now_s = float(self.state.run["now_s"][0])
        self.partial = True
        begun = len(self.runs_at_window) > 1
        if len(self.runs_at_window) < 3:
            first_s = self.window_s[0] if begun else start_s
            self.window_s = (first_s, max(now_s, math.nextafter(first_s, math.inf)))
            self.snapshot()
        self.end(whole_run=not begun)

    def end(self, *, whole_run: bool = False) -> None:
        """End the recording: empty the logs; drop the first snapshot unless the window starts there."""
        self.empty_logs()
        if not whole_run:
            for tables in (self.runs_at_window, self.nodes_at_window, self.links_at_window):
                del tables[0]

    def empty_logs(self) -> None:
        """Move the engine's logs out of its tables."""
        state, run = self.state, self.state.run[0]
        self.iterations.append(state.iterations[: run["iterations"]].copy())
        self.iteration_parts.append(state.iteration_parts[: run["iterations"]].copy())
        self.request_logs.append(state.request_logs[: run["request_logs"]].copy())
        self.batches.append(state.batch_log[: run["batches_logged"]].copy())
        self.samples.append(state.samples[: run["samples"]].copy())
        self.node_samples.append(state.node_samples[: run["samples"]].copy())
        run["iterations"] = run["request_logs"] = run["batches_logged"] = run["samples"] = 0


class _Arrivals:
    """The arrivals of a workload, which fill the engine's table batch by batch."""

    def __init__(self, workload: Workload, start_s: float) -> None:
        self._batches = workload.batches()
        self._start_s = start_s
        self._next = next(self._batches, None)

    def fill(self, state: State) -> State:
        batch = self._next if self._next is not None else np.zeros((0, 3))
        self._next = next(self._batches, None)
        arrivals = np.zeros(max(len(batch), 1), ARRIVAL)
        arrivals["arrival_s"][: len(batch)] = batch[:, 0] + self._start_s
        arrivals["input_tokens"][: len(batch)], arrivals["output_tokens"][: len(batch)] = (
            batch[:, 1],
            batch[:, 2],
        )
        run = state.run[0]
        run["next_arrival"], run["arrivals_known"] = 0, len(batch)
        run["more_arrivals"] = self._next is not None
        return state._replace(arrivals=arrivals)


def span_s(workload: Workload) -> float:
    """Return the seconds from the start to the end of the window; an online duration includes the warm-up."""
    return workload.duration_s + (0.0 if workload.online else workload.warmup_s)


def drive(
    state: State,
    workload: Workload,
    scheduler: Scheduler,
    execution: Execution,
    start_s: float,
    *,
    sample_step_s: float,
    keep_iterations: bool,
    keep_batches: bool = False,
    progress: Callable[[float], None],
    progress_table: ProgressTable | None = None,
    ctrl_c: CtrlC,
) -> Recording:
    """Run a fresh state to the end of the workload, or until Ctrl-C is pressed.

    Offline, the end is that of the window; online, it comes when all requests have ended.

    Raises
    ------
    SchedulingError
        The scheduler chose a link that does not leave the sender.
    SimulationError
        A batch was larger than its profile covers.
    """
    run = state.run[0]
    end_s = start_s + workload.warmup_s + workload.duration_s
    if workload.online:
        end_s = start_s + workload.duration_s
    window_s = (start_s + workload.warmup_s, end_s)
    run["now_s"] = start_s
    run["end_of_feeding_s"] = end_s
    run["feed_delay_s"], run["feed_kv_limit"] = FEED_DELAY_S, FEED_KV_LIMIT
    run["online"] = workload.online
    run["keep_iterations"] = keep_iterations
    run["keep_batches"] = keep_batches
    run["random_state"] = np.random.SeedSequence([workload.seed, 1]).generate_state(1, np.uint64)[0]
    run["sample_step_s"] = sample_step_s
    run["next_sample_s"] = start_s if sample_step_s > 0 else math.inf
    run["events_at_sample"] = -1
    arrivals = _Arrivals(workload, start_s)
    state = arrivals.fill(state)
    if workload.online:
        if run["arrivals_known"]:
            draw_request(state, float(state.arrivals["arrival_s"][0]))
    else:
        if workload.initial_requests + 64 > len(state.requests):
            state = enlarged(state, workload.initial_requests + 64)
        for request in range(workload.initial_requests):
            if run["next_arrival"] == run["arrivals_known"] and run["more_arrivals"]:
                state = arrivals.fill(state)
            draw_request(state, start_s + FEED_DELAY_S * request)
    recording = Recording(state, window_s)
    hooks = (*scheduler.compiled_hooks(), execution.compiled_admits())
    if progress_table is not None:
        progress_table.start(state, start_s, span_s(workload), workload.online)
    recording.snapshot()
    reached_s, last_s = start_s, math.inf
    for end_of_part_s in (*window_s, math.inf if workload.online else end_s):
        over = False
        while reached_s < end_of_part_s and not over:
            row_s = (
                math.inf
                if progress_table is None
                else progress_table.next_row_s(reached_s, _next_event_s(recording.state))
            )
            reached_s = min(end_of_part_s, row_s)
            for status in _advanced(recording, reached_s, hooks, arrivals):
                progress(float(run["now_s"]))
                if status == Status.ERROR:
                    _raise(recording.state, scheduler)
                over = status == Status.DONE
                if ctrl_c.pressed and not over:
                    recording.stop(start_s)
                    return recording
            if over:
                last_s = min(last_s, float(run["now_s"]))
            if progress_table is not None and reached_s == row_s and not over:
                progress_table.show(recording.state, reached_s)
        reached_s = end_of_part_s
        recording.snapshot()
    if progress_table is not None:
        progress_table.show(recording.state, min(last_s, reached_s))
    recording.end()
    return recording


def _advanced(
    recording: Recording, until_s: float, hooks: tuple[object, ...], arrivals: _Arrivals
) -> Iterator[int]:
    """Call the engine until it has nothing left to do before `until_s`; yield each status that it returns."""
    while True:
        try:
            status = advance(recording.state, until_s, EVENTS_PER_CALL, *hooks)
        except (MemoryError, RecursionError, OSError):  # errors of the process, whatever runs in it
            raise
        except Exception as error:  # the engine raises nothing, so it comes from a function of the user's
            raise SchedulingError(
                f"a function of the scheduler or execution policy failed: {type(error).__name__}: {error}"
            ) from error
        if status == Status.NEEDS_ARRIVALS:
            recording.state = arrivals.fill(recording.state)
        elif status == Status.FULL:
            recording.empty_logs()
            state = recording.state
            if short_of_rows(state):
                recording.state = enlarged(state, 2 * len(state.requests))
        yield status
        if status not in (Status.NEEDS_ARRIVALS, Status.FULL):
            return


def _next_event_s(state: State) -> float:
    return float(state.events["time_s"][0]) if state.run["events"][0] else -math.inf


def _raise(state: State, scheduler: Scheduler) -> NoReturn:
    error, subject = EngineError(int(state.run["error"][0])), int(state.run["error_subject"][0])
    node = "the coordinator" if subject == len(state.nodes) - 1 else f"node {subject}"
    raise error.exception(error.text.format(node=node, scheduler=scheduler.name))
