"""For every cause a run in which it is the truth: diagnose names it first."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from diagnosis_cases import (
    CASES,
    FEW,
    LLAMA,
    MORE_CASES,
    A,
    offline,
    profile,
    requests,
    run,
    send_to_the_first,
    system,
)

import helixlab as hx
from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis import CAUSES, Finding, binding_cut, idle_nodes, losses
from helixlab.diagnosis.causes import explain
from helixlab.diagnosis.measures import facts_of
from helixlab.errors import SimulationError
from helixlab.scheduling import Scheduler


def test_imbalance_has_its_measures():
    finding = hx.diagnose(CASES["imbalance"]())[0]
    assert finding.cause == "imbalance"
    for what in ("busy", "kv_used"):
        assert 0 < finding.evidence[f"{what}_gini"] < 1
        assert finding.evidence[f"{what}_max_over_mean"] > 1


def test_no_more_requests_where_some_lose_their_kv_cache():
    result = CASES["preemption"]()
    facts, idle = facts_of(result), idle_nodes(result)
    advice = [explain(cause, facts, idle).advice for cause in ("few requests", "costly batches")]
    advice += [finding.advice for finding in hx.diagnose(result)]
    assert any("keep fewer requests in flight" in each for each in advice)
    assert not any("more requests in flight" in each or "initial_requests" in each for each in advice)
    assert "for which KV caches lack space" in advice[0]


@pytest.mark.parametrize("cause", CASES)
def test_it_is_named_first(cause):
    result = CASES[cause]()
    findings = hx.diagnose(result)
    assert findings[0].cause == cause
    if cause not in (
        "unsteady",
        "saturated",
        "rejected",
        "outside the window",
    ):  # which need lose nothing to be told
        assert losses(result)["cause"].iloc[0] == cause
    assert findings == sorted(findings, key=lambda finding: -finding.cost)
    for finding in findings:
        check_finding(finding)
    check_losses(result)


def check_finding(finding):
    assert isinstance(finding, Finding)
    assert finding.cause in CAUSES
    assert 0 <= finding.cost <= 1
    for sentence in (finding.text, finding.advice):
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".")
        assert not set(sentence) & set("[]{}<>|~"), "reads well aloud"
        assert "nan" not in sentence.split()
        assert not re.search(
            r"\b0\.0+ %|percent|seconds|(?<![\d.])1 (nodes|requests|times|links)\b| (was|were) \d", sentence
        )
    json.dumps(finding.to_dict(), allow_nan=False)
    assert copy.deepcopy(finding) == finding


def check_losses(result):
    facts, table = facts_of(result), losses(result)
    bound = facts.upper_bound_tokens_per_s
    assert table["tokens_per_s"].sum() == pytest.approx(bound - facts.served_tokens_per_s, abs=1e-6 * bound)
    assert (table.loc[table["cause"] != "costly batches", "tokens_per_s"] > 0).all()
    assert table["cause"].is_unique
    assert set(table["cause"]) <= set(CAUSES)


@pytest.mark.parametrize(
    ("number", "method"),
    [*((number, "petals") for number in range(7, 13)), *((number, "swarm") for number in range(8, 13))],
)
def test_losses_add_up_where_the_flow_does_without_some_nodes(number, method):
    """Maximum flows leave a last digit of floating point on such nodes."""
    single24, model = hx.load_cluster("single24"), hx.load_model("llama-2-70b")
    alike = hx.single_region({"A100": number}, machines=single24.machines)
    placement = hx.plan(alike, model, method=method, rng=0)
    workload = hx.offline(warmup_s=20, duration_s=120, rng=0)
    check_losses(hx.simulate(alike, model, placement, workload=workload))


def test_a_last_digit_of_flow_is_none():
    result = CASES["no flow"]()
    before = losses(result)
    (idle,) = idle_nodes(result)["node"]
    links = result.links.copy()
    links.loc[links["receiver"] == idle, "flow_tokens_per_s"] = 3e-8
    nodes = result.nodes.copy()
    nodes.loc[nodes["node"] == idle, "flow_tokens_per_s"] = 3e-8
    noisy = replace(result, links=links, nodes=nodes)
    assert idle_nodes(noisy)["cause"].tolist() == ["no flow"]
    pd.testing.assert_frame_equal(losses(noisy), before)


def test_every_cause_has_a_case():
    assert set(CASES) | set(MORE_CASES) == set(CAUSES)


@pytest.mark.parametrize("keep_breakdown", [True, False])
@pytest.mark.parametrize("warmup_s", [0, 20, 1000])
def test_requests_that_run_out(keep_breakdown, warmup_s):
    workload = offline(20, 100, 50, number=200, warmup_s=warmup_s, duration_s=5000)
    result = run(system((A, 0, 2), (A, 2, 4)), workload=workload, keep_breakdown=keep_breakdown)
    row = result.metrics
    assert row["requests_finished"] == 200
    findings = hx.diagnose(result)
    asked_s = max(row["last_finish_s"] - row["window_start_s"], 0)
    assert findings[0].cause == "requests ran out"
    assert findings[0].evidence["asked_s"] == pytest.approx(asked_s)
    assert findings[0].cost == pytest.approx(1 - asked_s / 5000)
    assert not {"unsteady", "never chosen"} & {finding.cause for finding in findings}
    for finding in findings:
        check_finding(finding)
    check_losses(result)


def test_requests_that_run_out_while_some_are_served():
    lengths = np.random.default_rng(0).integers(50, 900, 100)
    requests = pd.DataFrame({"input_tokens": 300, "output_tokens": lengths})
    result = hx.simulate(
        hx.load_cluster("small10"),
        LLAMA,
        hx.load_placement("small10/llama-1-30b/helix"),
        workload=hx.offline(requests=requests, warmup_s=60, duration_s=400, rng=0),
    )
    assert result.metrics["requests_fed"] == 100
    assert result.metrics["requests_in_flight"] > 0
    (found,) = (finding for finding in hx.diagnose(result) if finding.cause == "unsteady")
    assert "If the given requests ran out, give more" in found.advice


def test_nothing_sent():
    result = MORE_CASES["nothing sent"]()
    causes = {finding.cause: finding for finding in hx.diagnose(result)}
    assert "never chosen" not in causes
    assert [node["node"] for node in causes["nothing sent"].evidence["nodes"]] == [1]
    assert idle_nodes(result)["node"].tolist() == [1], "the other one was at work all the time"
    assert causes["nothing ended"].evidence["requests_in_flight"] == 1
    check_losses(result)


def test_a_node_before_which_nothing_ended_was_not_passed_over():
    idle = idle_nodes(MORE_CASES["nothing upstream"]())
    assert idle["node"].tolist() == [1, 2, 3]
    assert set(idle["cause"]) == {"nothing upstream"}


def test_no_request_came():
    empty = requests([300], [100], [90.0])
    result = run(FEW, workload=hx.online(requests=empty, duration_s=50))
    assert hx.diagnose(result)[0].text.startswith("No request arrived in the window; maximum flow: ")
    check_losses(result)


def test_what_is_served_beyond_the_flow_is_not_lost():
    # Batches are larger than typical ones, and half of a token's time does not depend on their size.
    fixed = profile("F", token_s=1e-4, batch_s=0.02)
    result = run(system((fixed, 0, 2), (fixed, 2, 4), fixed), workload=offline(200))
    facts, lost = facts_of(result), losses(result).set_index("cause")["tokens_per_s"]
    assert facts.max_flow_tokens_per_s < facts.served_tokens_per_s < facts.upper_bound_tokens_per_s
    assert (lost > 0).all()
    placed = next(finding for finding in hx.diagnose(result) if finding.cause in lost.index)
    assert placed.cost * facts.upper_bound_tokens_per_s <= facts.lost_tokens_per_s + 1e-6
    check_losses(result)


def test_refused_requests_cannot_wait():
    tight = profile("T", kv_blocks=180)  # 2880 tokens
    table = requests([200] * 20 + [3500] * 20, [50] * 40, np.arange(40) * 20.0)
    result = run(system((tight, 0, 4)), workload=hx.online(requests=table, duration_s=800))
    assert result.metrics["requests_refused"] > 0
    finding = next(finding for finding in hx.diagnose(result) if finding.cause == "rejected")
    assert "for good" in finding.text
    assert finding.advice == "Assign fewer layers to the nodes on the paths, or leave such requests out."


def test_masks_are_of_the_window():
    tight = profile("T", kv_blocks=180)  # 2880 tokens
    counted = {}
    for warmup_s, duration_s in ((0, 150), (0, 100), (100, 50)):
        workload = offline(30, 500, 100, warmup_s=warmup_s, duration_s=duration_s)
        result = run(system((A, 0, 4), (tight, 0, 4)), scheduler="helix", workload=workload)
        links = result.links.set_index("receiver")[["considered", "kv_masked"]]
        counted[warmup_s, duration_s] = links
        assert links.loc[1, "kv_masked"] > 0
    pd.testing.assert_frame_equal(counted[0, 150], counted[0, 100] + counted[100, 50])


def test_masked_now_and_then_is_not_why():
    result = CASES["KV cache masked"]()
    (idle,) = idle_nodes(result).to_dict("records")
    assert idle["cause"] == "KV cache masked"
    assert idle["kv_masked"] == idle["considered"] > 0
    text = next(each.text for each in hx.diagnose(result) if each.cause == "KV cache masked")
    assert f"Prompts kept away: {idle['considered']} of {idle['considered']} (100 %)." in text
    links = result.links.assign(considered=100, kv_masked=60)
    mostly = next(
        each.text for each in hx.diagnose(replace(result, links=links)) if each.cause == idle["cause"]
    )
    assert "Prompts kept away: 60 of 100 (60 %)." in mostly
    seldom = replace(result, links=links.assign(kv_masked=40))
    assert idle_nodes(seldom)["cause"].tolist() == ["never chosen"]
    (finding,) = (each for each in hx.diagnose(seldom) if each.cause == "never chosen")
    assert finding.advice.startswith("Measure for longer, so that each node gets a turn")


def test_a_node_at_work_all_the_time_is_not_idle():
    # A prompt of 2000 tokens takes eight seconds there.
    case = system((A, 0, 4), (A, 0, 4))
    result = run(case, workload=offline(2, 2000, 50, warmup_s=3, duration_s=4))
    assert (result.nodes["tokens"] == 0).all()
    assert result.nodes["busy_fraction"].tolist() == pytest.approx([1, 1])
    assert idle_nodes(result).empty


def test_what_bound_the_run_is_not_what_binds_the_flow():
    # By the token the second is slower; but the first takes as long for a small batch as for a large one.
    fixed, slow = profile("F", token_s=1e-5, batch_s=0.02), profile("S", token_s=0.002)
    result = run(system((fixed, 0, 2), (slow, 2, 4)), workload=offline(3, input_tokens=20))
    assert result.bottlenecks["sender"].tolist() == [1]
    cut = binding_cut(result).iloc[0]
    assert (cut["kind"], cut["sender"]) == ("compute", 0)
    node = result.nodes.iloc[0]
    assert cut["busy_fraction"] == node["busy_fraction"] > result.nodes["busy_fraction"].iloc[1]
    spare = node["capacity_tokens_per_s"] * (1 - node["busy_fraction"])
    assert cut["spare_tokens_per_s"] == pytest.approx(spare)
    text = explain("placement", facts_of(result)).text
    assert "Least spare capacity in this run: the compute of node 0, busy " in text


def test_what_follows_from_an_idle_node_costs_nothing_more():
    links = [(SOURCE, 0), (SOURCE, 1), (0, 2), (1, 3), (2, SINK), (3, SINK)]
    case = system((A, 0, 2), (A, 0, 2), (A, 2, 4), (A, 2, 4), links=links)
    result = run(case, scheduler=Scheduler("first", send_to_the_first), workload=offline(60))
    findings = {finding.cause: finding for finding in hx.diagnose(result)}
    assert [node["node"] for node in findings["never chosen"].evidence["nodes"]] == [1]
    assert [node["node"] for node in findings["nothing upstream"].evidence["nodes"]] == [3]
    assert findings["nothing upstream"].cost == 0
    assert findings["never chosen"].cost == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("scheduler", ["helix", "swarm", "random", "shortest-queue"])
@pytest.mark.parametrize("execution", ["greedy", "chunked"])
@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("keep_breakdown", [True, False])
def test_published_placements(scheduler, execution, mode, keep_breakdown):
    workload = (
        hx.offline(warmup_s=10, duration_s=30, rng=0)
        if mode == "offline"
        else hx.online(rate_tokens_per_s=400, duration_s=20, rng=0)
    )
    result = hx.simulate(
        hx.load_cluster("single24"),
        hx.load_model("llama-2-70b"),
        hx.load_placement("single24/llama-2-70b/example-ilp"),
        scheduler=scheduler,
        execution=execution,
        workload=workload,
        keep_breakdown=keep_breakdown,
    )
    check_losses(result)
    for finding in hx.diagnose(result):
        check_finding(finding)
    findings = {finding.cause: finding for finding in hx.diagnose(result)}
    assert [node["node"] for node in findings["no path"].evidence["nodes"]] == [20]


def test_nothing_ended_in_the_window():
    for keep in (True, False):
        result = hx.simulate(
            *FEW, workload=offline(3, warmup_s=0, duration_s=0.5), keep_breakdown=keep, sample_step_s=0
        )
        check_losses(result)
        for finding in hx.diagnose(result):
            check_finding(finding)


def test_the_bound_is_nothing():
    result = hx.simulate(
        hx.load_cluster("geo24"),
        hx.load_model("llama-2-70b"),
        hx.load_placement("geo24/llama-2-70b/separate-a100"),
        scheduler="swarm",
        workload=hx.offline(duration_s=20, rng=0),
    )
    finding = next(each for each in hx.diagnose(result) if each.cause == "placement")
    assert finding.evidence["nodes"] == [0, 1, 2, 3]
    assert "because of more layers on nodes 0, 1, 2 and 3 than were measured" in finding.text
    for each in hx.diagnose(result):
        check_finding(each)
    check_losses(result)


def test_saved_results_tell_the_same(tmp_path):
    result = CASES["few requests"]()
    again = hx.load_result(result.save(tmp_path / "run"))
    assert hx.diagnose(again) == hx.diagnose(result)


def test_only_results():
    with pytest.raises(SimulationError, match="diagnose needs a Result, got 3"):
        hx.diagnose(3)
    with pytest.raises(SimulationError, match="binding_cut needs a Result, got 3; load one"):
        binding_cut(3)
