"""Rows of the request table: one request is one iteration of a query, or one chunk of its prompt."""

from __future__ import annotations

from helixlab.jit import inlined
from helixlab.scheduling.state import NONE

__all__ = ["free_request", "new_request"]


@inlined
def new_request(state, query):
    """A blank request of a query, standing at the coordinator."""
    run = state.run[0]
    row = run.free_request
    request = state.requests[row]
    run.free_request = request.next
    run.free_requests -= 1
    state.queries[query].requests += 1
    request.query = query
    request.hop = NONE
    request.link = NONE
    request.next = NONE
    request.kv_reserved = 0
    request.waits_for_kv = 0
    return row


@inlined
def free_request(state, row):
    """Give the row of a request back."""
    run = state.run[0]
    request = state.requests[row]
    state.queries[request.query].requests -= 1
    request.next = run.free_request
    run.free_request = row
    run.free_requests += 1
