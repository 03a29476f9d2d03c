"""The queues of the engine: events by time, and what follows from them at once.

Events are a binary heap in an array, ordered by time, time of creation and sequence. What an event causes at
its own instant is done after all events due by then, in the order of cause.
"""

from __future__ import annotations

from helixlab._jit import inlined

__all__ = [
    "ARRIVE",
    "ARRIVED",
    "FEED",
    "GATHER",
    "ITERATE",
    "RETRY",
    "SEGMENT_DONE",
    "SEND",
    "SENT",
    "START",
    "WAKE",
    "follow",
    "next_followup",
    "pop",
    "push",
    "wake",
]


FEED = 0
"""A request arrives at the coordinator."""
RETRY = 1
"""Queued requests are tried again."""
ARRIVE = 2
"""A work item reaches the end of its link."""
SENT = 3
"""A link has sent what it was sending."""
SEGMENT_DONE = 4
"""A node has run its batch up to the next layer at which work items may enter, or to its end."""


WAYS = 4
"""Entries below each entry of the heap."""


@inlined
def _before(a, b):
    if a.time_s != b.time_s:
        return a.time_s < b.time_s
    if a.created_s != b.created_s:
        return a.created_s < b.created_s
    return a.sequence < b.sequence


@inlined
def _put(entry, time_s, created_s, sequence, kind, subject):
    entry.time_s = time_s
    entry.created_s = created_s
    entry.sequence = sequence
    entry.kind = kind
    entry.subject = subject


@inlined
def _move(events, to, at):
    entry = events[at]
    _put(events[to], entry.time_s, entry.created_s, entry.sequence, entry.kind, entry.subject)


@inlined
def push(runs, events, time_s, created_s, kind, subject):
    """Add an event; `created_s` is when the reference simulator would have created it."""
    run = runs[0]
    at = run.events
    run.events += 1
    # It comes last of what is equal: its sequence is the highest.
    while at > 0:
        above = (at - 1) // WAYS
        entry = events[above]
        if entry.time_s < time_s or (entry.time_s == time_s and entry.created_s <= created_s):
            break
        _move(events, at, above)
        at = above
    _put(events[at], time_s, created_s, run.next_sequence, kind, subject)
    run.next_sequence += 1


@inlined
def pop(runs, events):
    """Remove the first event and give its kind and subject."""
    run = runs[0]
    kind, subject = events[0].kind, events[0].subject
    run.events -= 1
    last = run.events
    hole = 0
    while True:
        first = WAYS * hole + 1
        if first >= last:
            break
        for below in range(first + 1, min(first + WAYS, last)):
            if _before(events[below], events[first]):
                first = below
        if not _before(events[first], events[last]):
            break
        _move(events, hole, first)
        hole = first
    _move(events, hole, last)
    return kind, subject


SEND = 0
"""A node looks at what it can send."""
START = 1
"""A node starts a batch if it is free."""
GATHER = 2
"""The coordinator looks at the work items that came back."""
ITERATE = 3
"""The coordinator starts the next iteration of a request."""
ARRIVED = 4
"""A work item is at the end of a link without latency, which it has left only now."""
WAKE = 5
"""A node does both, because requests have lost or given back room in KV caches."""


@inlined
def follow(runs, followups, what, subject):
    """Note something to do at this instant; `subject` is a node, request or work item, none for GATHER."""
    run = runs[0]
    entry = followups[run.followups_end]
    entry.what = what
    entry.subject = subject
    run.followups_end += 1


@inlined
def wake(runs, followups, nodes, node):
    """Note a node once, however many requests give it cause."""
    if nodes[node].waking == 0:
        nodes[node].waking = 1
        follow(runs, followups, WAKE, node)


@inlined
def next_followup(runs, followups):
    """Take out what was noted first."""
    run = runs[0]
    entry = followups[run.followups_first]
    what, subject = entry.what, entry.subject
    run.followups_first += 1
    if run.followups_first == run.followups_end:
        run.followups_first = run.followups_end = 0
    return what, subject
