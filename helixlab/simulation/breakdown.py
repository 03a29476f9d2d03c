"""Where the time of an iteration goes, noted while it passes.

Every request carries a mark: the time up to which its time has been put down to something. Whatever
happens to it next puts the time since the mark down to what it was doing and moves the mark on, so
that the parts add up to the latency, whatever happens.
"""

from __future__ import annotations

from helixlab.jit import inlined

__all__ = [
    "BATCH_WAIT",
    "COMPUTE",
    "HELD",
    "KV_WAIT",
    "LINK_LATENCY",
    "LINK_WAIT",
    "LOST",
    "OVERHEAD",
    "PARTS",
    "SENDING",
    "put_down",
    "start_marks",
]

PARTS = (
    "held_s",
    "lost_s",
    "link_wait_s",
    "sending_s",
    "link_latency_s",
    "batch_wait_s",
    "kv_wait_s",
    "overhead_s",
    "compute_s",
)
"""Columns of ``Result.iterations``, in the order of the columns of the tables here."""
HELD, LOST, LINK_WAIT, SENDING, LINK_LATENCY, BATCH_WAIT, KV_WAIT, OVERHEAD, COMPUTE = range(len(PARTS))
MARK = len(PARTS)


@inlined
def start_marks(spent, row, since_s, held_s, now_s):
    """A request starts from the coordinator; what its iteration has waited for so far goes before.

    Without a preemption all of it was spent held. After one, the rest is work that was lost, and
    doing it again.
    """
    for part in range(len(PARTS)):
        spent[row, part] = 0.0
    spent[row, HELD] = held_s
    spent[row, LOST] = (now_s - since_s) - held_s
    spent[row, MARK] = now_s


@inlined
def put_down(spent, row, part, until_s):
    """Put the time since the mark down to `part`; gives how long that was."""
    span_s = until_s - spent[row, MARK]
    spent[row, part] += span_s
    spent[row, MARK] = until_s
    return span_s
