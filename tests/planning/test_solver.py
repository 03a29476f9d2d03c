"""Driver of the solver: its solutions, and stopping it without losing any."""

import math
import signal

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from helixlab.errors import SolverError
from helixlab.planning.paper_program import solve_problem
from helixlab.planning.solver import Limits, Program, solve

PACK = Program([4, 5, 6], [[3, 4, 5]], -np.inf, 8, 0, 1, True, maximize=True)
NOTHING_FITS = Program([1, 1], [[1, 1]], 5, 9, 0, 1, True)


def hard(columns=200, rows=60):
    """Return a program that takes longer to solve than any test waits; all zeros is a solution."""
    rng = np.random.default_rng(0)
    matrix = rng.integers(1, 100, (rows, columns)).astype(float)
    weights = rng.integers(1, 100, columns)
    return Program(weights, matrix, -np.inf, 0.3 * matrix.sum(axis=1), 0, 1, True, maximize=True)


HARD = hard()
ZEROS = np.zeros(200)


def is_feasible(program, values):
    rows = program.matrix @ values
    tolerance = 1e-6 * (1 + np.abs(rows))
    return (
        (rows >= program.row_lower - tolerance).all()
        and (rows <= program.row_upper + tolerance).all()
        and np.allclose(values[program.integer], values[program.integer].round(), atol=1e-5)
        and (values >= program.column_lower - 1e-6).all()
        and (values <= program.column_upper + 1e-6).all()
    )


def agrees(program, found):
    """Check that the objective is that of the values, and that the bound is on the right side of it."""
    assert is_feasible(program, found.values)
    assert found.objective == pytest.approx(program.costs @ found.values + program.offset)
    if found.bound is not None:
        better = found.bound - found.objective if program.maximize else found.objective - found.bound
        assert better >= -1e-6 * abs(found.objective)
    return True


class TestSolve:
    def test_optimal(self):
        found = solve(PACK)
        assert (found.status, found.objective, found.bound, found.gap) == ("optimal", 10, 10, 0)
        assert found.values.round().tolist() == [1, 0, 1]
        assert found.start_objective is None
        assert found.trace[-1] == (found.wall_s, 10, 10)

    def test_minimise_with_an_offset(self):
        cover = Program([3, 2, 2], [[1, 1, 0], [1, 0, 1]], 1, np.inf, 0, 1, True, offset=5)
        found = solve(cover)
        assert (found.status, found.objective, found.bound) == ("optimal", 8, 8)
        assert agrees(cover, found)

    def test_without_integers(self):
        found = solve(Program([4, 5, 6], [[3, 4, 5]], -np.inf, 8, 0, 1, False, maximize=True))
        assert found.status == "optimal"
        assert found.objective == found.bound == pytest.approx(10.2)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_the_same_seed_the_same_answer(self, seed):
        one, two = (solve(hard(40, 5), limits=Limits(seed=seed)) for _ in range(2))
        assert one.status == two.status == "optimal"
        assert one.values.tolist() == two.values.tolist()

    @pytest.mark.parametrize(
        ("program", "status"),
        [
            (NOTHING_FITS, "infeasible"),
            (Program([1, 1], [[1, -1]], 0, 0, 0, np.inf, False, maximize=True), "unbounded"),
            (Program([1, 1], [[1, -1]], 0, 0, 0, np.inf, True, maximize=True), "infeasible or unbounded"),
        ],
    )
    def test_no_solution_is_never_a_zero(self, program, status):
        found = solve(program)
        assert found.status == status
        assert (found.objective, found.values, found.gap) == (None, None, None)

    def test_a_column_between_bounds_that_cross(self):
        assert solve(Program([1], [[1]], 0, 1, 3, 2, True)).status == "infeasible"

    @given(data=st.data())
    def test_against_all_solutions(self, data):
        size = data.draw(st.integers(1, 6))
        numbers = st.lists(st.integers(-9, 9), min_size=size, max_size=size)
        costs, row, other = (np.array(data.draw(numbers)) for _ in range(3))
        limit, maximize = data.draw(st.integers(-9, 20)), data.draw(st.booleans())
        program = Program(costs, [row, other], [-np.inf, -5], [limit, 12], 0, 1, True, maximize=maximize)
        choices = np.array(list(np.ndindex(*[2] * size)))
        fitting = choices[(choices @ row <= limit) & (choices @ other >= -5) & (choices @ other <= 12)]
        start = data.draw(
            st.none() | st.lists(st.sampled_from([0, 1, math.nan]), min_size=size, max_size=size)
        )
        found = solve(program, start=start)
        if not len(fitting):
            assert (found.status, found.values) == ("infeasible", None)
            return
        values = fitting @ costs
        assert found.status == "optimal"
        assert found.objective == (values.max() if maximize else values.min())
        assert agrees(program, found)
        if start is not None:
            fixed = ~np.isnan(start)
            completions = fitting[(fitting[:, fixed] == np.array(start)[fixed]).all(axis=1)]
            assert (found.start_objective is None) == (len(completions) == 0)
            if len(completions):
                assert found.start_objective in completions @ costs

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"costs": [1, 2]}, r"costs has the shape \(2,\); the 1 x 3 matrix needs 3"),
            ({"row_upper": [1, 2]}, r"row_upper has the shape \(2,\); the 1 x 3 matrix needs 1"),
            ({"column_lower": math.nan}, "column_lower holds a NaN"),
            ({"costs": [1, 2, math.inf]}, "a coefficient of the program is not finite"),
            ({"matrix": [[1, math.nan, 1]]}, "a coefficient of the program is not finite"),
            ({"matrix": [[1e200, 1, 1]]}, "HiGHS does not take the program"),
        ],
    )
    def test_a_wrong_program(self, change, message):
        parts = {"costs": [1, 2, 3], "matrix": [[3, 4, 5]], "row_lower": 0, "row_upper": 8}
        with pytest.raises(SolverError, match=message):
            solve(Program(**{**parts, "column_lower": 0, "column_upper": 1, "integer": True, **change}))

    @pytest.mark.parametrize("options", [{"no_such_option": 1}, {"mip_rel_gap": -1.0}, {"threads": "two"}])
    def test_a_wrong_option(self, options):
        with pytest.raises(SolverError, match=r"for its option .*; see its documentation"):
            solve(PACK, limits=Limits(options=options))


