"""The event engine: `advance` runs a State until a time, or until the driver has to do something.

Everything the engine knows stands in the State, so `advance` can return at any event and be called
again. At one instant it first handles all events that are due, in the order they were created,
then lets nodes send what is ready, then lets idle nodes start a batch.
"""

from __future__ import annotations

from typing import Any

from numba import types

from helixlab.execution.protocol import ADMITS
from helixlab.jit import compiled, inlined
from helixlab.scheduling.protocol import CHOOSE, ON_FINISH, ON_READY, ON_START
from helixlab.scheduling.state import NONE, state_type
from helixlab.simulation.batches import finish_segment, join_queue, start_batch
from helixlab.simulation.heap import ARRIVE, FEED, LINK_FREE, SEGMENT_DONE, pop, push
from helixlab.simulation.held import take_back
from helixlab.simulation.marks import SEND, START, next_marked
from helixlab.simulation.network import link_free, send
from helixlab.simulation.queries import feed, finish_iteration, retry_held
from helixlab.simulation.samples import take_sample

__all__ = ["DONE", "ERROR", "FULL", "NEEDS_ARRIVALS", "PAUSED", "add_event", "advance"]

DONE = 0
"""No event is left."""
PAUSED = 1
"""The next event is after the time asked for."""
FULL = 2
"""A table or log is full: empty or enlarge it and go on."""
NEEDS_ARRIVALS = 3
"""The arrivals filled in are used up."""
ERROR = 4
"""Something impossible happened, see ``run.error``."""


@inlined
def _short_of_room(state):
    """Whether the next event might not find the room it needs: each writes a few rows at most."""
    run = state.run[0]
    return (
        run.free_query == NONE
        or run.iterations + 1 > len(state.iterations)
        or run.query_logs + 2 > len(state.query_logs)
        or run.events + len(state.queries) + len(state.nodes) + 4 > len(state.events)
    )


@compiled(types.void(state_type, types.float64, types.float64, types.int64, types.int64))
def add_event(state: Any, time_s: float, created_s: float, kind: int, subject: int) -> None:
    """Add an event from outside, see `helixlab.simulation.heap.push`."""
    push(state, time_s, created_s, kind, subject)


@compiled(
    types.int64(
        state_type,
        types.float64,
        types.int64,
        types.FunctionType(CHOOSE),
        types.FunctionType(ON_START),
        types.FunctionType(ON_READY),
        types.FunctionType(ON_FINISH),
        types.FunctionType(ADMITS),
    )
)
def advance(
    state: Any,
    until_s: float,
    most_events: int,
    choose: Any,
    on_start: Any,
    on_ready: Any,
    on_finish: Any,
    admits: Any,
) -> int:
    """Handle events up to and including `until_s`, at most about `most_events`; say why it stopped."""
    run = state.run[0]
    stop_at = run.events_done + most_events
    while True:
        if run.error != 0:
            return ERROR
        if _short_of_room(state):
            return FULL
        if run.events > 0 and state.events[0].time_s <= run.now_s:
            run.events_done += 1
            kind, subject = pop(state)
            if kind == ARRIVE:
                link = state.links[state.requests[subject].link]
                if state.queries[subject].evicted:
                    take_back(state, subject)
                elif link.queue == NONE:
                    finish_iteration(state, subject, on_start, on_finish)
                else:
                    join_queue(state, subject, link.queue)
            elif kind == SEGMENT_DONE:
                finish_segment(state, subject, on_ready)
            elif kind == LINK_FREE:
                link_free(state, subject)
            elif kind == FEED:
                if run.next_arrival == run.arrivals_known and run.more_arrivals:
                    push(state, run.now_s, run.now_s, FEED, NONE)
                    return NEEDS_ARRIVALS
                feed(state, choose, on_start)
            else:
                retry_held(state, choose, on_start)
            continue
        if run.marked_send > 0:
            send(state, next_marked(state, SEND), choose)
            continue
        if run.marked_start > 0:
            start_batch(state, next_marked(state, START), admits, on_finish)
            continue
        # The instant is over: on to the next event.
        if run.events == 0:
            return DONE
        ahead_s = state.events[0].time_s
        if run.next_sample_s <= min(ahead_s, until_s):
            if run.samples == len(state.samples):
                return FULL
            take_sample(state)
            continue
        if ahead_s > until_s:
            return PAUSED
        if run.events_done >= stop_at:
            return FULL
        run.now_s = ahead_s
