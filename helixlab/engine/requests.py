"""The life of a request: drawn, queued, preempted, and at last finished, dropped or refused."""

from __future__ import annotations

import math

from helixlab._jit import inlined, rare
from helixlab.engine.constants import EventKind, Outcome, Reason
from helixlab.engine.kv_cache import compute_bottleneck_kv_use, preempt_request
from helixlab.engine.queues import push_event
from helixlab.engine.state import NONE

__all__ = [
    "create_work_item",
    "discard_work_item",
    "draw_next_request",
    "end_request",
    "free_work_item",
    "is_preempted",
    "queue_preempted_request",
    "queue_request",
    "refuse_request",
    "schedule_admission",
]


@inlined
def create_work_item(runs, requests, work_items, request):
    """Create a blank work item of a request, at the coordinator."""
    run = runs[0]
    row = run.free_work_item
    item = work_items[row]
    run.free_work_item = item.next
    run.free_work_items -= 1
    requests[request].work_items += 1
    item.request = request
    item.hop = NONE
    item.link = NONE
    item.next = NONE
    item.kv_reserved = 0
    item.waits_for_kv = 0
    return row


@inlined
def free_work_item(runs, requests, work_items, row):
    """Free the row of a work item."""
    run = runs[0]
    item = work_items[row]
    requests[item.request].work_items -= 1
    item.next = run.free_work_item
    run.free_work_item = row
    run.free_work_items += 1


@inlined
def is_preempted(runs, requests, request):
    """Tell whether a request has lost its KV cache.

    As long as none has, which is nearly always, this does not read the row of the request.
    """
    return runs[0].preempted_requests > 0 and requests[request].preempted != 0


@rare
def draw_next_request(state, due_s):
    """Let the next request of the workload arrive at `due_s`."""
    run = state.run[0]
    if run.next_arrival == run.arrivals_known:
        return
    arrival = state.arrivals[run.next_arrival]
    run.next_arrival += 1
    row = run.free_request
    entry = state.requests[row]
    run.free_request = entry.next
    entry.id = run.drawn
    run.drawn += 1
    entry.input_tokens = arrival.input_tokens
    entry.output_tokens = arrival.output_tokens
    entry.iteration = 0
    entry.hops = 0
    entry.work_items = 0
    entry.kv_tokens = 0
    entry.queued = 0
    entry.queued_s = 0.0
    entry.was_queued = 0
    entry.preempted = 0
    entry.refused = 0
    entry.booked = 0
    entry.reason = Reason.NO_REASON
    entry.prompt_done_s = math.nan
    entry.next = NONE
    if run.chunk_tokens > 0:
        longest = (arrival.input_tokens + arrival.output_tokens) // run.chunk_tokens + 1
        run.most_chunks = max(run.most_chunks, longest)
    push_event(state.run, state.events, due_s, run.now_s, EventKind.FEED, row)


@rare
def end_request(state, request, outcome):
    """Log the outcome of a request and free its row."""
    run = state.run[0]
    entry = state.requests[request]
    log = state.request_logs[run.request_logs]
    run.request_logs += 1
    log.request = entry.id
    log.input_tokens = entry.input_tokens
    log.output_tokens = entry.output_tokens
    log.arrival_s = entry.arrival_s
    log.prompt_done_s = entry.prompt_done_s
    log.end_s = run.now_s
    log.outcome = outcome
    log.reason = entry.reason
    entry.in_use = 0
    entry.hops = 0
    entry.next = run.free_request
    run.free_request = request
    run.in_flight -= 1
    if outcome == Outcome.FINISHED:
        run.finished += 1
    elif outcome == Outcome.DROPPED:
        run.dropped += 1
    else:
        run.refused += 1


@rare
def schedule_admission(state, request_ended):
    """Schedule a retry of the queued requests or, offline, the next request: a request or prompt is done."""
    run = state.run[0]
    due_s = run.now_s + run.feed_delay_s
    if run.queued > 0:
        push_event(state.run, state.events, due_s, run.now_s, EventKind.RETRY, NONE)
        if request_ended and not run.online and not run.feeds_by_kv:
            run.feeds_owed += 1  # once nothing is queued any more
    elif not run.online and due_s < run.end_of_feeding_s:
        if not run.feeds_by_kv:
            if request_ended:
                draw_next_request(state, due_s)
        elif compute_bottleneck_kv_use(state) <= run.feed_kv_limit:
            draw_next_request(state, due_s)


@rare
def queue_request(state, request):
    """Queue a request at the coordinator, in order of arrival."""
    run = state.run[0]
    entry = state.requests[request]
    entry.queued = 1
    entry.queued_since_s = run.now_s
    run.queued += 1
    if entry.was_queued == 0:
        entry.was_queued = 1
        run.ever_queued += 1
    before = NONE
    after = run.first_queued
    if after != NONE and state.requests[run.last_queued].id < entry.id:
        before = run.last_queued  # nearly always: this request arrived last
        after = NONE
    while after != NONE and state.requests[after].id < entry.id:
        before = after
        after = state.requests[after].next
    entry.next = after
    if after == NONE:
        run.last_queued = request
    if before == NONE:
        run.first_queued = request
    else:
        state.requests[before].next = request


@rare
def discard_work_item(state, row):
    """Discard a work item of a preempted request; with the last one, queue the request again or refuse it."""
    request = state.work_items[row].request
    free_work_item(state.run, state.requests, state.work_items, row)
    if state.requests[request].work_items == 0:
        if state.requests[request].refused:
            state.run[0].preempted_requests -= 1
            end_request(state, request, Outcome.REFUSED)
            schedule_admission(state, True)
        else:
            queue_preempted_request(state, request)


@rare
def queue_preempted_request(state, request):
    """Queue a preempted request without work items under way; it starts over once there is free KV cache."""
    run = state.run[0]
    entry = state.requests[request]
    entry.preempted = 0
    run.preempted_requests -= 1
    entry.hops = 0
    queue_request(state, request)
    push_event(state.run, state.events, run.now_s + run.feed_delay_s, run.now_s, EventKind.RETRY, NONE)


@rare
def refuse_request(state, row, reason, on_finish):
    """Refuse a request that this node can never serve; `row` is its work item, now in no queue."""
    request = state.work_items[row].request
    preempt_request(state, request, on_finish)
    state.requests[request].refused = 1
    state.requests[request].reason = reason
    discard_work_item(state, row)