class TestStart:
    def test_full(self):
        found = solve(PACK, start=[0, 1, 0])
        assert (found.status, found.start_objective, found.objective) == ("optimal", 5, 10)
        assert found.trace[0][1:2] == (5,)

    def test_partial(self):
        assert solve(PACK, start=[math.nan, 1, math.nan]).start_objective == 9

    def test_continuous_columns_follow_from_the_others(self):
        lot = Program([-1, 2], [[-4, 1]], -np.inf, 0, 0, [1, 3], [True, False], maximize=True)
        assert solve(lot, start=[1, 0.5]).start_objective == 5

    @pytest.mark.parametrize("start", [[1, 1, 1], [0, 0, 2], [-1, 0, 0]])
    def test_one_that_breaks_the_program_is_left_out(self, start):
        found = solve(PACK, start=start)
        assert (found.status, found.start_objective, found.objective) == ("optimal", None, 10)

    def test_wrong_shape(self):
        with pytest.raises(SolverError, match=r"the start has the shape \(2,\); give 3 columns"):
            solve(PACK, start=[1, 1])


class TestStopping:
    def test_time_without_a_solution(self):
        found = solve(HARD, limits=Limits(time_limit_s=1e-9))
        assert (found.status, found.objective, found.bound, found.values) == ("time limit", None, None, None)
        (row,) = found.trace
        assert row[0] == found.wall_s
        assert np.isnan(row[1:]).all()

    def test_time_with_a_solution(self):
        found = solve(HARD, start=ZEROS, limits=Limits(time_limit_s=1))
        assert found.status == "time limit"
        assert found.start_objective == 0
        assert agrees(HARD, found)

    def test_trace(self):
        seconds, incumbents, bounds = zip(
            *solve(HARD, start=ZEROS, limits=Limits(time_limit_s=1.5)).trace, strict=True
        )
        assert list(seconds) == sorted(seconds)
        assert incumbents[0] == 0
        assert list(incumbents) == sorted(incumbents)
        known = [bound for bound in bounds if not math.isnan(bound)]
        assert known == sorted(known, reverse=True)
        assert [math.isnan(bound) for bound in bounds] == [True] * (len(bounds) - len(known)) + [False] * len(
            known
        )

    def test_target(self):
        found = solve(HARD, limits=Limits(target=1000))
        assert found.status == "target reached"
        assert found.objective >= 1000
        assert agrees(HARD, found)

    def test_target_of_a_minimum(self):
        least = Program(-HARD.costs, HARD.matrix, HARD.row_lower, HARD.row_upper, 0, 1, True)
        found = solve(least, limits=Limits(target=-1000))
        assert found.status == "target reached"
        assert found.objective <= -1000
        assert agrees(least, found)

    def test_target_that_the_start_reaches(self):
        found = solve(HARD, start=ZEROS, limits=Limits(target=0))
        assert (found.status, found.objective, found.bound) == ("target reached", 0, None)

    def test_stall(self):
        found = solve(HARD, start=ZEROS, limits=Limits(stall_s=0.3))
        assert found.status == "stalled"
        assert agrees(HARD, found)

    def test_gap(self):
        found = solve(HARD, limits=Limits(relative_gap=0.3))
        assert found.status == "optimal"
        assert 0 < found.gap <= 0.3

    @pytest.mark.parametrize("ctrl_c", [lambda: signal.raise_signal(signal.SIGINT), None])
    def test_interrupt_keeps_what_was_found(self, ctrl_c):
        seen = []

        def on_progress(seconds, incumbent, bound):
            if not seen and incumbent > 0 and not math.isnan(bound):
                seen.append((incumbent, bound))
                if ctrl_c is None:
                    raise KeyboardInterrupt
                ctrl_c()

        found = solve(HARD, on_progress=on_progress)
        ((incumbent, bound),) = seen
        assert found.status == "interrupted"
        assert found.objective >= incumbent
        assert found.bound <= bound
        assert agrees(HARD, found)

    def test_progress_that_fails_ends_the_search(self):
        def on_progress(seconds, incumbent, bound):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            solve(HARD, on_progress=on_progress)


