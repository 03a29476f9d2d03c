"""Greedy batches: everything that still fits the measured limits, as the reference simulator does."""

from __future__ import annotations

from typing import Any

from helixlab.execution.protocol import ADMITS, Execution
from helixlab.jit import compiled

__all__ = ["greedy"]


@compiled(ADMITS)
def _admits(node: Any, request: Any) -> bool:
    if request.is_prompt:
        return (
            node.batch_prompt_requests + 1 <= node.max_prompt_requests
            and node.batch_prompt_tokens + request.tokens <= node.max_prompt_tokens
        )
    return (
        node.batch_decode_tokens + request.tokens <= node.max_decode_tokens
        and node.batch_context_tokens + request.context_tokens <= node.max_decode_context_tokens
    )


greedy = Execution("greedy", _admits)
"""Take every request that fits."""
