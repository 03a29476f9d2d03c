"""What an execution policy is: how prompts are cut, which work items join a batch, what a batch costs."""

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
    """Whether the batch formed so far, with this work item, keeps to the node's limits."""
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
    """How nodes work: how prompts are cut, how batches are formed, what they cost beyond the profile.

    When a node is free it goes through the work items waiting at its layer, first come first, and
    asks of each whether it joins. Room in the KV cache is looked after by the engine.

    One layer takes a batch of ``p`` prompt tokens and ``d`` decode tokens ::

        max(floor, prompt_cost_factor * prompt_time(p) + decode_time(d)
                   + kv_reread_factor * context * kv_bytes / memory_speed)

    where ``context`` counts, for each chunk of a prompt, the tokens of the chunks before it, whose
    KV cache of ``kv_bytes`` a token and layer is read again. ``memory_speed`` is what the profile
    shows: the bytes of a layer over the time of a batch of two decodes, which does little but read
    them. That time is also the ``floor``.

    Parameters
    ----------
    name : str
        Shown in results.
    admits : function ``(node, item) -> bool``, optional
        Whether the work item joins the batch formed so far; both are rows of the tables in
        `helixlab.engine.state`. The ``batch_*`` columns of the node describe the batch, its
        ``waiting_prompts`` and ``waiting_decodes`` what there was to choose from. A work item that is
        turned down though it could be alone in the batch is refused for good. By default everything
        that fits the node's limits joins.
    chunk_tokens : int, optional
        Prompts are cut at the coordinator into chunks of so many tokens that follow the same
        pipeline, each a work item of its own; the first decode starts when the last chunk is back. By
        default prompts travel whole.
    max_prompt_chunks_per_batch, max_decode_per_batch : int, optional
        Limits in addition to those of the machine (for whole prompts, a prompt is one chunk).
    memory_floor : bool
        Whether a batch takes at least the time of reading the layer.
    prompt_cost_factor : float
        What prompt tokens cost relative to the profile.
    kv_reread_factor : float
        What reading the KV cache of earlier chunks again costs, relative to the estimate above; nothing
        without `chunk_tokens`.

    Raises
    ------
    SchedulingError
        A value makes no sense.

    Examples
    --------
    One work item a batch:

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
        """Everything but the name and the function, for records of what ran.

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
        """The function, compiled.

        Raises
        ------
        SchedulingError
            It does not compile.
        """
        if ADMITS.args in getattr(self.admits, "overloads", {}):
            return self.admits
        return from_user(ADMITS, self.admits, f"admits of execution policy {self.name!r}")
