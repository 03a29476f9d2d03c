"""Program of the paper: its size, its results compared with all placements, and its options."""

from dataclasses import replace
from itertools import product

import networkx as nx
import pytest
from hypothesis import given, settings, strategies as st

from helixlab._data import read_table
from helixlab.cluster import SINK, SOURCE, load_cluster, random_sparse, single_region
from helixlab.errors import HelixlabError, PlacementError
from helixlab.flow import max_flow, upper_bound
from helixlab.model import load_model
from helixlab.placement import NodeLayers, check_placement, held_by, load_placement, usable_links
from helixlab.planning import (
    PaperProgram,
    keep_fastest_links,
    plan,
    plan_paper_milp,
    planning_throughput,
    problem_size,
)
from helixlab.planning.solver import Solution

LLAMA30, LLAMA70 = load_model("llama-1-30b"), load_model("llama-2-70b")
SMALL10 = load_cluster("small10")
OPTIMUM_OF_SMALL10 = 286.5874097546422  # 63 minutes of Gurobi on 14 cores, by the published trace
SIZES = read_table("published/problem_sizes.csv").set_index("run")


def tiny(layers):
    """Return a model so small that all placements can be tried."""
    return replace(LLAMA30, name=f"llama-{layers}", layers=layers)


def flow_of(cluster, model, layers, *, partial_inference):
    """Return the flow of a placement as the program defines it, by networkx."""
    table, graph = planning_throughput(cluster, model), nx.DiGraph()
    graph.add_nodes_from((SOURCE, SINK))
    for held in layers:
        capacity = table[cluster.nodes[held.node].machine][held.count]
        graph.add_edge(("into", held.node), ("out of", held.node), capacity=capacity)
    for sender, receiver in usable_links(cluster, layers, model.layers, partial_inference=partial_inference):
        coordinated = SOURCE in (sender, receiver) or SINK in (sender, receiver)
        token_bytes = model.token_bytes if coordinated else model.activation_bytes
        graph.add_edge(
            sender if sender == SOURCE else ("out of", sender),
            receiver if receiver == SINK else ("into", receiver),
            capacity=cluster.link(sender, receiver).bandwidth_bytes_per_s / token_bytes,
        )
    return nx.maximum_flow_value(graph, SOURCE, SINK)


def best_of_all(cluster, model, **options):
    """Return the greatest flow of all placements that give every node a run of layers."""
    table = planning_throughput(cluster, model)
    runs = [
        [
            NodeLayers(node.index, first, first + count)
            for count in range(1, len(table[node.machine]))
            for first in range(model.layers - count + 1)
        ]
        for node in cluster.nodes
    ]
    whole = (layers for layers in product(*runs) if all(held_by(layers, model.layers)))
    return max((flow_of(cluster, model, layers, **options) for layers in whole), default=0.0)


@st.composite
def tiny_clusters(draw):
    """Draw two or three nodes with links of any speed, binding or not, some of them missing."""
    machines = st.dictionaries(st.sampled_from(["A100", "L4", "T4"]), st.integers(1, 2), min_size=1)
    counts = draw(machines.filter(lambda counts: 2 <= sum(counts.values()) <= 3))
    cluster = single_region(counts, shuffle=True, rng=draw(st.integers(0, 9)))
    if draw(st.booleans()):
        size = sum(counts.values())
        cluster = random_sparse(counts, degree=2 - 2 / size, coordinator_degree=size - 1, rng=1)
    speeds = st.sampled_from([13312.0 * rate for rate in (150, 400, 1500, 6000, 100_000)])
    links = [replace(link, bandwidth_bytes_per_s=draw(speeds)) for link in cluster.links]
    return replace(cluster, links=links)


