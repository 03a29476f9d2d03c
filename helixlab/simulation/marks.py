"""Nodes to look at when all events of an instant are done: first to send, then to start a batch."""

from __future__ import annotations

from helixlab.jit import inlined

__all__ = ["SEND", "START", "mark", "next_marked"]

SEND = 0
START = 1


@inlined
def mark(state, what, node):
    """Remember a node; marked twice is marked once."""
    run = state.run[0]
    if what == SEND:
        if state.nodes[node].marked_send == 0:
            state.nodes[node].marked_send = 1
            state.marked[SEND, run.marked_send] = node
            run.marked_send += 1
    elif state.nodes[node].marked_start == 0:
        state.nodes[node].marked_start = 1
        state.marked[START, run.marked_start] = node
        run.marked_start += 1


@inlined
def next_marked(state, what):
    """Take out the node that was marked first."""
    run = state.run[0]
    row = state.marked[what]
    node = row[0]
    if what == SEND:
        run.marked_send -= 1
        left = run.marked_send
        state.nodes[node].marked_send = 0
    else:
        run.marked_start -= 1
        left = run.marked_start
        state.nodes[node].marked_start = 0
    for at in range(left):
        row[at] = row[at + 1]
    return node
