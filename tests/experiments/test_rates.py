"""Rates up to saturation: seeds, jobs, a store, and failures."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab.errors import SweepError, UnknownNameError, WorkloadError

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
OBJECTIVE = hx.Objective(ttft_s=20, tpot_s=2)
SHORT = {"warmup_s": 30, "duration_s": 90, "objective": OBJECTIVE}


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


def test_a_row_is_what_that_run_shows():
    table = hx.rate_sweep(*SYSTEM, rates_tokens_per_s=[100, 250], seeds=[4, 2], **SHORT, scheduler="swarm")
    rows = table[["rate_tokens_per_s", "seed"]].itertuples(index=False, name=None)
    assert list(rows) == [(100, 4), (100, 2), (250, 4), (250, 2)]
    workload = hx.online(rate_tokens_per_s=250, warmup_s=30, duration_s=90, rng=2)
    result = hx.simulate(*SYSTEM, scheduler="swarm", workload=workload)
    latencies, row = hx.request_latencies(result), table.iloc[3]
    in_time = (latencies["ttft_s"] <= 20) & (latencies["tpot_s"] <= 2)
    assert row["requests"] == len(latencies)
    assert row["requests_in_time"] == in_time.sum()
    assert row["attainment"] == in_time.mean()
    assert row["decode_tokens_per_s"] == result.summary["decode_tokens_per_s"].item()
    assert row["ttft_mean_s"] == latencies["ttft_s"].mean()
    assert table["saturated"].dtype == table["meets_objective"].dtype == bool


def test_jobs_and_a_store_change_nothing(tmp_path):
    asked = {"rates_tokens_per_s": [100, 250], "seeds": 2, **SHORT}
    alone = hx.rate_sweep(*SYSTEM, **asked)
    pd.testing.assert_frame_equal(hx.rate_sweep(*SYSTEM, **asked, n_jobs=2, store=tmp_path), alone)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(stamps) == 4
    pd.testing.assert_frame_equal(hx.rate_sweep(*SYSTEM, **asked, store=tmp_path), alone)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps
    # By another objective, or without one, they are other runs.
    asked["objective"] = replace(OBJECTIVE, tpot_s=0.05)
    stricter = hx.rate_sweep(*SYSTEM, **asked, store=tmp_path)
    assert stricter["attainment"].sum() < alone["attainment"].sum()
    workload = hx.online(rate_tokens_per_s=100, warmup_s=30, duration_s=90)
    grid = dict(zip(("cluster", "model", "placement"), SYSTEM, strict=True))
    assert "attainment" not in hx.sweep(grid | {"workload": workload}, store=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 9


def test_latencies_of_requests_that_are_never_served_are_infinite(tmp_path):
    cluster, model, placement = SYSTEM
    tight = replace(placement, kv_capacity_token_layers={held.node: 2000 for held in placement.layers})
    asked = {"rates_tokens_per_s": [60], "scheduler": "swarm", "store": tmp_path, **SHORT}
    for _ in range(2):  # from a run, and from what is kept of it
        row = hx.rate_sweep(cluster, model, tight, **asked).iloc[0]
        assert row["requests_in_time"] < row["requests"]
        assert np.isinf(row["ttft_mean_s"])
        assert np.isinf(row["tpot_p95_s"])


def test_failures_are_rows():
    cluster = hx.load_cluster("single24")
    table = hx.rate_sweep(cluster, *SYSTEM[1:], rates_tokens_per_s=[60], **SHORT)
    assert "is for cluster 'small10'" in table["error"].item()
    assert table["attainment"].isna().all()
    assert table["meets_objective"].isna().all()


def test_arguments_that_make_no_sense():
    with pytest.raises(WorkloadError, match="objective must be an Objective"):
        hx.rate_sweep(*SYSTEM, rates_tokens_per_s=[50], objective=5)
    for rates in ([], 5, "50"):
        with pytest.raises(WorkloadError, match="give a list of at least one rate"):
            hx.rate_sweep(*SYSTEM, rates_tokens_per_s=rates, **SHORT)
    with pytest.raises(WorkloadError, match="rate_tokens_per_s is -1; give a number above 0"):
        hx.rate_sweep(*SYSTEM, rates_tokens_per_s=[50, -1], **SHORT)
    with pytest.raises(SweepError, match=r"scheduler of a point is .*; give single values"):
        hx.rate_sweep(*SYSTEM, rates_tokens_per_s=[50], scheduler=["helix", "swarm"], **SHORT)
    with pytest.raises(UnknownNameError, match="unknown argument 'schedular'; did you mean 'scheduler'"):
        hx.rate_sweep(*SYSTEM, rates_tokens_per_s=[50], schedular="helix", **SHORT)
    with pytest.raises(UnknownNameError, match=r"unknown argument 'workload'.*warmup_s"):
        hx.rate_sweep(*SYSTEM, rates_tokens_per_s=[50], workload=hx.offline(), **SHORT)
