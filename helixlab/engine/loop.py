"""The event engine: `advance` runs a State until a time, or until the driver has to do something.

Everything the engine knows stands in the State, so `advance` can return at any event and be called
again. At one instant it first handles all events that are due, in the order they were created,
then what these caused, in the order of cause: sending, starting batches, going on with requests.
"""

from __future__ import annotations

from typing import Any

from numba import types

from helixlab._jit import compiled, inlined
from helixlab.engine.coordinator import feed, gather, iterate, retry_queued
from helixlab.engine.network import send, sent
from helixlab.engine.node import finish_segment, join_queue, start_batch
from helixlab.engine.queues import (
    ARRIVE,
    ARRIVED,
    FEED,
    GATHER,
    ITERATE,
    SEGMENT_DONE,
    SEND,
    SENT,
    START,
    WAKE,
    follow,
    next_followup,
    pop,
)
from helixlab.engine.recording import LINK_LATENCY, attribute, take_sample
from helixlab.engine.requests import discard, draw, is_preempted
from helixlab.engine.state import ADMITS, CHOOSE, NONE, ON_FINISH, ON_READY, ON_START, state_type

__all__ = ["DONE", "ERROR", "FULL", "NEEDS_ARRIVALS", "PAUSED", "advance", "draw_request"]

DONE = 0
"""No event is left."""
PAUSED = 1
"""The next event is at the time asked for or later."""
FULL = 2
"""A table or log is full: empty or enlarge it and go on."""
NEEDS_ARRIVALS = 3
"""The arrivals filled in are used up."""
ERROR = 4
"""Something impossible happened, see ``run.error``."""


@inlined
def _short_of_room(state):
    """Whether the next step might not find the room it needs."""
    run = state.run[0]
    work_items = len(state.work_items)
    return (
        run.free_request == NONE
        or run.free_work_items < run.most_chunks
        or run.iterations + 1 > len(state.iterations)
        or run.batches_logged + 1 > len(state.batch_log)
        or run.request_logs + work_items + 1 > len(state.request_logs)
        or run.events + work_items + 4 > len(state.events)
        or run.followups_end + 3 * work_items + 3 * len(state.nodes) + 4 > len(state.followups)
    )


@compiled(types.void(state_type, types.float64))
def draw_request(state: Any, due_s: float) -> None:
    """Let the workload's next request come at `due_s`."""
    draw(state, due_s)


@inlined
def _arrive(state, row):
    """Take a work item off its link: to a node, or to the coordinator, which gathers what comes at once."""
    run = state.run[0]
    item = state.work_items[row]
    queue = state.links[item.link].queue
    if is_preempted(state.run, state.requests, item.request):
        discard(state, row)
        return
    if run.keep_breakdown:
        attribute(state.spent, row, LINK_LATENCY, run.now_s)
    if queue != NONE:
        join_queue(state, row, queue)
        return
    item.next = NONE
    if run.first_gathered == NONE:
        run.first_gathered = row
    else:
        state.work_items[run.last_gathered].next = row
    run.last_gathered = row
    follow(state.run, state.followups, GATHER, NONE)


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
    """Handle events before `until_s`, at most about `most_events`; say why it stopped.

    Where no event is left, samples are taken up to the end of the window at once.
    """
    run = state.run[0]
    stop_at = run.events_done + most_events
    while True:
        if run.error != 0:
            return ERROR
        if _short_of_room(state):
            return FULL
        if run.next_arrival == run.arrivals_known and run.more_arrivals:
            return NEEDS_ARRIVALS
        if run.first_gathered != NONE and run.gathering:
            row = run.first_gathered
            run.first_gathered = state.work_items[row].next
            gather(state, row, on_finish)
            continue
        run.gathering = 0
        if run.events > 0 and state.events[0].time_s <= run.now_s:
            run.events_done += 1
            run.woken = 0
            kind, subject = pop(state.run, state.events)
            if kind == ARRIVE:
                if state.links[state.work_items[subject].link].latency_s > 0:
                    _arrive(state, subject)
                else:
                    follow(state.run, state.followups, ARRIVED, subject)
            elif kind == SEGMENT_DONE:
                finish_segment(state, subject)
            elif kind == SENT:
                sent(state, subject)
            elif kind == FEED:
                feed(state, subject, choose, on_start, on_finish)
            else:
                retry_queued(state, choose, on_start, on_finish)
            continue
        if run.followups_end > 0:
            what, subject = next_followup(state.run, state.followups)
            if what == SEND:
                send(state, subject, choose, on_ready)
            elif what == START:
                if not state.nodes[subject].busy:
                    start_batch(state, subject, admits, on_finish)
            elif what == ITERATE:
                iterate(state, subject, on_start)
            elif what == WAKE:
                state.nodes[subject].waking = 0
                follow(state.run, state.followups, SEND, subject)
                follow(state.run, state.followups, START, subject)
            elif what == ARRIVED:
                _arrive(state, subject)
            else:
                run.gathering = 1
            continue
        # The instant is over: on to the next event.
        if run.events == 0:
            if run.woken or run.in_flight == run.queued:
                if run.next_sample_s <= run.end_of_feeding_s:
                    if run.samples == len(state.samples):
                        return FULL
                    take_sample(state, run.end_of_feeding_s)
                    continue
                return DONE
            # A sender whose link had nothing to give looks again only when something happens to it.
            run.woken = 1
            for node in range(len(state.nodes)):
                follow(state.run, state.followups, SEND, node)
            continue
        ahead_s = state.events[0].time_s
        if run.next_sample_s <= min(ahead_s, until_s):
            if run.samples == len(state.samples):
                return FULL
            take_sample(state, ahead_s)
            continue
        if ahead_s >= until_s:
            return PAUSED
        if run.events_done >= stop_at:
            return FULL
        run.now_s = ahead_s
