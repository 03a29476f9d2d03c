"""Comparisons of execution policies: ratios within a seed, orders of placements, batches of a window."""

import pandas as pd
import pytest

import helixlab as hx
from helixlab import experiments as ex
from helixlab.errors import SimulationError, SweepError, UnknownNameError

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
WORKLOAD = hx.offline(warmup_s=20, duration_s=40)


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """Two clusters, two policies, two seeds; the requests of seed 1 take twice as long."""
    rows = [
        {"cluster": cluster, "execution": execution, "seed": seed, "latency_s": latency * (1 + seed)}
        for cluster, greedy in (("b", 4.0), ("a", 2.0))
        for execution, latency in (("greedy", greedy), ("chunked", 1.0))
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_ratios_are_taken_within_a_seed_and_in_the_order_of_the_runs(runs: pd.DataFrame) -> None:
    ratios = ex.over_baseline(runs, "latency_s", column="execution", baseline="greedy", by=["cluster"])
    assert ratios["latency_s"].tolist() == [1, 1, 0.25, 0.25, 1, 1, 0.5, 0.5]
    means = ex.paired_ratios(runs, ["latency_s"], column="execution", baseline="greedy", by=["cluster"])
    assert means[["cluster", "mean", "low", "high"]].values.tolist() == [
        ["a", *[0.5] * 3],
        ["b", *[0.25] * 3],
    ]
    assert ex.ratio_ranges(means).values.tolist() == [["latency_s", 2, 0.25, 0.5, 2]]


def test_a_run_without_its_baseline_has_no_ratio(runs: pd.DataFrame) -> None:
    some = runs[~((runs["execution"] == "greedy") & (runs["seed"] == 1) & (runs["cluster"] == "a"))]
    ratios = ex.over_baseline(some, "latency_s", column="execution", baseline="greedy", by=["cluster"])
    assert ratios["latency_s"].isna().tolist() == [False] * 6 + [True]


def test_baselines_that_make_no_sense(runs: pd.DataFrame) -> None:
    with pytest.raises(UnknownNameError, match="unknown execution 'greddy'"):
        ex.over_baseline(runs, "latency_s", column="execution", baseline="greddy")
    with pytest.raises(UnknownNameError, match="unknown column 'ttft_s'"):
        ex.over_baseline(runs, "ttft_s", column="execution", baseline="greedy")
    with pytest.raises(SweepError, match="comes twice for one seed"):
        ex.over_baseline(runs, "latency_s", column="execution", baseline="greedy")


def test_leads_are_apart_where_their_interval_is() -> None:
    rates = {"helix": [9.0, 9.5, 9.1], "swarm": [8.0, 8.4, 8.1], "petals": [1.0, 1.1, 1.2]}
    runs = pd.DataFrame(
        [
            {"cluster": "a", "execution": "greedy", "method": method, "seed": seed}
            | {"max_flow_tokens_per_s": len(method), "decode_tokens_per_s": rate}
            for method, values in rates.items()
            for seed, rate in enumerate(values)
        ]
    )
    orders = ex.placement_orders(runs)
    assert orders["order"].tolist() == ["petals > helix > swarm", "helix > swarm > petals"]
    assert orders["apart"].tolist()[1] is True
    assert orders["apart"].isna().tolist() == [True, False]


def test_batches_of_the_window() -> None:
    result = hx.simulate(*SYSTEM, workload=WORKLOAD, keep_batches=True)
    batches = ex.window_batches(result)
    start_s, end_s = result.window_s
    assert batches["start_s"].between(start_s, end_s - 2).all()
    assert (batches["length_s"] > 0).all()
    kinds = ex.batch_kinds(batches).set_index("kind")
    assert kinds["batches"].sum() == len(batches)
    assert kinds.loc["decodes only", "prompt_tokens_mean"] == 0
    with pytest.raises(SimulationError, match="keep_batches=True"):
        ex.window_batches(hx.simulate(*SYSTEM, workload=WORKLOAD))


def test_policies_serve_the_same_requests_seed_by_seed() -> None:
    policies = {"first": "greedy", "again": "greedy"}
    runs = ex.compare_executions(*SYSTEM, policies, workload=WORKLOAD, seeds=[3, 5])
    first, again = (rows.drop(columns="method") for _, rows in runs.groupby("method", sort=False))
    assert first["seed"].tolist() == [3, 5]
    pd.testing.assert_frame_equal(first.reset_index(drop=True), again.reset_index(drop=True))
    swept = hx.sweep({"placement": SYSTEM[2], "workload": WORKLOAD}, seeds=[3, 5])
    assert first["decode_tokens_per_s"].tolist() == swept["decode_tokens_per_s"].tolist()
    assert ex.worst_loads(swept.assign(load="stable"), by="seed")["grows"].tolist() == [False, False]
