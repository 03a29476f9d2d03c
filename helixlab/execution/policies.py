"""The built-in execution policies."""

from __future__ import annotations

from typing import Any

from helixlab._jit import compiled
from helixlab.engine.state import ADMITS
from helixlab.execution.protocol import Execution, fits_limits

__all__ = ["chunked", "decode_first", "greedy", "one_phase", "prompt_first"]

greedy = Execution("greedy")
"""Policy that takes every work item that fits, as the reference simulator does."""


def chunked(
    *,
    chunk_tokens: int = 64,
    max_prompt_chunks_per_batch: int | None = 1,
    max_decode_per_batch: int | None = 32,
    memory_floor: bool = True,
    prompt_cost_factor: float = 1.0,
    kv_reread_factor: float = 1.0,
) -> Execution:
    """Make a policy of chunked prefill with micro-batches: prompts travel in chunks, and batches stay small.

    Chunks (Agrawal et al., "Sarathi-Serve", OSDI 2024) keep a long prompt from delaying the work items
    behind it. Small batches keep the stages of a pipeline busy at the same time.

    Parameters
    ----------
    chunk_tokens, max_prompt_chunks_per_batch, max_decode_per_batch, memory_floor, prompt_cost_factor, \
kv_reread_factor
        Parameters of `Execution`. Chunks that are too small overload the slowest node;
        `helixlab.tune_execution` searches for good limits.

    Returns
    -------
    Execution

    Examples
    --------
    >>> chunked(chunk_tokens=128, max_decode_per_batch=48).max_decode_per_batch
    48
    """
    return Execution(
        "chunked",
        chunk_tokens=chunk_tokens,
        max_prompt_chunks_per_batch=max_prompt_chunks_per_batch,
        max_decode_per_batch=max_decode_per_batch,
        memory_floor=memory_floor,
        prompt_cost_factor=prompt_cost_factor,
        kv_reread_factor=kv_reread_factor,
    )


@compiled(ADMITS)
def _decodes_first(node: Any, item: Any) -> bool:
    return (not item.is_prompt or node.waiting_decodes == 0) and fits_limits(node, item)


@compiled(ADMITS)
def _prompts_first(node: Any, item: Any) -> bool:
    return (item.is_prompt or node.waiting_prompts == 0) and fits_limits(node, item)


@compiled(ADMITS)
def _same_phase(node: Any, item: Any) -> bool:
    other = node.batch_decode_tokens if item.is_prompt else node.batch_prompts
    return other == 0 and fits_limits(node, item)


decode_first = Execution("decode-first", _decodes_first)
"""Policy in which a prompt joins a batch only if no decode waits, so that prompts never delay decodes."""
prompt_first = Execution("prompt-first", _prompts_first)
"""Policy in which a decode joins a batch only if no prompt waits, as in engines before chunked prefill."""
one_phase = Execution("one-phase", _same_phase)
"""Policy that never puts prompts and decodes in one batch: the first work item decides."""
