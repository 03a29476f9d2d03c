"""Every planner on clusters of every kind: a placement that serves, or a clear error."""

import itertools
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from helixlab.cluster import (
    Cluster,
    Coordinator,
    Link,
    Machine,
    Node,
    geo_distributed,
    random_sparse,
    single_region,
)
from helixlab.errors import HelixlabError, ModelError, PlacementError
from helixlab.flow import max_flow, upper_bound
from helixlab.model import MachineProfile, Model, load_model, model_names
from helixlab.placement import check_placement, held_by
from helixlab.planning import plan
from helixlab.planning.flow_kernel import flow_workspace, maximum_flow, network_of

MODELS = {name: load_model(name) for name in model_names()}
METHODS = ["petals", "swarm", "homogeneous", "separate"]
MACHINES = ["A100", "V100", "L4", "L4x2", "T4", "T4x2", "T4x4"]


@st.composite
def clusters(draw):
    """Draw a cluster of one of the three kinds, usually large enough to hold a model."""
    machines = st.dictionaries(st.sampled_from(MACHINES), st.integers(1, 12), min_size=1, max_size=3)
    seed = draw(st.integers(0, 1000))
    kind = draw(st.sampled_from(["single region", "geo-distributed", "sparse"]))
    if kind == "single region":
        return single_region(draw(machines), shuffle=draw(st.booleans()), rng=seed)
    if kind == "geo-distributed":
        regions = draw(st.lists(machines, min_size=1, max_size=3))
        return geo_distributed(regions, cross_region_bandwidth_spread_bytes_per_s=2.5e6, rng=seed)
    counts = draw(machines)
    size = sum(counts.values())
    degree = draw(st.floats(2 - 2 / size, max(size - 1, 2 - 2 / size)))
    return random_sparse(
        counts, degree=degree, coordinator_degree=draw(st.integers(1, size)), shuffle=True, rng=seed
    )


@settings(max_examples=100)
@given(
    cluster=clusters(),
    model_name=st.sampled_from(sorted(MODELS)),
    method=st.sampled_from(METHODS),
    data=st.data(),
)
def test_a_placement_that_serves_or_a_clear_error(cluster, model_name, method, data):
    model, options = MODELS[model_name], {}
    if method == "separate":
        options = {"overfill": data.draw(st.booleans()), "plus": data.draw(st.booleans())}
    rng = data.draw(st.integers(0, 10))
    try:
        placement = plan(cluster, model, method=method, rng=rng, **options)
    except PlacementError as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        reasons = ("fit into", "no machine type", "no link", "no path", "stages of")
        assert any(reason in message for reason in reasons)
        complete = len(cluster.links) == len(cluster.nodes) * (len(cluster.nodes) + 1)
        assert not complete or ("no path" not in message and "no link" not in message)
        return
    assert all(held_by(placement.layers, model.layers))
    ends = {(link.sender, link.receiver) for link in cluster.links}
    assert set(placement.links) <= ends
    flow = max_flow(cluster, model, placement).value_tokens_per_s
    assert flow > 0
    if not placement.kv_capacity_token_layers:
        assert flow <= upper_bound(cluster, model) * (1 + 1e-9)
    assert plan(cluster, model, method=method, rng=rng, **options) == placement


