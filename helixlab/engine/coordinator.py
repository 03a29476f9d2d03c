"""The coordinator: takes requests in, starts their iterations, gathers what comes back."""

from __future__ import annotations

from helixlab._jit import inlined, rare
from helixlab.engine.kv_cache import free_kv
from helixlab.engine.network import belongs, get_ready
from helixlab.engine.queues import ITERATE, RETRY, SEND, follow, push
from helixlab.engine.recording import PARTS, start_marks
from helixlab.engine.requests import (
    DROPPED,
    FINISHED,
    NO_WAY,
    REFUSED,
    discard,
    draw,
    free_work_item,
    is_preempted,
    leave,
    new_work_item,
    queue_preempted,
    queue_request,
    trigger,
)
from helixlab.engine.state import NONE, view

__all__ = ["feed", "gather", "iterate", "retry_queued"]


@rare
def feed(state, request, choose, on_start, on_finish):
    """A request arrives."""
    run = state.run[0]
    entry = state.requests[request]
    entry.arrival_s = run.now_s
    entry.iteration_start_s = run.now_s
    entry.in_use = 1
    run.fed += 1
    run.in_flight += 1
    if run.online and run.next_arrival < run.arrivals_known:
        draw(state, state.arrivals[run.next_arrival].arrival_s)
    if run.queued > 0 and run.plans_ahead:
        queue_request(state, request)
    elif _plan(state, request, choose, on_finish):
        _start(state, request, on_start)
    elif run.drop_on_full:
        leave(state, request, DROPPED)
    else:
        queue_request(state, request)
        if run.queued == run.in_flight:
            # Nothing will finish and trigger one.
            push(state.run, state.events, run.now_s, run.now_s, RETRY, NONE)


@inlined
def _plan(state, request, choose, on_finish):
    """Choose the whole pipeline, for schedulers that plan ahead; false if nothing fits somewhere."""
    if not state.run[0].plans_ahead:
        return True
    entry = state.requests[request]
    node = len(state.nodes) - 1
    entry.hops = 0
    while True:
        row = choose(view(state), node, request)
        if row == NONE or not belongs(state, node, row):
            on_finish(view(state), request)
            entry.hops = 0
            return False
        state.pipelines[request, entry.hops] = row
        entry.hops += 1
        if state.links[row].queue == NONE:
            return True
        node = state.links[row].receiver


@inlined
def iterate(state, request, on_start):
    """The next iteration of a request, unless it lost its KV cache in the meantime."""
    if is_preempted(state.run, state.requests, request):
        queue_preempted(state, request)
    else:
        _start(state, request, on_start)


@inlined
def _start(state, request, on_start):
    """Start an iteration of the request at the coordinator."""
    run = state.run[0]
    entry = state.requests[request]
    coordinator = len(state.nodes) - 1
    on_start(view(state), request)
    is_prompt = entry.kv_tokens == 0
    tokens, context_tokens = 1, entry.kv_tokens
    if is_prompt:
        # After a preemption the tokens generated so far are computed again with the prompt.
        tokens = entry.input_tokens + max(entry.iteration - 1, 0)
    entry.iteration_tokens = tokens
    chunk = tokens
    if is_prompt and run.chunk_tokens > 0:
        chunk = min(tokens, run.chunk_tokens)
    left = tokens
    while left > 0:
        row = new_work_item(state.run, state.requests, state.work_items, request)
        item = state.work_items[row]
        item.tokens = min(chunk, left)
        item.is_prompt = is_prompt
        item.context_tokens = context_tokens
        if run.keep_breakdown:
            start_marks(state.spent, row, entry.iteration_start_s, entry.queued_s, run.now_s)
        get_ready(state.run, state.nodes, state.work_items, coordinator, row)
        context_tokens += item.tokens
        left -= item.tokens
    follow(state.run, state.followups, SEND, coordinator)


@rare
def retry_queued(state, choose, on_start, on_finish):
    """Start the queued request that arrived first, if it fits; then the next is tried."""
    run = state.run[0]
    request = run.first_queued
    if request == NONE:
        if run.feeds_owed > 0:
            run.feeds_owed -= 1
            draw(state, run.now_s + run.feed_delay_s)
            push(state.run, state.events, run.now_s, run.now_s, RETRY, NONE)
        return
    entry = state.requests[request]
    fits = _plan(state, request, choose, on_finish)
    alone = run.queued == run.in_flight
    if not fits and not alone:
        return
    run.first_queued = entry.next
    run.queued -= 1
    entry.queued = 0
    entry.queued_s += run.now_s - entry.queued_since_s
    if fits:
        _start(state, request, on_start)
    else:
        entry.reason = NO_WAY
        leave(state, request, REFUSED)  # it does not fit though nothing else runs
        trigger(state, True)
    push(state.run, state.events, run.now_s, run.now_s, RETRY, NONE)


@inlined
def gather(state, row, on_finish):
    """Take in a work item that is back; with the last one of an iteration, go on or let the request go."""
    run = state.run[0]
    request = state.work_items[row].request
    entry = state.requests[request]
    if entry.preempted:
        discard(state, row)
        return
    free_work_item(state.run, state.requests, state.work_items, row)
    if entry.work_items > 0:
        return  # other chunks of the prompt are still under way
    is_prompt = entry.kv_tokens == 0
    entry.kv_tokens += entry.iteration_tokens
    if is_prompt and entry.iteration > 0:
        # Its cache is restored as it was before it was preempted.
        follow(state.run, state.followups, ITERATE, request)
        return
    if run.keep_iterations:
        log = state.iterations[run.iterations]
        log.request = entry.id
        log.iteration = entry.iteration
        log.tokens = entry.iteration_tokens
        log.start_s = entry.iteration_start_s
        log.end_s = run.now_s
        if run.keep_breakdown:
            # The last chunk of a prompt to come back: its time is the prompt's.
            for part in range(len(PARTS)):
                state.iteration_parts[run.iterations, part] = state.spent[row, part]
            entry.queued_s = 0.0
        run.iterations += 1
    run.last_finish_s = run.now_s
    if is_prompt:
        entry.prompt_done_s = run.now_s
        run.prompts_finished += 1
        run.prompt_tokens += entry.iteration_tokens
    else:
        run.decode_tokens += 1
    if entry.iteration == entry.output_tokens:
        free_kv(state, request)
        on_finish(view(state), request)
        leave(state, request, FINISHED)
        trigger(state, True)
        return
    entry.iteration += 1
    entry.iteration_start_s = run.now_s
    follow(state.run, state.followups, ITERATE, request)
    if is_prompt:
        trigger(state, False)
