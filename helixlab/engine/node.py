"""A node at work: one batch at a time, from one layer at which work items may enter to the next."""

from __future__ import annotations

from helixlab._jit import inlined
from helixlab.engine.kv_cache import KV_FITS, KV_NEVER, KV_WAITS, reserve_kv
from helixlab.engine.network import get_ready
from helixlab.engine.queues import SEGMENT_DONE, SEND, START, follow, push
from helixlab.engine.recording import BATCH_WAIT, COMPUTE, KV_WAIT, OVERHEAD, attribute
from helixlab.engine.requests import OVER_BATCH_LIMITS, OVER_KV_CACHE, discard, is_preempted, refuse
from helixlab.engine.state import NONE

__all__ = ["OUTSIDE_PROFILE", "finish_segment", "join_queue", "start_batch"]

CONCAT_BYTES_PER_S = 4e9
TRANSFER_BYTES_PER_S = 5e9
"""Bringing received activations together and onto the device, measured by the Helix authors."""
OUTSIDE_PROFILE = 2
"""Error: a batch is larger than the measured layer times cover."""


@inlined
def append(queues, work_items, queue_row, row):
    """Put a work item at the end of a queue."""
    queue = queues[queue_row]
    work_items[row].next = NONE
    if queue.head == NONE:
        queue.head = row
    else:
        work_items[queue.tail].next = row
    queue.tail = row
    queue.length += 1
    queue.prompts += work_items[row].is_prompt


@inlined
def join_queue(state, row, queue_row):
    """A work item reaches a node."""
    node = state.queues[queue_row].node
    append(state.queues, state.work_items, queue_row, row)
    state.nodes[node].received_tokens += state.work_items[row].tokens
    follow(state.run, state.followups, START, node)


@inlined
def _next_waiting(nodes, queues, node, row):
    """The first queue from `row` on, in a circle over the layers, that has work items; `row` if none has."""
    entry = nodes[node]
    at = row
    for _ in range(entry.queues):
        if queues[at].length > 0:
            return at
        at = _following(entry, at)
    return row


@inlined
def _following(entry, row):
    """The next queue of the node, in a circle."""
    return row + 1 if row + 1 < entry.first_queue + entry.queues else entry.first_queue


@inlined
def start_batch(state, node, admits, on_finish):
    """Form a batch on a free node, from its current queue or the next with a work item that fits."""
    entry = state.nodes[node]
    if entry.busy or entry.queues == 0:
        return
    entry.kv_blocked = 0
    for _ in range(entry.queues):
        row = _next_waiting(state.nodes, state.queues, node, entry.current_queue)
        entry.current_queue = row
        if state.queues[row].length == 0:
            return
        queue = state.queues[row]
        entry.waiting_prompts = queue.prompts
        entry.waiting_decodes = queue.length - queue.prompts
        last_chance = False
        while True:
            _form_batch(state, node, row, admits, on_finish, last_chance)
            declined = entry.declined_prompts + entry.declined_decodes
            if last_chance or entry.batch_head != NONE or declined == 0:
                break
            # What they were declined for waits itself, for room in the KV cache, or is gone.
            entry.waiting_prompts = entry.declined_prompts
            entry.waiting_decodes = entry.declined_decodes
            last_chance = True
        if entry.batch_head != NONE:
            _run_segment(state, node, row)
            return
        # Nothing fits here: all of them wait for room in the KV cache.
        entry.current_queue = _following(entry, row)


@inlined
def _form_batch(state, node, queue_row, admits, on_finish, last_chance):
    entry = state.nodes[node]
    queue = state.queues[queue_row]
    entry.batch_head = NONE
    entry.batch_tail = NONE
    entry.batch_prompts = 0
    entry.batch_prompt_tokens = 0
    entry.batch_decode_tokens = 0
    entry.batch_context_tokens = 0
    entry.batch_prompt_context_tokens = 0
    entry.declined_prompts = 0
    entry.declined_decodes = 0
    row = queue.head
    queue.head = NONE
    queue.tail = NONE
    queue.length = 0
    queue.prompts = 0
    while row != NONE:
        item = state.work_items[row]
        request = item.request
        following = item.next
        if is_preempted(state.run, state.requests, request):
            discard(state, row)
            row = following
            continue
        # A prompt computed again after a preemption may exceed the limits, alone, where it is measured.
        lone = (
            entry.batch_head == NONE
            and item.is_prompt
            and state.requests[request].iteration > 0
            and item.tokens < state.prompt_s.shape[1]
            and state.prompt_s[entry.profile, item.tokens] > 0
        )
        fits = KV_WAITS
        reason = OVER_KV_CACHE
        waited_for_kv = item.waits_for_kv
        if admits(entry, item) or lone:
            fits = reserve_kv(state, node, row, on_finish)
            if is_preempted(state.run, state.requests, request):
                discard(state, row)
                row = following
                continue
        elif last_chance and entry.batch_head == NONE:
            fits = KV_NEVER  # alone in a batch and still over a limit
            reason = OVER_BATCH_LIMITS
        elif item.is_prompt:
            entry.declined_prompts += 1
        else:
            entry.declined_decodes += 1
        if fits == KV_NEVER:
            refuse(state, row, reason, on_finish)
        elif fits == KV_FITS:
            if state.run[0].keep_breakdown:
                _put_down_wait(state, entry, row, waited_for_kv)
            item.next = NONE
            if entry.batch_head == NONE:
                entry.batch_head = row
            else:
                state.work_items[entry.batch_tail].next = row
            entry.batch_tail = row
            if item.is_prompt:
                entry.batch_prompts += 1
                entry.batch_prompt_tokens += item.tokens
                entry.batch_prompt_context_tokens += item.context_tokens
            else:
                entry.batch_decode_tokens += item.tokens
                entry.batch_context_tokens += item.context_tokens
        else:
            if state.run[0].keep_breakdown and item.waits_for_kv:
                _put_down_wait(state, entry, row, waited_for_kv)
            append(state.queues, state.work_items, queue_row, row)
        row = following


