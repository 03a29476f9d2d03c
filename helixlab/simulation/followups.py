"""What an event causes at its own instant: done after all events due by then, in the order of cause."""

from __future__ import annotations

from helixlab.jit import inlined

__all__ = ["ARRIVED", "GATHER", "ITERATE", "SEND", "START", "WAKE", "follow", "next_followup", "wake"]

SEND = 0
"""A node looks at what it can send."""
START = 1
"""A node starts a batch if it is free."""
GATHER = 2
"""The coordinator looks at the requests that came back."""
ITERATE = 3
"""The coordinator starts the next iteration of a query."""
ARRIVED = 4
"""A request is at the end of a link without latency, which it has left only now."""
WAKE = 5
"""A node does both, because queries have lost or given back room in KV caches."""


@inlined
def follow(runs, followups, what, subject):
    """Note something to be done at this instant; `subject` is a node, query or request, none for GATHER."""
    run = runs[0]
    entry = followups[run.followups_end]
    entry.what = what
    entry.subject = subject
    run.followups_end += 1


@inlined
def wake(runs, followups, nodes, node):
    """Note a node once, however many queries give it cause."""
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
