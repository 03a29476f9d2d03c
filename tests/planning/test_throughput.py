"""Planning for throughput: accuracy of predictions, and gain over the placements it starts from."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import spearmanr

import helixlab as hx
from helixlab.errors import HelixlabError, PlacementError, UnknownNameError
from helixlab.planning.helix import plan_helix
from helixlab.planning.layout import Layout, layout_of, placement_of
from helixlab.planning.record import SearchClock
from helixlab.planning.throughput import Trials, chain_layout, divisions, refine

LLAMA30, LLAMA70 = hx.load_model("llama-1-30b"), hx.load_model("llama-2-70b")
SMALL10, SINGLE24 = hx.load_cluster("small10"), hx.load_cluster("single24")
POLICIES = pytest.mark.parametrize("execution", ["greedy", "chunked"])
PLACEMENTS = [
    f"{cluster}/llama-2-70b/{name}"
    for cluster in ("single24", "geo24")
    for name in ("helix", "petals", "swarm")
]


def simulated(cluster, model, placement, execution, seconds=300):
    result = hx.simulate(
        cluster, model, placement, execution=execution,
        workload=hx.offline(warmup_s=seconds, duration_s=seconds), sample_step_s=0, keep_iterations=False,
    )  # fmt: skip
    return result.metrics["decode_tokens_per_s"]


def trials(cluster=SMALL10, model=LLAMA30, limit_s=None):
    return Trials(cluster, model, "greedy", np.random.default_rng(0), SearchClock(limit_s, lambda *_: None))


class TestPredict:
    @POLICIES
    def test_published_placements(self, execution):
        """Predictions are within 30% of simulations, and in nearly the same order."""
        pairs = []
        for name in PLACEMENTS:
            cluster, placement = hx.load_cluster(name.split("/")[0]), hx.load_placement(name)
            predicted = hx.predict(cluster, LLAMA70, placement, execution=execution)
            pairs.append(
                (predicted.decode_tokens_per_s, simulated(cluster, LLAMA70, placement, execution, 600))
            )
        predicted, served = np.array(pairs).T
        assert np.abs(predicted / served - 1).max() < 0.3
        assert spearmanr(predicted, served).statistic > 0.8

    @POLICIES
    def test_little(self, execution):
        """Requests in flight are those that arrive during the stay of one (Little's law)."""
        placement = hx.load_placement("small10/llama-1-30b/helix")
        found = hx.predict(SMALL10, LLAMA30, placement, execution=execution)
        output = 232.0
        stay_s = found.prompt_latency_s + output * found.decode_latency_s
        assert found.decode_tokens_per_s / output * stay_s == pytest.approx(
            found.requests_in_flight, rel=0.01
        )

    def test_requests_in_flight(self):
        """The prediction agrees with the simulation."""
        placement = hx.load_placement("single24/llama-2-70b/example-ilp")
        found = hx.predict(SINGLE24, LLAMA70, placement)
        result = hx.simulate(
            SINGLE24, LLAMA70, placement, workload=hx.offline(warmup_s=300, duration_s=200), sample_step_s=5
        )
        window = result.timeline[result.timeline["time_s"] > result.metrics["window_start_s"]]
        assert found.requests_in_flight == pytest.approx(window["in_flight"].mean(), rel=0.05)

    @given(factor=st.floats(1.0, 4.0))
    @settings(max_examples=10)
    def test_slower_prompts_never_help(self, factor):
        placement = hx.load_placement("small10/llama-1-30b/helix")
        slow = hx.predict(
            SMALL10, LLAMA30, placement, execution=hx.Execution("slow", prompt_cost_factor=factor)
        )
        quick = hx.predict(SMALL10, LLAMA30, placement)
        assert slow.decode_tokens_per_s <= quick.decode_tokens_per_s * (1 + 1e-9)

    def test_stated_capacities(self):
        name = next(name for name in hx.placement_names() if hx.load_placement(name).kv_capacity_token_layers)
        placement = hx.load_placement(name)
        cluster, model = hx.load_cluster(name.split("/")[0]), hx.load_model(placement.model)
        with pytest.raises(PlacementError, match="states KV capacities of its own"):
            hx.predict(cluster, model, placement)

    @POLICIES
    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_the_order_of_the_nodes_does_not_matter(self, execution, seed):
        layout = layout_of(hx.load_placement("small10/llama-1-30b/helix"), 10)
        order = np.random.default_rng(seed).permutation(10).tolist()
        place = {node: number for number, node in enumerate(order)} | {"source": "source", "sink": "sink"}
        nodes = tuple(replace(SMALL10.nodes[node], index=number) for number, node in enumerate(order))
        links = {
            (place[link.sender], place[link.receiver]): replace(
                link, sender=place[link.sender], receiver=place[link.receiver]
            )
            for link in SMALL10.links
        }
        shuffled = replace(SMALL10, nodes=nodes, links=tuple(links.values()))
        mixed = Layout(tuple(layout.start[n] for n in order), tuple(layout.end[n] for n in order))
        one, other = (
            hx.predict(cluster, LLAMA30, placement_of(each, cluster, LLAMA30), execution=execution)
            for cluster, each in ((SMALL10, layout), (shuffled, mixed))
        )
        assert one.decode_tokens_per_s == pytest.approx(other.decode_tokens_per_s, rel=1e-6)
        assert one.requests_in_flight == pytest.approx(other.requests_in_flight, rel=1e-6)

    @POLICIES
    @pytest.mark.parametrize("number", range(5))
    def test_groups_that_share_nothing_add_up(self, execution, number):
        """Groups serve together what each serves alone, unless a full one delays the others."""
        group = divisions(SINGLE24, LLAMA30)[number]
        layout = chain_layout(SINGLE24, LLAMA30, group)
        together = hx.predict(SINGLE24, LLAMA30, placement_of(layout, SINGLE24, LLAMA30), execution=execution)
        alone = []
        for own in range(max(group) + 1):
            part = [(s, e) if of == own else (0, 0) for s, e, of in zip(*layout, strict=True)]
            placement = placement_of(Layout(*zip(*part, strict=True)), SINGLE24, LLAMA30)
            alone.append(hx.predict(SINGLE24, LLAMA30, placement, execution=execution))
        served = sum(found.decode_tokens_per_s for found in alone)
        assert together.decode_tokens_per_s == pytest.approx(served, rel=0.02)
        assert together.requests_in_flight == pytest.approx(
            sum(found.requests_in_flight for found in alone), rel=0.02
        )


class TestPlan:
    @POLICIES
    def test_serves_more_than_the_plan_of_greatest_flow(self, execution):
        planned = hx.plan(SMALL10, LLAMA30, execution=execution, time_limit_s=8)
        for_flow = hx.plan(SMALL10, LLAMA30, objective="flow")
        served = simulated(SMALL10, LLAMA30, planned, execution)
        assert served >= 0.97 * simulated(SMALL10, LLAMA30, for_flow, execution)
        report = planned.report
        assert report.objective_tokens_per_s == pytest.approx(served, rel=0.1)
        assert report.upper_bound_tokens_per_s is None
        seconds, best, _ = zip(*report.trace, strict=True)
        assert list(seconds) == sorted(seconds)
        assert list(best) == sorted(best)

    def test_what_ends_the_search(self):
        assert hx.plan(SMALL10, LLAMA30, time_limit_s=2).report.status == "time limit"

    def test_unknown_objective(self):
        with pytest.raises(UnknownNameError, match="planning objective 'flows'"):
            plan_helix(SMALL10, LLAMA30, objective="flows")

    @pytest.mark.parametrize("group", [(), (0, 0, 0, 1, 1, 1, 1, 1, 1, 1)])
    def test_walks_stay_placements(self, group):
        begin = layout_of(hx.load_placement("small10/llama-1-30b/helix"), 10)._replace(group=group)
        if group:
            begin = chain_layout(SMALL10, LLAMA30, group)
        with ThreadPoolExecutor(2) as executor:
            alone = trials().anneal([begin], [0.1], 2000, executor)
            beside = trials().anneal([begin] * 4, [0.1] * 4, 2000, executor)
            again = trials().anneal([begin] * 4, [0.1] * 4, 2000, executor)
        (best, last), *others = beside
        assert alone == [(best, last)]
        assert others != [(best, last)] * 3, "each walks its own way"
        assert again == beside
        assert trials().predicted(best) >= trials().predicted(begin)
        for layout in (best, last):
            assert layout.group == group
            hx.check_placement(placement_of(layout, SMALL10, LLAMA30), SMALL10, LLAMA30)

    def test_ctrl_c_keeps_the_best_so_far(self, monkeypatch):
        simulate, calls = Trials.simulate, []

        def interrupted(trials, several, executor):
            calls.append(several)
            if len(calls) > 2:
                raise KeyboardInterrupt
            simulate(trials, several, executor)

        monkeypatch.setattr(Trials, "simulate", interrupted)
        with pytest.warns(UserWarning, match="interrupted"):
            report = hx.plan(SMALL10, LLAMA30).report
        assert report.status == "interrupted"
        assert report.objective_tokens_per_s > 0

    def test_ctrl_c_before_anything_is_simulated(self, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(Trials, "anneal", interrupted)
        with pytest.warns(UserWarning, match="interrupted"):
            planned = hx.plan(SMALL10, LLAMA30)
        assert planned.report.status == "interrupted"
        assert planned.report.objective_tokens_per_s is None
        assert hx.max_flow(SMALL10, LLAMA30, planned).value_tokens_per_s > 286

    def test_simulations_are_made_to_fit_the_time_limit(self, monkeypatch):
        """A layout with great throughput takes long to simulate."""
        windows = []

        def note(cluster, model, placement, *, workload, **options):
            windows.append(workload.duration_s)
            return hx.simulate(
                cluster, model, placement, **options, workload=hx.offline(warmup_s=1.0, duration_s=1.0)
            )

        monkeypatch.setattr("helixlab.planning.throughput.simulate", note)
        layout = layout_of(hx.load_placement("small10/llama-1-30b/helix"), 10)
        for limit_s in (None, 1e9, 1e-6):
            tried = trials(limit_s=limit_s)
            tried.fit_in(layout)
            tried.short_run(layout)
        assert windows == [600.0, 30.0, 600.0, 30.0, 30.0]

    @pytest.mark.parametrize(
        "options", [{"n_jobs": 0}, {"n_jobs": "2"}, {"execution": 5}, {"execution": "gredy"}]
    )
    def test_arguments_that_make_no_sense(self, options):
        with pytest.raises(HelixlabError, match=r"n_jobs is|execution policy"):
            hx.plan(SMALL10, LLAMA30, **options)

    def test_starts_without_a_path(self):
        """A placement that serves nothing is no start, and without starts there is no plan."""
        nothing = Layout((0,) * 10, (1,) * 10)
        with pytest.raises(PlacementError, match="has a predicted throughput of zero"):
            refine(trials(), [[nothing]], n_jobs=1)


def test_predictions_survive_rounding_errors_of_the_flow():
    """A node that gets a billionth of the flow, which leads nowhere, is no dead end of the others."""
    machine = next(each for each in hx.load_cluster("hetero42").machines if each.name == "T4x4")
    model, first, second = hx.load_model("llama-1-30b"), [0, 1, 2], [3, 4]
    pairs = [("source", i) for i in first] + [(i, j) for i in first for j in second]
    links = [hx.Link(*pair, 1.25e9, 1e-3) for pair in [*pairs, *((j, "sink") for j in second)]]
    nodes = [hx.Node(i, "T4x4") for i in range(5)]
    cluster = hx.Cluster("stages", [machine], nodes, links, hx.Coordinator(1.25e9, 1.25e9))
    layers = [hx.NodeLayers(i, 0, 30) if i in first else hx.NodeLayers(i, 30, 60) for i in range(5)]
    ends = tuple((link.sender, link.receiver) for link in links)
    placement = hx.Placement("stages/mine", "stages", model.name, "mine", layers, ends)
    flow = hx.max_flow(cluster, model, placement)
    served = hx.simulate(cluster, model, placement, workload=hx.offline(warmup_s=60, duration_s=60))
    assert 0 < min(tokens for tokens in flow.on_link.values() if tokens > 0) < 1e-6
    predicted = hx.predict(cluster, model, placement).decode_tokens_per_s
    assert 0.5 < predicted / served.metrics["decode_tokens_per_s"] < 2
