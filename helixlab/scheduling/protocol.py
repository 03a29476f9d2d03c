"""The protocol of schedulers: functions that choose links, and the tables that they see.

The functions are compiled by numba. They work on numbers and on ``state``, a `helixlab.engine.state.View`,
with the tables ``run``, ``nodes``, ``links``, ``queues``, ``requests`` and ``pipelines``, and with the array
``parameters``. `helixlab.engine.state` lists all columns. Those used most are:

- ``nodes[n]``: outbound links ``first_link`` to ``first_link + links`` (exclusive); ``first_layer`` and
  ``layers``; ``kv_capacity_token_layers`` and ``kv_used_token_layers``; ``max_prompt_tokens`` of a batch;
  ``busy``. The last row is the coordinator: it sends on a pipeline's first link and receives on its last.
- ``links[l]``: ``sender``, ``receiver``; ``queue``, the row of the queue it leads to, ``NONE`` at the end of
  a pipeline; ``layers`` to run at the receiver; ``flow_tokens_per_s``; ``free_rate_bytes_per_s``, ``taken``.
- ``queues[q]``: ``node``, ``layer``, and ``length``, the number of work items that wait there.
- ``requests[r]``: ``input_tokens``, ``iteration`` (0 for the prompt), ``kv_tokens``, and ``hops``, the number
  of links in its pipeline so far.
- ``pipelines[r, hop]``: the rows of these links.

A scheduler may write to the columns marked S there, such as ``load`` of ``links``, and to no others. ``NONE``
and ``uniform(state)``, which draws a random number, are in `helixlab.scheduling`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from helixlab._jit import compiled, from_user
from helixlab._validation import as_flag, as_items, as_number, plain
from helixlab.engine.state import CHOOSE, ON_FINISH, ON_READY, ON_START
from helixlab.errors import SchedulingError

__all__ = ["Scheduler"]


@compiled(ON_START)
def _no_start(state, request):
    pass


@compiled(ON_READY)
def _no_ready(link, elapsed_s):
    pass


@compiled(ON_FINISH)
def _no_finish(state, request):
    pass


_HOOKS = {
    "choose": (CHOOSE, None),
    "on_start": (ON_START, _no_start),
    "on_ready": (ON_READY, _no_ready),
    "on_finish": (ON_FINISH, _no_finish),
}


@dataclass(frozen=True)
class Scheduler:
    """A scheduler: it chooses the pipeline of every prompt. Decodes follow the pipeline of their prompt.

    `helixlab.scheduling.protocol` describes the tables of ``state`` that the functions read.

    Parameters
    ----------
    name : str
        Name in results.
    choose : function ``(state, sender, request) -> link``
        Function that returns the row of the outbound link that `request` takes from node `sender`, or
        ``NONE`` (-1) if none suits. With ``plans_ahead``, the request is then queued or dropped;
        otherwise its prompt waits at the sender, and the function is called again after the next event
        there.
    on_start : function ``(state, request)``, optional
        Function called when an iteration starts at the coordinator;
        ``state.requests[request].iteration`` is its number.
    on_ready : function ``(link, elapsed_s)``, optional
        Function called when a work item that came by `link` (the row itself, not its number) is ready to
        leave the node, `elapsed_s` after sending it on that link started.
    on_finish : function ``(state, request)``, optional
        Function called when a request is finished, preempted or refused, and when it found no pipeline:
        its ``hops`` are then the links chosen so far.
    plans_ahead : bool
        Whether to choose the whole pipeline when the request arrives, not hop by hop as the prompt travels.
    picks_free_links : bool
        Whether `choose` picks among the links that are free (``links["free_rate_bytes_per_s"]`` above 0 and
        not ``taken``). If so, a sender offers its work items in the order they got ready. Otherwise a
        prompt joins the queue of its link at once, and links send in the order of their rows.
    follows_flow : bool
        Whether the scheduler needs the maximum flow in ``links["flow_tokens_per_s"]``. If so, links send at
        the rate that the flow gives them; otherwise they share the network cards.
    feeds_by_kv : bool
        Whether, offline, requests are fed while the expected KV use allows it, rather than to keep a fixed
        number in flight.
    parameters : tuple of float
        Numbers for the functions to read, as ``state.parameters``.

    Examples
    --------
    A scheduler that always takes the first link:

    >>> def first(state, sender, request):
    ...     return state.nodes[sender].first_link
    >>> Scheduler("first", first)
    Scheduler('first')
    """

    name: str
    choose: Callable[..., Any]
    on_start: Callable[..., Any] | None = None
    on_ready: Callable[..., Any] | None = None
    on_finish: Callable[..., Any] | None = None
    plans_ahead: bool = False
    picks_free_links: bool = False
    follows_flow: bool = False
    feeds_by_kv: bool = False
    parameters: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", plain(self.name))
        what = f"scheduler {self.name!r}"
        if not callable(self.choose):
            raise SchedulingError(f"scheduler {self.name!r}: choose must be a function, got {self.choose!r}")
        for rule in ("plans_ahead", "picks_free_links", "follows_flow", "feeds_by_kv"):
            flag = as_flag(getattr(self, rule), f"{what}: {rule}", error=SchedulingError)
            object.__setattr__(self, rule, flag)
        numbers = tuple(
            as_number(value, f"{what}: a parameter", most=math.inf, error=SchedulingError)
            for value in as_items(self.parameters, f"{what}: parameters", error=SchedulingError)
        )
        object.__setattr__(self, "parameters", numbers)
        if self.feeds_by_kv and not self.plans_ahead:
            raise SchedulingError(
                f"scheduler {self.name!r}: feeds_by_kv needs plans_ahead, which books the KV cache"
            )

    def __repr__(self) -> str:
        return f"Scheduler({self.name!r})"

    def compiled_hooks(self) -> tuple[Any, Any, Any, Any]:
        """Compile the four functions.

        Raises
        ------
        SchedulingError
            A function does not compile.
        """
        hooks = []
        for name, (signature, default) in _HOOKS.items():
            function = getattr(self, name) or default
            ready = signature.args in getattr(function, "overloads", {})
            hooks.append(
                function if ready else from_user(signature, function, f"{name} of scheduler {self.name!r}")
            )
        return tuple(hooks)