class TestProgram:
    @pytest.mark.parametrize("run", SIZES.index)
    def test_published_sizes(self, run):
        cluster, _, pruning = run.partition("-")
        model = LLAMA30 if cluster == "small10" else LLAMA70
        size = problem_size(
            load_cluster(cluster), model, keep_links_per_node=12 if pruning == "pruned" else None
        )
        assert size == SIZES.loc[run].to_dict()

    def test_partial_inference_takes_two_more_binaries_for_each_link_between_nodes(self):
        exact, partial = (
            problem_size(SMALL10, LLAMA30, partial_inference=partial_inference)
            for partial_inference in (False, True)
        )
        assert partial["columns"] - exact["columns"] == 2 * 90
        assert partial["rows"] - exact["rows"] == 90

    @settings(max_examples=25)
    @given(cluster=tiny_clusters(), layers=st.integers(2, 4), partial_inference=st.booleans())
    def test_against_all_placements(self, cluster, layers, partial_inference):
        model = tiny(layers)
        best = best_of_all(cluster, model, partial_inference=partial_inference)
        if best == 0:
            with pytest.raises(PlacementError, match="there is none that serves anything: add links"):
                plan_paper_milp(cluster, model, partial_inference=partial_inference)
            return
        placement = plan_paper_milp(cluster, model, partial_inference=partial_inference)
        report = placement.report
        assert report.status == "optimal"
        assert report.objective_tokens_per_s == pytest.approx(best, rel=1e-4)
        assert report.upper_bound_tokens_per_s >= best * (1 - 1e-6)
        own = flow_of(cluster, model, placement.layers, partial_inference=partial_inference)
        assert own == pytest.approx(report.objective_tokens_per_s, rel=1e-5)
        # The flow graph sends the token along with its activation.
        flow = max_flow(cluster, model, placement).value_tokens_per_s
        assert flow == pytest.approx(own, rel=2 / 13312 + 1e-5)

    @pytest.mark.parametrize("name", ["geo24/llama-2-70b/helix", "hetero42/llama-2-70b/helix"])
    def test_a_placement_as_a_start(self, name):
        placement = load_placement(name)
        program = PaperProgram(keep_fastest_links(load_cluster(placement.cluster), 12), LLAMA70)
        for variable, values in program.start_from(placement).items():
            variable.value = values
        assert program.found() == tuple(sorted(placement.layers, key=lambda held: held.node))
        groups = [program.require_runs_of_layers, program.link_to_starts]
        groups += [program.begin_at_first_layer, program.end_at_last_layer]
        for group in groups:
            assert all(constraint.violation().max() == 0 for constraint in group())


class TestPruning:
    @pytest.mark.parametrize("name", ["geo24/llama-2-70b/helix", "hetero42/llama-2-70b/helix"])
    def test_published_links_are_kept(self, name):
        placement = load_placement(name)
        pruned = keep_fastest_links(load_cluster(placement.cluster), 12)
        kept = usable_links(pruned, placement.layers, 80, partial_inference=False)
        assert set(placement.links) <= set(kept)
        assert len(kept) <= len(placement.links) + 3

    def test_each_end_keeps_its_fastest(self):
        cluster = load_cluster("geo24")
        pruned = keep_fastest_links(cluster, 3)
        kept = set(pruned.links)
        assert [link for link in cluster.links if link in kept] == list(pruned.links)
        for end in ("sender", "receiver"):
            for node in cluster.nodes:
                own = [link for link in cluster.links if getattr(link, end) == node.index]
                own = [link for link in own if link.sender != SOURCE and link.receiver != SINK]
                speeds = sorted(link.bandwidth_bytes_per_s for link in own)
                assert all(link in kept for link in own if link.bandwidth_bytes_per_s > speeds[-4])

    def test_more_than_there_are(self):
        assert keep_fastest_links(SMALL10, 99) == SMALL10

    @pytest.mark.parametrize("count", [0, -1, 2.5, True])
    def test_wrong_count(self, count):
        with pytest.raises(PlacementError, match=r"keep_links_per_node is .*; give 1 or more"):
            plan(SMALL10, LLAMA30, method="paper-milp", keep_links_per_node=count)


