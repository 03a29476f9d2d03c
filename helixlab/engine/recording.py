"""What the engine records as it runs: the timeline, and where the time of every iteration goes.

A row of the timeline is written every sample step. For the breakdown, every work item carries a mark: the
time up to which its time has been attributed. Whatever happens to it next attributes the time since the
mark to what it was doing and moves the mark on, so that the parts add up to the latency in every case.
"""

from __future__ import annotations

import math

from helixlab._jit import inlined, rare
from helixlab.engine.kv_cache import bottleneck_kv_expected

__all__ = [
    "BATCH_WAIT",
    "COMPUTE",
    "KV_WAIT",
    "LINK_LATENCY",
    "LINK_WAIT",
    "LOST",
    "NODE_SAMPLES",
    "OVERHEAD",
    "PARTS",
    "QUEUED",
    "SENDING",
    "attribute",
    "start_marks",
    "take_sample",
]


PARTS = (
    "queued_s",
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
QUEUED, LOST, LINK_WAIT, SENDING, LINK_LATENCY, BATCH_WAIT, KV_WAIT, OVERHEAD, COMPUTE = range(len(PARTS))
MARK = len(PARTS)


@inlined
def start_marks(spent, row, since_s, queued_s, now_s):
    """A work item starts from the coordinator; what its iteration has waited for so far goes before.

    Without a preemption all of it was spent queued. After one, the rest is work that was lost, and
    doing it again.
    """
    for part in range(len(PARTS)):
        spent[row, part] = 0.0
    spent[row, QUEUED] = queued_s
    spent[row, LOST] = (now_s - since_s) - queued_s
    spent[row, MARK] = now_s


@inlined
def attribute(spent, row, part, until_s):
    """Put the time since the mark down to `part`; gives how long that was."""
    span_s = until_s - spent[row, MARK]
    spent[row, part] += span_s
    spent[row, MARK] = until_s
    return span_s


NODE_SAMPLES = ("kv_used_token_layers", "kv_expected_token_layers", "busy_s")
"""What is noted of every node, in the order of the rows of ``node_samples``."""


@rare
def take_sample(state, ahead_s):
    """Note the counters and every node's KV use and busy time as they are at the next sample time.

    Nothing happens before `ahead_s`. The last sample before the end of the window is always taken.
    """
    run = state.run[0]
    time_s = run.next_sample_s
    row = state.samples[run.samples]
    row.time_s = time_s
    row.in_flight = run.in_flight
    row.queued = run.queued
    row.finished = run.finished
    row.prompt_tokens = run.prompt_tokens
    row.decode_tokens = run.decode_tokens
    row.bottleneck_kv_expected_fraction = bottleneck_kv_expected(state)
    count = len(state.nodes) - 1
    for at in range(count):
        node = state.nodes[at]
        busy_s = node.busy_s
        if node.busy:
            busy_s += time_s - node.busy_since_s
        state.node_samples[run.samples, 0, at] = node.kv_used_token_layers
        state.node_samples[run.samples, 1, at] = node.kv_expected_token_layers
        state.node_samples[run.samples, 2, at] = busy_s
    run.samples += 1
    run.next_sample_s = time_s + run.sample_step_s
    if run.events_at_sample == run.events_done:
        until_s = ahead_s
        if time_s < run.end_of_feeding_s:
            until_s = min(ahead_s, run.end_of_feeding_s)
        steps = math.floor((until_s - time_s) / run.sample_step_s)
        if time_s + steps * run.sample_step_s > until_s:
            steps -= 1
        if steps > 1:
            run.next_sample_s = time_s + steps * run.sample_step_s
    run.events_at_sample = run.events_done
