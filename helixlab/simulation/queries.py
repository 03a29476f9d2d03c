"""The life of a query at the coordinator: fed, held, started, iterated, finished, refused."""

from __future__ import annotations

from helixlab.jit import inlined
from helixlab.scheduling.state import NONE, view
from helixlab.simulation.heap import FEED, RETRY, push
from helixlab.simulation.held import hold
from helixlab.simulation.kv_cache import free_kv
from helixlab.simulation.network import belongs, get_ready

__all__ = ["DROPPED", "FINISHED", "REFUSED", "feed", "finish_iteration", "refuse", "retry_held"]

FINISHED, DROPPED, REFUSED = 0, 1, 2
"""How a query ended."""


@inlined
def feed(state, choose, on_start):
    """The next query arrives."""
    run = state.run[0]
    if run.next_arrival == run.arrivals_known:
        return
    if not run.online and (run.now_s > run.end_of_feeding_s):
        return
    arrival = state.arrivals[run.next_arrival]
    run.next_arrival += 1
    if run.online and run.next_arrival < run.arrivals_known:
        push(state, state.arrivals[run.next_arrival].arrival_s, run.now_s, FEED, NONE)
    row = run.free_query
    entry = state.queries[row]
    run.free_query = entry.next
    entry.id = run.fed
    entry.input_tokens = arrival.input_tokens
    entry.output_tokens = arrival.output_tokens
    entry.arrival_s = run.now_s
    entry.iteration = 0
    entry.iteration_start_s = run.now_s
    entry.hops = 0
    entry.kv_tokens = 0
    entry.in_use = 1
    entry.held = 0
    entry.was_held = 0
    entry.evicted = 0
    entry.booked = 0
    entry.next = NONE
    run.fed += 1
    run.in_flight += 1
    if run.held > 0 and run.plans_ahead:
        hold(state, row)
    elif _plan(state, row, choose):
        _start(state, row, on_start)
    elif run.drop_on_full:
        _leave(state, row, DROPPED)
    else:
        hold(state, row)
        if run.held == run.in_flight:
            push(state, run.now_s, run.now_s, RETRY, NONE)  # nothing will finish and trigger one


@inlined
def _plan(state, query, choose):
    """Choose the whole pipeline, for schedulers that plan ahead; false if nothing fits somewhere."""
    if not state.run[0].plans_ahead:
        return True
    entry = state.queries[query]
    node = len(state.nodes) - 1
    hops = 0
    while True:
        row = choose(view(state), node, query)
        if row == NONE or not belongs(state, node, row):
            return False
        state.pipelines[query, hops] = row
        hops += 1
        if state.links[row].queue == NONE:
            entry.hops = hops
            return True
        node = state.links[row].receiver


@inlined
def _start(state, query, on_start):
    """Start an iteration of the query at the coordinator."""
    entry = state.queries[query]
    request = state.requests[query]
    request.query = query
    request.is_prompt = entry.kv_tokens == 0
    if request.is_prompt:
        # After a preemption the tokens generated so far are computed again with the prompt.
        request.tokens = entry.input_tokens + max(entry.iteration - 1, 0)
        request.context_tokens = 0
        request.waits_for_kv = 0
    else:
        request.tokens = 1
        request.context_tokens = entry.kv_tokens
    request.hop = NONE
    on_start(view(state), query)
    get_ready(state, len(state.nodes) - 1, query)


@inlined
def retry_held(state, choose, on_start):
    """Start held queries, in order of arrival, until one does not fit."""
    run = state.run[0]
    while run.first_held != NONE:
        query = run.first_held
        entry = state.queries[query]
        fits = _plan(state, query, choose)
        alone = run.held == run.in_flight
        if not fits and not alone:
            return
        run.first_held = entry.next
        run.held -= 1
        entry.held = 0
        if fits:
            _start(state, query, on_start)
        else:
            _leave(state, query, REFUSED)  # it does not fit though nothing else runs


@inlined
def finish_iteration(state, query, on_start, on_finish):
    """A request is back at the coordinator: note it, then start the next iteration or let the query go."""
    run = state.run[0]
    entry = state.queries[query]
    request = state.requests[query]
    entry.kv_tokens += request.tokens
    if not (request.is_prompt and entry.iteration > 0):
        if run.keep_iterations:
            log = state.iterations[run.iterations]
            log.query = entry.id
            log.iteration = entry.iteration
            log.tokens = request.tokens
            log.start_s = entry.iteration_start_s
            log.end_s = run.now_s
            run.iterations += 1
        run.last_finish_s = run.now_s
        if entry.iteration == 0:
            entry.prompt_done_s = run.now_s
            run.prompts_finished += 1
            run.prompt_tokens += request.tokens
        else:
            run.decode_tokens += 1
        finished_prompt = entry.iteration == 0
        if entry.iteration == entry.output_tokens:
            request.hop = NONE
            free_kv(state, query)
            on_finish(view(state), query)
            _leave(state, query, FINISHED)
            _trigger(state, True)
            return
        entry.iteration += 1
        entry.iteration_start_s = run.now_s
        if finished_prompt:
            _trigger(state, False)
    _start(state, query, on_start)


@inlined
def refuse(state, query, on_finish):
    """The query can never be served where it is; its request has been taken out already."""
    on_finish(view(state), query)
    free_kv(state, query)
    _leave(state, query, REFUSED)
    _trigger(state, True)


@inlined
def _leave(state, query, outcome):
    """Free the row of a query and note how it ended."""
    run = state.run[0]
    entry = state.queries[query]
    log = state.query_logs[run.query_logs]
    run.query_logs += 1
    log.query = entry.id
    log.input_tokens = entry.input_tokens
    log.output_tokens = entry.output_tokens
    log.arrival_s = entry.arrival_s
    log.prompt_done_s = entry.prompt_done_s
    log.end_s = run.now_s
    log.outcome = outcome
    entry.in_use = 0
    entry.hops = 0
    entry.next = run.free_query
    run.free_query = query
    run.in_flight -= 1
    if outcome == FINISHED:
        run.finished += 1
    elif outcome == DROPPED:
        run.dropped += 1
    else:
        run.refused += 1


@inlined
def _trigger(state, query_ended):
    """A prompt or a query has finished: retry what is held, or feed (offline)."""
    run = state.run[0]
    due_s = run.now_s + run.feed_delay_s
    if run.held > 0:
        push(state, due_s, run.now_s, RETRY, NONE)
    elif not run.online and due_s <= run.end_of_feeding_s:
        if not run.feeds_by_kv:
            if query_ended:
                push(state, due_s, run.now_s, FEED, NONE)
        elif bottleneck_kv_expected(state) <= run.feed_kv_limit:
            push(state, due_s, run.now_s, FEED, NONE)


@inlined
def bottleneck_kv_expected(state):
    """Expected KV use of the fullest layer, every node's cache spread evenly over its layers."""
    nodes = state.nodes
    layers = len(state.layer_kv)
    for layer in range(layers):
        state.layer_kv[layer, 0] = 0.0
        state.layer_kv[layer, 1] = 0.0
    for row in range(len(nodes) - 1):
        node = nodes[row]
        for layer in range(node.first_layer, node.first_layer + node.layers):
            state.layer_kv[layer, 0] += node.kv_capacity_token_layers / node.layers
            state.layer_kv[layer, 1] += (
                node.kv_capacity_token_layers - node.kv_expected_token_layers
            ) / node.layers
    fullest = 0.0
    for layer in range(layers):
        if state.layer_kv[layer, 0] > 0:
            fullest = max(fullest, 1 - state.layer_kv[layer, 1] / state.layer_kv[layer, 0])
    return fullest
