"""Suggestions and words of findings: they fit the run, and each other."""

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab.diagnosis import losses
from helixlab.diagnosis.facts import facts_of

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)


def run(workload, **how):
    return hx.simulate(*SYSTEM, workload=workload, **{"keep_breakdown": True, **how})


def given(*spans):
    """Offline requests: so many, of so many input tokens."""
    tokens = np.concatenate([[tokens] * count for count, tokens in spans])
    table = pd.DataFrame({"input_tokens": tokens, "output_tokens": 5})
    return hx.offline(requests=table, warmup_s=10, duration_s=60)


def found(result):
    return {finding.cause: finding for finding in hx.diagnose(result)}


def add_up(result):
    facts = facts_of(result)
    return losses(result)["tokens_per_s"].sum() == pytest.approx(facts.lost_tokens_per_s)


@pytest.mark.parametrize("number", [5, 5000])
@pytest.mark.parametrize("keep_breakdown", [True, False])
def test_queries_that_are_all_refused(number, keep_breakdown):
    result = run(given((number, 20_000)), keep_breakdown=keep_breakdown)
    refused = result.summary["queries_refused"].item()
    first = hx.diagnose(result)[0]
    assert first.cause == "rejected"
    assert first.text.startswith(
        f"All {refused} queries were turned away for good, because no pipeline has room for such a query"
    )
    assert not {"requests ran out", "waiting"} & set(found(result))
    assert add_up(result)


def test_queries_that_are_refused_last():
    """They run out with the last one, whether it is served or not."""
    result = run(given((20, 100), (5000, 20_000)))
    assert result.summary["queries_finished"].item() == 20
    assert "requests ran out" not in found(result)
    assert "rejected" in found(result)
    assert add_up(result)


def offered(rate, duration_s=1800, **how):
    return run(hx.online(rate_tokens_per_s=rate, duration_s=duration_s, rng=0), **how)


def at_mark(mark):
    return run(hx.offline(warmup_s=60, duration_s=600, rng=0), kv_high_water_mark=mark)


def test_caches_are_those_of_the_window():
    """At the end of an online run all queries have left."""
    result = offered(320)
    finding = found(result)["full KV caches"]
    means = result.node_timeline[
        result.node_timeline["time_s"].between(*result.summary[["window_start_s", "window_end_s"]].iloc[0])
    ]
    most = means.groupby("node")["kv_used_fraction"].mean().max()
    assert finding.evidence["kv_used_max"] == pytest.approx(most)
    assert most > 0.7
    assert f"on average {100 * most:.0f} percent in use" in finding.text


def test_caches_that_are_not_known():
    finding = found(offered(320, sample_step_s=0))["full KV caches"]
    assert "fullest cache" not in finding.text
    assert "kv_used_max" not in finding.evidence


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        (1.0, "those layers."),
        (0.85, "those layers; raising kv_high_water_mark, 0.85 here, helps less."),
        (0.5, "those layers; kv_high_water_mark, only 0.5 here, can be raised too."),
    ],
)
def test_the_mark_is_raised_where_it_can_be(mark, told):
    suggestion = found(at_mark(mark))["full KV caches"].suggestion
    assert suggestion.startswith("Give the fullest nodes fewer layers, or more nodes")
    assert suggestion.endswith(told)


def test_no_more_queries_while_some_are_held():
    result = at_mark(0.5)
    findings = found(result)
    assert findings["full KV caches"].cost > findings["few queries"].cost
    for finding in findings.values():
        assert "more queries in flight" not in finding.suggestion
        assert "initial_queries" not in finding.suggestion
    assert (
        "if more queries were let in, for which KV caches lack room" in findings["costly batches"].suggestion
    )
    assert add_up(result)


def test_more_queries_where_few_are_held():
    result = run(hx.offline(initial_queries=2, warmup_s=60, duration_s=300, rng=0), scheduler="swarm")
    assert "a larger initial_queries" in found(result)["few queries"].suggestion


@pytest.mark.parametrize("rate", [265, 320])
def test_saturated_runs_are_not_told_to_ask_for_more(rate):
    result = offered(rate)
    findings = found(result)
    assert "lower the rate" in findings["saturated"].suggestion
    assert "little asked for" not in findings
    assert not any("higher rate" in finding.suggestion for finding in findings.values())
    assert add_up(result)


def test_a_low_rate_is():
    assert "ask for a higher rate" in found(offered(60, 600))["little asked for"].suggestion