class TestPlan:
    @pytest.mark.parametrize("partial_inference", [False, True])
    def test_small10(self, partial_inference):
        placement = plan(
            SMALL10,
            LLAMA30,
            method="paper-milp",
            target_tokens_per_s=OPTIMUM_OF_SMALL10 * (1 - 1e-9),
            partial_inference=partial_inference,
        )
        assert placement.name == "small10/llama-1-30b/paper-milp"
        assert placement.report.status == "target reached"
        assert placement.report.objective_tokens_per_s == pytest.approx(OPTIMUM_OF_SMALL10)
        flow = max_flow(SMALL10, LLAMA30, placement).value_tokens_per_s
        assert flow == pytest.approx(OPTIMUM_OF_SMALL10)

    def test_the_start_is_kept_when_time_is_up(self):
        start = plan(SMALL10, LLAMA30, method="homogeneous")
        placement = plan_paper_milp(SMALL10, LLAMA30, start=start, time_limit_s=0.5)
        least = max_flow(SMALL10, LLAMA30, start).value_tokens_per_s
        report = placement.report
        assert report.status == "time limit"
        assert report.objective_tokens_per_s >= least * (1 - 1e-6)
        assert report.trace[0][1] == pytest.approx(least)
        check_placement(placement, SMALL10, LLAMA30)

    @pytest.mark.parametrize(
        ("keep", "tokens_per_s"),
        # With 4 links a node, the nodes of the published heuristics are not linked; a chain of others is.
        [(9, OPTIMUM_OF_SMALL10), (4, 193.4964086)],
    )
    def test_pruned(self, keep, tokens_per_s):
        placement = plan(
            SMALL10, LLAMA30, method="paper-milp", keep_links_per_node=keep, target_tokens_per_s=1
        )
        assert placement.report.objective_tokens_per_s == pytest.approx(tokens_per_s)
        assert max_flow(SMALL10, LLAMA30, placement).value_tokens_per_s == pytest.approx(tokens_per_s)
        assert set(placement.links) == set(
            usable_links(keep_fastest_links(SMALL10, keep), placement.layers, 60, partial_inference=False)
        )

    def test_to_the_end(self):
        cluster, model = single_region({"A100": 1, "L4": 2}), tiny(6)
        placement = plan_paper_milp(cluster, model, start=None)
        report = placement.report
        assert report.status == "optimal"
        assert report.gap == pytest.approx(0, abs=1e-4)
        assert report.objective_tokens_per_s <= upper_bound(cluster, model) * (1 + 1e-6)

    @pytest.mark.parametrize("partial_inference", [False, True])
    def test_a_single_node(self, partial_inference):
        cluster = single_region({"A100": 1})
        placement = plan(cluster, tiny(3), method="paper-milp", partial_inference=partial_inference)
        assert placement.layers == (NodeLayers(0, 0, 3),)
        assert placement.report.status == "optimal"

    def test_the_seed_decides(self):
        one, two = (plan_paper_milp(SMALL10, LLAMA30, target_tokens_per_s=1, rng=3) for _ in range(2))
        assert one == two

    def test_nothing_found_in_time(self):
        message = r"found no placement of llama-2-70b on 'single24' in .* s \(time limit\); give it more time"
        with pytest.raises(PlacementError, match=message):
            plan(load_cluster("single24"), LLAMA70, method="paper-milp", start=None, time_limit_s=0.01)

    def test_a_flow_that_comes_of_rounding_is_no_placement(self, monkeypatch):
        noise = PaperProgram(SMALL10, LLAMA30).noise_tokens_per_s
        assert 0 < noise < 0.1
        found = Solution("time limit", noise / 2, 1000.0, None, 3.0, ())
        monkeypatch.setattr("helixlab.planning.paper_milp.solve_problem", lambda *_, **__: found)
        with pytest.raises(PlacementError, match=r"found no placement .* in 3.0 s \(time limit\)"):
            plan_paper_milp(SMALL10, LLAMA30)

    def test_a_cluster_without_capacity(self):
        with pytest.raises(PlacementError, match="at most 52 fit into cluster 'small10'"):
            plan(SMALL10, LLAMA70, method="paper-milp")

    def test_machines_that_serve_nothing_are_left_out(self):
        useless = replace(LLAMA30.profile("T4"), kv_blocks=(1,) * 7)
        cluster, model = single_region({"A100": 4, "T4": 2}), LLAMA30.with_profile(useless)
        placement = plan_paper_milp(cluster, model, target_tokens_per_s=1)
        assert {cluster.nodes[held.node].machine for held in placement.layers} == {"A100"}

    @pytest.mark.parametrize("start", ["petals", "best"])
    def test_a_start_by_a_wrong_name(self, start):
        with pytest.raises(
            PlacementError, match=f"start is '{start}'; give a placement, 'heuristics' or None"
        ):
            plan(SMALL10, LLAMA30, method="paper-milp", start=start)

    def test_a_start_that_cannot_be_expressed(self):
        start = plan(SMALL10, LLAMA30, method="homogeneous")
        overfull = replace(start, layers=[NodeLayers(0, 0, 40), *start.layers[1:]])
        with pytest.raises(
            PlacementError, match=r"its node 0 holds layers \[0, 40\), 7 layers of 60 are allowed"
        ):
            plan(SMALL10, LLAMA30, method="paper-milp", start=overfull)

    def test_progress_is_shown_on_stderr(self, capsys):
        start = plan(SMALL10, LLAMA30, method="homogeneous")
        plan(SMALL10, LLAMA30, method="paper-milp", start=start, time_limit_s=0.5, progress=True)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "paper-milp: 00:00" in shown.err
        assert "incumbent=193.5" in shown.err


@pytest.mark.parametrize(
    "options",
    [{"start": 5}, {"stall_s": -1}, {"stall_s": "x"}, {"target_tokens_per_s": "x"}, {"relative_gap": -1}],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(HelixlabError, match=r" is .*; give "):
        plan(load_cluster("small10"), load_model("llama-1-30b"), method="paper-milp", **options)
