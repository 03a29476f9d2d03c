"""Comparisons of plans: flows, covers, searches, predictions and windows."""

from dataclasses import replace

import pandas as pd
import pytest

import helixlab as hx
from helixlab import experiments as ex
from helixlab.errors import HelixlabError

NAME = "small10/llama-1-30b/helix"
CLUSTER, MODEL = hx.load_cluster("small10"), hx.load_model("llama-1-30b")


@pytest.fixture(scope="module")
def planned() -> hx.Placement:
    return hx.plan(CLUSTER, MODEL, objective="flow", rng=0)


def test_parts_of_a_split_add_up() -> None:
    cluster, model = hx.load_cluster("single24"), hx.load_model("llama-1-30b")
    names = {machine: f"single24/llama-1-30b/helix-{machine.lower()}" for machine in ("A100", "L4", "T4")}
    parts = {machine: hx.load_placement(name) for machine, name in names.items()}
    flows = ex.compare_flows(cluster, model, {"published": {"separate": list(parts.values())}})
    each = [hx.max_flow(cluster, model, part).value_tokens_per_s for part in parts.values()]
    assert flows["max_flow_tokens_per_s"].item() == pytest.approx(sum(each))
    split = ex.split_estimates(cluster, model, parts)
    assert split["in_the_mix_tokens_per_s"].sum() < split["alone_tokens_per_s"].sum()
    assert ex.coverage({names["L4"]: parts["L4"]})["equal"].all()


def test_plans_whose_speed_is_not_known_are_left_out() -> None:
    cluster = "single24/llama-2-70b"
    names = [f"{cluster}/{each}" for each in ("separate-a100", "helix", "petals")]
    plans = ex.distinct_plans({name: hx.load_placement(name) for name in names})
    assert [plan.name for plan in plans] == names[1:]
    assert {plan.cluster for plan in plans} == {"single24"}


def test_a_search_beside_the_published_one(planned: hx.Placement) -> None:
    plans = {("small10", "llama-1-30b"): planned}
    table = ex.plans_beside_published(plans)
    assert table["published_run"].tolist() == ["small10"]
    assert table["over_published"].item() == pytest.approx(1, rel=1e-6)
    progress = ex.search_progress({"small10": "small10"}, plans, {"small10": planned})
    assert list(dict.fromkeys(progress["run"])) == ["helixlab", "paper, Gurobi", "paper, HiGHS"]
    assert progress["seconds"][progress["run"] == "paper, Gurobi"].min() >= 1
    reached = ex.seconds_to_published(progress)
    assert reached["cluster"].tolist() == ["small10"]
    assert reached["seconds"].item() < reached["published_seconds"].item()


def test_prices_prove_the_bound(planned: hx.Placement) -> None:
    report = planned.report
    assert report is not None
    above = 1.02 * float(report.objective_tokens_per_s or 0)
    bill, most_layers = ex.prices_of_layers(CLUSTER, MODEL, above)
    assert most_layers < MODEL.layers
    assert set(bill["machine"]) == set(CLUSTER.machine_counts())
    assert ex.prices_of_layers(CLUSTER, MODEL, above / 2)[1] > MODEL.layers


def test_bounds_need_a_trace() -> None:
    with pytest.raises(HelixlabError, match="has no trace of its search"):
        ex.relaxed_bounds(CLUSTER, MODEL, hx.load_placement(NAME))


def test_both_windows_are_compared_with_the_published_plan() -> None:
    metrics = ["decode_tokens_per_s", "decode_latency_mean_s", "prompt_latency_mean_s", "requests_in_flight"]
    long = pd.DataFrame(
        {"cluster": "a", "plan": ["published", "mine"], **dict.fromkeys(metrics, 2.0)}, [4, 7]
    )
    short = pd.DataFrame({name: [1.0, 3.0] for name in metrics})
    effects = ex.window_effects(long, short).set_index(["plan", "setting"])["over_published"]
    assert effects.to_dict() == {
        ("mine", "long"): 1.0,
        ("mine", "short"): 3.0,
        ("published", "long"): 1.0,
        ("published", "short"): 1.0,
    }


def test_equal_placements_count_once() -> None:
    placement = hx.load_placement(NAME)
    again = replace(placement, name="again")
    assert [plan.name for plan in ex.distinct_plans({NAME: placement, "small10/again": again})] == [NAME]
