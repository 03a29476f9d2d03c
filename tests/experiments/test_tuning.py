"""Tuning of chunk and batch limits."""

import pytest

import helixlab as hx
from helixlab.errors import SimulationError

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
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
        as_good = (
            (runs["decode_tokens_per_s"] >= run["decode_tokens_per_s"])
            & (runs["decode_latency_mean_s"] <= run["decode_latency_mean_s"])
            & (runs["prompt_latency_p95_s"] <= run["prompt_latency_p95_s"])
        )
        # All figures of these runs differ, so that only the run itself is as good and not better.
        assert run["on_frontier"] == (as_good.sum() == 1)
    assert runs["on_frontier"].sum() > 0


def test_limits_that_nothing_keeps():
    with pytest.raises(SimulationError, match=r"no candidate keeps to decode_latency_p95_s <= 0\.001"):
        hx.tune_execution(
            *SYSTEM,
            **TRIED,
            p95_decode_latency_s=0.001,
            p95_prompt_latency_s=None,
            workload=hx.offline(warmup_s=0, duration_s=20),
        )


def test_nothing_to_try():
    with pytest.raises(SimulationError, match="there is nothing to try"):
        hx.tune_execution(*SYSTEM, chunk_tokens=[])
