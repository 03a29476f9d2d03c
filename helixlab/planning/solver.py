"""The one way to the solver, HiGHS: a mixed-integer program in, the best that was found and a bound out.

Everything that runs for long can be watched and stopped, and stopping never loses what was found.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from threading import Event, Thread
from typing import Any, Final, Literal

import highspy
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from helixlab._validation import as_number, as_whole
from helixlab.errors import SolverError

__all__ = ["NO_LIMITS", "Limits", "Program", "Progress", "Solution", "Status", "solve", "without_stdout"]


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


@contextmanager
def without_stdout() -> Iterator[None]:
    """Drop what is written to the process's standard output, by whatever language.

    Examples
    --------
    >>> with without_stdout():
    ...     done = os.system("echo dropped")
    >>> done
    0
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError):  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        with suppress(OSError, TypeError, AttributeError):
            # C keeps a buffer of its own, and would write it when the process ends.
            ctypes.CDLL("msvcrt" if sys.platform == "win32" else None).fflush(None)
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


_Ended = highspy.HighsModelStatus
_STATUS: Final[dict[highspy.HighsModelStatus, Status]] = {
    _Ended.kOptimal: "optimal",
    _Ended.kModelEmpty: "optimal",
    _Ended.kObjectiveTarget: "target reached",
    _Ended.kTimeLimit: "time limit",
    _Ended.kInterrupt: "interrupted",
    _Ended.kInfeasible: "infeasible",
    _Ended.kUnbounded: "unbounded",
    _Ended.kUnboundedOrInfeasible: "infeasible or unbounded",
    _Ended.kObjectiveBound: "solver limit",
    _Ended.kIterationLimit: "solver limit",
    _Ended.kSolutionLimit: "solver limit",
    _Ended.kMemoryLimit: "solver limit",
}
"""Every other way to end is a "solver error"."""

FEASIBLE: Final = highspy.SolutionStatus.kSolutionStatusFeasible
POLL_S: Final = 0.1
"""How often a running solve is looked at."""


def solve(
    program: Program,
    *,
    start: ArrayLike | None = None,
    limits: Limits = NO_LIMITS,
    on_progress: Callable[[float, float, float], None] | None = None,
) -> Solution:
    """Solve a mixed-integer program.

    Ctrl-C ends the search and returns what was found, with the status ``"interrupted"``; a second one, while
    the solver finishes its step, is raised.

    Parameters
    ----------
    program : Program
        What to solve.
    start : array of n floats, optional
        A solution to begin with, NaN where a value is to be found. Only its integer columns count:
        the others follow by a program of their own.
    limits : Limits
        When to stop.
    on_progress : callable, optional
        Called about ten times a second from the calling thread. What it raises ends the search and is raised.

    Returns
    -------
    Solution

    Raises
    ------
    SolverError
        The program or an option is not accepted, or the solver failed before it found anything.

    Examples
    --------
    Of three things with weights 3, 4 and 5 the most valuable that weigh 8 at most:

    >>> pack = Program(
    ...     costs=[4, 5, 6], matrix=[[3, 4, 5]], row_lower=-np.inf, row_upper=8,
    ...     column_lower=0, column_upper=1, integer=True, maximize=True,
    ... )
    >>> found = solve(pack, start=[0, 1, np.nan])
    >>> found.status, found.objective, found.start_objective, found.values.round().tolist()
    ('optimal', 10.0, 5.0, [1.0, 0.0, 1.0])
    """
    watch = _Watch(limits, program.maximize, on_progress)
    begin = None if start is None else _completed(program, start, limits)
    highs = _loaded(program, limits, watch)
    if begin is not None and begin.values is not None and begin.objective is not None:
        watch.incumbent_is(begin.objective)
        solution = highspy.HighsSolution()
        solution.col_value = begin.values
        highs.setSolution(solution)
    if begin is not None and begin.status == "interrupted":
        watch.ends = "interrupted"
    if watch.ends is None:
        watch.run(highs)
    return _solution(program, highs, watch, begin)


def _completed(program: Program, start: ArrayLike, limits: Limits) -> Solution:
    """The best solution with the integer columns of the start, or one of the best.

    HiGHS can do this itself, but then reports a bound that holds for what is left of the program only.
    """
    values = np.asarray(start, dtype=float)
    if values.shape != program.costs.shape:
        raise SolverError(f"the start has the shape {values.shape}; give {len(program.costs)} columns")
    given = program.integer & ~np.isnan(values)
    fixed = replace(
        program,
        # A start beyond the bounds leaves nothing between them, and is found infeasible.
        column_lower=np.where(given, np.fmax(program.column_lower, values.round()), program.column_lower),
        column_upper=np.where(given, np.fmin(program.column_upper, values.round()), program.column_upper),
    )
    # Of what is left to be found a good part will do.
    little = replace(
        limits,
        time_limit_s=None if limits.time_limit_s is None else limits.time_limit_s / 4,
        target=None,
        stall_s=None,
        options={"mip_max_nodes": 500, **limits.options},
    )
    return solve(fixed, limits=little)


@cache
def _introduced() -> None:
    """The first HiGHS of a process prints who made it, which would stand in what we print."""
    with without_stdout():
        highspy.Highs()


