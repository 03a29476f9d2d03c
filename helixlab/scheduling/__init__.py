"""Schedulers: the choice of a pipeline for every prompt.

A scheduler is a `Scheduler` made of a few small functions; ``SCHEDULERS`` has the built-in ones by name.
Authors of schedulers start at `helixlab.scheduling.protocol`.
"""

from __future__ import annotations

from helixlab.engine.state import NONE, View, uniform
from helixlab.errors import SchedulingError, UnknownNameError
from helixlab.scheduling.helix import helix
from helixlab.scheduling.protocol import Scheduler
from helixlab.scheduling.random import random, shortest_queue
from helixlab.scheduling.swarm import swarm

__all__ = ["NONE", "SCHEDULERS", "Scheduler", "View", "get_scheduler", "uniform"]

SCHEDULERS = {scheduler.name: scheduler for scheduler in (helix, swarm, random, shortest_queue)}


def get_scheduler(scheduler: str | Scheduler) -> Scheduler:
    """Get a built-in scheduler by name; a `Scheduler` is returned as it is.

    Raises
    ------
    UnknownNameError
        No such built-in scheduler.
    SchedulingError
        Neither a name nor a Scheduler.

    Examples
    --------
    >>> get_scheduler("swarm")
    Scheduler('swarm')
    """
    if isinstance(scheduler, Scheduler):
        return scheduler
    if not isinstance(scheduler, str):
        raise SchedulingError(f"a scheduler is a name or a Scheduler, not {scheduler!r}")
    if scheduler not in SCHEDULERS:
        raise UnknownNameError("scheduler", scheduler, SCHEDULERS)
    return SCHEDULERS[scheduler]
