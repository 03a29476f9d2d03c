"""What a scheduler is: a few small functions that choose links and keep books.

The functions are compiled, so they use numbers and the arrays of
`helixlab.engine.state.View` only.
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
    """How a prompt picks its next hop. Decodes follow the pipeline of their prompt.

    Parameters
    ----------
    name : str
        Shown in results.
    choose : function ``(state, sender, request) -> link``
        Row of the outbound link that `request` takes from node `sender`, or ``NONE`` (-1): with
        ``plans_ahead`` nothing fits and the request is held or dropped, otherwise it waits and is
        asked for again when something happens to the sender.
    on_start : function ``(state, request)``, optional
        An iteration starts at the coordinator; ``state.requests[request].iteration`` says which.
    on_ready : function ``(link, elapsed_s)``, optional
        A work item that came by `link` (the row itself, not its number) is ready to leave the node,
        `elapsed_s` after sending it on that link started.
    on_finish : function ``(state, request)``, optional
        The request leaves: finished, preempted or refused; or found no pipeline, then its ``hops``
        are those it had chosen.
    plans_ahead : bool
        Choose the whole pipeline when the request arrives, not hop by hop as the prompt travels.
    picks_free_links : bool
        Looks at which links are free (``links["free_rate_bytes_per_s"]`` above 0 and not ``taken``):
        a sender's work items are then gone through in the order they got ready. Otherwise a prompt
        joins the queue of its link at once, and links send in their order.
    follows_flow : bool
        Needs the maximum flow in ``links["flow_tokens_per_s"]``; links then send at the rate the flow
        gives them, otherwise they share the network cards.
    feeds_by_kv : bool
        Offline, feed while the expected KV use allows it, not a fixed number in flight.
    parameters : tuple of float
        Numbers of its own, ``state.parameters``.

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
        """The four functions, compiled.

        Raises
        ------
        SchedulingError
            One of them does not compile.
        """
        hooks = []
        for name, (signature, default) in _HOOKS.items():
            function = getattr(self, name) or default
            ready = signature.args in getattr(function, "overloads", {})
            hooks.append(
                function if ready else from_user(signature, function, f"{name} of scheduler {self.name!r}")
            )
        return tuple(hooks)
