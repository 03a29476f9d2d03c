"""Helix planner: its flow and its proofs, compared with an exhaustive search of all placements."""

from dataclasses import replace
from itertools import pairwise, product

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from helixlab.cluster import SINK, SOURCE, geo_distributed, load_cluster, random_sparse, single_region
from helixlab.errors import PlacementError, UnknownNameError
from helixlab.flow import max_flow, upper_bound
from helixlab.model import load_model
from helixlab.placement import NodeLayers, Placement, held_by
from helixlab.placement.placement import usable_links
from helixlab.planning import helix_candidates, plan, planning_throughput
from helixlab.planning.flow_kernel import flow_workspace, maximum_flow, network_of
from helixlab.planning.prices import coverage_bound, layer_prices
from helixlab.plotting import plot_placement

LLAMA30, LLAMA70 = load_model("llama-1-30b"), load_model("llama-2-70b")
TINY = replace(LLAMA30, name="tiny", layers=6)


def flow_of(cluster, model, placement):
    return max_flow(cluster, model, placement).value_tokens_per_s


def best_of_all(cluster, model):
    """Return the greatest maximum flow of all placements."""
    network, size = network_of(cluster, model), len(cluster.nodes)
    spans = [
        [(0, 0)] + [(s, s + k) for k in range(1, most + 1) for s in range(model.layers - k + 1)]
        for most in network.most.tolist()
    ]
    workspace, best = flow_workspace(size), 0.0
    for choice in product(*spans):
        start, end = np.array(choice, dtype=np.int64).T.copy()
        best = max(best, maximum_flow(network, start, end, model.layers, workspace))
    return best


class TestTargets:
    @pytest.mark.parametrize(
        ("cluster", "model", "least", "bound"),
        [
            ("single24", LLAMA70, 2045.64, 2045.65),
            ("small10", LLAMA30, 286.587, 286.616),
            ("single24", LLAMA30, 1517.73, 1517.89),
        ],
    )
    def test_optimal(self, cluster, model, least, bound):
        cluster = load_cluster(cluster)
        placement = plan(cluster, model, method="helix", objective="flow")
        report = placement.report
        assert report.status == "optimal"
        assert report.gap <= 1e-4
        assert least <= report.objective_tokens_per_s <= report.upper_bound_tokens_per_s <= bound
        assert flow_of(cluster, model, placement) == pytest.approx(report.objective_tokens_per_s, rel=1e-9)
        seconds, flows, bounds = zip(*report.trace, strict=True)
        assert list(seconds) == sorted(seconds)
        assert list(flows) == sorted(flows)
        assert list(bounds) == sorted(bounds, reverse=True)
        assert (flows[-1], bounds[-1]) == (report.objective_tokens_per_s, report.upper_bound_tokens_per_s)


class TestBound:
    def test_the_whole_model_on_a_node_passes_no_activations(self):
        """The network card of such a node carries tokens alone, and may be too slow for activations."""
        cluster = single_region({"A100": 2, "T4": 2})
        slow = (
            replace(machine, nic_in_bytes_per_s=2.5e6, nic_out_bytes_per_s=2.5e6)
            for machine in cluster.machines
        )
        cluster = replace(cluster, machines=tuple(slow))
        report = plan(cluster, TINY, objective="flow").report
        assert report.objective_tokens_per_s > 2.5e6 / TINY.activation_bytes
        assert report.upper_bound_tokens_per_s >= report.objective_tokens_per_s

    @settings(max_examples=12, deadline=None)
    @given(
        cards=st.tuples(*[st.tuples(*[st.sampled_from([1e4, 1e6, 1e7, 1e9])] * 2)] * 3),
        layers=st.integers(1, 6),
        most=st.integers(2, 4),
    )
    def test_cards_that_bind_one_way(self, cards, layers, most):
        """The first node of a pipeline receives no activations, and the last one sends none."""
        cluster = single_region({"A100": 1, "L4": 1, "T4": 1})
        machines = (
            replace(machine, nic_in_bytes_per_s=card_in, nic_out_bytes_per_s=card_out)
            for machine, (card_in, card_out) in zip(cluster.machines, cards, strict=True)
        )
        cluster = replace(cluster, machines=tuple(machines))
        profiles = {
            machine: replace_limits(LLAMA30.profile(machine), most) for machine in ("A100", "L4", "T4")
        }
        model = replace(LLAMA30, name="few", layers=layers, profiles=profiles)
        best = best_of_all(cluster, model)
        report = plan(cluster, model, objective="flow", time_limit_s=1).report
        assert report.upper_bound_tokens_per_s >= best * (1 - 1e-9)
        assert report.objective_tokens_per_s <= best * (1 + 1e-9)
        if report.status == "optimal":
            assert report.objective_tokens_per_s >= best * (1 - 1e-4)


