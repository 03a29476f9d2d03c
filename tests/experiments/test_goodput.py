"""Goodput, rates up to saturation, and tuning."""

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab.errors import SimulationError, WorkloadError

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
SHORT = {"warmup_s": 60, "duration_s": 180}
OBJECTIVE = hx.Objective(ttft_s=20, tpot_s=2)


def test_latencies_of_queries_by_hand():
    requests = pd.DataFrame(
        {"arrival_s": [0.0, 1.0, 50.0], "input_tokens": [100] * 3, "output_tokens": [4, 1, 2]}
    )
    result = hx.simulate(*SYSTEM, workload=hx.online(requests=requests, duration_s=40))
    latencies = hx.query_latencies(result)
    assert latencies["query"].tolist() == [0, 1]  # the third comes after the window
    for query, row in latencies.set_index("query").iterrows():
        own = result.iterations[result.iterations["query"] == query].sort_values("iteration")
        assert row["ttft_s"] == pytest.approx(own["latency_s"].iloc[0])
        assert row["tpot_s"] == pytest.approx(own["latency_s"].iloc[1:].mean())


def test_queries_that_are_not_served_miss_every_objective():
    requests = pd.DataFrame({"arrival_s": [0.0], "input_tokens": [10**6], "output_tokens": [4]})
    result = hx.simulate(*SYSTEM, scheduler="swarm", workload=hx.online(requests=requests, duration_s=10))
    assert result.queries["outcome"].item() == "refused"
    assert np.isinf(hx.query_latencies(result)[["ttft_s", "tpot_s"]].to_numpy()).all()


def test_rates():
    table = hx.rate_sweep(
        *SYSTEM, rates_tokens_per_s=[50, 150, 3000], objective=OBJECTIVE, warmup_s=300, duration_s=1200
    )
    assert table["rate_tokens_per_s"].tolist() == [50, 150, 3000]
    assert table["saturated"].tolist() == [False, False, True]
    assert table["meets_objective"].tolist() == [True, True, False]
    assert table["ttft_p95_s"].is_monotonic_increasing
    assert (table["goodput_requests_per_s"] <= table["requests_per_s"]).all()
    np.testing.assert_allclose(
        table["goodput_requests_per_s"], table["attainment"] * table["requests_per_s"], rtol=1e-9
    )


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ttft_s": 0, "tpot_s": 1}, "ttft_s must be a number above 0"),
        ({"ttft_s": 1, "tpot_s": float("nan")}, "tpot_s must be a number above 0"),
        ({"ttft_s": 1, "tpot_s": 1, "attainment": 2}, "attainment must be a number above 0 and at most 1"),
    ],
)
def test_objectives_that_make_no_sense(values, message):
    with pytest.raises(WorkloadError, match=message):
        hx.Objective(**values)


def test_a_tolerance_that_makes_no_sense():
    with pytest.raises(WorkloadError, match="tolerance must be between 0 and 1, got 0"):
        hx.goodput(*SYSTEM, objective=OBJECTIVE, tolerance=0)


TRIED = {"chunk_tokens": [64, 256], "max_decode_per_batch": [8, 64], "max_prompt_chunks_per_batch": [1]}


def test_tuning_takes_the_most_throughput_within_the_limits():
    workload = hx.offline(warmup_s=60, duration_s=120)
    free = hx.tune_execution(*SYSTEM, **TRIED, p95_prompt_latency_s=None, workload=workload)
    assert len(free.candidates) == 4
    best = free.finalists.iloc[0]
    assert best["decode_tokens_per_s"] == free.finalists["decode_tokens_per_s"].max()
    assert free.execution.chunk_tokens == best["chunk_tokens"]
    assert free.execution.max_decode_per_batch == best["max_decode_per_batch"]
    # Running the winner gives the figures in the table.
    again = hx.simulate(*SYSTEM, execution=free.execution, workload=workload)
    assert again.summary["decode_tokens_per_s"].item() == best["decode_tokens_per_s"]
    # A tighter limit on latency is kept, at the price of throughput.
    limit_s = float(free.finalists["decode_latency_p95_s"].min())
    tight = hx.tune_execution(
        *SYSTEM, **TRIED, p95_prompt_latency_s=None, p95_decode_latency_s=limit_s, workload=workload
    )
    chosen = tight.finalists.iloc[0]
    assert chosen["meets_goal"]
    assert chosen["decode_latency_p95_s"] <= limit_s
    assert chosen["decode_tokens_per_s"] <= best["decode_tokens_per_s"]


def test_the_frontier():
    runs = hx.tune_execution(
        *SYSTEM, **TRIED, p95_prompt_latency_s=None, workload=hx.offline(warmup_s=30, duration_s=60)
    ).finalists
    for _, run in runs.iterrows():
        beaten = (runs["decode_tokens_per_s"] >= run["decode_tokens_per_s"]) & (
            runs["decode_latency_mean_s"] < run["decode_latency_mean_s"]
        )
        assert run["on_frontier"] == (not beaten.any())


def test_limits_that_nothing_keeps():
    with pytest.raises(SimulationError, match=r"no candidate keeps to decode_latency_p95_s <= 0\.001"):
        hx.tune_execution(
            *SYSTEM,
            **TRIED,
            p95_decode_latency_s=0.001,
            p95_prompt_latency_s=None,
            workload=hx.offline(warmup_s=0, duration_s=20),
        )


def test_an_objective_that_anything_meets():
    everything = hx.Objective(ttft_s=1e9, tpot_s=1e9)
    with pytest.raises(WorkloadError, match="is still met at"):
        hx.goodput(*SYSTEM, objective=everything, most_tokens_per_s=50.0, warmup_s=0, duration_s=60)


def test_a_window_in_which_nothing_arrives():
    with pytest.raises(WorkloadError, match=r"no query arrives in the window at 0\.1 tokens/s"):
        hx.goodput(*SYSTEM, objective=OBJECTIVE, most_tokens_per_s=0.1, warmup_s=0, duration_s=60)


def test_arguments_of_the_wrong_kind():
    with pytest.raises(WorkloadError, match="objective must be an Objective"):
        hx.rate_sweep(*SYSTEM, rates_tokens_per_s=[50], objective=5)
    with pytest.raises(WorkloadError, match="tolerance must be between 0 and 1, got '2%'"):
        hx.goodput(*SYSTEM, objective=OBJECTIVE, tolerance="2%")
    with pytest.raises(SimulationError, match="there is nothing to try"):
        hx.tune_execution(*SYSTEM, chunk_tokens=[])
