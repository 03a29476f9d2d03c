"""The coordinator: admission of requests, the start of their iterations, and the end of them."""

from __future__ import annotations

from helixlab._jit import inlined, rare
from helixlab.engine.constants import PARTS, EventKind, FollowUp, Outcome, Reason
from helixlab.engine.kv_cache import free_kv
from helixlab.engine.network import release_work_item, validate_choice
from helixlab.engine.queues import add_followup, push_event
from helixlab.engine.recording import start_breakdown
from helixlab.engine.requests import (
    create_work_item,
    discard_work_item,
    draw_next_request,
    end_request,
    free_work_item,
    is_preempted,
    queue_preempted_request,
    queue_request,
    schedule_admission,
)
from helixlab.engine.state import NONE, view

__all__ = ["feed_request", "gather_work_item", "retry_queued_request", "start_next_iteration"]


@rare
def feed_request(state, request, choose, on_start, on_finish):
    """Feed a request that arrives now: start it, or queue or drop it."""
    run = state.run[0]
    entry = state.requests[request]
    entry.arrival_s = run.now_s
    entry.iteration_start_s = run.now_s
    entry.in_use = 1
    run.fed += 1
    run.in_flight += 1
    if run.online and run.next_arrival < run.arrivals_known:
        draw_next_request(state, state.arrivals[run.next_arrival].arrival_s)
    if run.queued > 0 and run.plans_ahead:
        queue_request(state, request)
    elif _plan_pipeline(state, request, choose, on_finish):
        _start_iteration(state, request, on_start)
    elif run.drop_on_full:
        end_request(state, request, Outcome.DROPPED)
    else:
        queue_request(state, request)
        if run.queued == run.in_flight:
            # Nothing will finish and schedule a retry.
            push_event(state.run, state.events, run.now_s, run.now_s, EventKind.RETRY, NONE)


@inlined
def _plan_pipeline(state, request, choose, on_finish):
    """Choose the whole pipeline, for schedulers that plan ahead; return False if nothing fits."""
    if not state.run[0].plans_ahead:
        return True
    entry = state.requests[request]
    node = len(state.nodes) - 1
    entry.hops = 0
    while True:
        row = choose(view(state), node, request)
        if row == NONE or not validate_choice(state, node, row):
            on_finish(view(state), request)
            entry.hops = 0
            return False
        state.pipelines[request, entry.hops] = row
        entry.hops += 1
        if state.links[row].queue == NONE:
            return True
        node = state.links[row].receiver


@inlined
def start_next_iteration(state, request, on_start):
    """Start the next iteration of a request, or queue it if it was preempted in the meantime."""
    if is_preempted(state.run, state.requests, request):
        queue_preempted_request(state, request)
    else:
        _start_iteration(state, request, on_start)


@inlined
def _start_iteration(state, request, on_start):
    """Start an iteration of a request at the coordinator: create its work items and send them."""
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
        row = create_work_item(state.run, state.requests, state.work_items, request)
        item = state.work_items[row]
        item.tokens = min(chunk, left)
        item.is_prompt = is_prompt
        item.context_tokens = context_tokens
        if run.keep_breakdown:
            start_breakdown(state.spent, row, entry.iteration_start_s, entry.queued_s, run.now_s)
        release_work_item(state.run, state.nodes, state.work_items, coordinator, row)
        context_tokens += item.tokens
        left -= item.tokens
    add_followup(state.run, state.followups, FollowUp.SEND, coordinator)


@rare
def retry_queued_request(state, choose, on_start, on_finish):
    """Start the queued request that arrived first, if it fits, and schedule a retry for the next."""
    run = state.run[0]
    request = run.first_queued
    if request == NONE:
        if run.feeds_owed > 0:
            run.feeds_owed -= 1
            draw_next_request(state, run.now_s + run.feed_delay_s)
            push_event(state.run, state.events, run.now_s, run.now_s, EventKind.RETRY, NONE)
        return
    entry = state.requests[request]
    fits = _plan_pipeline(state, request, choose, on_finish)
    alone = run.queued == run.in_flight
    if not fits and not alone:
        return
    run.first_queued = entry.next
    run.queued -= 1
    entry.queued = 0
    entry.queued_s += run.now_s - entry.queued_since_s
    if fits:
        _start_iteration(state, request, on_start)
    else:
        entry.reason = Reason.NO_PIPELINE
        end_request(state, request, Outcome.REFUSED)  # it does not fit though nothing else runs
        schedule_admission(state, True)
    push_event(state.run, state.events, run.now_s, run.now_s, EventKind.RETRY, NONE)


@inlined
def gather_work_item(state, row, on_finish):
    """Gather a work item that is back; with the last one of an iteration, finish that."""
    run = state.run[0]
    request = state.work_items[row].request
    entry = state.requests[request]
    if entry.preempted:
        discard_work_item(state, row)
        return
    free_work_item(state.run, state.requests, state.work_items, row)
    if entry.work_items > 0:
        return  # other chunks of the prompt are still under way
    is_prompt = entry.kv_tokens == 0
    entry.kv_tokens += entry.iteration_tokens
    if is_prompt and entry.iteration > 0:
        # Its KV cache is now what it was before the preemption.
        add_followup(state.run, state.followups, FollowUp.ITERATE, request)
        return
    if run.keep_iterations:
        log = state.iterations[run.iterations]
        log.request = entry.id
        log.iteration = entry.iteration
        log.tokens = entry.iteration_tokens
        log.start_s = entry.iteration_start_s
        log.end_s = run.now_s
        if run.keep_breakdown:
            # The chunk that comes back last stands for its prompt.
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
        end_request(state, request, Outcome.FINISHED)
        schedule_admission(state, True)
        return
    entry.iteration += 1
    entry.iteration_start_s = run.now_s
    add_followup(state.run, state.followups, FollowUp.ITERATE, request)
    if is_prompt:
        schedule_admission(state, False)
