"""The event queue: a binary heap in an array, ordered by (time, when created, sequence)."""

from __future__ import annotations

from helixlab.jit import inlined

__all__ = ["ARRIVE", "FEED", "RETRY", "SEGMENT_DONE", "SENT", "pop", "push"]

FEED = 0
"""A query arrives at the coordinator."""
RETRY = 1
"""Held queries are tried again."""
ARRIVE = 2
"""A request reaches the end of its link."""
SENT = 3
"""A link has sent what it was sending."""
SEGMENT_DONE = 4
"""A node has run its batch up to the next layer at which requests may enter, or to its end."""


@inlined
def _before(a, b):
    if a.time_s != b.time_s:
        return a.time_s < b.time_s
    if a.created_s != b.created_s:
        return a.created_s < b.created_s
    return a.sequence < b.sequence


@inlined
def push(runs, events, time_s, created_s, kind, subject):
    """Add an event; `created_s` is when the reference simulator would have created it."""
    run = runs[0]
    at = run.events
    run.events += 1
    entry = events[at]
    entry.time_s = time_s
    entry.created_s = created_s
    entry.sequence = run.next_sequence
    entry.kind = kind
    entry.subject = subject
    run.next_sequence += 1
    while at > 0:
        above = (at - 1) >> 1
        if not _before(events[at], events[above]):
            break
        _swap(events, at, above)
        at = above


@inlined
def _swap(events, a, b):
    x, y = events[a], events[b]
    x.time_s, y.time_s = y.time_s, x.time_s
    x.created_s, y.created_s = y.created_s, x.created_s
    x.sequence, y.sequence = y.sequence, x.sequence
    x.kind, y.kind = y.kind, x.kind
    x.subject, y.subject = y.subject, x.subject


@inlined
def pop(runs, events):
    """Remove the first event and give its kind and subject."""
    run = runs[0]
    kind, subject = events[0].kind, events[0].subject
    run.events -= 1
    last = run.events
    if last > 0:
        _swap(events, 0, last)
        at = 0
        while True:
            below = 2 * at + 1
            if below >= last:
                break
            if below + 1 < last and _before(events[below + 1], events[below]):
                below += 1
            if not _before(events[below], events[at]):
                break
            _swap(events, at, below)
            at = below
    return kind, subject
