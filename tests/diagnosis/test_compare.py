"""Runs side by side: in what they differ, and which causes explain it."""

import warnings
from dataclasses import replace

import pandas as pd
import pytest

import helixlab as hx
from helixlab.diagnosis import differing_settings, losses
from helixlab.errors import SimulationError
from helixlab.scheduling import Scheduler

SYSTEM = (
    hx.load_cluster("single24"),
    hx.load_model("llama-2-70b"),
    hx.load_placement("single24/llama-2-70b/example-ilp"),
)
PETALS = hx.load_placement("single24/llama-2-70b/petals")


def run(placement=SYSTEM[2], scheduler="swarm", requests=20, **how):
    workload = hx.offline(initial_requests=requests, warmup_s=10, duration_s=40, rng=0)
    how = {"workload": workload, "keep_breakdown": True, **how}
    return hx.simulate(*SYSTEM[:2], placement, scheduler=scheduler, **how)


def test_the_same_twice():
    comparison = hx.compare([run(), run()])
    assert comparison.text.startswith("These runs have the same settings.")
    assert comparison.settings.empty
    assert comparison.causes["1"].equals(comparison.causes["2"].rename("1"))


def test_one_setting():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison = hx.compare([run(), run(PETALS)])
    assert comparison.settings.loc["placement"].tolist() == [SYSTEM[2].name, PETALS.name]
    assert "These runs differ in placement only." in comparison.text
    assert f"Placement: {SYSTEM[2].name} in run 1, {PETALS.name} in run 2." in comparison.text


def test_two_settings_warn():
    runs = [run(), run(PETALS, "random")]
    with pytest.warns(
        UserWarning, match="These runs differ in placement AND scheduler, so that no single one"
    ):
        comparison = hx.compare(runs)
    assert list(comparison.settings.index) == ["placement", "scheduler"]


def test_the_causes_add_up_to_the_difference():
    runs = [run(requests=3), run(requests=40), run(requests=40, execution="chunked")]
    with pytest.warns(UserWarning, match="initial requests|execution"):
        comparison = hx.compare(runs)
    served = comparison.metrics["served_tokens_per_s"]
    for at, result in enumerate(runs, 1):
        lost = losses(result)["tokens_per_s"].sum()
        assert comparison.causes[str(at)].sum() == pytest.approx(lost)
        assert served[str(at)] + lost == pytest.approx(result.metrics["upper_bound_tokens_per_s"])
    assert comparison.causes.index[0] in ("few requests", "costly batches", "bubbles")
    assert f"Run 2 serves {served['2']:.0f} tokens/s" in comparison.text
    assert "Main reasons: " in comparison.text


def test_the_same_name_is_not_the_same_thing():
    other = replace(PETALS, name=SYSTEM[2].name)
    comparison = hx.compare([run(), run(other)])
    names = comparison.settings.loc["placement"].tolist()
    assert names == [SYSTEM[2].name, f"{SYSTEM[2].name}@{PETALS.content_hash[:8]}"]
    mine = [replace(placement, name="mine") for placement in (SYSTEM[2], PETALS)]
    names = hx.compare([run(placement) for placement in mine]).settings.loc["placement"].tolist()
    assert names == [f"mine with content {placement.content_hash[:8]}" for placement in mine]


def test_another_name_is_not_another_thing():
    assert differing_settings([run(), run(replace(SYSTEM[2], name="mine"))]) == {}


def test_the_step_of_the_timeline_is_no_setting():
    assert differing_settings([run(), run(sample_step_s=1.0)]) == {}


def test_waiting_is_told_alike_of_all():
    few, many = run(requests=3), run(requests=12, keep_breakdown=False)
    comparison = hx.compare([few, many])
    assert "Simulated without keep_breakdown: run 2." in comparison.text
    assert not {"bubbles", "few requests"} & set(comparison.causes.index)
    lost = comparison.causes.sum()
    assert lost["1"] == pytest.approx(losses(few)["tokens_per_s"].sum())
    assert lost["2"] == pytest.approx(losses(many)["tokens_per_s"].sum())
    assert "keep_breakdown" not in hx.compare([many, many]).text


def test_what_follows_from_the_mode_is_not_named():
    online = hx.online(rate_tokens_per_s=300, duration_s=40, rng=0)
    offline = hx.offline(warmup_s=0, duration_s=40, rng=0)
    assert list(differing_settings([run(workload=offline), run(workload=online)])) == ["mode"]
    other = run(workload=online, kv_high_water_mark=0.5)
    assert list(differing_settings([run(workload=offline), other])) == ["mode", "kv_high_water_mark"]
    rates = [hx.online(rate_tokens_per_s=rate, duration_s=40, rng=0) for rate in (300, 400)]
    with pytest.warns(UserWarning, match="differ in mode AND rate"):
        text = hx.compare([run(workload=each) for each in (offline, *rates)]).text
    assert "Rate: none in run 1, 300 tokens/s in run 2, 400 tokens/s in run 3." in text


def test_requests_of_ones_own_are_one_setting():
    requests = pd.DataFrame({"input_tokens": [300] * 200, "output_tokens": [100] * 200})
    given = hx.offline(requests=requests, warmup_s=10, duration_s=40, rng=0)
    drawn = hx.offline(warmup_s=10, duration_s=40, rng=0)
    (values,) = differing_settings([run(workload=drawn), run(workload=given)]).values()
    assert values[0] == "azure-conv"
    assert values[1].startswith("own requests ")


def test_other_machines():
    small = hx.load_placement("small10/llama-1-30b/helix")
    other = hx.simulate(
        hx.load_cluster("small10"), hx.load_model("llama-1-30b"), small, workload=hx.offline(duration_s=20)
    )
    with pytest.warns(UserWarning, match="cluster AND model AND placement"):
        comparison = hx.compare([run(), other])
    assert "the machines, whose upper bound is" in comparison.text


@pytest.mark.parametrize("wrong", [[], ["a", "b"], 3])
def test_only_results(wrong):
    with pytest.raises(SimulationError, match="compare needs two or more results"):
        hx.compare(wrong)


def _first(state, sender, request):
    return state.nodes[sender].first_link


def _second(state, sender, request):
    node = state.nodes[sender]
    return node.first_link + min(1, node.links - 1)


def test_own_functions_of_one_name():
    runs = [run(scheduler=Scheduler("mine", function)) for function in (_first, _second)]
    names = hx.compare(runs).settings.loc["scheduler"].tolist()
    assert names[0] != names[1]


def test_another_code():
    first = run()
    versions = {**first.provenance["versions"], "helixlab_code": "0123456789abcdef"}
    second = replace(first, provenance={**first.provenance, "versions": versions})
    comparison = hx.compare([first, second])
    assert list(comparison.settings.index) == ["helixlab"]
    assert "These runs differ in helixlab only." in comparison.text
    assert "(01234567) in run 2" in comparison.text


def test_partial_runs_are_marked():
    first = run()
    stopped = replace(first, summary=first.summary.assign(partial=True))
    told = "Stopped early, with metrics of a part only: run 2."
    with pytest.warns(UserWarning, match=told):
        comparison = hx.compare([first, stopped])
    assert told in comparison.text
    assert comparison.metrics["partial"].tolist() == [False, True]
    assert stopped.origin.startswith("partial; placement ")
