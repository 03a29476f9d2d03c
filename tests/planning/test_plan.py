"""Planning by name, and each planner against the published placements."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from helixlab.cluster import SINK, SOURCE, Machine, load_cluster, random_sparse, single_region
from helixlab.errors import PlacementError, UnknownNameError
from helixlab.flow import max_flow
from helixlab.model import load_model
from helixlab.placement import (
    NodeLayers,
    Placement,
    PlanReport,
    check_placement,
    load_placement,
    usable_links,
)
from helixlab.planning import METHODS, extrapolated_kv_capacity, plan, planning_throughput

SINGLE24, GEO24, HETERO42 = map(load_cluster, ("single24", "geo24", "hetero42"))
SMALL10 = load_cluster("small10")
LLAMA30, LLAMA70 = load_model("llama-1-30b"), load_model("llama-2-70b")
CLUSTERS = {cluster.name: cluster for cluster in (SINGLE24, GEO24, HETERO42, SMALL10)}
MODELS = {model.name: model for model in (LLAMA30, LLAMA70)}

# An order in which the nodes may have joined, for each published petals placement: found by search.
PETALS_ORDERS = {
    "geo24/llama-1-30b/petals": "4 0 17 7 1 13 19 14 21 9 2 6 11 5 15 10 23 18 16 20 8 3 22 12",
    "geo24/llama-2-70b/petals": "14 0 5 7 6 11 22 21 10 4 2 3 19 17 18 9 23 15 16 8 1 13 12 20",
    "hetero42/llama-2-70b/petals": "4 34 10 0 37 20 14 7 18 21 12 6 5 1 25 11 23 15 30 28 40 13 8 22 9 3 41"
    " 39 35 29 36 38 33 17 19 31 27 32 16 2 26 24",
    "single24/llama-1-30b/petals": "11 0 17 7 3 5 14 22 6 21 10 4 2 20 19 15 9 23 16 8 1 13 18 12",
    "single24/llama-2-70b/petals": "14 0 17 7 6 11 22 5 10 4 2 20 3 19 21 18 9 15 23 16 8 1 13 12",
    "single24/llama-2-70b/example-petals": "14 0 17 7 6 11 22 5 10 4 2 20 3 19 21 18 9 15 23 16 8 1 13 12",
}
SWARMS = [
    *(f"{cluster}/{model}/swarm" for cluster in ("single24", "geo24") for model in sorted(MODELS)),
    "hetero42/llama-2-70b/swarm",
    "single24/llama-2-70b/example-swarm",
]


def planned(cluster, model, method, **options):
    """Plan a placement that passes its checks and carries flow."""
    placement = plan(cluster, model, method=method, **options)
    check_placement(placement, cluster, model)
    assert max_flow(cluster, model, placement).value_tokens_per_s > 0
    return placement


def pipelines(placement):
    """List the pipelines from source to sink of a placement whose nodes have one link in and one out."""
    onward = dict(link for link in placement.links if link[0] != SOURCE)
    found = []
    for sender, node in placement.links:
        if sender == SOURCE:
            found.append([node])
            while onward[found[-1][-1]] != SINK:
                found[-1].append(onward[found[-1][-1]])
    return found


class TestPlan:
    @pytest.mark.parametrize("method", ["petals", "swarm", "homogeneous"])
    @pytest.mark.parametrize("cluster", sorted(CLUSTERS))
    def test_every_method(self, cluster, method):
        placement = planned(CLUSTERS[cluster], LLAMA30, method)
        assert placement.name == f"{cluster}/llama-1-30b/{method}"
        assert (placement.cluster, placement.model, placement.method) == (cluster, "llama-1-30b", method)
        assert placement.report is not None
        assert placement.report.status == "heuristic"
        assert placement.report.wall_s > 0
        assert (placement.report.objective_tokens_per_s, placement.report.gap) == (None, None)
        assert not placement.kv_capacity_token_layers
        nodes = [held.node for held in placement.layers]
        assert nodes == sorted(nodes)

    @pytest.mark.parametrize("method", sorted(METHODS))
    def test_progress_goes_to_stderr(self, method, capsys):
        limits = {"time_limit_s": 0.5} if method in ("helix", "paper-milp") else {}
        cluster = SINGLE24 if method == "separate" else SMALL10
        plan(cluster, LLAMA30, method=method, progress=True, **limits)
        assert capsys.readouterr().out == ""

    def test_solvers_are_loaded_when_they_are_asked_for(self):
        code = """if True:
            import sys
            import helixlab.planning
            loaded = {"cvxpy", "highspy"} & set(sys.modules)
            helixlab.planning.plan_paper_milp
            print(len(loaded), len({"cvxpy", "highspy"} & set(sys.modules)))
        """
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["0", "2"]

    def test_unknown_method(self):
        with pytest.raises(UnknownNameError, match="unknown placement method 'swram'; did you mean 'swarm'"):
            plan(SMALL10, LLAMA30, method="swram")

    @pytest.mark.parametrize(
        ("method", "message"),
        [
            ("swarm", "method 'swarm' has no option 'overfil'; it has none"),
            ("separate", "method 'separate' has no option 'overfil'; it has overfill, plus"),
        ],
    )
    def test_unknown_option(self, method, message):
        with pytest.raises(PlacementError, match=message):
            plan(SMALL10, LLAMA30, method=method, overfil=True)

    @pytest.mark.parametrize("rng", [-1, "seed", 1.5])
    def test_wrong_rng(self, rng):
        with pytest.raises(
            PlacementError, match=r"rng is .*; give a seed from 0 to [0-9]*, or a numpy Generator"
        ):
            plan(SMALL10, LLAMA30, method="petals", rng=rng)

    @pytest.mark.parametrize("limit", [0, -1.0, float("nan"), "60"])
    def test_wrong_time_limit(self, limit):
        with pytest.raises(PlacementError, match=r"time_limit_s is .*; give seconds above 0"):
            plan(SMALL10, LLAMA30, method="petals", time_limit_s=limit)

    @pytest.mark.parametrize("method", sorted(set(METHODS) & {"petals", "swarm", "separate", "homogeneous"}))
    def test_a_model_that_does_not_fit(self, method):
        message = (
            r"llama-2-70b needs 80 layers, but at most 52 fit into cluster 'small10' \(4 L4 of 7, 6 T4 of 4\)"
        )
        with pytest.raises(PlacementError, match=message):
            plan(SMALL10, LLAMA70, method=method)

    def test_a_machine_without_a_profile(self):
        h100 = Machine("H100", 80e9, 10e9, 10e9, 1e9)
        cluster = single_region({"H100": 4}, machines=[h100])
        with pytest.raises(UnknownNameError, match="machine profile for llama-1-30b 'H100'"):
            plan(cluster, LLAMA30, method="swarm")

    def test_a_method_of_ones_own(self, monkeypatch):
        def by_hand(cluster, model, *, rng, time_limit_s, per_node):
            assert isinstance(rng, np.random.Generator)
            assert time_limit_s == 5
            layers = [
                NodeLayers(n, per_node * n, per_node * (n + 1)) for n in range(model.layers // per_node)
            ]
            links = usable_links(cluster, layers, model.layers)
            report = PlanReport("optimal", 1.0, 1.0)
            return Placement("mine", cluster.name, model.name, "by hand", layers, links, report=report)

        monkeypatch.setitem(METHODS, "by hand", by_hand)
        placement = plan(SMALL10, LLAMA30, method="by hand", time_limit_s=5, per_node=6)
        assert placement.report == PlanReport("optimal", 1.0, 1.0)
        with pytest.raises(PlacementError, match="placement 'mine' uses node 10"):
            plan(SMALL10, LLAMA30, method="by hand", time_limit_s=5, per_node=5)


class TestPlanningThroughput:
    def test_the_network_card_is_a_cap(self):
        card = 13312 * 500.0
        slow = replace(
            SMALL10,
            machines=[
                replace(m, nic_in_bytes_per_s=card, nic_out_bytes_per_s=card) for m in SMALL10.machines
            ],
        )
        for machine, values in planning_throughput(slow, LLAMA30).items():
            assert values.tolist() == np.minimum(planning_throughput(SMALL10, LLAMA30)[machine], 500).tolist()
            assert values.max() == 500

    def test_a_machine_without_room_for_a_batch_is_left_idle(self):
        tiny = replace(LLAMA30.profile("T4"), kv_blocks=(1,) * 7)
        model = LLAMA30.with_profile(tiny)
        assert len(planning_throughput(SINGLE24, model)["T4"]) == 1
        for method in ("petals", "swarm", "homogeneous", "separate"):
            placement = planned(SINGLE24, model, method)
            assert {SINGLE24.nodes[held.node].machine for held in placement.layers} == {"A100", "L4"}


class TestSwarm:
    @pytest.mark.parametrize("name", SWARMS)
    def test_published(self, name):
        published = load_placement(name)
        cluster, model = CLUSTERS[published.cluster], MODELS[published.model]
        placement = planned(cluster, model, "swarm")
        assert placement.layers == published.layers
        assert set(placement.links) == set(published.links)

    def test_stages_divide_the_model(self):
        prime = replace(LLAMA30, layers=59)
        with pytest.raises(
            PlacementError, match=r"into 59 stages of 1 layers, .* cluster 'single24' has 24 nodes"
        ):
            plan(SINGLE24, prime, method="swarm")
        placement = planned(SINGLE24, replace(LLAMA30, layers=55), "swarm")
        assert {held.count for held in placement.layers} == {5}

    def test_stages_are_filled_evenly(self):
        placement = planned(HETERO42, LLAMA70, "swarm")
        speed = {machine: values[4] for machine, values in planning_throughput(HETERO42, LLAMA70).items()}
        stages = Counter()
        for held in placement.layers:
            stages[held.first_layer] += speed[HETERO42.nodes[held.node].machine]
        slowest = min(speed.values())
        assert len(stages) == 20
        for held in placement.layers:
            own = speed[HETERO42.nodes[held.node].machine]
            assert stages[held.first_layer] - own <= min(stages.values()) + slowest


class TestPetals:
    @pytest.mark.parametrize("name", sorted(PETALS_ORDERS))
    def test_published(self, name):
        published = load_placement(name)
        cluster, model = CLUSTERS[published.cluster], MODELS[published.model]
        order = [int(node) for node in PETALS_ORDERS[name].split()]
        placement = planned(cluster, model, "petals", order=order)
        assert placement.layers == published.layers
        assert set(placement.links) == set(published.links)

    def test_the_seed_decides(self):
        one, same, other = (planned(GEO24, LLAMA70, "petals", rng=seed) for seed in (3, 3, 4))
        assert one == same
        assert one.layers != other.layers
        assert plan(GEO24, LLAMA70, method="petals", rng=np.random.default_rng(3)) == one

    def test_nodes_hold_all_they_can(self):
        most = {machine: len(v) - 1 for machine, v in planning_throughput(HETERO42, LLAMA70).items()}
        for held in planned(HETERO42, LLAMA70, "petals").layers:
            assert held.count == most[HETERO42.nodes[held.node].machine]

    def test_partial_inference(self):
        placement = planned(SINGLE24, LLAMA70, "petals")
        assert placement.links == usable_links(SINGLE24, placement.layers, 80, partial_inference=True)

    def test_the_neediest_run_of_layers(self):
        cluster = single_region({"L4": 1, "T4": 11})  # 11 and 7 layers
        placement = plan(cluster, LLAMA30, method="petals", order=range(12))
        starts = [held.first_layer for held in placement.layers]
        assert starts[:8] == [0, 11, 18, 25, 32, 39, 46, 53]
        speed = planning_throughput(cluster, LLAMA30)
        reached = np.zeros(60)
        for held in placement.layers:
            runs = [sorted(reached[start : start + held.count]) for start in range(60 - held.count + 1)]
            assert held.first_layer == runs.index(min(runs))
            reached[held.first_layer : held.end_layer] += speed[cluster.nodes[held.node].machine][held.count]

    @pytest.mark.parametrize("order", [[], [0, 1], [*range(9), 8], range(1, 11)])
    def test_wrong_order(self, order):
        with pytest.raises(PlacementError, match="order must name the nodes 0 to 9, each once"):
            plan(SMALL10, LLAMA30, method="petals", order=order)


class TestHomogeneous:
    def test_published(self):
        published = load_placement("single24/llama-2-70b/example-homogeneous")
        placement = planned(SINGLE24, LLAMA70, "homogeneous")

        def spans(of):
            return Counter((SINGLE24.nodes[h.node].machine, h.first_layer, h.end_layer) for h in of.layers)

        assert spans(placement) == spans(published)
        assert len(placement.links) == len(published.links) == 10
        flows = [max_flow(SINGLE24, LLAMA70, p).value_tokens_per_s for p in (placement, published)]
        assert flows[0] == pytest.approx(flows[1])

    def test_left_over_machines_are_continued_by_the_next_type(self):
        placement = planned(single_region({"T4": 14, "A100": 5}), LLAMA30, "homogeneous")
        spans = {held.node: (held.first_layer, held.end_layer) for held in placement.layers}
        assert [spans[n] for n in range(14, 19)] == [(0, 18), (18, 36), (36, 54), (54, 60), (0, 18)]
        assert [spans[n] for n in range(6)] == [(18 + 7 * i, 25 + 7 * i) for i in range(6)]
        assert set(spans) == {*range(6), *range(14, 19)}, "eight T4 do not make another pipeline"


class TestSeparate:
    @pytest.mark.parametrize("cluster", ["single24", "geo24"])
    def test_published(self, cluster):
        placement = planned(CLUSTERS[cluster], LLAMA30, "separate")
        assert placement.name == f"{cluster}/llama-1-30b/separate"
        assert [len(pipeline) for pipeline in pipelines(placement)] == [4, 8, 12]
        for machine, pipeline in zip(("A100", "L4", "T4"), pipelines(placement), strict=True):
            assert {CLUSTERS[cluster].nodes[node].machine for node in pipeline} == {machine}
            assert pipeline == sorted(pipeline)
            counts = [placement.layers_of(node).count for node in pipeline]
            published = load_placement(f"{cluster}/llama-1-30b/separate-{machine.lower()}")
            assert sorted(counts) == sorted(held.count for held in published.layers)
            if cluster == "single24":
                assert counts == [held.count for held in published.layers]

    def test_links_in_the_order_of_the_pipelines(self):
        links = planned(single_region({"A100": 4, "L4": 6}), LLAMA30, "separate").links
        first = [(SOURCE, 0), (0, 1), (1, 2), (2, 3), (3, SINK)]
        assert list(links) == [*first, (SOURCE, 4), *((n, n + 1) for n in range(4, 9)), (9, SINK)]

    def test_flow_adds_up(self):
        whole = max_flow(SINGLE24, LLAMA30, planned(SINGLE24, LLAMA30, "separate"))
        slowest = whole.nodes.groupby("machine")["capacity_tokens_per_s"].min()
        assert whole.value_tokens_per_s == pytest.approx(slowest.sum())

    def test_types_that_cannot_hold_the_model_stay_idle(self):
        placement = planned(single_region({"A100": 4, "T4": 3}), LLAMA30, "separate")
        assert [held.node for held in placement.layers] == [0, 1, 2, 3]

    def test_no_type_holds_the_model(self):
        with pytest.raises(PlacementError) as caught:
            plan(SINGLE24, LLAMA70, method="separate")
        assert str(caught.value) == (
            "no machine type of cluster 'single24' holds the 80 layers of llama-2-70b:"
            " 4 A100 hold 4 x 12 = 48, 8 L4 hold 8 x 7 = 56, 12 T4 hold 12 x 4 = 48;"
            " add nodes of one type or overfill=True or plus=True"
        )

    def test_more_nodes_than_layers(self):
        short = replace(LLAMA30, layers=3)
        placement = planned(single_region({"T4": 5}), short, "separate")
        assert [(held.node, held.count) for held in placement.layers] == [(2, 1), (3, 1), (4, 1)]

    def test_a_missing_link(self):
        line = random_sparse({"A100": 4}, degree=1.5, rng=1)
        with pytest.raises(
            PlacementError, match=r"cluster 'random-sparse' has no link \d -> \d, which a pipeline"
        ):
            plan(line, LLAMA30, method="separate")


class TestSeparatePlus:
    def test_one_mixed_pipeline(self):
        placement = planned(SINGLE24, LLAMA70, "separate", plus=True)
        assert placement.name == "single24/llama-2-70b/separate-plus"
        (pipeline,) = pipelines(placement)
        machines = [SINGLE24.nodes[node].machine for node in pipeline]
        assert machines == ["A100"] * 4 + ["L4"] * 8 + ["T4"] * 12
        counts = [placement.layers_of(node).count for node in pipeline]
        assert Counter(counts) == {3: 16, 4: 8}

    def test_as_even_as_the_machines_allow(self):
        cluster = single_region({"T4": 4, "A100": 5, "L4": 3})
        placement = planned(cluster, LLAMA70, "separate", plus=True)
        counts = {machine: [] for machine in ("T4", "A100", "L4")}
        for held in placement.layers:
            counts[cluster.nodes[held.node].machine].append(held.count)
        assert counts == {"T4": [4] * 4, "L4": [7] * 3, "A100": [8, 8, 9, 9, 9]}
        assert [held.node for held in sorted(placement.layers, key=lambda held: held.first_layer)] == (
            [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3]
        )

    def test_beside_pure_pipelines(self):
        cluster = single_region({"A100": 4, "L4": 4, "T4": 4})
        assert len(pipelines(planned(cluster, LLAMA30, "separate"))) == 1
        assert len(pipelines(planned(cluster, LLAMA30, "separate", plus=True))) == 2

    def test_nothing_left(self):
        plus = planned(SINGLE24, LLAMA30, "separate", plus=True)
        assert plus.layers == planned(SINGLE24, LLAMA30, "separate").layers


class TestOverfill:
    def test_capacity_is_extrapolated(self):
        a100 = LLAMA70.profile("A100")
        step = a100.kv_capacity_token_layers(11) - a100.kv_capacity_token_layers(12)
        assert extrapolated_kv_capacity(a100, 20) == a100.kv_capacity_token_layers(12) - 8 * step
        assert extrapolated_kv_capacity(a100, 12) == a100.kv_capacity_token_layers(12)
        assert extrapolated_kv_capacity(a100, 1) == a100.kv_capacity_token_layers(1)
        one = replace(
            a100, kv_blocks=(9,), max_prompt_requests=(1,), max_decode_tokens=(1,),
            typical_layers=1, typical_layers_when_tight=1,
        )  # fmt: skip
        assert extrapolated_kv_capacity(one, 2) == 0, "nothing is known of what a layer takes"

    @pytest.mark.parametrize(
        ("name", "machine", "layers", "most_off"),
        [
            ("geo24/llama-2-70b/separate-a100", "A100", 20, 0.002),
            ("hetero42/llama-2-70b/separate-a100", "A100", 20, 0.001),
            ("hetero42/llama-2-70b/separate-v100_t4", "T4", 5, 0.0003),
            ("single24/llama-2-70b/separate-t4", "T4", 6, 0.0),
            ("single24/llama-2-70b/separate-l4", "L4", 10, 0.17),
            ("geo24/llama-2-70b/separate-l4", "L4", 10, 0.37),
            ("hetero42/llama-2-70b/separate-l4", "L4", 10, 0.37),
            ("hetero42/llama-2-70b/separate-t4x4", "T4x4", 20, 0.3),
            ("hetero42/llama-2-70b/separate-v100_t4", "V100", 5, 0.41),
            ("hetero42/llama-2-70b/separate-l4x2", "L4x2", 20, 0.52),
        ],
    )
    def test_distance_from_published_capacities(self, name, machine, layers, most_off):
        published = load_placement(name)
        capacities = {
            published.kv_capacity_token_layers[held.node]
            for held in published.layers
            if held.count == layers and published.part.machine_of(held.node).name == machine
        }
        (capacity,) = capacities
        extrapolated = extrapolated_kv_capacity(LLAMA70.profile(machine), layers)
        assert abs(extrapolated / capacity - 1) <= most_off

    def test_hetero42(self):
        placement = planned(HETERO42, LLAMA70, "separate", overfill=True)
        machines = [{HETERO42.nodes[n].machine for n in pipeline} for pipeline in pipelines(placement)]
        assert machines == [{"L4"}, {"L4x2"}, {"T4x4"}]
        for held in placement.layers:
            machine = HETERO42.nodes[held.node].machine
            profile = LLAMA70.profile(machine)
            assert held.count > profile.max_layers
            capacity = placement.kv_capacity_token_layers[held.node]
            assert capacity == extrapolated_kv_capacity(profile, held.count)
            assert capacity >= 3072 * held.count

    def test_plus(self):
        placement = planned(HETERO42, LLAMA70, "separate", overfill=True, plus=True)
        *_, mixed = pipelines(placement)
        counts = Counter(HETERO42.nodes[node].machine for node in mixed)
        assert counts == {"A100": 4, "V100": 6, "T4": 10, "T4x2": 6}
        assert {held.node for held in placement.layers} == set(range(42))

    def test_measured_numbers_stay_measured(self):
        assert not planned(SINGLE24, LLAMA30, "separate", overfill=True).kv_capacity_token_layers

    def test_what_does_not_fit_into_the_gpu(self):
        cluster = single_region({"V100": 6})  # 14 layers each would be 21 GB in 16 GB
        with pytest.raises(
            PlacementError, match=r"at most 36 fit into cluster 'single-region' \(6 V100 of 6\)"
        ):
            plan(cluster, LLAMA70, method="separate", overfill=True)
        small = replace(cluster, machines=[replace(cluster.machines[0], vram_bytes=5.5 * 1.53e9)])
        with pytest.raises(
            PlacementError,
            match=r"V100 with 1 layer .* takes 1.53 GB for weights and 11.29 GB for the KV cache",
        ):
            plan(small, LLAMA70, method="separate", overfill=True)

    def test_no_kv_cache_for_the_longest_request(self):
        with pytest.raises(PlacementError, match=r"at most 64 fit .*\(4 A100 of 16\)|A100 of 1\d"):
            plan(load_cluster("single24-a100"), LLAMA70, method="separate", overfill=True)


@pytest.mark.parametrize("method", ["swarm", "petals"])
def test_plans_of_many_equal_nodes_can_be_served(method):
    """More than twenty equal links leave the source, each with less than 5 % of its flow."""
    cluster, model = single_region({"T4x4": 42}, name="wide"), load_model("llama-1-30b")
    placement = plan(cluster, model, method=method)
    whole, passing = (max_flow(cluster, model, placement, small_links=rule) for rule in (None, "relative"))
    assert passing.value_tokens_per_s == pytest.approx(whole.value_tokens_per_s)
    assert max_flow(cluster, model, placement, small_links="paper").value_tokens_per_s == 0
