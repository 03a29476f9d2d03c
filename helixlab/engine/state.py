"""The state of a run, as tables that the engine owns and that schedulers and execution policies read.

Every table is a numpy structured array, every row an entity, known by its row number. Times are in
seconds of simulated time, sizes in bytes, KV cache in token-layers. The coordinator is the last row
of ``nodes``: it sends as the source and receives as the sink. Rows of ``links`` are sorted by
sender, in the order of the placement; a node's outbound links are ``first_link`` to
``first_link + links`` (exclusive).

The engine writes all columns but those marked S, which belong to the scheduler of that name.
`helixlab.engine.constants` names the numbers in the columns of kinds, outcomes, reasons and errors.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from helixlab._jit import inlined

__all__ = [
    "ADMITS",
    "ARRIVAL",
    "BATCH_LOG",
    "CHOOSE",
    "EVENT",
    "FOLLOWUP",
    "ITERATION",
    "LINK",
    "NODE",
    "NONE",
    "ON_FINISH",
    "ON_READY",
    "ON_START",
    "QUEUE",
    "REQUEST",
    "REQUEST_LOG",
    "RUN",
    "SAMPLE",
    "WORK_ITEM",
    "State",
    "View",
    "empty_state",
    "state_type",
    "uniform",
    "view",
]

NONE = -1
"""Row number that means no row."""


def _table(*columns: tuple[str, type]) -> np.dtype[np.void]:
    return np.dtype([(name, kind) for name, kind in columns], align=True)


f8, i8, i4, i1 = np.float64, np.int64, np.int32, np.int8

RUN = _table(
    ("now_s", f8),
    ("end_of_feeding_s", f8),
    ("next_sample_s", f8),
    ("sample_step_s", f8),
    ("scheduler_kv_high_water_mark", f8),  # fraction of a KV cache that the helix scheduler may fill
    ("scheduler_output_ratio", f8),  # fraction of the mean output that it expects of a request
    ("feed_delay_s", f8),
    ("activation_bytes", f8),  # per token
    ("feed_kv_limit", f8),  # feed while the expected KV use of the fullest layer is at most this
    ("random_state", np.uint64),
    ("events_done", i8),
    ("events", i8),  # waiting in the heap
    ("next_sequence", i8),
    ("next_ready_order", i8),
    ("iterations", i8),  # rows of the iteration log in use
    ("request_logs", i8),
    ("batches_logged", i8),
    ("samples", i8),
    ("events_at_sample", i8),  # events handled when the last sample was taken
    ("next_arrival", i8),  # row of the arrivals still to be fed
    ("arrivals_known", i8),  # rows of the arrivals filled in
    ("drawn", i8),  # requests drawn from the workload; the count is the id of the next
    ("free_work_item", i8),  # first free row of work items, a linked list through `next`
    ("free_work_items", i8),
    ("chunk_tokens", i8),  # length of the chunks into which prompts are cut, 0: whole prompts
    ("prompt_cost_factor", f8),
    ("most_chunks", i8),  # of one prompt, among all drawn so far
    ("first_gathered", i8),  # work items that came back to the coordinator, a linked list through `next`
    ("last_gathered", i8),
    ("gathering", i8),  # the coordinator is gathering them now
    ("free_request", i8),  # first free row of requests, a linked list through `next`
    ("first_queued", i8),  # first request queued at the coordinator, a linked list through `next`
    ("last_queued", i8),  # undefined if no request is queued
    ("fed", i8),
    ("in_flight", i8),  # fed and neither finished, dropped nor refused; queued ones included
    ("queued", i8),
    ("feeds_owed", i8),  # requests that ended and are to be replaced when nothing is queued
    ("finished", i8),
    ("dropped", i8),
    ("refused", i8),
    ("ever_queued", i8),  # requests that were queued at least once
    ("preemptions", i8),
    ("preempted_requests", i8),  # without KV cache, with work items that may still be under way
    ("kv_waits", i8),  # prompts that waited at a node for KV cache
    ("prompts_finished", i8),
    ("prompt_tokens", i8),  # of finished iterations
    ("decode_tokens", i8),
    ("last_finish_s", f8),
    ("more_arrivals", i8),  # the driver has more than those filled in
    ("woken", i8),  # every node has tried to send since the last event
    ("followups_first", i8),  # rows of `followups` in use
    ("followups_end", i8),
    ("error", i8),  # 0 or an EngineError
    ("error_subject", i8),  # the node where it happened
    ("online", i8),
    ("drop_on_full", i8),
    ("plans_ahead", i8),  # the scheduler chooses the whole pipeline when a request arrives
    ("picks_free_links", i8),  # the scheduler picks among the links that are free
    ("fixed_rates", i8),  # links send at the rate the flow gives them
    ("feeds_by_kv", i8),
    ("keep_iterations", i8),
    ("keep_batches", i8),
    ("keep_breakdown", i8),
)

NODE = _table(
    # Read for every work item
    ("first_link", i4),
    ("links", i4),
    ("outbox_head", i4),  # work items ready to leave, in no link's queue, a linked list through `next`
    ("outbox_tail", i4),
    ("first_waiting_link", i4),  # of its links with work items waiting, a linked list in their order
    ("busy", i4),
    ("first_queue", i4),
    ("queues", i4),
    ("current_queue", i4),
    ("profile", i4),  # row of the time tables
    ("received_tokens", i8),  # since the last start of the first layer
    ("nic_out_bytes_per_s", f8),
    ("nic_in_bytes_per_s", f8),
    ("nic_out_used_bytes_per_s", f8),
    ("nic_in_used_bytes_per_s", f8),
    ("kv_capacity_token_layers", i8),
    ("kv_used_token_layers", i8),  # including what the running batch will have stored
    ("kv_expected_token_layers", i8),  # S (helix): expected for the requests assigned to the node
    ("max_prompts", i8),
    ("max_prompt_tokens", i8),
    ("max_decode_tokens", i8),
    ("max_decode_context_tokens", i8),
    ("batch_head", i4),  # work items of the running batch, a linked list through `next`
    ("batch_tail", i4),
    ("batch_prompts", i8),
    ("batch_prompt_tokens", i8),
    ("batch_decode_tokens", i8),
    ("batch_context_tokens", i8),  # of its decodes
    ("batch_prompt_context_tokens", i8),  # of its prompts: tokens of the chunks before them
    ("waiting_prompts", i8),  # at its current layer when the batch was formed
    ("waiting_decodes", i8),
    ("declined_prompts", i8),  # by the execution policy
    ("declined_decodes", i8),
    # Read for every batch
    ("first_layer", i4),
    ("layers", i4),
    ("floor_s", f8),  # shortest time of a batch in one layer
    ("reread_s_per_token", f8),  # to read the KV cache of earlier chunks again, in one layer
    ("outbound_flow_tokens_per_s", f8),
    ("busy_since_s", f8),
    ("batch_layer_s", f8),
    ("batch_overhead_s", f8),
    ("kv_blocked", i4),
    ("waking", i4),  # the follow-up WAKE of the node is in the list
    ("busy_s", f8),
    ("batches", i8),
    ("tokens", i8),  # processed, each once per visit
    ("batch_wait_s", f8),  # of all its work items, if the time breakdown is kept
    ("kv_wait_s", f8),
)

LINK = _table(
    ("sender", i4),
    ("receiver", i4),
    ("queue", i4),  # row of the queue it leads to, NONE for the sink
    ("layers", i4),  # layers to run at the receiver after coming by this link
    ("latency_s", f8),
    ("bytes_per_token", f8),
    ("rate_bytes_per_s", f8),  # fixed: by the flow, set in helixlab.simulation.setup
    ("bandwidth_bytes_per_s", f8),
    ("used_bytes_per_s", f8),  # shared: used by the work items being sent
    ("free_rate_bytes_per_s", f8),  # shared: rate at which it could send now, 0 if it is not free
    ("free_at_s", f8),
    ("busy_s", f8),
    ("sent_tokens", i8),
    ("taken", i4),  # promised to a work item that is not being sent yet
    ("waiting_head", i4),  # work items that wait for it, a linked list through `next`
    ("waiting_tail", i4),
    ("next_waiting_link", i4),  # of the same sender, a linked list
    ("left_out", i4),  # has too little flow to be used, where the scheduler follows the flow
    ("flow_tokens_per_s", f8),
    ("load", f8),  # S (helix): tokens assigned to it over its flow
    ("priority", f8),  # S (swarm): the lowest is next
    ("service_s", f8),  # S (swarm): moving average of the time from sending to leaving the receiver
    ("considered", i8),  # S (helix): number of times it was considered for a prompt
    ("kv_masked", i8),  # S (helix): number of times the receiver's KV cache was expected full
    ("batch_masked", i8),  # S (helix): number of times the prompt did not fit in one batch there
    ("wait_s", f8),  # of all work items that waited for it, if the time breakdown is kept
)

QUEUE = _table(
    ("node", i4),
    ("layer", i4),
    ("layers", i4),  # to the next queue's layer, or to the node's end
    ("is_first_layer", i4),
    ("is_last", i4),
    ("head", i4),
    ("tail", i4),
    ("length", i4),
    ("prompts", i4),  # of these
)

REQUEST = _table(
    ("id", i8),
    ("input_tokens", i4),
    ("output_tokens", i4),
    ("iteration", i4),  # 0: prompt, 1..output_tokens: decode
    ("iteration_tokens", i4),
    ("work_items", i4),  # under way for this iteration
    ("kv_tokens", i4),  # tokens in the KV cache from the iterations finished so far
    ("hops", i4),  # links chosen so far
    ("next", i4),
    ("preempted", i1),  # without its KV cache, though work items may still be under way
    ("in_use", i1),
    ("queued", i1),
    ("was_queued", i1),
    ("refused", i1),
    ("reason", i1),  # a Reason
    ("booked", i1),  # S (helix): its KV cache is in kv_expected_token_layers
    ("iteration_start_s", f8),
    ("arrival_s", f8),
    ("prompt_done_s", f8),
    ("queued_since_s", f8),
    ("queued_s", f8),  # of this iteration
)

WORK_ITEM = _table(
    ("request", i4),
    ("link", i4),  # on which it travels or came
    ("hop", i4),  # position in the pipeline of `link`
    ("next", i4),
    ("tokens", i4),
    ("context_tokens", i4),  # in the KV cache before this iteration
    ("is_prompt", i1),
    ("reported", i1),  # the scheduler has got on_ready for it
    ("kv_reserved", i1),  # on the node where it is
    ("waits_for_kv", i1),
    ("sent_s", f8),  # start of sending on that link
    ("rate_bytes_per_s", f8),  # of sending it
    ("ready_order", i8),  # rises with every work item that is ready to leave a node
)

FOLLOWUP = _table(("kind", i4), ("subject", i4))

EVENT = _table(("time_s", f8), ("created_s", f8), ("sequence", i8), ("kind", i4), ("subject", i4))

ITERATION = _table(("request", i8), ("iteration", i4), ("tokens", i4), ("start_s", f8), ("end_s", f8))

REQUEST_LOG = _table(
    ("request", i8),
    ("input_tokens", i8),
    ("output_tokens", i8),
    ("arrival_s", f8),
    ("prompt_done_s", f8),
    ("end_s", f8),
    ("outcome", i4),  # an Outcome
    ("reason", i4),  # a Reason
)

ARRIVAL = _table(("arrival_s", f8), ("input_tokens", i8), ("output_tokens", i8))

BATCH_LOG = _table(
    ("node", i4),
    ("first_layer", i4),
    ("layers", i4),
    ("prompts", i4),
    ("prompt_tokens", i4),
    ("decodes", i4),
    ("start_s", f8),
    ("end_s", f8),
)

SAMPLE = _table(
    ("time_s", f8),
    ("in_flight", i8),
    ("queued", i8),
    ("feeds_owed", i8),  # requests that ended and are to be replaced when nothing is queued
    ("finished", i8),
    ("prompt_tokens", i8),
    ("decode_tokens", i8),
    ("bottleneck_kv_expected_fraction", f8),
)


class View(NamedTuple):
    """Tables of a State that schedulers see, under the same names.

    The view is small because every call of a scheduler's function copies it.
    """

    run: NDArray[np.void]
    nodes: NDArray[np.void]
    links: NDArray[np.void]
    queues: NDArray[np.void]
    requests: NDArray[np.void]
    pipelines: NDArray[np.int32]
    parameters: NDArray[np.float64]


class State(NamedTuple):
    """All tables of a run.

    Parameters
    ----------
    run : RUN[1]
        Clock, counters, settings.
    nodes : NODE[nodes + 1]
        The coordinator is the last row.
    links : LINK[links]
    queues : QUEUE[entry layers of all nodes]
    requests : REQUEST[rows]
        Requests in flight; rows are used again.
    work_items : WORK_ITEM[rows]
        Work items under way; rows are used again.
    pipelines : int32[rows, longest pipeline]
        Links of each request's pipeline.
    kv_tokens : int32[rows, longest pipeline]
        Tokens reserved for the request on the receiver of that link, in each of its layers.
    prompt_s, decode_s : float64[profiles, tokens]
        Time of one layer by tokens in the batch, NaN outside the profile.
    parameters : float64[any]
        Parameters of the scheduler.
    events : EVENT[rows]
        Heap by (time, created, sequence).
    followups : FOLLOWUP[rows]
        Actions at this instant, in order, for when all events due are handled.
    arrivals : ARRIVAL[rows]
        Requests still to come.
    iterations, request_logs, batch_log, samples : ITERATION[rows], REQUEST_LOG[rows], ...
        Logs that the engine fills and the driver empties.
    node_samples : float64[samples, 3, nodes]
        KV tokens used and expected, busy seconds.
    spent : float64[rows of work items, parts + 1]
        Time of each work item so far by part, and its mark (`helixlab.engine.recording`); without rows
        unless the breakdown is kept.
    iteration_parts : float64[rows of iterations, parts]
        Time of finished iterations by part.
    layer_kv : float64[layers, 2]
        Scratch: total and free KV cache of each layer.
    """

    run: NDArray[np.void]
    nodes: NDArray[np.void]
    links: NDArray[np.void]
    queues: NDArray[np.void]
    requests: NDArray[np.void]
    work_items: NDArray[np.void]
    pipelines: NDArray[np.int32]
    kv_tokens: NDArray[np.int32]
    prompt_s: NDArray[np.float64]
    decode_s: NDArray[np.float64]
    parameters: NDArray[np.float64]
    events: NDArray[np.void]
    followups: NDArray[np.void]
    arrivals: NDArray[np.void]
    iterations: NDArray[np.void]
    request_logs: NDArray[np.void]
    batch_log: NDArray[np.void]
    samples: NDArray[np.void]
    node_samples: NDArray[np.float64]
    layer_kv: NDArray[np.float64]
    spent: NDArray[np.float64]
    iteration_parts: NDArray[np.float64]


def empty_state() -> State:
    """Make a state of the right types with one row in each table."""
    return State(
        run=np.zeros(1, RUN),
        nodes=np.zeros(1, NODE),
        links=np.zeros(1, LINK),
        queues=np.zeros(1, QUEUE),
        requests=np.zeros(1, REQUEST),
        work_items=np.zeros(1, WORK_ITEM),
        pipelines=np.zeros((1, 1), np.int32),
        kv_tokens=np.zeros((1, 1), np.int32),
        prompt_s=np.zeros((1, 1)),
        decode_s=np.zeros((1, 1)),
        parameters=np.zeros(1),
        events=np.zeros(1, EVENT),
        followups=np.zeros(1, FOLLOWUP),
        arrivals=np.zeros(1, ARRIVAL),
        iterations=np.zeros(1, ITERATION),
        request_logs=np.zeros(1, REQUEST_LOG),
        batch_log=np.zeros(1, BATCH_LOG),
        samples=np.zeros(1, SAMPLE),
        node_samples=np.zeros((1, 3, 1)),
        layer_kv=np.zeros((1, 2)),
        spent=np.zeros((1, 1)),
        iteration_parts=np.zeros((1, 1)),
    )


def _view_of_empty() -> View:
    state = empty_state()
    return View(*(getattr(state, name) for name in View._fields))


state_type = numba.typeof(empty_state())
"""The numba type of a State, for signatures."""
view_type = numba.typeof(_view_of_empty())
node_type = numba.from_dtype(NODE)
link_type = numba.from_dtype(LINK)
work_item_type = numba.from_dtype(WORK_ITEM)

# Signatures of the functions of schedulers and execution policies.
CHOOSE = types.int64(view_type, types.int64, types.int64)
ON_START = types.void(view_type, types.int64)
ON_READY = types.void(link_type, types.float64)
ON_FINISH = types.void(view_type, types.int64)
ADMITS = types.boolean(node_type, work_item_type)


@inlined
def view(state):
    """Make the View of a State, inside compiled code."""
    return View(
        state.run, state.nodes, state.links, state.queues, state.requests, state.pipelines, state.parameters
    )


@inlined
def uniform(state):
    """Draw a uniform number in [0, 1) from the run's own random state (splitmix64)."""
    run = state.run[0]
    run.random_state = run.random_state + np.uint64(0x9E3779B97F4A7C15)
    bits = run.random_state
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = bits ^ (bits >> np.uint64(31))
    return float(bits >> np.uint64(11)) * 2.0**-53
