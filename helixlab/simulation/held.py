"""Queries held at the coordinator, and the way back there for those that lose their KV cache."""

from __future__ import annotations

from helixlab.jit import rare
from helixlab.scheduling.state import NONE
from helixlab.simulation.heap import RETRY, push
from helixlab.simulation.kv_cache import evict
from helixlab.simulation.queries import REFUSED, leave, trigger
from helixlab.simulation.requests import free_request

__all__ = ["hold", "hold_evicted", "refuse", "take_back"]


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
