"""The life of a request: drawn from the workload, queued, preempted, and at last finished, dropped or refused."""

from __future__ import annotations

import math

from helixlab._jit import inlined, rare
from helixlab.engine.kv_cache import bottleneck_kv_expected, evict
from helixlab.engine.queues import FEED, RETRY, push
from helixlab.engine.state import NONE

__all__ = [
    "DROPPED",
    "FINISHED",
    "NO_WAY",
    "OVER_BATCH_LIMITS",
    "OVER_KV_CACHE",
    "REFUSED",
    "draw",
    "free_request",
    "hold",
    "hold_evicted",
    "is_evicted",
    "leave",
    "new_request",
    "refuse",
    "take_back",
    "trigger",
]


@inlined
def new_request(runs, queries, requests, query):
    """A blank request of a query, standing at the coordinator."""
    run = runs[0]
    row = run.free_request
    request = requests[row]
    run.free_request = request.next
    run.free_requests -= 1
    queries[query].requests += 1
    request.query = query
    request.hop = NONE
    request.link = NONE
    request.next = NONE
    request.kv_reserved = 0
    request.waits_for_kv = 0
    return row


@inlined
def free_request(runs, queries, requests, row):
    """Give the row of a request back."""
    run = runs[0]
    request = requests[row]
    queries[request.query].requests -= 1
    request.next = run.free_request
    run.free_request = row
    run.free_requests += 1


FINISHED, DROPPED, REFUSED = 0, 1, 2
"""How a query ended."""
NO_REASON, NO_WAY, OVER_KV_CACHE, OVER_BATCH_LIMITS = 0, 1, 2, 3
"""Why it was refused: no pipeline for it though nothing else ran, longer than the KV cache of a node
on its way, not admitted to any batch there."""


@inlined
def is_evicted(runs, queries, query):
    """Whether a query has lost its KV cache; hardly ever does one, and then its row is not looked at."""
    return runs[0].evicted > 0 and queries[query].evicted != 0


@rare
def draw(state, due_s):
    """Decide that a query will come at `due_s`, and which: the next of the workload."""
    run = state.run[0]
    if run.next_arrival == run.arrivals_known:
        return
    arrival = state.arrivals[run.next_arrival]
    run.next_arrival += 1
    row = run.free_query
    entry = state.queries[row]
    run.free_query = entry.next
    entry.id = run.drawn
    run.drawn += 1
    entry.input_tokens = arrival.input_tokens
    entry.output_tokens = arrival.output_tokens
    entry.iteration = 0
    entry.hops = 0
    entry.requests = 0
    entry.kv_tokens = 0
    entry.held = 0
    entry.held_s = 0.0
    entry.was_held = 0
    entry.evicted = 0
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
def leave(state, query, outcome):
    """Free the row of a query and note how it ended."""
    run = state.run[0]
    entry = state.queries[query]
    log = state.query_logs[run.query_logs]
    run.query_logs += 1
    log.query = entry.id
    log.input_tokens = entry.input_tokens
    log.output_tokens = entry.output_tokens
    log.arrival_s = entry.arrival_s
    log.prompt_done_s = entry.prompt_done_s
    log.end_s = run.now_s
    log.outcome = outcome
    log.reason = entry.reason
    entry.in_use = 0
    entry.hops = 0
    entry.next = run.free_query
    run.free_query = query
    run.in_flight -= 1
    if outcome == FINISHED:
        run.finished += 1
    elif outcome == DROPPED:
        run.dropped += 1
    else:
        run.refused += 1


@rare
def trigger(state, query_ended):
    """A prompt or a query has finished: retry what is held, or feed (offline)."""
    run = state.run[0]
    due_s = run.now_s + run.feed_delay_s
    if run.held > 0:
        push(state.run, state.events, due_s, run.now_s, RETRY, NONE)
        if query_ended and not run.online and not run.feeds_by_kv:
            run.feeds_owed += 1  # once nothing is held any more
    elif not run.online and due_s < run.end_of_feeding_s:
        if not run.feeds_by_kv:
            if query_ended:
                draw(state, due_s)
        elif bottleneck_kv_expected(state) <= run.feed_kv_limit:
            draw(state, due_s)


@rare
def hold(state, query):
    """Let the query wait at the coordinator, in order of arrival."""
    run = state.run[0]
    entry = state.queries[query]
    entry.held = 1
    entry.held_since_s = run.now_s
    run.held += 1
    if entry.was_held == 0:
        entry.was_held = 1
        run.waited += 1
    before = NONE
    after = run.first_held
    if after != NONE and state.queries[run.last_held].id < entry.id:
        before = run.last_held  # as nearly always: the last one to arrive
        after = NONE
    while after != NONE and state.queries[after].id < entry.id:
        before = after
        after = state.queries[after].next
    entry.next = after
    if after == NONE:
        run.last_held = query
    if before == NONE:
        run.first_held = query
    else:
        state.queries[before].next = query


@rare
def take_back(state, row):
    """A request of an evicted query is met; with the last of them the query is out of the system."""
    query = state.requests[row].query
    free_request(state.run, state.queries, state.requests, row)
    if state.queries[query].requests == 0:
        if state.queries[query].refused:
            state.run[0].evicted -= 1
            leave(state, query, REFUSED)
            trigger(state, True)
        else:
            hold_evicted(state, query)


@rare
def hold_evicted(state, query):
    """A preempted query that has no request under way starts over when there is room."""
    run = state.run[0]
    entry = state.queries[query]
    entry.evicted = 0
    run.evicted -= 1
    entry.hops = 0
    hold(state, query)
    push(state.run, state.events, run.now_s + run.feed_delay_s, run.now_s, RETRY, NONE)


@rare
def refuse(state, row, reason, on_finish):
    """The query can never be served where this request of it is, which is in no queue any more."""
    query = state.requests[row].query
    evict(state, query, on_finish)
    state.queries[query].refused = 1
    state.queries[query].reason = reason
    take_back(state, row)
