"""Problems of CVXPY, solved so that a start counts and stopping loses nothing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from helixlab.errors import SolverError
from helixlab.planning.program import NO_LIMITS, Limits, Program, Solution
from helixlab.planning.solver import solve

__all__ = ["solve_problem"]


def solve_problem(
    problem: cp.Problem,
    *,
    start: Mapping[cp.Variable, ArrayLike] | None = None,
    limits: Limits = NO_LIMITS,
    on_progress: Callable[[float, float, float], None] | None = None,
) -> Solution:
    """Solve a linear problem of CVXPY, and give its variables the values that were found.

    `problem.solve` neither starts from a solution nor keeps one when it is stopped, hence this way round it.
    Dual values are not returned.

    Parameters
    ----------
    problem : cvxpy.Problem
        Its variables get the values of the solution, None if there is none.
    start : mapping of cvxpy.Variable to array, optional
        A solution to begin with, see `solve`; a variable may be missing or hold NaN.
    limits, on_progress
        As for `solve`.

    Returns
    -------
    Solution
        In the problem's own sense; its `values` are the columns of the compiled program.

    Raises
    ------
    SolverError
        As for `solve`; or the start names a variable that is not in the problem, or in another shape.

    Examples
    --------
    >>> import cvxpy as cp
    >>> taken = cp.Variable(3, boolean=True)
    >>> pack = cp.Problem(cp.Maximize([4, 5, 6] @ taken + 1), [[3, 4, 5] @ taken <= 8])
    >>> found = solve_problem(pack, start={taken: [0, 1, 0]})
    >>> found.objective, found.start_objective, taken.value.round().tolist()
    (11.0, 6.0, [1.0, 0.0, 1.0])
    """
    data, chain, inverse = problem.get_problem_data(cp.HIGHS)
    program = _compiled(problem, data, inverse[-1][cp.settings.OFFSET])
    values = None if start is None else _start_columns(program, data["param_prob"], start)
    found = solve(program, start=values, limits=limits, on_progress=on_progress)
    if found.values is None:
        for variable in problem.variables():
            variable.save_value(None)
        return found
    counts = ("ipm", "crossover", "pdlp", "qp", "simplex")
    raw = {
        "model_status": "kOptimal" if found.status == "optimal" else "kTimeLimit",
        "run_time": found.wall_s,
        "info": SimpleNamespace(
            objective_function_value=found.objective, **{f"{name}_iteration_count": 0 for name in counts}
        ),
        "solution": SimpleNamespace(
            col_value=found.values, row_dual=np.full(program.matrix.shape[0], math.nan)
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it "may be inaccurate": the status says it better
        problem.unpack_results(raw, chain, inverse)
    return found


def _compiled(problem: cp.Problem, data: Mapping[str, Any], offset: float) -> Program:
    """The program that CVXPY made of a problem, which it always minimises, in the problem's own sense."""
    columns = len(data["c"])
    boolean, whole = np.zeros(columns, dtype=bool), np.zeros(columns, dtype=bool)
    boolean[data["bool_vars_idx"]] = whole[data["int_vars_idx"]] = True
    lower, upper = (
        np.full(columns, sign * math.inf) if data[name] is None else data[name]
        for name, sign in (("lower_bounds", -1), ("upper_bounds", 1))
    )
    row_lower = np.full(len(data["b"]), -math.inf)
    row_lower[: data["dims"].zero] = data["b"][: data["dims"].zero]
    maximize = problem.objective.NAME == "maximize"
    sign = -1 if maximize else 1
    return Program(
        costs=sign * data["c"],
        matrix=data["A"],
        row_lower=row_lower,
        row_upper=data["b"],
        column_lower=np.where(boolean, np.maximum(lower, 0), lower),
        column_upper=np.where(boolean, np.minimum(upper, 1), upper),
        integer=boolean | whole,
        maximize=maximize,
        offset=sign * offset,
    )


def _start_columns(
    program: Program, compiled: Any, start: Mapping[cp.Variable, ArrayLike]
) -> NDArray[np.float64]:
    columns = np.full(len(program.costs), math.nan)
    for variable, values in start.items():
        given = np.asarray(values, dtype=float)
        first = compiled.var_id_to_col.get(variable.id)
        if first is None or given.shape != variable.shape:
            raise SolverError(
                f"the start gives {variable.name()} the shape {given.shape}; start with variables of the"
                " problem, in their own shape"
            )
        columns[first : first + variable.size] = given.ravel(order="F")
    return columns
