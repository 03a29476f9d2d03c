"""The life of a request: drawn, queued, preempted, and at last finished, dropped or refused."""

from __future__ import annotations

import math

from helixlab._jit import inlined, rare
from helixlab.engine.kv_cache import bottleneck_kv_expected, preempt
from helixlab.engine.queues import FEED, RETRY, push
from helixlab.engine.state import NONE

__all__ = [
    "DROPPED",
    "FINISHED",
    "NO_WAY",
    "OVER_BATCH_LIMITS",
    "OVER_KV_CACHE",
    "REFUSED",
    "discard",
    "draw",
    "free_work_item",
    "is_preempted",
    "leave",
    "new_work_item",
    "queue_preempted",
    "queue_request",
    "refuse",
    "trigger",
]


@inlined
def new_work_item(runs, requests, work_items, request):
    """A blank work item of a request, standing at the coordinator."""
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
    """Give the row of a work item back."""
    run = runs[0]
    item = work_items[row]
    requests[item.request].work_items -= 1
    item.next = run.free_work_item
    run.free_work_item = row
    run.free_work_items += 1


FINISHED, DROPPED, REFUSED = 0, 1, 2
"""How a request ended."""
NO_REASON, NO_WAY, OVER_KV_CACHE, OVER_BATCH_LIMITS = 0, 1, 2, 3
"""Why it was refused: no pipeline for it though nothing else ran, longer than the KV cache of a node
on its way, not admitted to any batch there."""


@inlined
def is_preempted(runs, requests, request):
    """Whether a request has lost its KV cache; hardly ever does one, and then its row is not looked at."""
    return runs[0].preempted_requests > 0 and requests[request].preempted != 0


@rare
def draw(state, due_s):
    """Decide that a request will come at `due_s`, and which: the next of the workload."""
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
    entry.reason = NO_REASON
    entry.prompt_done_s = math.nan
    entry.next = NONE
    if run.chunk_tokens > 0:
        longest = (arrival.input_tokens + arrival.output_tokens) // run.chunk_tokens + 1
        run.most_chunks = max(run.most_chunks, longest)
    push(state.run, state.events, due_s, run.now_s, FEED, row)


@rare
def leave(state, request, outcome):
    """Free the row of a request and note how it ended."""
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
    if outcome == FINISHED:
        run.finished += 1
    elif outcome == DROPPED:
        run.dropped += 1
    else:
        run.refused += 1


@rare
def trigger(state, request_ended):
    """A prompt or a request has finished: retry what is queued, or feed (offline)."""
    run = state.run[0]
    due_s = run.now_s + run.feed_delay_s
    if run.queued > 0:
        push(state.run, state.events, due_s, run.now_s, RETRY, NONE)
        if request_ended and not run.online and not run.feeds_by_kv:
            run.feeds_owed += 1  # once nothing is queued any more
    elif not run.online and due_s < run.end_of_feeding_s:
        if not run.feeds_by_kv:
            if request_ended:
                draw(state, due_s)
        elif bottleneck_kv_expected(state) <= run.feed_kv_limit:
            draw(state, due_s)


@rare
def queue_request(state, request):
    """Let the request wait at the coordinator, in order of arrival."""
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
        before = run.last_queued  # as nearly always: the last one to arrive
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
def discard(state, row):
    """A work item of an preempted request is met; with the last of them the request is out of the system."""
    request = state.work_items[row].request
    free_work_item(state.run, state.requests, state.work_items, row)
    if state.requests[request].work_items == 0:
        if state.requests[request].refused:
            state.run[0].preempted_requests -= 1
            leave(state, request, REFUSED)
            trigger(state, True)
        else:
            queue_preempted(state, request)


@rare
def queue_preempted(state, request):
    """A preempted request that has no work item under way starts over when there is room."""
    run = state.run[0]
    entry = state.requests[request]
    entry.preempted = 0
    run.preempted_requests -= 1
    entry.hops = 0
    queue_request(state, request)
    push(state.run, state.events, run.now_s + run.feed_delay_s, run.now_s, RETRY, NONE)


@rare
def refuse(state, row, reason, on_finish):
    """The request can never be served where this work item of it is, which is in no queue any more."""
    request = state.work_items[row].request
    preempt(state, request, on_finish)
    state.requests[request].refused = 1
    state.requests[request].reason = reason
    discard(state, row)
