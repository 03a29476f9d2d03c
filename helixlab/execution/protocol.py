"""The protocol of execution policies: the function that forms batches, and the columns that it sees.

The function is compiled by numba. It gets a row of ``nodes`` and a row of ``work_items``, tables of
`helixlab.engine.state`. The columns most often used are:

- ``node``: the batch so far, ``batch_prompts``, ``batch_prompt_tokens``, ``batch_decode_tokens`` and
  ``batch_context_tokens`` (of its decodes); ``waiting_prompts`` and ``waiting_decodes``, the numbers of work
  items to choose from; the limits ``max_prompts``, ``max_prompt_tokens``, ``max_decode_tokens`` and
  ``max_decode_context_tokens``.
- ``item``: ``is_prompt``, ``tokens``, and ``context_tokens``, the tokens in the KV cache before it.

A policy must not write to them. `fits_limits` checks the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from helixlab._jit import compiled, from_user, inlined
from helixlab._validation import as_flag, as_number, as_whole, plain
from helixlab.engine.state import ADMITS
from helixlab.errors import SchedulingError

__all__ = ["Execution", "fits_limits"]


@inlined
def fits_limits(node: Any, item: Any) -> bool:
    """Tell whether the batch so far, with this work item, keeps to the limits of the node."""
    if item.is_prompt:
        return (
            node.batch_prompts + 1 <= node.max_prompts
            and node.batch_prompt_tokens + item.tokens <= node.max_prompt_tokens
        )
    return (
        node.batch_decode_tokens + item.tokens <= node.max_decode_tokens
        and node.batch_context_tokens + item.context_tokens <= node.max_decode_context_tokens
    )


@compiled(ADMITS)
def everything_that_fits(node: Any, item: Any) -> bool:
    return fits_limits(node, item)


@dataclass(frozen=True)
class Execution:
    """An execution policy: chunks of prompts, the forming of batches, and their cost beyond the profile.

    A node that is free goes through the work items that wait at its layer, first come, first served, and asks
    `admits` for each whether it joins the batch. The engine itself takes care of the KV cache.

    One layer takes a batch of ``p`` prompt tokens and ``d`` decode tokens ::

        max(floor, prompt_cost_factor * prompt_time(p) + decode_time(d)
                   + kv_reread_factor * context * kv_bytes / memory_speed)

    where ``context`` is the sum, over the chunks of prompts in the batch, of the tokens of the chunks before
    each, whose KV cache of ``kv_bytes`` per token and layer is read again. ``memory_speed`` comes from the
    profile: the bytes of a layer over the time of a batch of two decodes, which does little but read them.
    That time is also the ``floor``.

    Parameters
    ----------
    name : str
        Name in results.
    admits : function ``(node, item) -> bool``, optional
        Function that tells whether a work item joins the batch so far; `helixlab.execution.protocol`
        describes the columns of both. If it turns down a work item that could be alone in the batch, the
        request is refused for good. By default everything that fits the limits of the node joins.
    chunk_tokens : int, optional
        Number of tokens of the chunks into which the coordinator cuts prompts. Each chunk is a work item,
        and all follow the same pipeline; the first decode starts when the last chunk is back. By default
        prompts travel whole.
    max_prompt_chunks_per_batch, max_decode_per_batch : int, optional
        Limits in addition to those of the machine; a whole prompt is one chunk.
    memory_floor : bool
        Whether a batch takes at least the time of reading the layer.
    prompt_cost_factor : float
        Cost of prompt tokens relative to the profile.
    kv_reread_factor : float
        Cost of reading the KV cache of earlier chunks again, relative to the estimate above; it has no
        effect without `chunk_tokens`.

    Raises
    ------
    SchedulingError
        A parameter is not allowed.

    Examples
    --------
    One work item per batch:

    >>> def alone(node, item):
    ...     return node.batch_prompts + node.batch_decode_tokens == 0
    >>> Execution("one at a time", alone)
    Execution('one at a time')

    Whole prompts, small batches of decodes:

    >>> Execution("micro-batches", max_decode_per_batch=32)
    Execution('micro-batches', max_decode_per_batch=32)
    """

    name: str
    admits: Callable[..., Any] = everything_that_fits
    chunk_tokens: int | None = None
    max_prompt_chunks_per_batch: int | None = None
    max_decode_per_batch: int | None = None
    memory_floor: bool = False
    prompt_cost_factor: float = 1.0
    kv_reread_factor: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", plain(self.name))
        if not callable(self.admits):
            raise SchedulingError(
                f"execution policy {self.name!r}: admits must be a function, got {self.admits!r}"
            )
        what = f"execution policy {self.name!r}"
        for name in ("chunk_tokens", "max_prompt_chunks_per_batch", "max_decode_per_batch"):
            value = getattr(self, name)
            if value is not None:
                mend = "a whole number of at least 1, or leave it out for no limit"
                whole = as_whole(value, f"{what}: {name}", least=1, mend=mend, error=SchedulingError)
                object.__setattr__(self, name, whole)
        for name, least in (("prompt_cost_factor", 1e-6), ("kv_reread_factor", 0.0)):
            factor = as_number(getattr(self, name), f"{what}: {name}", least=least, error=SchedulingError)
            object.__setattr__(self, name, factor)
        floor = as_flag(self.memory_floor, f"{what}: memory_floor", error=SchedulingError)
        object.__setattr__(self, "memory_floor", floor)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters other than the name and the function, for the provenance of results.

        Examples
        --------
        >>> Execution("mine", chunk_tokens=64).parameters["chunk_tokens"]
        64
        """
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "admits")}

    def __repr__(self) -> str:
        defaults = {f.name: f.default for f in fields(self)}
        changed = [f"{key}={value}" for key, value in self.parameters.items() if value != defaults[key]]
        return f"Execution({', '.join([repr(self.name), *changed])})"

    def compiled_admits(self) -> Any:
        """Compile the function.

        Raises
        ------
        SchedulingError
            The function does not compile.
        """
        if ADMITS.args in getattr(self.admits, "overloads", {}):
            return self.admits
        return from_user(ADMITS, self.admits, f"admits of execution policy {self.name!r}")
