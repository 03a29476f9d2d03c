"""The work of a node: one batch at a time, from one layer at which work items may enter to the next."""

from __future__ import annotations

from helixlab._jit import inlined
from helixlab.engine.constants import EngineError, EventKind, FollowUp, KvAnswer, Part, Reason
from helixlab.engine.kv_cache import reserve_kv
from helixlab.engine.network import release_work_item
from helixlab.engine.queues import add_followup, append_row, push_event
from helixlab.engine.recording import attribute_time
from helixlab.engine.requests import discard_work_item, is_preempted, refuse_request
from helixlab.engine.state import NONE

CONCAT_BYTES_PER_S = 4e9
TRANSFER_BYTES_PER_S = 5e9
"""Rates of bringing received activations together and onto the device, measured by the Helix authors."""


@inlined
def append_to_queue(queues, work_items, queue_row, row):
    """Append a work item to a queue."""
    queue = queues[queue_row]
    queue.head = append_row(work_items, queue.head, queue.tail, row)
    queue.tail = row
    queue.length += 1
    queue.prompts += work_items[row].is_prompt


@inlined
def join_queue(state, row, queue_row):
    """Let a work item that reaches a node join a queue of the node."""
    node = state.queues[queue_row].node
    append_to_queue(state.queues, state.work_items, queue_row, row)
    state.nodes[node].received_tokens += state.work_items[row].tokens
    add_followup(state.run, state.followups, FollowUp.START, node)


@inlined
def _find_waiting_queue(nodes, queues, node, row):
    """Find the first queue with work items, from `row` on in a circle; return `row` if there is none."""
    entry = nodes[node]
    at = row
    for _ in range(entry.queues):
        if queues[at].length > 0:
            return at
        at = _next_queue(entry, at)
    return row


@inlined
def _next_queue(entry, row):
    """Return the row of the next queue of the node, in a circle."""
    return row + 1 if row + 1 < entry.first_queue + entry.queues else entry.first_queue


@inlined
def start_batch(state, node, admits, on_finish):
    """Start a batch on a free node, from its current queue or the next one with a work item that fits."""
    entry = state.nodes[node]
    if entry.busy or entry.queues == 0:
        return
    entry.kv_blocked = 0
    for _ in range(entry.queues):
        row = _find_waiting_queue(state.nodes, state.queues, node, entry.current_queue)
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
            # The work items that they gave way to wait for KV cache themselves, or are gone.
            entry.waiting_prompts = entry.declined_prompts
            entry.waiting_decodes = entry.declined_decodes
            last_chance = True
        if entry.batch_head != NONE:
            _start_segment(state, node, row)
            return
        # Nothing fits here: all of them wait for KV cache.
        entry.current_queue = _next_queue(entry, row)


@inlined
def _form_batch(state, node, queue_row, admits, on_finish, last_chance):
    """Form a batch from the work items of a queue; those that do not join stay in the queue.

    With `last_chance`, a work item that the policy does not admit to an empty batch is refused for good.
    """
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
            discard_work_item(state, row)
            row = following
            continue
        # After a preemption, a prompt computed again may exceed the limits if it is alone and was measured.
        lone = (
            entry.batch_head == NONE
            and item.is_prompt
            and state.requests[request].iteration > 0
            and item.tokens < state.prompt_s.shape[1]
            and state.prompt_s[entry.profile, item.tokens] > 0
        )
        fits = KvAnswer.WAITS
        reason = Reason.OVER_KV_CACHE
        waited_for_kv = item.waits_for_kv
        if admits(entry, item) or lone:
            fits = reserve_kv(state, node, row, on_finish)
            if is_preempted(state.run, state.requests, request):
                discard_work_item(state, row)
                row = following
                continue
        elif last_chance and entry.batch_head == NONE:
            fits = KvAnswer.NEVER  # alone in a batch and still over a limit
            reason = Reason.OVER_BATCH_LIMITS
        elif item.is_prompt:
            entry.declined_prompts += 1
        else:
            entry.declined_decodes += 1
        if fits == KvAnswer.NEVER:
            refuse_request(state, row, reason, on_finish)
        elif fits == KvAnswer.FITS:
            if state.run[0].keep_breakdown:
                _attribute_wait(state, entry, row, waited_for_kv)
            entry.batch_head = append_row(state.work_items, entry.batch_head, entry.batch_tail, row)
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
                _attribute_wait(state, entry, row, waited_for_kv)
            append_to_queue(state.queues, state.work_items, queue_row, row)
        row = following


@inlined
def _attribute_wait(state, entry, row, waits_for_kv):
    """Attribute the time that a work item has waited at a node: for its turn, or for free KV cache."""
    if waits_for_kv:
        entry.kv_wait_s += attribute_time(state.spent, row, Part.KV_WAIT, state.run[0].now_s)
    else:
        entry.batch_wait_s += attribute_time(state.spent, row, Part.BATCH_WAIT, state.run[0].now_s)


@inlined
def _start_segment(state, node, row):
    """Let the batch run the layers from its queue's to the next queue's, until the event SEGMENT_DONE."""
    run = state.run[0]
    entry = state.nodes[node]
    queue = state.queues[row]
    prompts, decodes = entry.batch_prompt_tokens, entry.batch_decode_tokens
    if prompts >= state.prompt_s.shape[1] or decodes >= state.decode_s.shape[1]:
        run.error = EngineError.OUTSIDE_PROFILE
        run.error_subject = node
        return
    layer_s = (
        run.prompt_cost_factor * state.prompt_s[entry.profile, prompts]
        + state.decode_s[entry.profile, decodes]
        + entry.reread_s_per_token * entry.batch_prompt_context_tokens
    )
    layer_s = max(layer_s, entry.floor_s)
    if not layer_s > 0:
        run.error = EngineError.OUTSIDE_PROFILE
        run.error_subject = node
        return
    overhead_s = 0.0
    if queue.is_first_layer:
        received_bytes = entry.received_tokens * run.activation_bytes
        overhead_s = received_bytes / CONCAT_BYTES_PER_S + received_bytes / TRANSFER_BYTES_PER_S
        entry.received_tokens = 0
    # Added layer by layer, as in the reference, so that times are equal to the last digit.
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
    push_event(state.run, state.events, end_s, started_s, EventKind.SEGMENT_DONE, node)


@inlined
def finish_segment(state, node):
    """Finish a segment: the work items of the batch join the next queue of the node, or leave."""
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
            discard_work_item(state, row)
            row = following
            continue
        if run.keep_breakdown:
            attribute_time(state.spent, row, Part.COMPUTE, run.now_s)
            state.spent[row, Part.COMPUTE] -= entry.batch_overhead_s
            state.spent[row, Part.OVERHEAD] += entry.batch_overhead_s
        if queue.is_last:
            entry.tokens += item.tokens
            release_work_item(state.run, state.nodes, state.work_items, node, row)
        else:
            append_to_queue(state.queues, state.work_items, queue_row + 1, row)
        row = following
    if queue.is_last:
        add_followup(state.run, state.followups, FollowUp.SEND, node)
    # The node is at the last layer of the segment and looks for work from the next layer on. If nothing
    # waits, it stays at that layer, which has a queue only if the segment was one layer long.
    ahead = _find_waiting_queue(state.nodes, state.queues, node, _next_queue(entry, queue_row))
    entry.current_queue = queue_row if queue.layers == 1 and state.queues[ahead].length == 0 else ahead
    add_followup(state.run, state.followups, FollowUp.START, node)
