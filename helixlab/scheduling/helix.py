"""The Helix scheduler: interleaved weighted round robin over the maximum flow, with masks for full KV caches.

Every node sends prompts to its next nodes in proportion to the maximum flow. It skips nodes whose KV cache
is expected to be too full (Mei et al., ASPLOS 2025, section 5) and links with too little flow, which are
selected before the run (`helixlab.flow.links_left_out`). Its links send at fixed rates, their shares of the
network cards by flow, which `helixlab.simulation.setup` sets.

Each link has a ``load``: the tokens assigned to it over its flow. A prompt takes the link whose load would be
lowest with it. ``kv_expected_token_layers`` of a node is the KV cache that all requests assigned to it are
expected to need: their input, and the same expected output for each.
"""

from __future__ import annotations

from typing import Any, Final

from helixlab._jit import compiled, inlined
from helixlab.engine.state import CHOOSE, NONE, ON_FINISH, ON_START
from helixlab.scheduling.protocol import Scheduler

__all__ = ["helix"]

EXPECTED_OUTPUT_TOKENS: Final = 240
"""Mean output tokens that the scheduler expects, before ``scheduler_output_ratio``."""


@inlined
def _expected_tokens(state, request):
    """Estimate the tokens in the KV cache when a request will have finished."""
    tokens = state.requests[request].input_tokens
    return int(tokens + state.run[0].scheduler_output_ratio * EXPECTED_OUTPUT_TOKENS)


@compiled(CHOOSE)
def _choose(state: Any, sender: int, request: int) -> int:
    """Choose the link with the lowest load among those not masked, and add the prompt to its load."""
    node = state.nodes[sender]
    run = state.run[0]
    tokens = state.requests[request].input_tokens
    in_one_batch = tokens if run.chunk_tokens == 0 else min(tokens, run.chunk_tokens)
    expected = _expected_tokens(state, request)
    best = NONE
    best_load = 0.0
    for row in range(node.first_link, node.first_link + node.links):
        link = state.links[row]
        if link.left_out != 0:
            continue
        link.considered += 1
        if link.queue != NONE:
            receiver = state.nodes[link.receiver]
            if in_one_batch > receiver.max_prompt_tokens:
                link.batch_masked += 1
                continue
            free = receiver.kv_capacity_token_layers - receiver.kv_expected_token_layers
            spare = (1 - run.scheduler_kv_high_water_mark) * receiver.kv_capacity_token_layers
            if free - expected * receiver.layers < spare:
                link.kv_masked += 1
                continue
        load = link.load + tokens / link.flow_tokens_per_s
        if best == NONE or load < best_load:
            best = row
            best_load = load
    if best != NONE:
        state.links[best].load += tokens / state.links[best].flow_tokens_per_s
    return best


@compiled(ON_START)
def _on_start(state: Any, request: int) -> None:
    """Add a decode to the loads of its pipeline; at the first iteration, book the expected KV cache."""
    entry = state.requests[request]
    expected = _expected_tokens(state, request)
    for hop in range(entry.hops):
        link = state.links[state.pipelines[request, hop]]
        receiver = state.nodes[link.receiver]
        if entry.kv_tokens > 0:
            link.load += 1 / link.flow_tokens_per_s  # a decode; a prompt was added when it was placed
        if entry.booked == 0:
            receiver.kv_expected_token_layers += expected * link.layers
    entry.booked = 1


@compiled(ON_FINISH)
def _on_finish(state: Any, request: int) -> None:
    """Free the booked KV cache; if no pipeline was found, take the prompt off the loads again."""
    entry = state.requests[request]
    expected = _expected_tokens(state, request)
    for hop in range(entry.hops):
        link = state.links[state.pipelines[request, hop]]
        receiver = state.nodes[link.receiver]
        if entry.booked == 1:
            receiver.kv_expected_token_layers -= expected * link.layers
        else:
            link.load -= entry.input_tokens / link.flow_tokens_per_s  # no pipeline was found
    entry.booked = 0


helix = Scheduler(
    "helix", _choose, _on_start, on_finish=_on_finish, plans_ahead=True, follows_flow=True, feeds_by_kv=True
)
"""The scheduler of the paper."""
