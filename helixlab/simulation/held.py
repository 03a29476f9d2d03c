"""Queries held at the coordinator: those that fit nowhere, and those that lost their KV cache."""

from __future__ import annotations

from helixlab.jit import inlined
from helixlab.scheduling.state import NONE
from helixlab.simulation.heap import RETRY, push

__all__ = ["hold", "take_back"]


@inlined
def hold(state, query):
    """Let the query wait at the coordinator, in order of arrival."""
    run = state.run[0]
    entry = state.queries[query]
    entry.held = 1
    run.held += 1
    if entry.was_held == 0:
        entry.was_held = 1
        run.waited += 1
    before = NONE
    after = run.first_held
    while after != NONE and state.queries[after].id < entry.id:
        before = after
        after = state.queries[after].next
    entry.next = after
    if before == NONE:
        run.first_held = query
    else:
        state.queries[before].next = query


@inlined
def take_back(state, query):
    """The request of a preempted query is met: from here on the query waits at the coordinator."""
    run = state.run[0]
    entry = state.queries[query]
    entry.evicted = 0
    entry.hops = 0
    state.requests[query].hop = NONE
    hold(state, query)
    push(state, run.now_s + run.feed_delay_s, run.now_s, RETRY, NONE)
