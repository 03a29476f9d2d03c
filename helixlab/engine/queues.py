"""The queues of the engine: the heap of events, the list of follow-ups, and linked lists of rows.

Events are a heap in an array, ordered by time, time of creation and sequence. An event may cause follow-ups
at its own instant. The engine handles them after all events due by then, in the order of their addition.
"""

from __future__ import annotations

from helixlab._jit import inlined
from helixlab.engine.constants import FollowUp
from helixlab.engine.state import NONE

__all__ = [
    "add_followup",
    "append_row",
    "pop_event",
    "pop_followup",
    "push_event",
    "wake_node",
]


WAYS = 4
"""Number of children of each entry of the heap."""


@inlined
def _is_before(a, b):
    if a.time_s != b.time_s:
        return a.time_s < b.time_s
    if a.created_s != b.created_s:
        return a.created_s < b.created_s
    return a.sequence < b.sequence


@inlined
def _set_entry(entry, time_s, created_s, sequence, kind, subject):
    entry.time_s = time_s
    entry.created_s = created_s
    entry.sequence = sequence
    entry.kind = kind
    entry.subject = subject


@inlined
def _move_entry(events, to, at):
    entry = events[at]
    _set_entry(events[to], entry.time_s, entry.created_s, entry.sequence, entry.kind, entry.subject)


@inlined
def push_event(runs, events, time_s, created_s, kind, subject):
    """Add an event; `created_s` is the time at which the reference simulator would have created it."""
    run = runs[0]
    at = run.events
    run.events += 1
    # Its sequence is the highest, so it goes behind all events of the same times.
    while at > 0:
        above = (at - 1) // WAYS
        entry = events[above]
        if entry.time_s < time_s or (entry.time_s == time_s and entry.created_s <= created_s):
            break
        _move_entry(events, at, above)
        at = above
    _set_entry(events[at], time_s, created_s, run.next_sequence, kind, subject)
    run.next_sequence += 1


@inlined
def pop_event(runs, events):
    """Remove the first event and return its kind and subject."""
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
            if _is_before(events[below], events[first]):
                first = below
        if not _is_before(events[first], events[last]):
            break
        _move_entry(events, hole, first)
        hole = first
    _move_entry(events, hole, last)
    return kind, subject


@inlined
def add_followup(runs, followups, kind, subject):
    """Add a follow-up at this instant; `subject` is a node, request or work item, NONE for GATHER."""
    run = runs[0]
    entry = followups[run.followups_end]
    entry.kind = kind
    entry.subject = subject
    run.followups_end += 1


@inlined
def wake_node(runs, followups, nodes, node):
    """Add the follow-up WAKE for a node, unless it is in the list already."""
    if nodes[node].waking == 0:
        nodes[node].waking = 1
        add_followup(runs, followups, FollowUp.WAKE, node)


@inlined
def pop_followup(runs, followups):
    """Remove the first follow-up and return its kind and subject."""
    run = runs[0]
    entry = followups[run.followups_first]
    kind, subject = entry.kind, entry.subject
    run.followups_first += 1
    if run.followups_first == run.followups_end:
        run.followups_first = run.followups_end = 0
    return kind, subject


@inlined
def append_row(rows, head, tail, row):
    """Append `row` to a list linked through the column ``next`` of `rows`, and return the head of the list.

    The caller stores both ends: the head returned, and `row` as the tail. An empty list has the head NONE.
    """
    rows[row].next = NONE
    if head == NONE:
        return row
    rows[tail].next = row
    return head
