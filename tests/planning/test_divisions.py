"""Divisions of clusters: every group serves the whole model, and its layout is a placement."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

import helixlab as hx
from helixlab.planning import planning_throughput
from helixlab.planning.layout import layout_of, placement_of
from helixlab.planning.throughput import chain_layout, divisions

MODELS = [hx.load_model("llama-1-30b"), hx.load_model("llama-2-70b")]
COUNTS = st.dictionaries(st.sampled_from(["A100", "L4", "T4"]), st.integers(1, 10), min_size=1, max_size=3)


@st.composite
def divided(draw):
    """A cluster of one to three regions, a model, and a division of it, if there is one."""
    regions = draw(st.lists(COUNTS, min_size=1, max_size=3))
    cluster = hx.geo_distributed(regions, rng=0)
    model = draw(st.sampled_from(MODELS))
    found = divisions(cluster, model)
    return cluster, model, found, draw(st.sampled_from(found)) if found else ()


@given(case=divided())
def test_groups_have_the_capacity_and_all_nodes(case):
    cluster, model, found, _ = case
    assert len(set(found)) == len(found)
    most = {kind: len(values) - 1 for kind, values in planning_throughput(cluster, model).items()}
    for group in found:
        assert len(group) == len(cluster.nodes)
        assert set(group) == set(range(max(group) + 1))
        assert max(group) >= 1
        capacity = np.bincount(group, [most[node.machine] for node in cluster.nodes])
        assert min(capacity) >= model.layers


@given(case=divided())
def test_chains_hold_every_layer_once_in_every_group(case):
    cluster, model, _, group = case
    if not group:
        return
    layout = chain_layout(cluster, model, group)
    held = np.zeros((max(group) + 1, model.layers), dtype=int)
    for start, end, of in zip(*layout, strict=True):
        held[of, start:end] += 1
    assert (held == 1).all()
    regions = [node.region for node in cluster.nodes]
    for own in range(max(group) + 1):
        nodes = [node for node, of in enumerate(group) if of == own and layout.end[node] > layout.start[node]]
        passed = [regions[node] for node in sorted(nodes, key=lambda node: layout.start[node])]
        assert sum(a != b for a, b in pairwise(passed)) == len(set(passed)) - 1


@given(case=divided())
def test_a_divided_plan_is_a_placement(case, tmp_path_factory):
    cluster, model, _, group = case
    if not group:
        return
    layout = chain_layout(cluster, model, group)
    placement = placement_of(layout, cluster, model)
    hx.check_placement(placement, cluster, model)
    assert layout_of(placement, len(cluster.nodes)) == layout._replace(group=())
    inner = [link for link in placement.links if not {"source", "sink"} & set(link)]
    assert all(group[sender] == group[receiver] for sender, receiver in inner)
    assert hx.max_flow(cluster, model, placement).value_tokens_per_s > 0
    path = tmp_path_factory.mktemp("plans") / "divided.json"
    hx.save_placement(placement, path)
    again = hx.load_placement(path)
    assert (again.layers, again.links) == (placement.layers, placement.links)


def test_a_divided_plan_is_simulated():
    cluster, model = hx.load_cluster("single24"), MODELS[0]
    for group in divisions(cluster, model):
        placement = placement_of(chain_layout(cluster, model, group), cluster, model)
        workload = hx.offline(warmup_s=60, duration_s=60)
        result = hx.simulate(cluster, model, placement, workload=workload)
        assert result.metrics["decode_tokens_per_s"] > 0


@pytest.mark.parametrize("counts", [{"A100": 1}, {"T4": 9}, {"A100": 5}])
def test_nothing_to_divide(counts):
    assert divisions(hx.single_region(counts), MODELS[0]) == []
