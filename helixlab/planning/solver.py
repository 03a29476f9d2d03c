"""Driver of the solver HiGHS: it takes a mixed-integer program, and returns the best solution and a bound.

A long solve can be monitored and stopped, and stopping it never loses a solution that was found.
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
from typing import Any, Final

import highspy
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from helixlab._validation import as_number, as_whole
from helixlab.errors import SolverError
from helixlab.planning.layout import SearchStatus

__all__ = ["NO_LIMITS", "Limits", "Program", "Progress", "Solution", "solve", "without_stdout"]


POLL_S: Final = 0.1
"""Seconds between two looks at a running solve."""

Ended = highspy.HighsModelStatus
STATUS_OF_HIGHS: Final = {
    Ended.kOptimal: SearchStatus.OPTIMAL,
    Ended.kModelEmpty: SearchStatus.OPTIMAL,
    Ended.kObjectiveTarget: SearchStatus.TARGET_REACHED,
    Ended.kTimeLimit: SearchStatus.TIME_LIMIT,
    Ended.kInterrupt: SearchStatus.INTERRUPTED,
    Ended.kInfeasible: SearchStatus.INFEASIBLE,
    Ended.kUnbounded: SearchStatus.UNBOUNDED,
    Ended.kUnboundedOrInfeasible: SearchStatus.INFEASIBLE_OR_UNBOUNDED,
    Ended.kObjectiveBound: SearchStatus.SOLVER_LIMIT,
    Ended.kIterationLimit: SearchStatus.SOLVER_LIMIT,
    Ended.kSolutionLimit: SearchStatus.SOLVER_LIMIT,
    Ended.kMemoryLimit: SearchStatus.SOLVER_LIMIT,
}
"""Statuses by those of HiGHS; every other one is `SearchStatus.SOLVER_ERROR`."""

Progress = tuple[float, float, float]
"""Seconds so far, incumbent and bound; NaN where there is none yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Mixed-integer linear program: optimise ``costs @ x + offset`` subject to bounds on rows and columns.

    Parameters
    ----------
    costs : array of n floats
        Coefficient of each column (variable) in the objective.
    matrix : sparse array, m x n
        Coefficients of the rows: ``row_lower <= matrix @ x <= row_upper``.
    row_lower, row_upper : arrays of m floats, or one number for all
        Bounds of the rows; infinite where there is none.
    column_lower, column_upper : arrays of n floats, or one number for all
        Bounds of the columns; infinite where there is none.
    integer : array of n bools, or one for all
        True for columns that must be whole numbers.
    maximize : bool
        Sense of the objective.
    offset : float
        Constant that is added to the objective.

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
    """Conditions on which a solve stops, and options of the search.

    Parameters
    ----------
    time_limit_s : float, optional
        Wall time after which the solve stops.
    relative_gap : float
        Relative gap between incumbent and bound at which the solve stops.
    target : float, optional
        Objective at which the solve stops: at the first incumbent that is at least this good.
    stall_s : float, optional
        Seconds without a better incumbent after which the solve stops, once there is an incumbent.
    seed : int
        Seed of the solver's random draws.
    threads : int
        Largest number of threads.
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
"""Limits of a search that ends when the best solution is proved."""


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Result of a solve.

    Parameters
    ----------
    status : SearchStatus
        Reason why the solve ended.
    objective : float or None
        Objective of the best solution; None if there is no solution (yet).
    bound : float or None
        Bound on the objective of all solutions; None if nothing is proved.
    values : array or None
        Columns of the best solution; None if there is none. Integer columns are whole up to the solver's
        tolerance of 1e-6.
    wall_s : float
        Wall time of the solve.
    trace : tuple of (float, float, float)
        Seconds, incumbent and bound whenever one of the two improved; NaN where there was none yet.
    start_objective : float or None
        Objective of the completed start; None if there was no start or it violates the program.
    """

    status: SearchStatus
    objective: float | None
    bound: float | None
    values: NDArray[np.float64] | None = field(repr=False)
    wall_s: float
    trace: tuple[Progress, ...] = field(repr=False)
    start_objective: float | None = None

    @property
    def gap(self) -> float | None:
        """Distance from objective to bound relative to the objective; None where either is missing."""
        if not self.objective or self.bound is None:
            return None
        return abs(self.bound - self.objective) / abs(self.objective)


