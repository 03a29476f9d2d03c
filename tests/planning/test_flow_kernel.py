"""Compiled maximum flow, compared with that of networkx."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from helixlab.cluster import geo_distributed, load_cluster, random_sparse, single_region
from helixlab.errors import PlacementError
from helixlab.flow import max_flow
from helixlab.model import load_model
from helixlab.placement import NodeLayers, Placement, load_placement
from helixlab.placement.placement import usable_links
from helixlab.planning.flow_kernel import flow_workspace, maximum_flow, network_of

LLAMA30, LLAMA70 = load_model("llama-1-30b"), load_model("llama-2-70b")


def served(cluster, model, layers):
    network, size = network_of(cluster, model), len(cluster.nodes)
    start, end = np.zeros((2, size), dtype=np.int64)
    for held in layers:
        start[held.node], end[held.node] = held.first_layer, held.end_layer
    return maximum_flow(network, start, end, model.layers, flow_workspace(size))


def with_all_links(cluster, model, layers):
    links = usable_links(cluster, layers, model.layers)
    return Placement("by hand", cluster.name, model.name, "by hand", tuple(layers), links)


@st.composite
def networks(draw):
    """Draw a cluster whose links and network cards may bind, in most cases with several regions."""
    seed, kind = draw(st.integers(0, 10_000)), draw(st.sampled_from(["geo", "single", "sparse"]))
    counts = {"A100": draw(st.integers(3, 6)), "L4": draw(st.integers(0, 4)), "T4": draw(st.integers(0, 4))}
    counts = {machine: count for machine, count in counts.items() if count}
    narrow = draw(st.sampled_from([1e6, 4e6, 12.5e6, 1e9]))
    if kind == "single":
        return single_region(counts, bandwidth_bytes_per_s=narrow, rng=seed)
    if kind == "sparse":
        size = sum(counts.values())
        return random_sparse(counts, degree=(size - 1) * 0.8, bandwidth_bytes_per_s=narrow, rng=seed)
    return geo_distributed(
        [counts, {"L4": 4, "T4": 2}], cross_region_bandwidth_bytes_per_s=narrow,
        cross_region_bandwidth_spread_bytes_per_s=narrow / 2, rng=seed,
    )  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(cluster=networks(), data=st.data())
def test_equals_the_maximum_flow(cluster, data):
    layers = []
    reached = 0
    for node in cluster.nodes:
        count = data.draw(st.integers(1, LLAMA30.profile(node.machine).max_layers))
        first = data.draw(st.sampled_from([reached, reached, data.draw(st.integers(0, 60))])) % 60
        end = min(first + count, 60)
        reached = end % 60
        layers.append(NodeLayers(node.index, first, end))
    mine = served(cluster, LLAMA30, layers)
    try:
        theirs = max_flow(cluster, LLAMA30, with_all_links(cluster, LLAMA30, layers)).value_tokens_per_s
    except PlacementError:  # a layer that nobody holds, or no path
        theirs = 0.0
    assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "geo24/llama-2-70b/helix",
        "geo24/llama-2-70b/petals",
        "hetero42/llama-2-70b/helix",
        "single24/llama-2-70b/swarm",
    ],
)
def test_published_placements(name):
    placement = load_placement(name)
    cluster, model = load_cluster(placement.cluster), load_model(placement.model)
    whole = with_all_links(cluster, model, placement.layers)
    theirs = max_flow(cluster, model, whole).value_tokens_per_s
    assert served(cluster, model, placement.layers) == pytest.approx(theirs, rel=1e-9)


def test_one_node_with_the_whole_model_exchanges_tokens_only():
    cluster = single_region({"A100": 2}, bandwidth_bytes_per_s=1e4)
    model = load_model("llama-1-30b")
    short = type(model)(
        "short", 5, model.layer_bytes, model.token_bytes, model.activation_bytes, model.profiles
    )
    layers = [NodeLayers(0, 0, 5)]
    theirs = max_flow(cluster, short, with_all_links(cluster, short, layers)).value_tokens_per_s
    assert served(cluster, short, layers) == pytest.approx(theirs)
    assert theirs > 1e3