def _loaded(program: Program, limits: Limits, watch: _Watch) -> highspy.Highs:
    """HiGHS with the program and its options."""
    _introduced()
    highs = highspy.Highs()
    remaining_s = math.inf if limits.time_limit_s is None else limits.time_limit_s - watch.seconds()
    options = {
        "output_flag": False,
        "threads": limits.threads,
        "random_seed": limits.seed,
        "mip_rel_gap": limits.relative_gap,
        "time_limit": max(remaining_s, 0.0),
        **limits.options,
    }
    for name, value in options.items():
        if highs.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise SolverError(f"HiGHS does not take {value!r} for its option {name!r}; see its documentation")
    model = highspy.HighsLp()
    model.num_row_, model.num_col_ = program.matrix.shape
    model.sense_ = highspy.ObjSense.kMaximize if program.maximize else highspy.ObjSense.kMinimize
    model.offset_ = program.offset
    model.col_cost_ = program.costs
    model.col_lower_, model.col_upper_ = program.column_lower, program.column_upper
    model.row_lower_, model.row_upper_ = program.row_lower, program.row_upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = program.matrix.indptr
    model.a_matrix_.index_ = program.matrix.indices
    model.a_matrix_.value_ = program.matrix.data
    if program.integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[whole] for whole in program.integer.tolist()]
    if highs.passModel(model) == highspy.HighsStatus.kError:
        raise SolverError("HiGHS does not take the program; look for coefficients beyond 1e15")
    return highs


class _Watch:
    """What is known of a running solve, and whether it is to end.

    HiGHS runs in a thread of its own, which writes the incumbent and the bound; the caller's thread looks at
    them, and so is the one that Ctrl-C reaches and that `on_progress` is called from.
    """

    def __init__(
        self, limits: Limits, maximize: bool, on_progress: Callable[[float, float, float], None] | None
    ) -> None:
        self.limits, self.on_progress = limits, on_progress
        self.sign = 1 if maximize else -1
        self.began = self.improved = time.perf_counter()
        self.incumbent = self.bound = math.nan
        self.trace: list[Progress] = []
        self.ends: Status | None = None
        self.failure: BaseException | None = None
        self.done = Event()

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def incumbent_is(self, objective: float) -> None:
        if not self.sign * objective <= self.sign * self.incumbent:  # NaN compares as False
            self.incumbent, self.improved = objective, time.perf_counter()
            self.note()
        target = self.limits.target
        if target is not None and self.sign * objective >= self.sign * target:
            self.ends = self.ends or "target reached"

    def bound_is(self, bound: float) -> None:
        if math.isfinite(bound) and not self.sign * bound >= self.sign * self.bound:
            self.bound = bound
            if not self.trace or self.seconds() > self.trace[-1][0] + POLL_S:  # it moves at every node
                self.note()

    def note(self) -> None:
        self.trace.append((self.seconds(), self.incumbent, self.bound))

    def run(self, highs: highspy.Highs) -> None:
        """Run HiGHS to its end or to that of the watch."""
        highs.cbMipImprovingSolution += self._on_solution
        highs.cbMipInterrupt += self._on_node
        highs.cbSimplexInterrupt += self._on_step
        highs.cbIpmInterrupt += self._on_step
        # Not by Thread.join, which takes a thread for finished when Ctrl-C comes in between.
        Thread(target=self._run, args=(highs,), daemon=True).start()
        try:
            while not self.done.is_set():
                try:
                    while not self.done.wait(POLL_S):
                        self._look()
                except KeyboardInterrupt:
                    if self.ends == "interrupted":
                        raise
                    self.ends = "interrupted"
        except BaseException:
            self.ends = "interrupted"
            raise
        if self.failure is not None:
            raise self.failure

    def _look(self) -> None:
        stalled_s = time.perf_counter() - self.improved
        limit_s = self.limits.stall_s
        if limit_s is not None and stalled_s > limit_s and not math.isnan(self.incumbent):
            self.ends = self.ends or "stalled"
        if self.on_progress is not None:
            self.on_progress(self.seconds(), self.incumbent, self.bound)

    # In the solver's thread

    def _run(self, highs: highspy.Highs) -> None:
        try:
            highs.run()
        except BaseException as error:
            self.failure = error
        finally:
            self.done.set()

    def _on_solution(self, event: Any) -> None:
        self.incumbent_is(event.data_out.objective_function_value)

    def _on_node(self, event: Any) -> None:
        self.bound_is(event.data_out.mip_dual_bound)
        self._on_step(event)

    def _on_step(self, event: Any) -> None:
        if self.ends is not None:
            event.interrupt()


def _solution(program: Program, highs: highspy.Highs, watch: _Watch, begin: Solution | None) -> Solution:
    """The best that is known after a run."""
    ended, info = highs.getModelStatus(), highs.getInfo()
    status: Status = _STATUS.get(ended, "solver error")
    if watch.ends is not None and ended in {_Ended.kInterrupt, _Ended.kNotset}:
        status = watch.ends
    objective = values = None
    if info.primal_solution_status == FEASIBLE and status != "unbounded":
        objective, values = float(info.objective_function_value), np.array(highs.getSolution().col_value)
    elif begin is not None:
        objective, values = begin.objective, begin.values
    if status == "solver error" and values is None:
        raise SolverError(
            f"HiGHS failed: {highs.modelStatusToString(ended)}; scale the program's coefficients"
        )
    if objective is not None:
        watch.incumbent_is(objective)
    if status == "optimal":  # else HiGHS may state a bound of 0 that nobody proved
        watch.bound_is(info.mip_dual_bound if program.integer.any() else info.objective_function_value)
    watch.note()
    return Solution(
        status=status,
        objective=objective,
        bound=None if math.isnan(watch.bound) else watch.bound,
        values=values,
        wall_s=watch.trace[-1][0],
        trace=tuple(watch.trace),
        start_objective=None if begin is None else begin.objective,
    )
