"""Nothing passes for a bundled thing of other content: results and sweeps mark its name."""

from dataclasses import replace

import numpy as np
import pytest

import helixlab as hx
from helixlab.execution import EXECUTIONS, get_execution
from helixlab.scheduling import SCHEDULERS, Scheduler, get_scheduler
from helixlab.simulation.provenance import shown_name

CLUSTER, MODEL = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
HELIX = hx.load_placement("small10/llama-1-30b/helix")
SHORT = hx.offline(warmup_s=0, duration_s=5, rng=0)
SLOW = replace(CLUSTER, links=tuple(replace(link, latency_s=0.05) for link in CLUSTER.links))
HEAVY = replace(MODEL, activation_bytes=2 * MODEL.activation_bytes)
SUBJECT = {
    "cluster": CLUSTER,
    "model": MODEL,
    "placement": HELIX,
    "scheduler": "helix",
    "execution": "greedy",
}


def first(state, sender, request):
    return state.nodes[sender].first_link


def alone(node, request):
    return node.batch_prompts + node.batch_decode_tokens == 0


def test_bundled_things_keep_their_names():
    for name in hx.cluster_names():
        assert shown_name(hx.load_cluster(name)) == name
    for name in hx.model_names():
        assert shown_name(hx.load_model(name)) == name
    for name, policy in (*SCHEDULERS.items(), *EXECUTIONS.items()):
        assert shown_name(policy) == name


@pytest.mark.parametrize("name", [n for n in hx.placement_names() if hx.load_placement(n).part is not None])
def test_parts_that_published_placements_bring_keep_their_names(name):
    part = hx.load_placement(name).part
    assert shown_name(part) == part.name


def test_a_changed_part_is_marked():
    part = hx.load_placement("single24/llama-2-70b/separate-t4").part
    changed = replace(part, links=tuple(replace(link, latency_s=0.05) for link in part.links))
    assert shown_name(changed) == f"single24-t4@{changed.content_hash[:8]}"


@pytest.mark.parametrize(
    ("what", "thing"),
    [
        ("cluster", SLOW),
        ("model", HEAVY),
        ("scheduler", Scheduler("helix", first)),
        ("scheduler", replace(get_scheduler("helix"), parameters=(1.0,))),
        ("execution", hx.Execution("greedy", alone)),
        ("execution", replace(get_execution("greedy"), max_decode_per_batch=3)),
        ("execution", hx.Execution("chunked", alone, chunk_tokens=64)),
    ],
)
def test_results_and_sweeps_mark_what_is_not_the_bundled_thing(what, thing):
    result = hx.simulate(**SUBJECT | {what: thing}, workload=SHORT)
    shown = result.provenance[what]["name"]
    assert shown == f"{thing.name}@{result.provenance[what]['hash'][:8]}"
    assert result.metrics[what] == shown
    assert f"{what} {shown} (" in result.origin
    assert shown in result._repr_html_()
    if what != "execution":
        assert shown in repr(result)
    runs = hx.sweep(SUBJECT | {what: [SUBJECT[what], thing], "workload": SHORT}, progress=False)
    assert runs[what].tolist() == [getattr(SUBJECT[what], "name", SUBJECT[what]), shown]
    assert runs["error"].isna().all()


def test_a_marked_result_is_loaded_as_it_was(tmp_path):
    result = hx.simulate(SLOW, HEAVY, HELIX, workload=SHORT)
    again = hx.load_result(result.save(tmp_path / "run"))
    assert again.origin == result.origin
    assert repr(again) == repr(result)
    assert repr(result).startswith(
        f"Result({HELIX.name} on {shown_name(SLOW)} on {shown_name(HEAVY)} with helix, "
    )


def test_limits_of_chunks_are_anybodys_choice():
    assert shown_name(hx.chunked(chunk_tokens=128, memory_floor=False)) == "chunked"
    assert shown_name(replace(hx.chunked(), chunk_tokens=None)).startswith("chunked@")


def test_blanks_and_capitals_do_not_tell_apart():
    for name in ("Small10", " small10", "SMALL10 "):
        assert shown_name(replace(CLUSTER, name=name)) == name, "the content is the bundled one"
        assert shown_name(replace(SLOW, name=name)) == f"{name.strip()}@{SLOW.content_hash[:8]}"
    assert shown_name(replace(HEAVY, name="LLaMA-1-30B ")).startswith("LLaMA-1-30B@")
    assert shown_name(Scheduler("Helix", first)).startswith("Helix@")
    assert shown_name(replace(get_scheduler("helix"), name="HELIX")) == "HELIX"
    assert shown_name(hx.Execution(" greedy", alone)).startswith("greedy@")


def test_names_of_ones_own_are_left_alone():
    assert shown_name(replace(SLOW, name="small10-slow")) == "small10-slow"
    assert shown_name(Scheduler("helix-2", first)) == "helix-2"


def test_functions_without_a_hash_are_marked_too():
    generator = np.random.default_rng(0)

    def choose(state, sender, request):
        return generator

    assert shown_name(Scheduler("helix", choose)) == "helix@unknown"
