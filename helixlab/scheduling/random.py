"""Two schedulers that choose among free links: any of them at random, or the one with the shortest queue.

A link is free if it could send at once (``free_rate_bytes_per_s`` above 0) and is not ``taken``.
"""

from __future__ import annotations

from typing import Any

from helixlab._jit import compiled, inlined
from helixlab.engine.state import CHOOSE, NONE, uniform
from helixlab.scheduling.protocol import Scheduler

__all__ = ["random", "shortest_queue"]


@inlined
def _waiting_at_first_layer(state, link):
    """Count the work items that wait at the receiver's first layer; NONE, the least, for the coordinator."""
    if link.queue == NONE:
        return NONE
    queue = state.queues[state.nodes[link.receiver].first_queue]
    return queue.length if queue.is_first_layer else 0


@inlined
def _pick(state, sender, by_length):
    """Pick a free link of the sender at random; `by_length`, only among those with the shortest queue."""
    node = state.nodes[sender]
    found = 0
    picked = NONE
    fewest = 0
    for row in range(node.first_link, node.first_link + node.links):
        link = state.links[row]
        if link.free_rate_bytes_per_s <= 0 or link.taken:
            continue
        length = 0
        if by_length:
            length = _waiting_at_first_layer(state, link)
        if found > 0 and length > fewest:
            continue
        if length < fewest or found == 0:
            fewest = length
            found = 0
        # Reservoir sampling: the n-th candidate replaces the pick with probability 1 / n.
        found += 1
        if uniform(state) * found < 1:
            picked = row
    return picked


@compiled(CHOOSE)
def _choose_random(state: Any, sender: int, request: int) -> int:
    return _pick(state, sender, False)


@compiled(CHOOSE)
def _choose_shortest(state: Any, sender: int, request: int) -> int:
    return _pick(state, sender, True)


random = Scheduler("random", _choose_random, picks_free_links=True)
"""Scheduler that picks any free link, all with equal probability."""
shortest_queue = Scheduler("shortest-queue", _choose_shortest, picks_free_links=True)
"""Scheduler that picks the free link whose receiver has the fewest work items waiting at its first layer."""
