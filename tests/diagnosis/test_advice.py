"""Advice of findings: it fits the run, and each other."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from diagnosis_cases import arriving, at_mark, given, offered, small10, stopped, two_requests

import helixlab as hx
from helixlab.diagnosis import losses
from helixlab.diagnosis.measures import facts_of


def found(result):
    return {finding.cause: finding for finding in hx.diagnose(result)}


def add_up(result):
    facts = facts_of(result)
    return losses(result)["tokens_per_s"].sum() == pytest.approx(facts.lost_tokens_per_s)


@pytest.mark.parametrize("number", [5, 5000])
@pytest.mark.parametrize("keep_breakdown", [True, False])
def test_requests_that_are_all_refused(number, keep_breakdown):
    result = small10(given((number, 20_000)), keep_breakdown=keep_breakdown)
    refused = result.metrics["requests_refused"]
    first = hx.diagnose(result)[0]
    assert first.cause == "rejected"
    assert first.text.startswith(f"Requests rejected: {refused} of {refused} (100 %), for good, because ")
    assert not {"requests ran out", "waiting"} & set(found(result))
    assert add_up(result)


def test_requests_that_are_refused_last():
    """They run out with the last one, whether it is served or not."""
    result = small10(given((20, 100), (5000, 20_000)))
    assert result.metrics["requests_finished"] == 20
    assert "requests ran out" not in found(result)
    assert "rejected" in found(result)
    assert add_up(result)


def test_caches_are_those_of_the_window():
    """At the end of an online run all requests have left."""
    result = offered(320)
    finding = found(result)["full KV caches"]
    most = result.in_window(result.node_timeline).groupby("node")["kv_used_fraction"].mean().max()
    assert finding.evidence["kv_used_max"] == pytest.approx(most)
    assert most > 0.7
    assert re.search(rf"highest, on node \d: {100 * most:.0f} %", finding.text)


def test_caches_that_are_not_known():
    finding = found(offered(320, sample_step_s=0))["full KV caches"]
    assert "Mean KV cache use" not in finding.text
    assert "kv_used_max" not in finding.evidence


def test_no_more_requests_while_some_are_queued():
    result = at_mark(0.5)
    findings = found(result)
    assert findings["full KV caches"].cost > findings["few requests"].cost
    for finding in findings.values():
        assert "more requests in flight" not in finding.advice
        assert "initial_requests" not in finding.advice
    assert "if more requests were let in, for which KV caches lack space" in findings["costly batches"].advice
    assert add_up(result)


def test_more_requests_where_few_are_queued():
    result = two_requests()
    assert "a larger initial_requests" in found(result)["few requests"].advice


@pytest.mark.parametrize("rate", [265, 320])
def test_saturated_runs_need_no_more_requests(rate):
    result = offered(rate)
    findings = found(result)
    assert "Lower the rate" in findings["saturated"].advice
    assert "little asked for" not in findings
    assert not any("higher rate" in finding.advice for finding in findings.values())
    assert add_up(result)


def test_a_low_rate_is():
    assert "offer a higher rate" in found(offered(60, 600))["little asked for"].advice


def test_queued_requests_are_named_where_little_is_asked_for():
    result = small10(hx.online(rate_tokens_per_s=199, duration_s=3600, rng=0))
    finding = found(result)["little asked for"]
    row = result.metrics
    assert f"for want of free KV cache: {row['requests_queued']} of {row['requests_fed']} (" in finding.text
    seconds = float(re.search(r"([\d.]+) s on average over all requests", finding.text)[1])
    prompts = result.iterations[result.iterations["iteration"] == 0]
    assert seconds == pytest.approx(prompts["queued_s"].mean(), rel=0.15)
    assert "queued" not in found(offered(60, 600))["little asked for"].text


def test_preemptions_are_found_whatever_is_lost():
    workload = hx.offline(initial_requests=500, warmup_s=10, duration_s=120, rng=0)
    result = small10(workload, scheduler="swarm")
    assert result.metrics["requests_preempted"] > 0
    assert found(result)["preemption"].evidence["requests_preempted"] > 0


# What was asked for


def test_requests_in_flight_were_asked_for():
    """Those of a stopped run are in no table."""
    times_s = np.sort(np.random.default_rng(0).uniform(0, 300, 900))
    whole = arriving(times_s, 300)
    facts = facts_of(stopped(whole, 150))
    came = (times_s <= 150).sum() * 400 / 150
    assert facts.offered_tokens_per_s == pytest.approx(came, rel=1e-3)
    assert facts.processed_tokens_per_s < 0.5 * came
    assert "little asked for" not in found(stopped(whole, 150))


def test_requests_of_the_warmup_were_asked_for():
    result = arriving(np.linspace(0, 99, 60), 200, warmup_s=100)
    facts = facts_of(result)
    assert facts.offered_tokens_per_s == facts.processed_tokens_per_s > 0
    assert found(result)["little asked for"].evidence["offered_tokens_per_s"] == facts.offered_tokens_per_s
    assert add_up(result)


def test_lengths_that_change_are_no_filling_up():
    kinds = {"input_tokens": [20] * 120 + [1000] * 600, "output_tokens": [400] * 120 + [40] * 600}
    workload = hx.offline(requests=pd.DataFrame(kinds), initial_requests=10, warmup_s=700, duration_s=400)
    result = small10(workload, scheduler="swarm")
    facts = facts_of(result)
    assert result.metrics["requests_in_flight"] == 10
    assert facts.served_tokens_per_s == pytest.approx(facts.processed_tokens_per_s, rel=0.02)
    assert "filling up" not in found(result)
    assert add_up(result)


# Preemption


def test_a_single_preemption_turns_no_advice_round():
    result = two_requests()
    once = replace(result, summary=result.summary.assign(requests_preempted=1))
    assert once.metrics["requests_fed"] > 10
    assert "a larger initial_requests" in found(once)["few requests"].advice
    assert "rare enough" in found(once)["preemption"].advice
    assert found(once)["preemption"].cost < found(once)["few requests"].cost
    fed = once.metrics["requests_fed"]
    often = replace(result, summary=result.summary.assign(requests_preempted=fed))
    assert "keep fewer requests in flight" in found(often)["preemption"].advice
    assert "initial_requests" not in found(often)["few requests"].advice


def test_no_more_is_computed_again_than_the_preempted_had():
    """Tokens may pass a cut more than once for other reasons too."""
    result = two_requests()
    facts = facts_of(replace(result, summary=result.summary.assign(requests_preempted=1)))
    mean = result.summary["input_tokens_mean_accepted"] + result.summary["output_tokens_mean_accepted"]
    assert facts.preempted_tokens_per_s == pytest.approx(mean.item() / 300)
    crowded = replace(facts, flow_cut=facts.flow_cut.assign(used_tokens_per_s=1e6))
    assert crowded.recomputed_tokens_per_s == facts.preempted_tokens_per_s
    assert replace(crowded, preempted_tokens_per_s=0.0).recomputed_tokens_per_s == 0


@pytest.mark.parametrize("rate", [400, 600])
def test_more_than_the_flow_is_not_little(rate):
    result = offered(rate, 120)
    facts = facts_of(result)
    assert facts.offered_tokens_per_s > facts.max_flow_tokens_per_s
    assert "little asked for" not in found(result)
    assert add_up(result)


def test_all_refused_online():
    table = pd.DataFrame({"arrival_s": np.arange(20.0), "input_tokens": 20_000, "output_tokens": 5})
    result = small10(hx.online(requests=table, duration_s=60))
    assert hx.diagnose(result)[0].cause == "rejected"
    assert hx.diagnose(result)[0].text.startswith("Requests rejected: 20 of 20 (100 %), for good")
    assert "little asked for" not in found(result)
    assert add_up(result)


def test_requests_that_end_after_the_window_were_in_flight():
    table = pd.DataFrame({"arrival_s": [0.0, 0.1], "input_tokens": 700, "output_tokens": 50})
    result = small10(hx.online(requests=table, duration_s=0.5))
    assert found(result)["nothing ended"].evidence["requests_in_flight"] == 2