class TestSolveProblem:
    def problem(self, objective=cp.Maximize):
        """Return a problem of two integers, four binaries in a square, and one continuous variable."""
        x, y = cp.Variable((2, 2), boolean=True), cp.Variable(2, integer=True, bounds=[0, 5])
        z = cp.Variable(nonneg=True)
        sign = 1 if objective is cp.Maximize else -1
        worth = cp.sum(cp.multiply(np.array([[1, 2], [3, 5]]), x)) + cp.sum(y) + z + 7
        limits = [cp.sum(x, axis=1) == 1, cp.sum(y) + x[1, 0] <= 4.5, z <= 0.5 * x[0, 0] + 0.25]
        return cp.Problem(objective(sign * worth), limits), x, y, z

    @pytest.mark.parametrize("objective", [cp.Maximize, cp.Minimize])
    def test_as_cvxpy_solves_it(self, objective):
        problem, x, y, z = self.problem(objective)
        found = solve_problem(problem)
        value, values = problem.value, [v.value.copy() for v in (x, z)]
        assert (found.status, problem.status) == ("optimal", "optimal")
        assert found.objective == found.bound == value == pytest.approx(problem.objective.value)
        assert y.value.sum() == pytest.approx(4)
        assert problem.solve(solver=cp.HIGHS) == pytest.approx(value)
        for v, own in zip((x, z), values, strict=True):
            assert v.value == pytest.approx(own)

    def test_start(self):
        problem, x, y, _ = self.problem()
        found = solve_problem(problem, start={x: [[0, 1], [1, 0]], y: [1, math.nan]})
        assert found.start_objective == pytest.approx(2 + 3 + 3 + 0.25 + 7)
        assert found.objective == pytest.approx(2 + 5 + 4 + 0.25 + 7)

    def test_a_start_for_something_else(self):
        problem, x, _, _ = self.problem()
        with pytest.raises(SolverError, match="start with variables of the problem"):
            solve_problem(problem, start={cp.Variable(2): [0, 0]})
        with pytest.raises(SolverError, match="in their own shape"):
            solve_problem(problem, start={x: [0, 0, 0, 0]})

    def test_no_solution_leaves_no_values(self):
        problem, x, y, z = self.problem()
        solve_problem(problem)
        found = solve_problem(cp.Problem(problem.objective, [*problem.constraints, z >= 2]))
        assert (found.status, found.objective, found.values) == ("infeasible", None, None)
        assert [v.value for v in (x, y, z)] == [None] * 3

    def test_stopped_with_a_solution(self):
        taken = cp.Variable(200, boolean=True)
        problem = cp.Problem(cp.Maximize(HARD.costs @ taken), [HARD.matrix @ taken <= HARD.row_upper])
        found = solve_problem(problem, start={taken: ZEROS}, limits=Limits(target=0))
        assert (found.status, problem.status) == ("target reached", "user_limit")
        assert problem.value == found.objective == 0
        assert taken.value.tolist() == ZEROS.tolist()
