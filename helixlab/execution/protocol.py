"""What an execution policy is: one small function that says which requests join a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numba import types

from helixlab.errors import SchedulingError
from helixlab.jit import from_user
from helixlab.scheduling.state import node_type, request_type

__all__ = ["ADMITS", "Execution"]

ADMITS = types.boolean(node_type, request_type)


@dataclass(frozen=True)
class Execution:
    """How a node forms its batches.

    When a node is free it goes through the requests waiting at its layer, first come first, and
    asks of each whether it joins. Room in the KV cache is looked after by the engine.

    Parameters
    ----------
    name : str
        Shown in results.
    admits : function ``(node, request) -> bool``
        Whether the request joins the batch formed so far; both are rows of the tables in
        `helixlab.scheduling.state`, the ``batch_*`` columns of the node describe the batch.

    Examples
    --------
    One request a batch:

    >>> def alone(node, request):
    ...     return node.batch_prompt_requests + node.batch_decode_tokens == 0
    >>> Execution("one at a time", alone)
    Execution('one at a time')
    """

    name: str
    admits: Callable[..., Any]

    def __post_init__(self) -> None:
        if not callable(self.admits):
            raise SchedulingError(
                f"execution policy {self.name!r}: admits must be a function, got {self.admits!r}"
            )

    def __repr__(self) -> str:
        return f"Execution({self.name!r})"

    def compiled_admits(self) -> Any:
        """The function, compiled.

        Raises
        ------
        SchedulingError
            It does not compile.
        """
        if ADMITS.args in getattr(self.admits, "overloads", {}):
            return self.admits
        return from_user(ADMITS, self.admits, f"admits of execution policy {self.name!r}")
