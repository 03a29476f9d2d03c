"""The timeline, written by the engine: one row every sample step, as long as something happens.

Of a stretch without events three rows are kept: the first sample after the last event, the one a step
later, from which on tokens/s and busy fractions are those of the stretch, and the last sample before the
next event or the end of the window. In between nothing changes but the busy time, which grows evenly, so
that looking up the row before a time, and interpolating what is counted, give what every sample would have
given.
"""

from __future__ import annotations

import math

from helixlab.jit import rare
from helixlab.simulation.kv_cache import bottleneck_kv_expected

__all__ = ["NODE_SAMPLES", "take_sample"]

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
    row.held = run.held
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
