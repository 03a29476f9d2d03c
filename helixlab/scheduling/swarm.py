"""The scheduler of SWARM: links whose receivers have been quick get more prompts.

A prompt takes the link of lowest priority. Each prompt adds to the priority of its link the moving average
of the time from sending a work item on that link to its leaving the receiver (Ryabinin et al., "SWARM
Parallelism", ICML 2023, as the artifact of the Helix paper implements it).
"""

from __future__ import annotations

from typing import Any, Final

from helixlab._jit import compiled
from helixlab.engine.state import CHOOSE, NONE, ON_READY
from helixlab.scheduling.protocol import Scheduler

__all__ = ["swarm"]

NEWEST_WEIGHT: Final = 0.8
"""Weight of the newest time in the moving average."""


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
"""Scheduler that prefers the quickest receivers."""
