"""Tuning of chunk and batch limits."""

import numpy as np
import pytest

import helixlab as hx
from helixlab.errors import SchedulingError, SimulationError

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


def test_single_values_and_arrays_are_as_good_as_lists():
    workload = hx.offline(warmup_s=5, duration_s=20)
    asked = {"p95_prompt_latency_s": None, "max_prompt_chunks_per_batch": 1, "workload": workload}
    one = hx.tune_execution(*SYSTEM, **asked, chunk_tokens=64, max_decode_per_batch=None)
    assert one.execution == hx.chunked(chunk_tokens=64, max_decode_per_batch=None)
    two = hx.tune_execution(*SYSTEM, **asked, chunk_tokens=np.array([64, 128]), max_decode_per_batch=8)
    assert two.candidates["chunk_tokens"].sort_values().tolist() == [64, 128]


def test_runs_that_fail_are_told():
    with pytest.raises(SimulationError, match=r"no candidate could be run: PlacementError: .*is for cluster"):
        hx.tune_execution(hx.load_cluster("single24"), *SYSTEM[1:], **TRIED)


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ({"chunk_tokens": []}, SimulationError, "there is nothing to try"),
        ({"chunk_tokens": [0]}, SchedulingError, "chunk_tokens is 0; give a whole number of at least 1"),
        ({"chunk_tokens": "64"}, SchedulingError, "chunk_tokens is '64'; give a whole number"),
        ({"p95_decode_latency_s": -1}, SimulationError, "p95_decode_latency_s is -1; give a number above 0"),
        ({"p95_prompt_latency_s": "5"}, SimulationError, "p95_prompt_latency_s is '5'; give a number"),
        ({"workload": "offline"}, SimulationError, r"make a workload with offline\(...\) or online\(...\)"),
    ],
)
def test_arguments_that_make_no_sense(asked, kind, message):
    with pytest.raises(kind, match=message):
        hx.tune_execution(*SYSTEM, **asked)
