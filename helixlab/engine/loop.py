"""The event loop: `advance` runs a State until a given time, or until the driver has something to do.

The State is all that the engine knows, so `advance` can return at any event and be called again. At one
instant it first handles all events that are due, in the order of their creation. Then it handles their
follow-ups, in the order in which they were added: sending, starting batches, going on with requests.
"""

from __future__ import annotations

from typing import Any

from numba import types

from helixlab._jit import compiled, inlined
from helixlab.engine.constants import EventKind, FollowUp, Part, Status
from helixlab.engine.coordinator import (
    feed_request,
    gather_work_item,
    retry_queued_request,
    start_next_iteration,
)
from helixlab.engine.network import finish_sending, send_work_items
from helixlab.engine.node import finish_segment, join_queue, start_batch
from helixlab.engine.queues import add_followup, append_row, pop_event, pop_followup
from helixlab.engine.recording import attribute_time, take_sample
from helixlab.engine.requests import discard_work_item, draw_next_request, is_preempted
from helixlab.engine.state import ADMITS, CHOOSE, NONE, ON_FINISH, ON_READY, ON_START, state_type


@inlined
def _is_short_of_rows(state):
    """Tell whether a table or log might be too short for the next step."""
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
    """Let the next request of the workload arrive at `due_s`."""
    draw_next_request(state, due_s)


@inlined
def _receive_work_item(state, row):
    """Take a work item off its link, to a node or to the coordinator, which gathers all of one instant."""
    run = state.run[0]
    item = state.work_items[row]
    queue = state.links[item.link].queue
    if is_preempted(state.run, state.requests, item.request):
        discard_work_item(state, row)
        return
    if run.keep_breakdown:
        attribute_time(state.spent, row, Part.LINK_LATENCY, run.now_s)
    if queue != NONE:
        join_queue(state, row, queue)
        return
    run.first_gathered = append_row(state.work_items, run.first_gathered, run.last_gathered, row)
    run.last_gathered = row
    add_followup(state.run, state.followups, FollowUp.GATHER, NONE)


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
    """Handle events before `until_s`, at most about `most_events`, and return a `Status`.

    When no event is left, all samples up to the end of the window are taken at once.
    """
    run = state.run[0]
    stop_at = run.events_done + most_events
    while True:
        if run.error != 0:
            return Status.ERROR
        if _is_short_of_rows(state):
            return Status.FULL
        if run.next_arrival == run.arrivals_known and run.more_arrivals:
            return Status.NEEDS_ARRIVALS
        if run.first_gathered != NONE and run.gathering:
            row = run.first_gathered
            run.first_gathered = state.work_items[row].next
            gather_work_item(state, row, on_finish)
            continue
        run.gathering = 0
        if run.events > 0 and state.events[0].time_s <= run.now_s:
            run.events_done += 1
            run.woken = 0
            kind, subject = pop_event(state.run, state.events)
            if kind == EventKind.ARRIVE:
                if state.links[state.work_items[subject].link].latency_s > 0:
                    _receive_work_item(state, subject)
                else:
                    add_followup(state.run, state.followups, FollowUp.ARRIVED, subject)
            elif kind == EventKind.SEGMENT_DONE:
                finish_segment(state, subject)
            elif kind == EventKind.SENT:
                finish_sending(state, subject)
            elif kind == EventKind.FEED:
                feed_request(state, subject, choose, on_start, on_finish)
            else:
                retry_queued_request(state, choose, on_start, on_finish)
            continue
        if run.followups_end > 0:
            kind, subject = pop_followup(state.run, state.followups)
            if kind == FollowUp.SEND:
                send_work_items(state, subject, choose, on_ready)
            elif kind == FollowUp.START:
                if not state.nodes[subject].busy:
                    start_batch(state, subject, admits, on_finish)
            elif kind == FollowUp.ITERATE:
                start_next_iteration(state, subject, on_start)
            elif kind == FollowUp.WAKE:
                state.nodes[subject].waking = 0
                add_followup(state.run, state.followups, FollowUp.SEND, subject)
                add_followup(state.run, state.followups, FollowUp.START, subject)
            elif kind == FollowUp.ARRIVED:
                _receive_work_item(state, subject)
            else:
                run.gathering = 1
            continue
        # The instant is over: on to the next event.
        if run.events == 0:
            if run.woken or run.in_flight == run.queued:
                if run.next_sample_s <= run.end_of_feeding_s:
                    if run.samples == len(state.samples):
                        return Status.FULL
                    take_sample(state, run.end_of_feeding_s)
                    continue
                return Status.DONE
            # A sender whose links were not free sends again only when an event at the sender lets it.
            run.woken = 1
            for node in range(len(state.nodes)):
                add_followup(state.run, state.followups, FollowUp.SEND, node)
            continue
        ahead_s = state.events[0].time_s
        if run.next_sample_s <= min(ahead_s, until_s):
            if run.samples == len(state.samples):
                return Status.FULL
            take_sample(state, ahead_s)
            continue
        if ahead_s >= until_s:
            return Status.PAUSED
        if run.events_done >= stop_at:
            return Status.FULL
        run.now_s = ahead_s
