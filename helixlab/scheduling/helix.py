"""The Helix scheduler: interleaved weighted round robin over the flow, with a look at the KV cache.

Every node sends prompts to its next nodes in proportion to the maximum flow, skipping those whose
KV cache is expected to be too full (Mei et al., ASPLOS 2025, section 5).
"""

from __future__ import annotations

from typing import Any

from helixlab.jit import compiled
from helixlab.scheduling.protocol import CHOOSE, ON_FINISH, ON_START, Scheduler
from helixlab.scheduling.state import NONE

__all__ = ["helix"]

MIN_FLOW_SHARE = 0.05
"""Links with less of their sender's flow are not used."""
EXPECTED_OUTPUT_TOKENS = 240


@compiled(CHOOSE)
def _choose(state: Any, sender: int, query: int) -> int:
    node = state.nodes[sender]
    run = state.run[0]
    tokens = state.queries[query].input_tokens
    expected = int(tokens + run.scheduler_output_ratio * EXPECTED_OUTPUT_TOKENS)
    best = NONE
    best_load = 0.0
    for row in range(node.first_link, node.first_link + node.links):
        link = state.links[row]
        if (
            link.flow_tokens_per_s <= 0
            or link.flow_tokens_per_s < MIN_FLOW_SHARE * node.outbound_flow_tokens_per_s
        ):
            continue
        if link.queue != NONE:
            receiver = state.nodes[link.receiver]
            if tokens > receiver.max_prompt_tokens:
                continue
            free = receiver.kv_capacity_token_layers - receiver.kv_expected_token_layers
            spare = (1 - run.scheduler_kv_high_water_mark) * receiver.kv_capacity_token_layers
            if free - expected * receiver.layers < spare:
                continue
        load = link.load + tokens / link.flow_tokens_per_s
        if best == NONE or load < best_load:
            best = row
            best_load = load
    return best


@compiled(ON_START)
def _on_start(state: Any, query: int) -> None:
    entry = state.queries[query]
    tokens = entry.input_tokens if entry.iteration == 0 else 1
    expected = int(entry.input_tokens + state.run[0].scheduler_output_ratio * EXPECTED_OUTPUT_TOKENS)
    for hop in range(entry.hops):
        link = state.links[state.pipelines[query, hop]]
        link.load += tokens / link.flow_tokens_per_s
        if entry.booked == 0:
            state.nodes[link.receiver].kv_expected_token_layers += expected * link.layers
    entry.booked = 1


@compiled(ON_FINISH)
def _on_finish(state: Any, query: int) -> None:
    entry = state.queries[query]
    if entry.booked == 1:
        expected = int(entry.input_tokens + state.run[0].scheduler_output_ratio * EXPECTED_OUTPUT_TOKENS)
        for hop in range(entry.hops):
            link = state.links[state.pipelines[query, hop]]
            state.nodes[link.receiver].kv_expected_token_layers -= expected * link.layers
        entry.booked = 0


helix = Scheduler(
    "helix", _choose, _on_start, on_finish=_on_finish, plans_ahead=True, follows_flow=True, feeds_by_kv=True
)
"""The scheduler of the paper."""
