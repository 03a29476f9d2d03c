"""Suggestions and words of findings: they fit the run, and each other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab.diagnosis import idle_nodes, losses
from helixlab.diagnosis.causes import tell
from helixlab.diagnosis.measures import facts_of
from helixlab.diagnosis.text import cut_words

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
def test_requests_that_are_all_refused(number, keep_breakdown):
    result = run(given((number, 20_000)), keep_breakdown=keep_breakdown)
    refused = result.summary["requests_refused"].item()
    first = hx.diagnose(result)[0]
    assert first.cause == "rejected"
    assert first.text.startswith(
        f"All {refused} requests were turned away for good, because no pipeline has room for such a request"
    )
    assert not {"requests ran out", "waiting"} & set(found(result))
    assert add_up(result)


def test_requests_that_are_refused_last():
    """They run out with the last one, whether it is served or not."""
    result = run(given((20, 100), (5000, 20_000)))
    assert result.summary["requests_finished"].item() == 20
    assert "requests ran out" not in found(result)
    assert "rejected" in found(result)
    assert add_up(result)


def offered(rate, duration_s=1800, **how):
    return run(hx.online(rate_tokens_per_s=rate, duration_s=duration_s, rng=0), **how)


def at_mark(mark):
    return run(hx.offline(warmup_s=60, duration_s=600, rng=0), kv_high_water_mark=mark)


def test_caches_are_those_of_the_window():
    """At the end of an online run all requests have left."""
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
        (0.85, "those layers."),
        (0.5, "those layers; kv_high_water_mark, only 0.5 here, can be raised too."),
    ],
)
def test_the_mark_is_raised_where_it_can_be(mark, told):
    suggestion = found(at_mark(mark))["full KV caches"].suggestion
    assert suggestion.startswith("Give the fullest nodes fewer layers, or more nodes")
    assert suggestion.endswith(told)


def test_no_more_requests_while_some_are_held():
    result = at_mark(0.5)
    findings = found(result)
    assert findings["full KV caches"].cost > findings["few requests"].cost
    for finding in findings.values():
        assert "more requests in flight" not in finding.suggestion
        assert "initial_requests" not in finding.suggestion
    assert (
        "if more requests were let in, for which KV caches lack room" in findings["costly batches"].suggestion
    )
    assert add_up(result)


def test_more_requests_where_few_are_held():
    result = run(hx.offline(initial_requests=2, warmup_s=60, duration_s=300, rng=0), scheduler="swarm")
    assert "a larger initial_requests" in found(result)["few requests"].suggestion


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


def test_words_go_together():
    """Larger batches and no bubbles are not asked for as if one forbade the other."""
    for result in (at_mark(0.5), offered(265)):
        suggestion = found(result)["bubbles"].suggestion
        assert suggestion.startswith("Cut prompts with execution='chunked', so that they do not block")
        assert "small" not in suggestion


def test_chunks_are_not_advised_where_there_are_some():
    result = run(hx.offline(warmup_s=60, duration_s=300, rng=0), execution="chunked")
    assert found(result)["bubbles"].suggestion.startswith("Smaller chunks block less, and cost more: ")


def test_filling_up_fits_the_workload():
    suggestions = [
        found(result)["filling up"].suggestion
        for result in (
            run(hx.offline(warmup_s=0, duration_s=60, rng=0)),
            offered(320),
            offered(600, 600, on_full="drop"),
        )
    ]
    assert suggestions == [
        "Warm up for longer, until as many requests end as start.",
        "Lower the rate: prompts come faster than the requests that they belong to end.",
        "Measure for longer, until as many requests end as start.",
    ]


def text_of(cause, result, **facts):
    told = tell(cause, result, replace(facts_of(result), **facts), idle_nodes(result))
    return told.text


def test_busy_nodes_are_not_busy_only():
    result = at_mark(0.5)
    assert ", yet nodes were busy only " in text_of("bubbles", result)
    busy = replace(result, nodes=result.nodes.assign(busy_fraction=0.99))
    assert ", nodes were busy 99 percent of the time" in text_of("bubbles", busy)
    idle = replace(result, nodes=result.nodes.assign(busy_fraction=0.0))
    assert ", yet nodes were busy hardly any of the time" in text_of("bubbles", idle)


def test_one_is_not_told_as_many():
    result = at_mark(0.5)
    assert text_of("few requests", result, serving=0.4, active=1) == (
        "Only 0.4 requests were being served on 1 node, too few to keep it at work"
    )
    assert text_of("few requests", result, serving=1.0, active=1) == (
        "1 request was being served on 1 node, and it was at times without one"
    )
    assert text_of("few requests", result, serving=50.0, active=23) == (
        "50 requests were being served on 23 nodes, and each of them was at times without one"
    )
    once = replace(result, summary=result.summary.assign(requests_queued=1, requests_preempted=1))
    assert ": 1 of 122 requests was held" in text_of("full KV caches", once)
    assert text_of("preemption", once).startswith("Once a request lost its KV cache")
    assert text_of("preemption", once).endswith("takes hardly any of the time of tokens")
    alone = hx.diagnose(run(given((1, 20_000))))[0]
    assert alone.text.startswith("The only request was turned away for good, because ")


def test_a_placement_is_not_blamed_where_the_run_is_far_from_its_flow():
    workload = hx.offline(initial_requests=2, warmup_s=60, duration_s=300, rng=0)
    petals = hx.load_placement("single24/llama-2-70b/petals")
    system = hx.load_cluster("single24"), hx.load_model("llama-2-70b"), petals
    result = hx.simulate(*system, scheduler="swarm", workload=workload, keep_breakdown=True)
    told = tell("placement", result, facts_of(result), idle_nodes(result))
    assert told.suggestion.startswith("This run serves ")
    assert "mend first what is named besides" in told.suggestion
    near = replace(facts_of(result), served_tokens_per_s=0.95 * facts_of(result).flow_tokens_per_s)
    assert tell("placement", result, near, idle_nodes(result)).suggestion.startswith("Look for a wider one")
    above = replace(near, served_tokens_per_s=1.1 * near.flow_tokens_per_s)
    assert "this run served more" in tell("placement", result, above, idle_nodes(result)).text


def test_who_was_held_is_told_where_little_is_asked_for():
    result = run(hx.online(rate_tokens_per_s=199, duration_s=3600, rng=0))
    finding = found(result)["little asked for"]
    row = result.summary.iloc[0]
    assert (
        f"; even so {row['requests_waited']} of {row['requests_fed']} requests were held for want of room, "
        in finding.text
    )
    assert "seconds on the mean of all" in finding.text
    seconds = float(finding.text.split("room, ")[1].split(" seconds")[0])
    prompts = result.iterations[result.iterations["iteration"] == 0]
    assert seconds == pytest.approx(prompts["queued_s"].mean(), rel=0.15)
    assert "even so" not in found(offered(60, 600))["little asked for"].text


def test_preemptions_are_told_whatever_is_lost():
    workload = hx.offline(initial_requests=500, warmup_s=10, duration_s=120, rng=0)
    result = run(workload, scheduler="swarm")
    assert result.summary["requests_preempted"].item() > 0
    assert "lost its KV cache to another" in found(result)["preemption"].text


def test_chunks_and_batches_are_to_be_tuned():
    result = run(hx.offline(warmup_s=60, duration_s=300, rng=0), execution=hx.chunked(chunk_tokens=8))
    facts, idle = facts_of(result), idle_nodes(result)
    for cause in ("costly batches", "bubbles"):
        suggestion = tell(cause, result, facts, idle).suggestion
        assert suggestion.endswith("helixlab.tune_execution looks for what serves most.")


def test_given_requests_must_suffice_for_more():
    finding = tell("few requests", *(lambda r: (r, facts_of(r), idle_nodes(r)))(run(given((3, 100)))))
    assert finding.suggestion.endswith("a larger initial_requests, of requests enough.")


def test_long_prompts_can_be_cut():
    table = pd.DataFrame({"input_tokens": [3000] * 300, "output_tokens": 5})
    result = run(hx.offline(requests=table, warmup_s=0, duration_s=60))
    assert "execution='chunked', which cuts long prompts" in found(result)["rejected"].suggestion


def test_raising_the_mark_is_told_online():
    suggestion = found(offered(320))["full KV caches"].suggestion
    assert suggestion.endswith("those layers; raising kv_high_water_mark, 0.9 here, helps less.")


# What was asked for


def arriving(times_s, duration_s, warmup_s=0.0):
    table = pd.DataFrame({"arrival_s": times_s, "input_tokens": 300, "output_tokens": 100})
    return run(hx.online(requests=table, duration_s=duration_s, warmup_s=warmup_s), sample_step_s=1)


def stopped(result, at_s):
    """The run as if Ctrl-C had stopped it then, all that ended later left out."""
    end_s = result.summary["start_s"].item() + at_s
    requests = result.requests[result.requests["end_s"] <= end_s]
    arrived = result.requests["arrival_s"] <= end_s
    summary = result.summary.assign(
        partial=True, window_end_s=end_s, requests_in_flight=int(arrived.sum()) - len(requests)
    )
    iterations = result.iterations[result.iterations["end_s"] <= end_s]
    return replace(result, summary=summary, requests=requests, iterations=iterations)


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
    assert (
        f"Only {facts.offered_tokens_per_s:.1f} tokens per second" in found(result)["little asked for"].text
    )
    assert add_up(result)


def test_lengths_that_change_are_no_filling_up():
    kinds = {"input_tokens": [20] * 120 + [1000] * 600, "output_tokens": [400] * 120 + [40] * 600}
    workload = hx.offline(requests=pd.DataFrame(kinds), initial_requests=10, warmup_s=700, duration_s=400)
    result = run(workload, scheduler="swarm")
    facts = facts_of(result)
    assert result.summary["requests_in_flight"].item() == 10
    assert facts.served_tokens_per_s == pytest.approx(facts.processed_tokens_per_s, rel=0.02)
    assert "filling up" not in found(result)
    assert add_up(result)


def test_no_higher_rate_where_the_run_is_too_short_to_tell():
    times_s = np.sort(np.random.default_rng(0).uniform(0, 60, 60))
    facts = facts_of(result := arriving(times_s, 60))
    for load, told in {
        "stable": "ask for a higher rate",
        "filling": "Measure for longer: this run is too short",
        "backlogged": "Ask for less: requests pile up",
    }.items():
        case = tell("little asked for", result, replace(facts, load=load), idle_nodes(result))
        assert told in case.suggestion


# Advice that is followed already


def test_a_scheduler_that_is_used_is_not_advised():
    result = run(hx.offline(warmup_s=60, duration_s=300, rng=0))
    swarm = run(hx.offline(warmup_s=60, duration_s=300, rng=0), scheduler="swarm")
    busy = {"nodes": result.nodes.assign(busy_fraction=1.0)}

    def advised(cause, of, **changes):
        of = replace(of, **changes)
        return tell(cause, of, facts_of(of), idle_nodes(of)).suggestion

    assert advised("imbalance", swarm, **busy).startswith("Send less there, as the helix scheduler would")
    assert advised("imbalance", result, **busy).startswith("Take layers off")
    assert advised("busy links", result).startswith("Cut prompts with execution='chunked'")
    chunked = run(hx.offline(warmup_s=60, duration_s=300, rng=0), execution="chunked")
    assert "chunked" not in advised("busy links", chunked)


def test_a_plan_of_ones_own_is_not_planned_again():
    result = run(hx.offline(warmup_s=60, duration_s=300, rng=0))
    source = {**result.provenance["placement"], "source": "planned by helixlab"}
    planned = replace(result, provenance={**result.provenance, "placement": source})
    near = replace(facts_of(result), served_tokens_per_s=0.95 * facts_of(result).flow_tokens_per_s)
    told = tell("placement", planned, near, idle_nodes(result)).suggestion
    assert told.startswith("The planner may find a wider one in more time")


def test_batches_that_cost_less_are_told_where_compute_binds():
    result = run(hx.offline(warmup_s=60, duration_s=300, rng=0))
    facts = facts_of(result)
    beyond = replace(facts, served_tokens_per_s=1.2 * facts.flow_tokens_per_s)
    text = tell("placement", result, beyond, idle_nodes(result)).text
    assert text.endswith("; this run served more, as its batches cost less than typical ones")
    links = replace(beyond, cut=facts.cut.assign(kind="link"))
    assert tell("placement", result, links, idle_nodes(result)).text.endswith("; this run served more")
    prompts = replace(facts, processed_tokens_per_s=1.2 * facts.flow_tokens_per_s)
    assert "this run served more" not in tell("placement", result, prompts, idle_nodes(result)).text


@pytest.mark.parametrize(
    ("cards", "told"),
    [
        (["source"], "the network card of the coordinator"),
        ([3], "the network card of node 3"),
        (["source", 3, 4], "the network cards of the coordinator and nodes 3 and 4"),
        (list(range(7)), "the network cards of 7 nodes, among them 0, 1 and 2"),
    ],
)
def test_cards_that_bind(cards, told):
    cut = pd.DataFrame({"kind": "network card", "sender": cards, "receiver": cards})
    assert cut_words(cut) == told


# Preemption


def test_a_single_preemption_turns_no_advice_round():
    result = run(hx.offline(initial_requests=2, warmup_s=60, duration_s=300, rng=0), scheduler="swarm")
    once = replace(result, summary=result.summary.assign(requests_preempted=1))
    assert once.summary["requests_fed"].item() > 10
    assert "a larger initial_requests" in found(once)["few requests"].suggestion
    assert "seldom enough" in found(once)["preemption"].suggestion
    assert found(once)["preemption"].cost < found(once)["few requests"].cost
    fed = once.summary["requests_fed"].item()
    often = replace(result, summary=result.summary.assign(requests_preempted=fed))
    assert "keep fewer requests in flight" in found(often)["preemption"].suggestion
    assert "initial_requests" not in found(often)["few requests"].suggestion


def test_no_more_is_computed_again_than_the_preempted_had():
    """Tokens may pass a cut more than once for other reasons too."""
    result = run(hx.offline(initial_requests=2, warmup_s=60, duration_s=300, rng=0), scheduler="swarm")
    facts = facts_of(replace(result, summary=result.summary.assign(requests_preempted=1)))
    mean = result.summary["input_tokens_mean_accepted"] + result.summary["output_tokens_mean_accepted"]
    assert facts.preempted_tokens_per_s == pytest.approx(mean.item() / 300)
    crowded = replace(facts, cut=facts.cut.assign(used_tokens_per_s=1e6))
    assert crowded.again_tokens_per_s == facts.preempted_tokens_per_s
    assert replace(crowded, preempted_tokens_per_s=0.0).again_tokens_per_s == 0


def test_preemption_is_not_timed_where_no_time_was_noted():
    kept = run(hx.offline(warmup_s=60, duration_s=300, rng=0))
    result = replace(kept, summary=kept.summary.assign(requests_preempted=3))
    assert "of the time of tokens" in text_of("preemption", result)
    assert text_of("preemption", result, time={}) == (
        "3 times a request lost its KV cache to another and was computed again"
    )


@pytest.mark.parametrize("rate", [400, 600])
def test_more_than_the_flow_is_not_little(rate):
    result = offered(rate, 120)
    facts = facts_of(result)
    assert facts.offered_tokens_per_s > facts.flow_tokens_per_s
    assert "little asked for" not in found(result)
    assert add_up(result)


def test_all_refused_online():
    table = pd.DataFrame({"arrival_s": np.arange(20.0), "input_tokens": 20_000, "output_tokens": 5})
    result = run(hx.online(requests=table, duration_s=60))
    assert hx.diagnose(result)[0].cause == "rejected"
    assert hx.diagnose(result)[0].text.startswith("All 20 requests were turned away for good")
    assert "little asked for" not in found(result)
    assert add_up(result)


def test_requests_that_end_after_the_window_were_in_flight():
    table = pd.DataFrame({"arrival_s": [0.0, 0.1], "input_tokens": 700, "output_tokens": 50})
    result = run(hx.online(requests=table, duration_s=0.5))
    assert "at whose end 2 requests were in flight" in found(result)["nothing ended"].text