@inlined
def _put_down_wait(state, entry, row, waits_for_kv):
    """A work item has waited at a node: for its turn, or, once there was no room for it, for that."""
    if waits_for_kv:
        entry.kv_wait_s += attribute(state.spent, row, KV_WAIT, state.run[0].now_s)
    else:
        entry.batch_wait_s += attribute(state.spent, row, BATCH_WAIT, state.run[0].now_s)


@inlined
def _run_segment(state, node, row):
    run = state.run[0]
    entry = state.nodes[node]
    queue = state.queues[row]
    prompts, decodes = entry.batch_prompt_tokens, entry.batch_decode_tokens
    if prompts >= state.prompt_s.shape[1] or decodes >= state.decode_s.shape[1]:
        run.error = OUTSIDE_PROFILE
        run.error_subject = node
        return
    layer_s = (
        run.prompt_cost_factor * state.prompt_s[entry.profile, prompts]
        + state.decode_s[entry.profile, decodes]
        + entry.reread_s_per_token * entry.batch_prompt_context_tokens
    )
    layer_s = max(layer_s, entry.floor_s)
    if not layer_s > 0:
        run.error = OUTSIDE_PROFILE
        run.error_subject = node
        return
    overhead_s = 0.0
    if queue.is_first_layer:
        received_bytes = entry.received_tokens * run.activation_bytes
        overhead_s = received_bytes / CONCAT_BYTES_PER_S + received_bytes / TRANSFER_BYTES_PER_S
        entry.received_tokens = 0
    # One layer after the other, as the reference adds them, so that times are equal to the last digit.
    started_s = run.now_s
    end_s = started_s + (layer_s + overhead_s)
    for _ in range(queue.layers - 1):
        started_s = end_s
        end_s = started_s + layer_s
    entry.busy = 1
    entry.busy_since_s = run.now_s
    entry.batch_layer_s = layer_s
    entry.batch_overhead_s = overhead_s
    entry.batches += 1
    push(state.run, state.events, end_s, started_s, SEGMENT_DONE, node)


@inlined
def finish_segment(state, node):
    """The batch has run its segment: its work items join the next queue of the node, or leave."""
    run = state.run[0]
    entry = state.nodes[node]
    queue_row = entry.current_queue
    queue = state.queues[queue_row]
    entry.busy = 0
    entry.busy_s += run.now_s - entry.busy_since_s
    if run.keep_batches:
        log = state.batch_log[run.batches_logged]
        run.batches_logged += 1
        log.node = node
        log.first_layer = queue.layer
        log.layers = queue.layers
        log.prompts = entry.batch_prompts
        log.prompt_tokens = entry.batch_prompt_tokens
        log.decodes = entry.batch_decode_tokens
        log.start_s = entry.busy_since_s
        log.end_s = run.now_s
    row = entry.batch_head
    entry.batch_head = NONE
    while row != NONE:
        item = state.work_items[row]
        following = item.next
        if is_preempted(state.run, state.requests, item.request):
            discard(state, row)
            row = following
            continue
        if run.keep_breakdown:
            attribute(state.spent, row, COMPUTE, run.now_s)
            state.spent[row, COMPUTE] -= entry.batch_overhead_s
            state.spent[row, OVERHEAD] += entry.batch_overhead_s
        if queue.is_last:
            entry.tokens += item.tokens
            get_ready(state.run, state.nodes, state.work_items, node, row)
        else:
            append(state.queues, state.work_items, queue_row + 1, row)
        row = following
    if queue.is_last:
        follow(state.run, state.followups, SEND, node)
    # The node stands at the segment's last layer and looks from the one after it on. If nothing waits
    # it stays; that is a queue's layer only if the segment was that one layer.
    ahead = _next_waiting(state.nodes, state.queues, node, _following(entry, queue_row))
    entry.current_queue = queue_row if queue.layers == 1 and state.queues[ahead].length == 0 else ahead
    follow(state.run, state.followups, START, node)
