"""For every cause a run in which it is the truth: diagnose names it first."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis import CAUSES, Finding, binding_cut, idle_nodes, losses
from helixlab.diagnosis.causes import tell
from helixlab.diagnosis.measures import facts_of
from helixlab.errors import SimulationError
from helixlab.placement import usable_links
from helixlab.scheduling import Scheduler

LAYERS = 4
LLAMA = hx.load_model("llama-1-30b")


def profile(machine, token_s=0.001, batch_s=0.0, kv_blocks=20_000, prompts=4, most_layers=LAYERS):
    """A layer takes so long for a token, whether of a prompt or a decode, and so long for any batch."""
    return replace(
        LLAMA.profile("L4"),
        machine=machine,
        prompt_batch_tokens=(0, 20_000),
        prompt_layer_s=(0.0, 20_000 * token_s),
        decode_batch_tokens=(0, 1, 2, 2000),
        decode_layer_s=(0.0, (batch_s + 2 * token_s) / 2, batch_s + 2 * token_s, batch_s + 2000 * token_s),
        kv_blocks=(kv_blocks,) * most_layers,
        max_prompt_requests=(prompts,) * most_layers,
        max_decode_tokens=(500,) * most_layers,
        typical_layers=min(2, most_layers),
        typical_layers_when_tight=min(2, most_layers),
    )


def system(*spans, links=None, latency_s=1e-4, bandwidth_bytes_per_s=1e9, nic_bytes_per_s=1e9, **model):
    """Nodes, each ``(profile, first layer, end layer)``, or a profile alone, and nothing to hold."""
    spans = [span if isinstance(span, tuple) else (span, None, None) for span in spans]
    profiles = {each.machine: each for each, *_ in spans}
    model = replace(LLAMA, layers=LAYERS, profiles=profiles, **model)
    machines = [hx.Machine(name, 240e9, nic_bytes_per_s, nic_bytes_per_s, 2e9) for name in profiles]
    counts = {name: sum(each.machine == name for each, *_ in spans) for name in profiles}
    cluster = hx.single_region(
        counts,
        latency_s=latency_s,
        bandwidth_bytes_per_s=bandwidth_bytes_per_s,
        machines=machines,
        name="few",
    )
    free = {name: [node.index for node in cluster.nodes if node.machine == name] for name in profiles}
    layers = []
    for each, first, end in spans:
        node = free[each.machine].pop(0)
        if first is not None:
            layers.append(hx.NodeLayers(node, first, end))
    if links is None:
        links = usable_links(cluster, tuple(layers), LAYERS)
    return cluster, model, hx.Placement("drawn", "few", model.name, "by hand", tuple(layers), tuple(links))


def requests(input_tokens, output_tokens, arrival_s=None):
    table = pd.DataFrame({"input_tokens": input_tokens, "output_tokens": output_tokens})
    if arrival_s is not None:
        table.insert(0, "arrival_s", arrival_s)
    return table


def offline(count=20, input_tokens=750, output_tokens=240, number=3000, **changes):
    table = requests([input_tokens] * number, [output_tokens] * number)
    changes = {"warmup_s": 200, "duration_s": 400, "rng": 0, **changes}
    return hx.offline(initial_requests=count, requests=table, **changes)


def run(case, **how):
    return hx.simulate(*case, **{"scheduler": "swarm", "keep_breakdown": True, **how})


A = profile("A")


def no_layers():
    return run(system((A, 0, 4), A, A), workload=offline())


def no_way_through():
    links = [(SOURCE, 0), (0, SINK)]
    return run(system((A, 0, 4), (A, 2, 4), links=links), workload=offline())


def no_flow():
    # With four layers it has no KV cache left for a batch.
    full = replace(profile("F"), kv_blocks=(20_000, 20_000, 20_000, 30))
    return run(system((A, 0, 4), (full, 0, 4)), scheduler="helix", workload=offline())


def below_the_share():
    quick, slow = profile("Q", token_s=0.001), profile("S", token_s=0.013)
    case = system((quick, 0, 4), *[(slow, 0, 4)] * 14)
    with pytest.warns(UserWarning, match="leaves out 14 links"):
        return run(case, scheduler="helix", small_links="paper", workload=offline(60))


def kv_masked():
    tight = profile("T", kv_blocks=180)  # 2880 tokens
    case = system((A, 0, 4), (tight, 0, 4))
    return run(case, scheduler="helix", workload=offline(60, input_tokens=2600, output_tokens=500))


def batch_too_small():
    narrow = profile("N", prompts=1)  # 2048 tokens
    case = system((A, 0, 4), (narrow, 0, 4))
    return run(case, scheduler="helix", workload=offline(60, input_tokens=2600, output_tokens=800))


def _first(state, sender, request):
    return state.nodes[sender].first_link


def never_chosen():
    return run(system((A, 0, 4), (A, 0, 4)), scheduler=Scheduler("first", _first), workload=offline(60))


def little_asked_for():
    rng = np.random.default_rng(0)
    table = requests([300] * 20, [100] * 20, np.sort(rng.uniform(0, 400, 20)))
    return run(system((A, 0, 4)), workload=hx.online(requests=table, duration_s=400))


def requests_ran_out():
    return run(system((A, 0, 4)), workload=offline(5, 100, 50, number=200, warmup_s=0, duration_s=5000))


def placement():
    slow = profile("S", token_s=0.004)
    return run(system((A, 0, 1), (slow, 1, 4)), workload=offline(60))


def filling_up():
    # Plenty of prompts at the start, and no decode of theirs has ended yet.
    case = system((A, 0, 4))
    return run(case, workload=offline(200, output_tokens=800, warmup_s=0, duration_s=600))


def nothing_ended():
    # The first prompt takes three seconds.
    return run(system((A, 0, 4)), workload=offline(3, warmup_s=0, duration_s=2))


def rejected():
    case = system((A, 0, 4))
    case = (*case[:2], replace(case[2], kv_capacity_token_layers={0: 4 * 6000}))
    workload = offline(20, warmup_s=0, input_tokens=1500, output_tokens=100)
    return run(case, scheduler="helix", on_full="drop", workload=workload)


def costly_batches():
    fixed = profile("F", token_s=1e-5, batch_s=0.02)
    return run(system((fixed, 0, 4)), workload=offline(2, input_tokens=50))


def overhead():
    # 400 kB of activations a token take longer to bring together than the layers to run.
    quick = profile("Q", token_s=1e-5)
    case = system((quick, 0, 4), activation_bytes=400_000)
    return run(case, workload=offline(60))


def full_kv_caches():
    # Room for two requests at a time, on four nodes.
    case = system((A, 0, 1), (A, 1, 2), (A, 2, 3), (A, 3, 4))
    case = (*case[:2], replace(case[2], kv_capacity_token_layers=dict.fromkeys(range(4), 2400)))
    return run(case, workload=offline(20, input_tokens=1000, output_tokens=200))


def preemption():
    case = system((A, 0, 4))
    case = (*case[:2], replace(case[2], kv_capacity_token_layers={0: 4 * 2000}))
    return run(case, workload=offline(30, input_tokens=20, output_tokens=1200))


def busy_links():
    # Two links share a card half and half, and one of them has nine tenths of the way.
    slow = profile("S", token_s=0.01)
    case = system((A, 0, 2), (A, 2, 4), (slow, 2, 4), nic_bytes_per_s=520 * (LLAMA.activation_bytes + 2))
    return run(case, scheduler=Scheduler("nine to one", _nine_to_one), workload=offline(40))


def _nine_to_one(state, sender, request):
    node = state.nodes[sender]
    return node.first_link + (node.links > 1 and state.requests[request].id % 10 == 0)


def sending():
    # A token takes 4 ms to compute, and nearly as long on either side to be sent.
    return run(system((A, 0, 4), bandwidth_bytes_per_s=2 * 260), workload=offline(1))


def link_latency():
    quick = profile("Q", token_s=1e-5, batch_s=1e-4)
    return run(system((quick, 0, 2), (quick, 2, 4), latency_s=0.2), workload=offline(5))


def imbalance():
    # Requests are split evenly over a quick node and a slow one.
    quick, slow = profile("Q", token_s=0.001), profile("S", token_s=0.008)
    case = system((quick, 0, 4), (slow, 0, 4))
    return run(case, scheduler=Scheduler("in turn", _in_turn), workload=offline(20, 50, 20))


def _in_turn(state, sender, request):
    return state.nodes[sender].first_link + state.requests[request].id % state.nodes[sender].links


def bubbles():
    # Whole prompts hold up the decodes behind them, and the nodes ahead have nothing to do.
    case = system((A, 0, 1), (A, 1, 2), (A, 2, 3), (A, 3, 4))
    return run(case, workload=offline(20))


def few_requests():
    case = system((A, 0, 1), (A, 1, 2), (A, 2, 3), (A, 3, 4))
    return run(case, workload=offline(1))


def waiting():
    result = few_requests()
    return hx.simulate(*FEW, scheduler="swarm", workload=offline(1)) if result else None


FEW = system((A, 0, 1), (A, 1, 2), (A, 2, 3), (A, 3, 4))


def unsteady():
    # Five times as many requests in the second half.
    rng = np.random.default_rng(0)
    arrival_s = np.sort(np.concatenate([rng.uniform(0, 500, 60), rng.uniform(500, 1000, 300)]))
    table = requests([200] * 360, [50] * 360, arrival_s)
    return run(system((A, 0, 4)), workload=hx.online(requests=table, duration_s=1000))


def saturated():
    rng = np.random.default_rng(0)
    count = 600
    table = requests([300] * count, [100] * count, np.sort(rng.uniform(0, 200, count)))
    return run(system((A, 0, 4)), workload=hx.online(requests=table, duration_s=200))


def outside_the_window():
    # Nearly all of them come after the window, at a rate that is served.
    table = requests([300] * 100, [50] * 100, np.linspace(0, 1000, 100))
    return run(system((A, 0, 4)), workload=hx.online(requests=table, duration_s=60))


CASES = {
    "no layers": no_layers,
    "no way through": no_way_through,
    "no flow": no_flow,
    "below the share": below_the_share,
    "KV cache masked": kv_masked,
    "batch too small": batch_too_small,
    "never chosen": never_chosen,
    "little asked for": little_asked_for,
    "requests ran out": requests_ran_out,
    "placement": placement,
    "filling up": filling_up,
    "nothing ended": nothing_ended,
    "rejected": rejected,
    "costly batches": costly_batches,
    "overhead": overhead,
    "full KV caches": full_kv_caches,
    "preemption": preemption,
    "busy links": busy_links,
    "sending": sending,
    "link latency": link_latency,
    "imbalance": imbalance,
    "bubbles": bubbles,
    "few requests": few_requests,
    "waiting": waiting,
    "unsteady": unsteady,
    "saturated": saturated,
    "outside the window": outside_the_window,
}


def test_imbalance_has_its_measures():
    finding = hx.diagnose(imbalance())[0]
    assert finding.cause == "imbalance"
    for what in ("busy", "kv_used"):
        assert 0 < finding.evidence[f"{what}_gini"] < 1
        assert finding.evidence[f"{what}_max_over_mean"] > 1


def test_no_more_requests_where_some_lose_their_kv_cache():
    result = preemption()
    facts, idle = facts_of(result), idle_nodes(result)
    suggestions = [
        tell(cause, result, facts, idle).suggestion for cause in ("few requests", "costly batches")
    ]
    suggestions += [finding.suggestion for finding in hx.diagnose(result)]
    assert any("keep fewer requests in flight" in each for each in suggestions)
    assert not any("more requests in flight" in each or "initial_requests" in each for each in suggestions)
    assert "for which KV caches lack room" in suggestions[0]


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
    for sentence in (finding.text, finding.suggestion):
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".")
        assert not set(sentence) & set("%_[]{}<>|~") - {"_"}, "reads well aloud"
        assert "nan" not in sentence.split()
        assert not re.search(
            r"\b0(\.0+)? percent|only hardly|(?<![\d.])1 (nodes|requests|times|seconds)\b", sentence
        )
    json.dumps(finding.to_dict(), allow_nan=False)
    assert copy.deepcopy(finding) == finding


def check_losses(result):
    facts, table = facts_of(result), losses(result)
    bound = facts.bound_tokens_per_s
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
    result = no_flow()
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
    elsewhere = {"nothing upstream", "nothing sent", "stopped early"}
    assert set(CASES) | elsewhere == set(CAUSES)


@pytest.mark.parametrize("keep_breakdown", [True, False])
@pytest.mark.parametrize("warmup_s", [0, 20, 1000])
def test_requests_that_run_out(keep_breakdown, warmup_s):
    workload = offline(20, 100, 50, number=200, warmup_s=warmup_s, duration_s=5000)
    result = run(system((A, 0, 2), (A, 2, 4)), workload=workload, keep_breakdown=keep_breakdown)
    row = result.summary.iloc[0]
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
    assert result.summary["requests_fed"].item() == 100
    assert result.summary["requests_in_flight"].item() > 0
    (found,) = (finding for finding in hx.diagnose(result) if finding.cause == "unsteady")
    assert "If the given requests ran out, give more" in found.suggestion


def test_nothing_sent():
    # The prompts come in the warm-up, and the first one takes longer than the window.
    case = system((A, 0, 4), (A, 0, 4))
    result = run(case, workload=offline(1, 2000, 50, warmup_s=2, duration_s=2))
    causes = {finding.cause: finding for finding in hx.diagnose(result)}
    assert "never chosen" not in causes
    assert "the coordinator sent nothing in the window" in causes["nothing sent"].text
    assert idle_nodes(result)["node"].tolist() == [1], "the other one was at work all the time"
    assert "whose end 1 request was in flight" in causes["nothing ended"].text
    check_losses(result)


def test_a_node_before_which_nothing_ended_was_not_passed_over():
    result = run(FEW, workload=offline(3, warmup_s=0, duration_s=0.5))
    idle = idle_nodes(result)
    assert idle["node"].tolist() == [1, 2, 3]
    assert set(idle["cause"]) == {"nothing upstream"}


def test_no_request_came():
    empty = requests([300], [100], [90.0])
    result = run(FEW, workload=hx.online(requests=empty, duration_s=50))
    assert hx.diagnose(result)[0].text.startswith("No request came in the window, and the maximum flow is")
    check_losses(result)


def test_what_is_served_beyond_the_flow_is_not_lost():
    # Batches are larger than typical ones, and half of a token's time does not depend on their size.
    fixed = profile("F", token_s=1e-4, batch_s=0.02)
    result = run(system((fixed, 0, 2), (fixed, 2, 4), fixed), workload=offline(200))
    facts, lost = facts_of(result), losses(result).set_index("cause")["tokens_per_s"]
    assert facts.flow_tokens_per_s < facts.served_tokens_per_s < facts.bound_tokens_per_s
    assert (lost > 0).all()
    placed = next(finding for finding in hx.diagnose(result) if finding.cause in lost.index)
    assert placed.cost * facts.bound_tokens_per_s <= facts.lost_tokens_per_s + 1e-6
    check_losses(result)


def test_refused_requests_cannot_wait():
    tight = profile("T", kv_blocks=180)  # 2880 tokens
    table = requests([200] * 20 + [3500] * 20, [50] * 40, np.arange(40) * 20.0)
    result = run(system((tight, 0, 4)), workload=hx.online(requests=table, duration_s=800))
    assert result.summary["requests_refused"].item() > 0
    finding = next(finding for finding in hx.diagnose(result) if finding.cause == "rejected")
    assert "for good" in finding.text
    assert finding.suggestion == "Give the nodes on their way fewer layers, or leave such requests out."


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
    result = kv_masked()
    (idle,) = idle_nodes(result).to_dict("records")
    assert idle["cause"] == "KV cache masked"
    assert idle["kv_masked"] == idle["considered"] > 0
    text = next(each.text for each in hx.diagnose(result) if each.cause == "KV cache masked")
    assert f"too full each time that a request could have come, {idle['considered']} times in all" in text
    links = result.links.assign(considered=100, kv_masked=60)
    mostly = next(
        each.text for each in hx.diagnose(replace(result, links=links)) if each.cause == idle["cause"]
    )
    assert "too full 60 of the 100 times that a request could have come" in mostly
    seldom = replace(result, links=links.assign(kv_masked=40))
    assert idle_nodes(seldom)["cause"].tolist() == ["never chosen"]
    (finding,) = (each for each in hx.diagnose(seldom) if each.cause == "never chosen")
    assert finding.suggestion.startswith("Measure for longer, so that each has its turn")


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
    room = node["capacity_tokens_per_s"] * (1 - node["busy_fraction"])
    assert cut["room_tokens_per_s"] == pytest.approx(room)
    told = "(in this run least room was left at the compute of node 0, busy "
    assert told in tell("placement", result, facts_of(result), idle_nodes(result)).text


def test_what_follows_from_an_idle_node_costs_nothing_more():
    links = [(SOURCE, 0), (SOURCE, 1), (0, 2), (1, 3), (2, SINK), (3, SINK)]
    case = system((A, 0, 2), (A, 0, 2), (A, 2, 4), (A, 2, 4), links=links)
    result = run(case, scheduler=Scheduler("first", _first), workload=offline(60))
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
    assert [node["node"] for node in findings["no way through"].evidence["nodes"]] == [20]


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
    assert "because nodes 0, 1, 2 and 3 hold more layers than were measured" in finding.text
    for each in hx.diagnose(result):
        check_finding(each)
    check_losses(result)


def test_saved_results_tell_the_same(tmp_path):
    result = few_requests()
    again = hx.load_result(result.save(tmp_path / "run"))
    assert hx.diagnose(again) == hx.diagnose(result)


def test_only_results():
    with pytest.raises(SimulationError, match="diagnose needs a Result, got 3"):
        hx.diagnose(3)
    with pytest.raises(SimulationError, match="binding_cut needs a Result, got 3; load one"):
        binding_cut(3)
