"""Goodput: the search for the largest rate that meets an objective."""

from dataclasses import replace

import pandas as pd
import pytest

import helixlab as hx
from helixlab.errors import SimulationError, SweepError, WorkloadError

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
SHORT = {"warmup_s": 60, "duration_s": 180}
OBJECTIVE = hx.Objective(ttft_s=20, tpot_s=2)


@pytest.mark.parametrize("start", [None, 40.0])
def test_goodput_is_the_last_rate_that_meets_the_objective(start):
    """From above and from below, the search ends at neighbours of which one meets the objective."""
    found = hx.goodput(*SYSTEM, objective=OBJECTIVE, tolerance=0.1, most_tokens_per_s=start, **SHORT)
    runs = found.runs.set_index("rate_tokens_per_s")["meets_objective"]
    assert runs.index.is_monotonic_increasing
    assert runs[found.rate_tokens_per_s]
    next_rate = runs.index[runs.index > found.rate_tokens_per_s][0]
    assert not runs[next_rate]
    assert next_rate <= found.rate_tokens_per_s / 0.9 + 1e-9
    assert found.goodput_requests_per_s >= 0.9 * found.requests_per_s > 0


def test_an_objective_that_nothing_meets():
    found = hx.goodput(*SYSTEM, objective=hx.Objective(ttft_s=1e-3, tpot_s=1e-3), warmup_s=0, duration_s=60)
    assert found.rate_tokens_per_s == found.goodput_requests_per_s == 0
    assert not found.runs["meets_objective"].any()


def test_a_tolerance_that_makes_no_sense():
    with pytest.raises(WorkloadError, match="tolerance is 0; give a number above 0 and below 1"):
        hx.goodput(*SYSTEM, objective=OBJECTIVE, tolerance=0)


def test_an_objective_that_anything_meets():
    everything = hx.Objective(ttft_s=1e9, tpot_s=1e9)
    with pytest.raises(WorkloadError, match="is still met at"):
        hx.goodput(*SYSTEM, objective=everything, most_tokens_per_s=50.0, warmup_s=0, duration_s=60)


def test_a_window_in_which_nothing_arrives():
    with pytest.raises(WorkloadError, match=r"no request arrives in the window at 0\.1 tokens/s"):
        hx.goodput(*SYSTEM, objective=OBJECTIVE, most_tokens_per_s=0.1, warmup_s=0, duration_s=60)


@pytest.mark.parametrize("start", [None, 40.0])
def test_jobs_change_nothing(start):
    """Rates tried ahead of the search leave no trace."""
    asked = {"objective": OBJECTIVE, "tolerance": 0.1, "most_tokens_per_s": start, **SHORT}
    alone, ahead = (hx.goodput(*SYSTEM, **asked, n_jobs=n_jobs) for n_jobs in (1, 3))
    pd.testing.assert_frame_equal(ahead.runs, alone.runs)
    assert replace(ahead, runs=None) == replace(alone, runs=None)


def test_seeds_are_judged_together(tmp_path):
    """The objective is for the requests of all seeds; runs are kept, and taken up again."""
    asked = {"objective": OBJECTIVE, "tolerance": 0.2, "seeds": [1, 2], "store": tmp_path, **SHORT}
    found = hx.goodput(*SYSTEM, **asked)
    of_rate = found.runs.groupby("rate_tokens_per_s")[["requests", "requests_in_time"]].sum()
    met = of_rate["requests_in_time"] / of_rate["requests"] >= OBJECTIVE.attainment
    assert met[found.rate_tokens_per_s]
    assert not met[met.index > found.rate_tokens_per_s].any()
    assert found.runs["seed"].tolist() == [1, 2] * len(of_rate)
    best = found.runs[found.runs["rate_tokens_per_s"] == found.rate_tokens_per_s]
    assert found.goodput_requests_per_s == best["goodput_requests_per_s"].mean()
    kept = sorted(tmp_path.iterdir())
    again = hx.goodput(*SYSTEM, **asked, n_jobs=2)
    pd.testing.assert_frame_equal(again.runs, found.runs)
    assert sorted(tmp_path.iterdir()) == kept


def test_a_run_that_fails():
    with pytest.raises(SimulationError, match=r"at 50 tokens/s with seed 0: .*is for cluster 'small10'"):
        hx.goodput(
            hx.load_cluster("single24"), *SYSTEM[1:], objective=OBJECTIVE, most_tokens_per_s=50, **SHORT
        )


def test_arguments_of_the_wrong_kind():
    with pytest.raises(WorkloadError, match="objective must be an Objective"):
        hx.goodput(*SYSTEM, objective=5)
    with pytest.raises(WorkloadError, match="tolerance is '2%'; give a number"):
        hx.goodput(*SYSTEM, objective=OBJECTIVE, tolerance="2%")
    for most in (0, -5, float("nan"), True, "700"):
        with pytest.raises(WorkloadError, match=r"most_tokens_per_s is .*; give a number above 0"):
            hx.goodput(*SYSTEM, objective=OBJECTIVE, most_tokens_per_s=most)
    with pytest.raises(SweepError, match="n_jobs is 0"):
        hx.goodput(*SYSTEM, objective=OBJECTIVE, n_jobs=0)
