"""Mixed-integer programs as arrays: what is to be solved, when to stop, and what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from helixlab._validation import as_number, as_whole
from helixlab.errors import SolverError

__all__ = ["NO_LIMITS", "Limits", "Program", "Progress", "Solution", "Status"]

Status = Literal[
    "optimal",
    "target reached",
    "stalled",
    "time limit",
    "interrupted",
    "infeasible",
    "unbounded",
    "infeasible or unbounded",
    "solver limit",
    "solver error",
]
"""Why a solve ended. Whether it found anything is another question: `Solution.values`."""

Progress = tuple[float, float, float]
"""Seconds so far, incumbent and bound; NaN where there is none yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A mixed-integer linear program: optimise ``costs @ x + offset`` over rows and columns with bounds.

    Parameters
    ----------
    costs : array of n floats
        One for each column (variable).
    matrix : sparse array, m x n
        ``row_lower <= matrix @ x <= row_upper``.
    row_lower, row_upper : arrays of m floats, or one number for all
        Infinite where there is no bound.
    column_lower, column_upper : arrays of n floats, or one number for all
        Infinite where there is no bound.
    integer : array of n bools, or one for all
        Which columns must be whole numbers.
    maximize : bool
        Sense.
    offset : float
        Added to the objective.

    Raises
    ------
    SolverError
        The shapes do not fit together, or a coefficient is not a finite number.
    """

    costs: NDArray[np.float64]
    matrix: sp.csc_array
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    column_lower: NDArray[np.float64]
    column_upper: NDArray[np.float64]
    integer: NDArray[np.bool_]
    maximize: bool = False
    offset: float = 0.0

    def __post_init__(self) -> None:
        matrix = sp.csc_array(self.matrix, dtype=float)
        object.__setattr__(self, "matrix", matrix)
        rows, columns = matrix.shape
        for name, size, kind in (
            ("costs", columns, float),
            ("row_lower", rows, float),
            ("row_upper", rows, float),
            ("column_lower", columns, float),
            ("column_upper", columns, float),
            ("integer", columns, bool),
        ):
            value = np.asarray(getattr(self, name), dtype=kind)
            if value.shape not in {(), (size,)}:
                raise SolverError(
                    f"{name} has the shape {value.shape}; the {rows} x {columns} matrix needs {size}"
                )
            if np.isnan(value).any():
                raise SolverError(f"{name} holds a NaN; give numbers, infinite ones where there is no bound")
            object.__setattr__(self, name, np.ascontiguousarray(np.broadcast_to(value, size)))
        if not (np.isfinite(self.costs).all() and np.isfinite(matrix.data).all()):
            raise SolverError("a coefficient of the program is not finite; give numbers")


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop, and how to search.

    Parameters
    ----------
    time_limit_s : float, optional
        Seconds of wall clock.
    relative_gap : float
        Stop when the bound is known to be within this part of the incumbent.
    target : float, optional
        Stop at the first incumbent that is at least this good.
    stall_s : float, optional
        Stop when there is an incumbent and none better was found for so many seconds.
    seed : int
        Of the solver's random draws.
    threads : int
        Most threads to use.
    options : mapping of str to option value
        Options of HiGHS by its own names, for instance ``{"mip_heuristic_effort": 0.3}``.

    Raises
    ------
    SolverError
        A time, gap or target is not a number, or below 0.
    """

    time_limit_s: float | None = None
    relative_gap: float = 1e-4
    target: float | None = None
    stall_s: float | None = None
    seed: int = 0
    threads: int = 1
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("time_limit_s", "relative_gap", "target", "stall_s"):
            value = getattr(self, name)
            if value is not None:
                least, mend = (-math.inf, "a number") if name == "target" else (0, "0 or more")
                number = as_number(value, name, least=least, most=math.inf, mend=mend, error=SolverError)
                object.__setattr__(self, name, number)
        for name in ("seed", "threads"):
            least = 0 if name == "seed" else 1
            object.__setattr__(
                self, name, as_whole(getattr(self, name), name, least=least, error=SolverError)
            )


NO_LIMITS: Final = Limits()
"""Search until the best solution is proved."""


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What a solve found.

    Parameters
    ----------
    status : Status
        Why it ended.
    objective : float or None
        Of the best solution found; None if there is none (yet).
    bound : float or None
        No solution is better; None if nothing is proved.
    values : array or None
        The columns of the best solution, None if there is none. Those of integer columns are whole up to the
        solver's tolerance of 1e-6.
    wall_s : float
        Seconds spent.
    trace : tuple of (float, float, float)
        Seconds, incumbent and bound when one of them got better; NaN where there was none yet.
    start_objective : float or None
        Of the start after it was completed; None if there was no start or it breaks the program.
    """

    status: Status
    objective: float | None
    bound: float | None
    values: NDArray[np.float64] | None = field(repr=False)
    wall_s: float
    trace: tuple[Progress, ...] = field(repr=False)
    start_objective: float | None = None

    @property
    def gap(self) -> float | None:
        """Distance from objective to bound as a part of the objective; None where either is missing."""
        if not self.objective or self.bound is None:
            return None
        return abs(self.bound - self.objective) / abs(self.objective)
