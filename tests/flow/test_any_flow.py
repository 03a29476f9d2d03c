"""What holds for the flow of any placement on any cluster, and for its routes and its bound."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import assume, given, settings, strategies as st

from helixlab.cluster import SINK, SOURCE, geo_distributed, random_sparse, single_region
from helixlab.errors import PlacementError
from helixlab.flow import decompose, flow_graph, max_flow, upper_bound
from helixlab.flow.graph import SINK_VERTEX, SOURCE_VERTEX
from helixlab.model import load_model
from helixlab.planning import plan

LLAMA = load_model("llama-1-30b")
COUNTS = st.fixed_dictionaries({"A100": st.integers(1, 4), "L4": st.integers(2, 6), "T4": st.integers(2, 8)})


@st.composite
def served(draw):
    """A cluster, some with links so slow that they bind, and a placement on it."""
    seed = draw(st.integers(0, 500))
    bandwidth = draw(st.sampled_from([2e6, 1e7, 1.25e9]))
    kind = draw(st.sampled_from(["single region", "geo-distributed", "sparse"]))
    if kind == "single region":
        spread = draw(st.sampled_from([0.0, 0.9])) * bandwidth
        cluster = single_region(
            draw(COUNTS), bandwidth_bytes_per_s=bandwidth, bandwidth_spread_bytes_per_s=spread, rng=seed
        )
    elif kind == "geo-distributed":
        cluster = geo_distributed(
            [draw(COUNTS), draw(COUNTS)], cross_region_bandwidth_bytes_per_s=bandwidth, rng=seed
        )
    else:
        cluster = random_sparse(draw(COUNTS), degree=4, bandwidth_bytes_per_s=bandwidth, rng=seed)
    try:
        placement = plan(cluster, LLAMA, method=draw(st.sampled_from(["petals", "swarm"])), rng=seed)
        dropped = draw(st.sets(st.integers(0, len(placement.links) - 1), max_size=5))
        kept = tuple(link for place, link in enumerate(placement.links) if place not in dropped)
        placement = replace(placement, links=draw(st.permutations(kept)))
        return cluster, placement, max_flow(cluster, LLAMA, placement)
    except PlacementError:
        assume(False)


@settings(max_examples=30)
@given(served())
def test_any_flow(case):
    cluster, placement, flow = case
    check_conservation(cluster, flow)
    check_value_and_cut(cluster, placement, flow)
    check_routes(placement, flow)


def check_conservation(cluster, flow):
    value = flow.value_tokens_per_s
    near = pytest.approx
    assert value > 0
    into, out = Counter(), Counter()
    for (sender, receiver), amount in flow.on_link.items():
        assert amount >= 0
        out[sender] += amount
        into[receiver] += amount
    assert out[SOURCE] == near(value, rel=1e-6)
    assert into[SINK] == near(value, rel=1e-6)
    for node in flow.nodes.to_dict("records"):
        assert into[node["node"]] == near(out[node["node"]], rel=1e-6, abs=1e-6 * value)
        assert into[node["node"]] == near(node["flow_tokens_per_s"], rel=1e-6, abs=1e-6 * value)
        assert node["flow_tokens_per_s"] <= node["capacity_tokens_per_s"] * (1 + 1e-9) + 1e-6 * value
    capacity = dict(zip(flow.on_link, flow.links["capacity_tokens_per_s"], strict=True))
    assert all(amount <= capacity[link] * (1 + 1e-9) for link, amount in flow.on_link.items())
    assert flow.bottlenecks["capacity_tokens_per_s"].sum() == near(value, rel=1e-6)
    assert value <= upper_bound(cluster, LLAMA) * (1 + 1e-9)


def check_value_and_cut(cluster, placement, flow):
    """Other algorithms find as much, and nothing gets through without the bottlenecks."""
    graph, names = flow_graph(cluster, LLAMA, placement)
    for algorithm in (nx.algorithms.flow.edmonds_karp, nx.algorithms.flow.shortest_augmenting_path):
        other = nx.maximum_flow_value(graph, SOURCE_VERTEX, SINK_VERTEX, flow_func=algorithm)
        assert flow.value_tokens_per_s == pytest.approx(other, rel=1e-6)

    cut = {(row["kind"], row["sender"], row["receiver"]) for row in flow.bottlenecks.to_dict("records")}
    edges = [(a, b) for a, b, d in graph.edges(data=True) if (d["kind"], d["sender"], d["receiver"]) in cut]
    graph.remove_edges_from(edges)
    assert not nx.has_path(graph, SOURCE_VERTEX, SINK_VERTEX)
    assert (names[SOURCE_VERTEX][0], names[SINK_VERTEX][0]) == ("source", "sink")


def check_routes(placement, flow):
    routes = decompose(flow)
    value = flow.value_tokens_per_s
    assert list(routes) == ["path", "flow_tokens_per_s", "share"]
    assert routes["flow_tokens_per_s"].sum() == pytest.approx(value, rel=1e-4)
    assert routes["share"].sum() == pytest.approx(1)
    assert 1 <= len(routes) <= len(placement.links)
    assert routes["flow_tokens_per_s"].is_monotonic_decreasing
    carried = Counter()
    for path, amount in zip(routes["path"], routes["flow_tokens_per_s"], strict=True):
        ends = [SOURCE, *path, SINK]
        reached = 0
        for node in path:
            held = placement.layers_of(node)
            assert held.first_layer <= reached < held.end_layer
            reached = held.end_layer
        assert reached == LLAMA.layers
        for link in pairwise(ends):
            carried[link] += amount
    assert set(carried) <= set(placement.links)
    for link, amount in flow.on_link.items():
        assert carried[link] == pytest.approx(amount, rel=1e-4, abs=1e-4 * value)
