"""Rows of the request table: one request is one iteration of a query, or one chunk of its prompt."""

from __future__ import annotations

from helixlab.jit import inlined
from helixlab.scheduling.state import NONE

__all__ = ["free_request", "new_request"]


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