class TestCoverage:
    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_flow_is_the_least_cover_where_links_do_not_bind(self, data):
        cluster = single_region({"A100": 3, "L4": 3, "T4": 3}, bandwidth_bytes_per_s=1.25e9)
        table = planning_throughput(cluster, LLAMA30)
        layers, reached = [], 0
        for node in cluster.nodes:
            most = len(table[node.machine]) - 1
            count = data.draw(st.integers(1, most))
            first = reached % 60 if data.draw(st.booleans()) else data.draw(st.integers(0, 59))
            layers.append(NodeLayers(node.index, first, min(first + count, 60)))
            reached = layers[-1].end_layer
        cover = np.zeros(60)
        for held in layers:
            cover[held.first_layer : held.end_layer] += table[cluster.nodes[held.node].machine][held.count]
        if not all(held_by(layers, 60)):
            return
        links = usable_links(cluster, layers, 60)
        placement = Placement("x", cluster.name, LLAMA30.name, "by hand", tuple(layers), links)
        assert flow_of(cluster, LLAMA30, placement) == pytest.approx(cover.min(), rel=1e-9)

    def test_prices_of_covers(self):
        table = planning_throughput(load_cluster("hetero42"), LLAMA70)
        counts = list(load_cluster("hetero42").machine_counts().values())
        prices = layer_prices(list(table.values()), counts, 5900.0)
        rng = np.random.default_rng(0)
        for _ in range(2000):
            taken = rng.choice(len(prices.kind), size=rng.integers(1, 12))
            if prices.speed[taken].sum() >= 5900:
                assert prices.price[taken].sum() >= 1
        assert prices.most_layers == pytest.approx(81.12, abs=0.1)

    def test_the_bound_is_below_that_by_amounts(self):
        cluster = load_cluster("hetero42")
        table, counts = planning_throughput(cluster, LLAMA70), cluster.machine_counts()
        most = upper_bound(cluster, LLAMA70)
        bound = coverage_bound([table[m] for m in counts], list(counts.values()), 80, most)
        assert 6050.77 <= bound <= 6053 < most


class TestEveryPlacement:
    @settings(max_examples=12, deadline=None)
    @given(machines=st.lists(st.sampled_from(["A100", "L4", "T4"]), min_size=2, max_size=3))
    def test_one_region(self, machines):
        cluster = single_region({machine: machines.count(machine) for machine in machines})
        best = best_of_all(cluster, TINY)
        report = plan(cluster, TINY, method="helix", objective="flow").report
        assert report.status == "optimal"
        assert report.objective_tokens_per_s >= best * (1 - 1e-4)
        assert (
            report.objective_tokens_per_s <= best * (1 + 1e-9) <= report.upper_bound_tokens_per_s * (1 + 2e-9)
        )

    @settings(max_examples=15, deadline=None)
    @given(
        regions=st.sampled_from(
            [["A100", "L4"], ["T4", "T4", "L4"], ["L4", "T4", "T4"], ["A100", "T4", "T4"]]
        ),
        bandwidth=st.sampled_from([1e6, 3e6, 8e6, 2e7]),
        layers=st.integers(4, 7),
        seed=st.integers(0, 100),
    )
    def test_links_that_bind(self, regions, bandwidth, layers, seed):
        cluster = geo_distributed(
            [{machine: 1} for machine in regions],
            cross_region_bandwidth_bytes_per_s=bandwidth,
            cross_region_bandwidth_spread_bytes_per_s=bandwidth / 2,
            rng=seed,
        )
        profiles = LLAMA30.profiles.values()
        few = {p.machine: replace_limits(p, 3) for p in profiles if p.machine in regions}
        model = replace(LLAMA30, name="few", layers=layers, profiles=few)
        if sum(3 for _ in regions) < layers:
            return
        best = best_of_all(cluster, model)
        report = plan(cluster, model, method="helix", objective="flow").report
        assert report.objective_tokens_per_s <= best * (1 + 1e-9)
        assert report.upper_bound_tokens_per_s >= best * (1 - 1e-9)
        assert report.objective_tokens_per_s >= best * 0.99


def replace_limits(profile, most):
    """Return the profile of a machine that holds fewer layers."""
    return replace(
        profile,
        kv_blocks=profile.kv_blocks[:most],
        max_prompt_requests=profile.max_prompt_requests[:most],
        max_decode_tokens=profile.max_decode_tokens[:most],
        typical_layers=min(profile.typical_layers, most),
        typical_layers_when_tight=min(profile.typical_layers_when_tight, most),
    )


