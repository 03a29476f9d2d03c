"""TTFT, TPOT and end-to-end latency of requests, and their metrics."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import helixlab as hx

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
LATENCIES = ["ttft_s", "tpot_s", "e2e_s"]


def check_latencies(result):
    """The latencies of a request are those of its iterations, as far as it got."""
    for row in result.requests.to_dict("records"):
        own = result.iterations[result.iterations["request"] == row["request"]].set_index("iteration")
        if row["outcome"] != "finished":
            assert np.isnan([row["tpot_s"], row["e2e_s"]]).all()
            assert np.isnan(row["ttft_s"]) == (0 not in own.index)
            continue
        assert row["ttft_s"] == pytest.approx(own["latency_s"][0])
        assert row["tpot_s"] == pytest.approx(own["latency_s"].drop(0).mean())
        assert row["e2e_s"] == pytest.approx(own["latency_s"].sum())
        assert row["e2e_s"] == pytest.approx(row["ttft_s"] + row["tpot_s"] * row["output_tokens"])


def with_kv(tokens):
    """The system with KV caches of so many tokens in every layer."""
    caches = {layers.node: layers.count * tokens for layers in SYSTEM[2].layers}
    return *SYSTEM[:2], replace(SYSTEM[2], kv_capacity_token_layers=caches)


@pytest.mark.parametrize(
    ("scheduler", "on_full", "kv_tokens", "counted"),
    [
        ("helix", "wait", 8000, "requests_queued"),
        ("helix", "drop", 8000, "requests_dropped"),
        ("swarm", "wait", 4000, "requests_preempted"),
    ],
)
def test_latencies_are_those_of_the_iterations(scheduler, on_full, kv_tokens, counted):
    crowded = hx.online(rate_tokens_per_s=300, duration_s=60, rng=0)
    result = hx.simulate(*with_kv(kv_tokens), scheduler=scheduler, workload=crowded, on_full=on_full)
    assert result.metrics[counted] > 0
    check_latencies(result)


def test_metrics_are_those_of_requests_that_finished_in_the_window():
    result = hx.simulate(*SYSTEM, workload=hx.offline(warmup_s=60, duration_s=120, rng=0))
    inside = result.in_window(result.requests)
    inside = inside[inside["outcome"] == "finished"]
    assert 10 < len(inside) < result.metrics["requests_finished"]
    for column in LATENCIES:
        name, ordered = column.removesuffix("_s"), np.sort(inside[column])
        assert result.metrics[f"{name}_mean_s"] == pytest.approx(ordered.mean())
        for percent in (50, 90, 95, 99):
            assert result.metrics[f"{name}_p{percent}_s"] == ordered[int(len(ordered) * percent / 100)]


def test_metrics_need_no_iterations():
    workload = hx.offline(warmup_s=5, duration_s=60, rng=0)
    lean, whole = (hx.simulate(*SYSTEM, workload=workload, keep_iterations=kept) for kept in (False, True))
    pd.testing.assert_frame_equal(lean.requests, whole.requests)
    names = [name for name in whole.metrics.index if name.startswith(("ttft", "tpot", "e2e"))]
    assert len(names) == 15
    assert lean.metrics[names].tolist() == whole.metrics[names].tolist()


def test_a_request_that_is_refused_has_none():
    requests = pd.DataFrame({"arrival_s": [0.0], "input_tokens": [10**6], "output_tokens": [4]})
    result = hx.simulate(*SYSTEM, scheduler="swarm", workload=hx.online(requests=requests, duration_s=10))
    assert result.requests["outcome"].tolist() == ["refused"]
    assert result.requests[LATENCIES].isna().all(axis=None)
    assert np.isnan(result.metrics["ttft_mean_s"])
    assert result.to_dict()["e2e_p99_s"] is None
