"""What each scheduler does with the links it may choose from."""

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab.errors import SchedulingError, UnknownNameError
from helixlab.placement import usable_links
from helixlab.scheduling import SCHEDULERS, get_scheduler

MODEL = hx.load_model("llama-1-30b")
STAGES = 10


def stage_by_stage(*machines_of_first_stage):
    """A chain of L4 nodes, but for the first stage, which each of the given machines holds whole."""
    machines = [*machines_of_first_stage, *["L4"] * (STAGES - 1)]
    order = sorted(set(machines))
    cluster = hx.single_region({machine: machines.count(machine) for machine in order}, name="stages")
    free = {machine: [n.index for n in cluster.nodes if n.machine == machine] for machine in order}
    layers = [hx.NodeLayers(free[machine].pop(), 0, 6) for machine in machines_of_first_stage]
    layers += [hx.NodeLayers(free["L4"].pop(), 6 * stage, 6 * stage + 6) for stage in range(1, STAGES)]
    links = usable_links(cluster, layers, MODEL.layers)
    placement = hx.Placement("stages", "stages", MODEL.name, "by hand", layers, links)
    return cluster, MODEL, placement


def requests(count, every_s, input_tokens=64, output_tokens=1):
    """Requests at equal distances, so far apart or so dense that it is clear what is free."""
    table = pd.DataFrame({"arrival_s": np.arange(count) * every_s})
    table["input_tokens"], table["output_tokens"] = input_tokens, output_tokens
    return hx.online(requests=table, duration_s=count * every_s + 1000, rng=1)


def shares(system, scheduler, workload):
    """Part of the tokens that each first node gets, by machine and node."""
    result = hx.simulate(*system, scheduler=scheduler, workload=workload)
    first = result.nodes[(result.nodes["first_layer"] == 0) & (result.nodes["end_layer"] > 0)]
    return first.set_index("machine")["tokens"] / first["tokens"].sum()


def test_names():
    assert list(SCHEDULERS) == [scheduler.name for scheduler in SCHEDULERS.values()]
    for name, scheduler in SCHEDULERS.items():
        assert get_scheduler(name) is scheduler
        assert get_scheduler(scheduler) is scheduler
    with pytest.raises(UnknownNameError, match="unknown scheduler 'hellix'; did you mean 'helix'"):
        get_scheduler("hellix")
    with pytest.raises(SchedulingError, match="a scheduler is a name or a Scheduler, not None"):
        get_scheduler(None)


def test_schedulers_that_make_no_sense():
    with pytest.raises(SchedulingError, match="choose must be a function, got 'first'"):
        hx.Scheduler("mine", "first")
    with pytest.raises(SchedulingError, match="feeds_by_kv needs plans_ahead"):
        hx.Scheduler("mine", lambda state, sender, request: 0, feeds_by_kv=True)
    with pytest.raises(SchedulingError, match="admits must be a function, got None"):
        hx.Execution("mine", None)


@pytest.mark.parametrize("machines", [["L4", "T4"], ["L4", "L4", "T4"], ["A100", "T4", "T4"]])
def test_helix_follows_the_flow(machines):
    system = stage_by_stage(*machines)
    result = hx.simulate(*system, scheduler="helix", workload=requests(200, 1.0))
    first = result.links[result.links["sender"] == "source"]
    wanted = first["flow_tokens_per_s"] / first["flow_tokens_per_s"].sum()
    sent = first["tokens_per_s"] / first["tokens_per_s"].sum()
    used = wanted >= 0.05
    assert (sent[~used] == 0).all()
    # The first request is sent in the instant in which the window starts, and is not in its figures.
    np.testing.assert_allclose(sent[used], wanted[used] / wanted[used].sum(), atol=0.02)


def test_helix_masks_links_with_less_than_a_twentieth_of_the_flow():
    system = (
        hx.load_cluster("hetero42"),
        hx.load_model("llama-2-70b"),
        hx.load_placement("hetero42/llama-2-70b/helix"),
    )
    result = hx.simulate(*system, workload=hx.offline(warmup_s=0, duration_s=30))
    of_sender = result.links.groupby(result.links["sender"].astype(str))["flow_tokens_per_s"].transform("sum")
    masked = result.links["flow_tokens_per_s"] < 0.05 * of_sender
    assert masked.any()
    assert (result.links.loc[masked, "tokens_per_s"] == 0).all()
    assert (result.links.loc[~masked, "tokens_per_s"] > 0).mean() > 0.9


def test_swarm_prefers_the_quick():
    share = shares(stage_by_stage("L4", "T4"), "swarm", requests(200, 2.0, input_tokens=2000))
    assert share["L4"] > 0.55
    assert share["T4"] > 0.1


def test_swarm_treats_equals_alike():
    share = shares(stage_by_stage("L4", "L4", "L4"), "swarm", requests(300, 2.0))
    np.testing.assert_allclose(share, 1 / 3, atol=0.02)


@pytest.mark.parametrize("scheduler", ["random", "shortest-queue"])
def test_any_of_the_free_links_is_equally_likely(scheduler):
    share = shares(stage_by_stage("L4", "T4", "T4"), scheduler, requests(600, 3.0))
    np.testing.assert_allclose(share, 1 / 3, atol=0.06)


def test_shortest_queue_looks_at_the_queues():
    dense = requests(400, 0.02, input_tokens=1000)
    system = stage_by_stage("A100", "T4")
    by_chance, by_queue = (shares(system, scheduler, dense) for scheduler in ("random", "shortest-queue"))
    assert by_queue["A100"] > by_chance["A100"] + 0.05


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_decodes_follow_their_prompt(scheduler):
    # One request alone: whatever links its prompt took are the only ones used.
    system = stage_by_stage("L4", "L4", "T4")
    result = hx.simulate(*system, scheduler=scheduler, workload=requests(1, 1.0, output_tokens=50))
    used = result.nodes[(result.nodes["first_layer"] == 0) & (result.nodes["tokens"] > 0)]
    assert used["tokens"].tolist() == [64 + 50]
