"""Records of a run: the timeline, and the breakdown of the time of every iteration.

The timeline gets a row every sample step. For the breakdown, every work item carries a mark: the time up to
which its time has been attributed. The next event of the work item attributes the time since the mark to a
`Part` and moves the mark on, so that the parts always add up to the latency.
"""

from __future__ import annotations

import math
from typing import Final

from helixlab._jit import inlined, rare
from helixlab.engine.constants import PARTS, Part
from helixlab.engine.kv_cache import compute_bottleneck_kv_use

__all__ = [
    "attribute_time",
    "start_breakdown",
    "take_sample",
]


MARK: Final = len(PARTS)
"""Column of the mark in the table ``spent``, behind the parts."""


@inlined
def start_breakdown(spent, row, since_s, queued_s, now_s):
    """Start the breakdown of a work item that leaves the coordinator with the time its iteration took so far.

    Without a preemption, the iteration has spent all of that time queued. After one, the rest of it went into
    work that was lost and is done again.
    """
    for part in range(len(PARTS)):
        spent[row, part] = 0.0
    spent[row, Part.QUEUED] = queued_s
    spent[row, Part.LOST] = (now_s - since_s) - queued_s
    spent[row, MARK] = now_s


@inlined
def attribute_time(spent, row, part, until_s):
    """Attribute the time since the mark to `part`, and return that time."""
    span_s = until_s - spent[row, MARK]
    spent[row, part] += span_s
    spent[row, MARK] = until_s
    return span_s


@rare
def take_sample(state, ahead_s):
    """Sample the counters, and every node's KV use and busy time, at the next sample time.

    Nothing happens before `ahead_s`, the time of the next event, so equal samples in between are left out.
    The last sample before the end of the window is always taken.
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
    row.bottleneck_kv_expected_fraction = compute_bottleneck_kv_use(state)
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
