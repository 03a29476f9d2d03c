"""Every planner on clusters of every kind: a placement that serves, or a clear error."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helixlab.cluster import geo_distributed, random_sparse, single_region
from helixlab.errors import PlacementError
from helixlab.flow import max_flow, upper_bound
from helixlab.model import load_model, model_names
from helixlab.placement import held_by
from helixlab.planning import plan

MODELS = {name: load_model(name) for name in model_names()}
METHODS = ["petals", "swarm", "homogeneous", "separate"]
MACHINES = ["A100", "V100", "L4", "L4x2", "T4", "T4x2", "T4x4"]


@st.composite
def clusters(draw):
    """A cluster of one of the three kinds, large enough to hold a model more often than not."""
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
        return  # the others tell why
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