class TestClusters:
    def test_all_alike(self):
        cluster = single_region({"A100": 8})
        placement = plan(cluster, LLAMA70, method="helix", objective="flow")
        assert placement.report.status == "optimal"
        assert flow_of(cluster, LLAMA70, placement) > 952

    @pytest.mark.parametrize("counts", [{"A100": 8, "T4": 1}, {"A100": 1, "T4": 12}])
    def test_one_odd_machine(self, counts):
        assert (
            plan(single_region(counts), LLAMA30, method="helix", objective="flow").report.status == "optimal"
        )

    def test_too_small(self):
        with pytest.raises(
            PlacementError, match=r"at most 36 fit into cluster 'single-region' \(3 A100 of 12\)"
        ):
            plan(single_region({"A100": 3}), LLAMA70, method="helix", objective="flow")

    def test_no_path(self):
        messages = set()
        for seed in range(2):
            cluster = random_sparse({"A100": 10}, degree=1.8, coordinator_degree=1, rng=seed)
            try:
                placement = plan(cluster, LLAMA30, method="helix", objective="flow", time_limit_s=1)
            except PlacementError as error:
                messages.add(str(error))
            else:
                assert flow_of(cluster, LLAMA30, placement) > 0
        for message in messages:
            assert "no path from source to sink" in message

    @pytest.mark.parametrize("objective", ["flow", "throughput"])
    @pytest.mark.parametrize("seed", range(3))
    def test_the_only_path(self, objective, seed):
        """A chain of links, in an order that no planner would guess."""
        cluster = single_region({"A100": 4, "T4": 4})
        order = np.random.default_rng(seed).permutation(8).tolist()
        path = [SOURCE, *order, SINK]
        there = set(pairwise(path))
        links = tuple(link for link in cluster.links if (link.sender, link.receiver) in there)
        cluster = replace(cluster, links=links)
        most = [len(values) - 1 for values in planning_throughput(cluster, LLAMA30).values()]
        model = replace(LLAMA30, name="all of it", layers=4 * sum(most))
        placement = plan(cluster, model, objective=objective, time_limit_s=2)
        assert set(placement.links) == there
        assert [held.node for held in sorted(placement.layers, key=lambda held: held.first_layer)] == order

    def test_unknown_objective(self):
        with pytest.raises(UnknownNameError, match="objective"):
            plan(load_cluster("small10"), LLAMA30, method="helix", objective="fun")


class TestLinksThatBind:
    def test_geo24(self):
        cluster = load_cluster("geo24")
        placement = plan(cluster, LLAMA70, method="helix", objective="flow", time_limit_s=60)
        assert placement.report.objective_tokens_per_s >= 1480
        assert placement.report.upper_bound_tokens_per_s < 1760
        flow = flow_of(cluster, LLAMA70, placement)
        assert flow == pytest.approx(placement.report.objective_tokens_per_s, rel=1e-9)


class TestManners:
    def test_anytime(self):
        cluster = load_cluster("hetero42")
        placement = plan(cluster, LLAMA70, method="helix", objective="flow", time_limit_s=0.01)
        report = placement.report
        assert report.status == "time limit"
        assert 0 < flow_of(cluster, LLAMA70, placement) <= report.upper_bound_tokens_per_s
        assert report.gap is not None

    @pytest.mark.parametrize("name", ["single24", "small10"])
    def test_the_seed_decides(self, name):
        cluster = load_cluster(name)
        one, same = (plan(cluster, LLAMA30, method="helix", objective="flow", rng=4) for _ in range(2))
        assert one.layers == same.layers
        assert [row[1:] for row in one.report.trace] == [row[1:] for row in same.report.trace]

    def test_candidates(self):
        cluster = load_cluster("single24")
        found = helix_candidates(cluster, LLAMA70, count=4)
        flows = [flow_of(cluster, LLAMA70, placement) for placement in found]
        assert len({placement.layers for placement in found}) == len(found) > 1
        assert flows == sorted(flows, reverse=True)
        assert [p.report.objective_tokens_per_s for p in found] == pytest.approx(flows, rel=1e-9)


@pytest.mark.parametrize("objective", ["flow", "throughput"])
def test_ctrl_c_keeps_the_best_so_far(objective, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("helixlab.planning.helix.regions_of", interrupt)
    cluster = load_cluster("small10")
    with pytest.warns(UserWarning, match="interrupted; the placement is the best that was found so far"):
        placement = plan(cluster, LLAMA30, objective=objective)
    assert placement.report.status == "interrupted"
    assert placement.name == "small10/llama-1-30b/helix (interrupted)"
    ax = plot_placement(cluster, placement)
    assert "interrupted search" in [text.get_text() for text in ax.texts]
    plt.close(ax.figure)
    assert flow_of(cluster, LLAMA30, placement) > 0