@contextmanager
def without_stdout() -> Iterator[None]:
    """Discard what the process writes to its standard output, in any programming language.

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
            # C has a buffer of its own, which it would write when the process ends.
            ctypes.CDLL("msvcrt" if sys.platform == "win32" else None).fflush(None)
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


def solve(
    program: Program,
    *,
    start: ArrayLike | None = None,
    limits: Limits = NO_LIMITS,
    on_progress: Callable[[float, float, float], None] | None = None,
) -> Solution:
    """Solve a mixed-integer program.

    Ctrl-C ends the search and returns the best solution, with the status ``"interrupted"``. A second Ctrl-C,
    while the solver finishes its step, is raised.

    Parameters
    ----------
    program : Program
        Program to solve.
    start : array of n floats, optional
        Solution to start from, NaN where a value is to be found. Only its integer columns count: the others
        follow from a program of their own.
    limits : Limits
        Conditions on which to stop.
    on_progress : callable, optional
        Function called about ten times a second from the calling thread with the seconds so far, the
        incumbent and the bound. An exception that it raises ends the search and is passed on.

    Returns
    -------
    Solution

    Raises
    ------
    SolverError
        HiGHS rejects the program or an option, or failed before it found a solution.

    Examples
    --------
    Choose the most valuable of three items with weights 3, 4 and 5 that weigh at most 8 together:

    >>> pack = Program(
    ...     costs=[4, 5, 6], matrix=[[3, 4, 5]], row_lower=-np.inf, row_upper=8,
    ...     column_lower=0, column_upper=1, integer=True, maximize=True,
    ... )
    >>> found = solve(pack, start=[0, 1, np.nan])
    >>> print(found.status, found.objective, found.start_objective, found.values.round().tolist())
    optimal 10.0 5.0 [1.0, 0.0, 1.0]
    """
    monitor = SolverMonitor(limits, program.maximize, on_progress)
    completed = None if start is None else _completed(program, start, limits)
    highs = _loaded(program, limits, monitor)
    if completed is not None and completed.values is not None and completed.objective is not None:
        monitor.record_incumbent(completed.objective)
        solution = highspy.HighsSolution()
        solution.col_value = completed.values
        highs.setSolution(solution)
    if completed is not None and completed.status == SearchStatus.INTERRUPTED:
        monitor.stop_reason = SearchStatus.INTERRUPTED
    if monitor.stop_reason is None:
        monitor.run(highs)
    return _solution(program, highs, monitor, completed)


def _completed(program: Program, start: ArrayLike, limits: Limits) -> Solution:
    """Complete a start: find the best solution with its integer columns, or one of the best.

    HiGHS can complete a start itself, but then reports a bound that holds only for the rest of the program.
    """
    values = np.asarray(start, dtype=float)
    if values.shape != program.costs.shape:
        raise SolverError(f"the start has the shape {values.shape}; give {len(program.costs)} columns")
    given = program.integer & ~np.isnan(values)
    fixed = replace(
        program,
        # For a start out of bounds, lower bounds exceed upper ones, and the program is infeasible.
        column_lower=np.where(given, np.fmax(program.column_lower, values.round()), program.column_lower),
        column_upper=np.where(given, np.fmin(program.column_upper, values.round()), program.column_upper),
    )
    # A good solution of the rest is enough.
    modest = replace(
        limits,
        time_limit_s=None if limits.time_limit_s is None else limits.time_limit_s / 4,
        target=None,
        stall_s=None,
        options={"mip_max_nodes": 500, **limits.options},
    )
    return solve(fixed, limits=modest)


@cache
def _suppress_banner() -> None:
    """Create the first HiGHS of the process without output, as it prints a banner."""
    with without_stdout():
        highspy.Highs()


def _loaded(program: Program, limits: Limits, monitor: SolverMonitor) -> highspy.Highs:
    """Load the program and its options into a new HiGHS."""
    _suppress_banner()
    highs = highspy.Highs()
    remaining_s = math.inf if limits.time_limit_s is None else limits.time_limit_s - monitor.seconds()
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


class SolverMonitor:
    """Monitor of a running solve: its incumbent, bound and trace, and the request to stop it.

    HiGHS runs in a thread of its own, which records the incumbent and the bound. The caller's thread polls
    them. So Ctrl-C reaches the caller's thread, and `on_progress` is called from it.
    """

    def __init__(
        self, limits: Limits, maximize: bool, on_progress: Callable[[float, float, float], None] | None
    ) -> None:
        self.limits, self.on_progress = limits, on_progress
        self.sign = 1 if maximize else -1
        self.began = self.improved = time.perf_counter()
        self.incumbent = self.bound = math.nan
        self.trace: list[Progress] = []
        self.stop_reason: SearchStatus | None = None
        self.failure: BaseException | None = None
        self.done = Event()

    def seconds(self) -> float:
        """Return the seconds since the solve began."""
        return time.perf_counter() - self.began

    def record_incumbent(self, objective: float) -> None:
        """Record the objective of a solution, if it is the best so far."""
        if not self.sign * objective <= self.sign * self.incumbent:  # NaN compares as False
            self.incumbent, self.improved = objective, time.perf_counter()
            self.add_to_trace()
        target = self.limits.target
        if target is not None and self.sign * objective >= self.sign * target:
            self.stop_reason = self.stop_reason or SearchStatus.TARGET_REACHED

    def record_bound(self, bound: float) -> None:
        """Record a bound, if it is the best so far."""
        if math.isfinite(bound) and not self.sign * bound >= self.sign * self.bound:
            self.bound = bound
            if not self.trace or self.seconds() > self.trace[-1][0] + POLL_S:  # it changes at every node
                self.add_to_trace()

    def add_to_trace(self) -> None:
        """Add the incumbent and the bound to the trace."""
        self.trace.append((self.seconds(), self.incumbent, self.bound))

    def run(self, highs: highspy.Highs) -> None:
        """Run HiGHS until it ends or the monitor stops it."""
        highs.cbMipImprovingSolution += self._on_solution
        highs.cbMipInterrupt += self._on_node
        highs.cbSimplexInterrupt += self._on_step
        highs.cbIpmInterrupt += self._on_step
        # Thread.join is no alternative: after Ctrl-C it treats the thread as finished.
        Thread(target=self._run, args=(highs,), daemon=True).start()
        try:
            while not self.done.is_set():
                try:
                    while not self.done.wait(POLL_S):
                        self._poll()
                except KeyboardInterrupt:
                    if self.stop_reason == SearchStatus.INTERRUPTED:
                        raise
                    self.stop_reason = SearchStatus.INTERRUPTED
        except BaseException:
            self.stop_reason = SearchStatus.INTERRUPTED
            raise
        if self.failure is not None:
            raise self.failure

    def _poll(self) -> None:
        stalled_s = time.perf_counter() - self.improved
        limit_s = self.limits.stall_s
        if limit_s is not None and stalled_s > limit_s and not math.isnan(self.incumbent):
            self.stop_reason = self.stop_reason or SearchStatus.STALLED
        if self.on_progress is not None:
            self.on_progress(self.seconds(), self.incumbent, self.bound)

    # Called in the solver's thread

    def _run(self, highs: highspy.Highs) -> None:
        try:
            highs.run()
        except BaseException as error:
            self.failure = error
        finally:
            self.done.set()

    def _on_solution(self, event: Any) -> None:
        self.record_incumbent(event.data_out.objective_function_value)

    def _on_node(self, event: Any) -> None:
        self.record_bound(event.data_out.mip_dual_bound)
        self._on_step(event)

    def _on_step(self, event: Any) -> None:
        if self.stop_reason is not None:
            event.interrupt()


def _solution(
    program: Program, highs: highspy.Highs, monitor: SolverMonitor, completed: Solution | None
) -> Solution:
    """Collect the best solution and the bound after a run."""
    ended, info = highs.getModelStatus(), highs.getInfo()
    status = STATUS_OF_HIGHS.get(ended, SearchStatus.SOLVER_ERROR)
    if monitor.stop_reason is not None and ended in {Ended.kInterrupt, Ended.kNotset}:
        status = monitor.stop_reason
    objective = values = None
    feasible = highspy.SolutionStatus.kSolutionStatusFeasible
    if info.primal_solution_status == feasible and status != SearchStatus.UNBOUNDED:
        objective, values = float(info.objective_function_value), np.array(highs.getSolution().col_value)
    elif completed is not None:
        objective, values = completed.objective, completed.values
    if status == SearchStatus.SOLVER_ERROR and values is None:
        raise SolverError(
            f"HiGHS failed: {highs.modelStatusToString(ended)}; scale the coefficients of the program"
        )
    if objective is not None:
        monitor.record_incumbent(objective)
    if status == SearchStatus.OPTIMAL:  # otherwise HiGHS may state a bound of 0 that is not proved
        monitor.record_bound(info.mip_dual_bound if program.integer.any() else info.objective_function_value)
    monitor.add_to_trace()
    return Solution(
        status=status,
        objective=objective,
        bound=None if math.isnan(monitor.bound) else monitor.bound,
        values=values,
        wall_s=monitor.trace[-1][0],
        trace=tuple(monitor.trace),
        start_objective=None if completed is None else completed.objective,
    )