@settings(max_examples=20)
@given(cluster=clusters(), model_name=st.sampled_from(sorted(MODELS)), rng=st.integers(0, 10))
def test_no_placement_passes_the_bound_of_the_helix_planner(cluster, model_name, rng):
    model = MODELS[model_name]
    try:
        planned = plan(cluster, model, objective="flow", rng=rng, time_limit_s=0.2)
    except PlacementError:
        return  # other tests check the message
    placements = [planned]
    for method in METHODS:
        with suppress(PlacementError):
            placements.append(plan(cluster, model, method=method, rng=rng))
    flows = [max_flow(cluster, model, placement).value_tokens_per_s for placement in placements]
    assert flows[0] == pytest.approx(planned.report.objective_tokens_per_s, rel=1e-9)
    assert max(flows) <= planned.report.upper_bound_tokens_per_s * (1 + 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_links_missing_between_stages(method):
    # A tree of ten nodes: neighbours in the model are hardly ever all neighbours in the tree.
    messages = set()
    for seed in range(6):
        cluster = random_sparse({"A100": 10}, degree=1.8, coordinator_degree=1, rng=seed)
        try:
            plan(cluster, MODELS["llama-1-30b"], method=method, rng=seed)
        except PlacementError as error:
            messages.add(str(error))
    assert messages
    for message in messages:
        assert "has no link" in message or "no path from source to sink" in message
        assert "cluster 'random-sparse'" in message


@st.composite
def tiny(draw):
    """Draw a cluster of at most four nodes with any links, and a model of few layers."""
    number = st.integers
    profiles, machines = {}, []
    for name in ("big", "small")[: draw(number(1, 2))]:
        most = draw(number(1, 4))
        blocks = draw(st.sampled_from([(4000, 2000, 1300, 1000), (40, 20, 2, 1), (1, 1, 1, 1)]))
        profiles[name] = MachineProfile(
            name, (0, 64, 4096), (0.0, 0.001, 0.05), (0, 4, 512), (0.0, 0.0005, 0.003),
            blocks[:most], (2,) * most, (100,) * most, draw(number(1, most)), draw(number(1, most)),
            draw(st.sampled_from([1.0, 1e-3])),
        )  # fmt: skip
        machines.append(Machine(name, 40e9, draw(st.sampled_from([1.25e9, 1.25e9, 1e-12])), 1.25e9, 1e9))
    size = draw(number(1, 4))
    kinds = [draw(st.sampled_from(sorted(profiles))) for _ in range(size)]
    nodes = [Node(i, kind, region="ab"[draw(number(0, 1))]) for i, kind in enumerate(kinds)]
    ends = [("source", i) for i in range(size)] + [(i, "sink") for i in range(size)]
    ends += itertools.permutations(range(size), 2)
    bandwidth = st.sampled_from([1.25e9, 1.25e9, 1.25e9, 1e3, 1e-9, 1e-300, 1e17])
    links = [Link(a, b, draw(bandwidth), 1e-3) for a, b in draw(st.permutations(ends)) if draw(st.booleans())]
    try:
        cluster = Cluster("tiny", machines, nodes, links, Coordinator(1.25e9, 1.25e9))
    except HelixlabError:  # no link from or to the coordinator
        cluster = Cluster(
            "tiny", machines, nodes, [Link(*each, 1e9, 0) for each in ends], Coordinator(1e9, 1e9)
        )
    return cluster, Model("few-layers", draw(number(1, 4)), 1e9, 8.0, 16384.0, profiles)


def most_served(cluster, model):
    """Return the greatest flow of all placements."""
    network, workspace, layers = network_of(cluster, model), flow_workspace(len(cluster.nodes)), model.layers
    of_node = [
        [(0, 0), *((s, s + k) for k in range(1, most + 1) for s in range(layers - k + 1))]
        for most in network.most.tolist()
    ]
    flows = (
        maximum_flow(network, *np.array(spans, dtype=np.int64).T.copy(), layers, workspace)
        for spans in itertools.product(*of_node)
    )
    return max(flows)


def planned(*subject, **how):
    """Return a placement, or None if the planner reports that it finds none."""
    try:
        return plan(*subject, progress=False, **how)
    except HelixlabError as error:
        message = str(error)
    assert "\n" not in message
    return None


@settings(max_examples=30)
@given(subject=tiny(), seed=st.integers(0, 2**32))
def test_every_planner_on_what_may_be_infeasible(subject, seed):
    most = 0.0
    with suppress(ModelError):  # no machine has KV cache for a batch
        most = most_served(*subject)
        assert most <= upper_bound(*subject) * (1 + 1e-9)
    options = [{"method": method} for method in METHODS]
    options += [{"method": "separate", "plus": True, "overfill": True}, {"method": "paper-milp"}]
    options += [{"objective": "flow"}, {"objective": "flow", "time_limit_s": 1e-9}]
    for how in options:
        placement = planned(*subject, rng=seed, **how)
        if "objective" in how:
            assert (placement is not None) == (most > 0)
        if placement is None:
            continue
        check_placement(placement, *subject)
        flow, bound = max_flow(*subject, placement), placement.report.upper_bound_tokens_per_s
        assert flow.value_tokens_per_s > 0
        cut = flow.bottlenecks["capacity_tokens_per_s"].sum()
        assert cut == pytest.approx(flow.value_tokens_per_s, rel=1e-6)
        if most > 0 and not placement.kv_capacity_token_layers:
            assert flow.value_tokens_per_s <= most * (1 + 1e-6)
            assert bound is None or "objective" not in how or bound >= most * (1 - 1e-9)
        if "objective" in how and placement.report.status == "optimal":
            assert flow.value_tokens_per_s >= most * (1 - 2e-4)


def test_the_default_planner_where_nothing_can_be_served():
    """Each node is linked to one end of the coordinator, and not to the other node."""
    cluster = single_region({"A100": 2})
    ends = {("source", 0), (1, "sink")}
    links = [link for link in cluster.links if (link.sender, link.receiver) in ends]
    cluster = Cluster("apart", cluster.machines, cluster.nodes, links, cluster.coordinator)
    whole = MODELS["llama-1-30b"]
    model = Model("half", 20, whole.layer_bytes, whole.token_bytes, whole.activation_bytes, whole.profiles)
    for how in ({}, {"objective": "flow"}, {"time_limit_s": 1e-9}):
        with pytest.raises(PlacementError, match=r"no path from source to sink: .* the 20 layers of half"):
            plan(cluster, model, progress=False, **how)


@settings(max_examples=5)
@given(subject=tiny(), execution=st.sampled_from(["greedy", "chunked"]))
def test_planning_for_throughput_on_what_may_be_infeasible(subject, execution):
    placement = planned(*subject, execution=execution, time_limit_s=0.1)
    if placement is not None:
        check_placement(placement, *subject)
        assert max_flow(*subject, placement).value_tokens_per_s > 0
