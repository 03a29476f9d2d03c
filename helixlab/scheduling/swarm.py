"""The scheduler of SWARM: prefer links whose receivers have been quick.

Each link has a priority that grows with every prompt it takes by the moving average of the time its
work items took until they left the receiver (Ryabinin et al., "SWARM Parallelism", ICML 2023, as the
Helix paper's artifact reads it).
"""

from __future__ import annotations

from typing import Any

from helixlab._jit import compiled
from helixlab.engine.state import CHOOSE, NONE, ON_READY
from helixlab.scheduling.protocol import Scheduler

__all__ = ["swarm"]

NEWEST_WEIGHT = 0.8


@compiled(CHOOSE)
def _choose(state: Any, sender: int, request: int) -> int:
    node = state.nodes[sender]
    best = NONE
    for row in range(node.first_link, node.first_link + node.links):
        if best == NONE or state.links[row].priority < state.links[best].priority:
            best = row
    state.links[best].priority += state.links[best].service_s
    return best


@compiled(ON_READY)
def _on_ready(link: Any, elapsed_s: float) -> None:
    link.service_s = NEWEST_WEIGHT * elapsed_s + (1 - NEWEST_WEIGHT) * link.service_s


swarm = Scheduler("swarm", _choose, on_ready=_on_ready)
"""Quickest receivers first."""
