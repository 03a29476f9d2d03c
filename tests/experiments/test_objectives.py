"""What users are promised, and what a run kept of it."""

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab.errors import WorkloadError
from helixlab.experiments.objectives import objective_metrics

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)


def test_latencies_of_requests_by_hand():
    requests = pd.DataFrame(
        {"arrival_s": [0.0, 1.0, 50.0], "input_tokens": [100] * 3, "output_tokens": [4, 1, 2]}
    )
    result = hx.simulate(*SYSTEM, workload=hx.online(requests=requests, duration_s=40))
    latencies = hx.request_latencies(result)
    assert latencies["request"].tolist() == [0, 1]  # the third comes after the window
    for request, row in latencies.set_index("request").iterrows():
        own = result.iterations[result.iterations["request"] == request].sort_values("iteration")
        assert row["ttft_s"] == pytest.approx(own["latency_s"].iloc[0])
        assert row["tpot_s"] == pytest.approx(own["latency_s"].iloc[1:].mean())


def test_requests_that_are_not_served_miss_every_objective():
    requests = pd.DataFrame({"arrival_s": [0.0], "input_tokens": [10**6], "output_tokens": [4]})
    result = hx.simulate(*SYSTEM, scheduler="swarm", workload=hx.online(requests=requests, duration_s=10))
    assert result.requests["outcome"].item() == "refused"
    assert np.isinf(hx.request_latencies(result)[["ttft_s", "tpot_s"]].to_numpy()).all()
    for limit_s in (5, float("inf")):
        figures = objective_metrics(result, hx.Objective(ttft_s=limit_s, tpot_s=limit_s))
        assert (figures["requests"], figures["requests_in_time"], figures["attainment"]) == (1, 0, 0)
        assert not figures["meets_objective"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ttft_s": 0, "tpot_s": 1}, "ttft_s is 0; give a number above 0"),
        ({"ttft_s": 1, "tpot_s": float("nan")}, "tpot_s is nan; give a number above 0"),
        ({"ttft_s": 1, "tpot_s": 1, "attainment": 2}, "attainment is 2; give a number above 0 and at most 1"),
    ],
)
def test_objectives_that_make_no_sense(values, message):
    with pytest.raises(WorkloadError, match=message):
        hx.Objective(**values)


def test_numbers_of_numpy_are_numbers():
    assert hx.Objective(ttft_s=np.int64(5), tpot_s=np.float32(2)) == hx.Objective(5, 2)
