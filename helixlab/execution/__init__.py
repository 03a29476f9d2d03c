"""Execution policies: the forming of batches at a node.

Authors of policies start at `helixlab.execution.protocol`.
"""

from __future__ import annotations

from helixlab.errors import SchedulingError, UnknownNameError
from helixlab.execution.policies import chunked, decode_first, greedy, one_phase, prompt_first
from helixlab.execution.protocol import Execution, fits_limits

__all__ = ["EXECUTIONS", "Execution", "chunked", "fits_limits", "get_execution"]

EXECUTIONS = {
    execution.name: execution for execution in (greedy, chunked(), decode_first, prompt_first, one_phase)
}


def get_execution(execution: str | Execution) -> Execution:
    """Get a built-in execution policy by name; an `Execution` is returned as it is.

    Raises
    ------
    UnknownNameError
        No such built-in policy.
    SchedulingError
        Neither a name nor an Execution.

    Examples
    --------
    >>> get_execution("greedy")
    Execution('greedy')
    """
    if isinstance(execution, Execution):
        return execution
    if not isinstance(execution, str):
        raise SchedulingError(f"an execution policy is a name or an Execution, not {execution!r}")
    if execution not in EXECUTIONS:
        raise UnknownNameError("execution policy", execution, EXECUTIONS)
    return EXECUTIONS[execution]
