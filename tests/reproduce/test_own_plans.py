"""Own plans beside the published ones: which placements, and the tables made of their runs."""

import numpy as np
import pandas as pd
import pytest

from helixlab.errors import UnknownNameError
from helixlab.reproduce import largest_stable_rates, load_plans, offline_means, plan_factors, plan_findings
from helixlab.reproduce.evaluation import LATENCIES

RUN = {"cluster": "single24", "model": "llama-2-70b"}


def offline_runs():
    """Two seeds of each plan and policy; chunks double the throughput, our plans add a tenth."""
    rows = []
    for plan in ("published", "for-greedy", "for-chunked"):
        for policy in ("greedy", "chunked"):
            for seed in (0, 1):
                served = 100 * (1 + (policy == "chunked")) * (1 + 0.1 * (plan != "published")) + seed
                rows.append(
                    RUN | {"plan": plan, "policy": policy, "seed": seed, "decode_tokens_per_s": served}
                )
    runs = pd.DataFrame(rows)
    shared = {name: 2.0 for name in (*LATENCIES, "kv_used_fraction_mean", "busy_fraction_mean")}
    return runs.assign(**shared, in_flight_drift=0.0, throughput_drift=0.0, trend="settled")


def test_plans_of_every_setting():
    plans = load_plans()
    assert len(plans.settings) == 5
    assert len(plans.placements) == 15
    assert len(plans.placements["single24", "llama-1-30b", "published"]) == 3, "pipelines side by side"
    frame = plans.to_frame()
    assert (frame["max_flow_tokens_per_s"] > 0).all()
    assert frame.groupby("plan")["search_s"].count().to_dict() == {
        "for-chunked": 5,
        "for-greedy": 5,
        "published": 0,
    }
    with pytest.raises(UnknownNameError, match="vast"):
        load_plans(scale="vast")


def test_means_keep_the_order_and_say_how_sure_they_are():
    means = offline_means(offline_runs())
    assert means["plan"].tolist() == [
        name for name in ("published", "for-greedy", "for-chunked") for _ in "ab"
    ]
    assert means["decode_tokens_per_s"].tolist()[:2] == [100.5, 200.5]
    assert (means["low"] < means["decode_tokens_per_s"]).all()
    assert set(means["trend"]) == {"settled"}


def test_factors_are_seed_by_seed():
    factors = plan_factors(offline_runs()).set_index(["plan", "policy", "published_policy"])["mean"]
    assert len(factors) == 6
    assert factors["for-greedy", "greedy", "greedy"] == pytest.approx(np.mean([1.1, 111 / 101]))
    assert factors["for-chunked", "chunked", "greedy"] == pytest.approx(np.mean([2.2, 221 / 101]))


def test_findings_say_what_the_factors_are():
    first, _, last = plan_findings(load_plans(scale="smoke"), offline_runs())
    assert first.startswith(
        "From 60 to 90 s and with nothing dropped, helixlab's plans for greedy nodes serve 1.1"
    )
    assert "in 1 of 1 settings more and in 0 less by more than chance" in first
    assert "(95 % intervals over 2 seeds). A prompt then takes 1 to 1 times as long on the mean." in first
    assert "for chunked nodes serve 2.194" in last


def test_the_largest_stable_rate():
    runs = pd.DataFrame(
        {
            **RUN,
            "method": ["a", "a", "b", "b", "c"],
            "rate_tokens_per_s": [100.0, 200.0, 100.0, 200.0, 100.0],
            "load": ["stable", "overloaded", "stable", "stable", "filling"],
        }
    )
    runs.loc[len(runs)] = [*RUN.values(), "c", 50.0, "stable"]
    assert largest_stable_rates(runs).iloc[0].to_dict() == {"a": "100", "b": "≥ 200", "c": "50"}
