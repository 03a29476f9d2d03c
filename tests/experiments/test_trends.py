"""Trends over seeds: constructed cases where the truth is known."""

import numpy as np
import pandas as pd
import pytest

from helixlab.experiments.statistics import trends


def runs(in_flight, throughput, trend="settled"):
    return pd.DataFrame(
        {"method": "one", "in_flight_drift": in_flight, "throughput_drift": throughput, "trend": trend}
    )


STILL = [0.01, -0.01, 0.0, 0.01, -0.01]


@pytest.mark.parametrize(
    ("in_flight", "throughput", "trend"),
    [
        (STILL, STILL, "settled"),
        (STILL, [0.08, 0.09, 0.07, 0.08, 0.08], "moving"),
        ([-0.08, -0.09, -0.07, -0.08, -0.08], STILL, "moving"),
        (STILL, [0.04, 0.04, 0.04, 0.04, 0.04], "settled"),
        (STILL, [0.3, -0.3, 0.2, -0.2, 0.1], "undecided"),
        ([0.01, 0.011], [0.0, 0.001], "settled"),
        ([0.01, 0.011], [0.0, 0.1], "undecided"),
    ],
)
def test_all_seeds_count(in_flight, throughput, trend):
    labels = ["moving", "settled", "undecided", "settled", "moving"][: len(in_flight)]
    assert trends(runs(in_flight, throughput, labels), by="method").to_dict() == {"one": trend}


@pytest.mark.parametrize("trend", ["settled", "undecided", "moving"])
def test_a_single_seed_is_judged_by_its_blocks(trend):
    assert trends(runs([0.5], [0.5], trend), by=["method"]).item() == trend


def test_groups_come_in_their_order():
    rng = np.random.default_rng(0)
    table = pd.concat(
        [runs(rng.normal(0, 0.001, 5), rng.normal(size=5)).assign(method=name) for name in "dbca"]
    )
    assert list(trends(table, by="method").index) == list("dbca")
