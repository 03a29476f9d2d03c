"""The placement itself: what it refuses, what it says, the cluster it runs on, and its links."""

import pickle
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from helixlab.cluster import SINK, SOURCE, load_cluster, random_sparse, single_region
from helixlab.errors import PlacementError
from helixlab.model import load_model
from helixlab.placement import (
    NodeLayers,
    Placement,
    PlanReport,
    held_by,
    load_placement,
    placement_names,
    usable_links,
)

HELIX = load_placement("single24/llama-2-70b/helix")


def placement(layers, links=(), **other):
    return Placement("mine", "small10", "llama-1-30b", "by hand", layers, links, **other)


class TestRefused:
    @pytest.mark.parametrize("span", [(3, 3), (4, 3), (-1, 3)])
    def test_no_layers(self, span):
        with pytest.raises(PlacementError, match=r"node 2 holds layers \[.*leave the node out if it is idle"):
            placement([NodeLayers(2, *span)])

    @pytest.mark.parametrize("field", ["name", "method", "source"])
    @pytest.mark.parametrize("text", ["two\nlines", "\udcfc", None])
    def test_texts_that_cannot_be_printed(self, field, text):
        with pytest.raises(PlacementError, match=f"{field} of the placement is .*; give printable text"):
            replace(HELIX, **{field: text})

    def test_a_node_twice(self):
        layers = [NodeLayers(n % 50_000, 0, 1) for n in range(50_001)]
        with pytest.raises(PlacementError, match="node 0 is listed 2 times"):
            placement(layers)

    def test_a_link_twice(self):
        links = [(SOURCE, n) for n in range(50_000)]
        with pytest.raises(PlacementError, match="link source -> 7 is listed 2 times; list it once"):
            placement([NodeLayers(0, 0, 60)], [*links, (SOURCE, 7)])

    def test_capacity_of_an_idle_node(self):
        with pytest.raises(PlacementError, match="stated for node 4, which holds no layers; leave it out"):
            placement([NodeLayers(0, 0, 60)], kv_capacity_token_layers={4: 1000})

    def test_part_of_another_cluster(self):
        with pytest.raises(
            PlacementError, match="is for 'small10' and has the nodes and links of 'single24'"
        ):
            placement([NodeLayers(0, 0, 60)], part=load_cluster("single24"))


class TestContent:
    def test_sequences_become_tuples(self):
        made = placement([NodeLayers(0, 0, 60)], [[SOURCE, 0], [0, SINK]], kv_capacity_token_layers={0: 9})
        assert made.layers == (NodeLayers(0, 0, 60),)
        assert made.links == ((SOURCE, 0), (0, SINK))
        with pytest.raises(TypeError):
            made.kv_capacity_token_layers[0] = 10  # type: ignore[index]

    def test_layers_of(self):
        assert HELIX.layers_of(0) == HELIX.layers[0]
        assert HELIX.layers_of(99) is None
        assert HELIX.layers_of(SOURCE) is None

    @pytest.mark.parametrize("name", ["single24/llama-2-70b/helix", "single24/llama-2-70b/separate-a100"])
    def test_equal_and_picklable(self, name):
        one = load_placement(name)
        assert pickle.loads(pickle.dumps(one)) == one == load_placement(name)  # noqa: S301
        assert replace(one, report=PlanReport("heuristic")) == one, "a report is about the planner"
        assert replace(one, name="other") != one
        hash(one)

    def test_kv_capacity(self):
        cluster, model = load_cluster("single24"), load_model("llama-2-70b")
        held = HELIX.layers[0]
        profile = model.profile(cluster.machine_of(held.node).name)
        assert HELIX.kv_capacity(cluster, model, held.node) == profile.kv_capacity_token_layers(held.count)
        stated = replace(HELIX, kv_capacity_token_layers={held.node: 5})
        assert stated.kv_capacity(cluster, model, held.node) == 5
        with pytest.raises(PlacementError, match="node 99 holds no layers"):
            HELIX.kv_capacity(cluster, model, 99)

    def test_kv_capacity_of_an_overfilled_node(self):
        cluster, model = load_cluster("small10"), load_model("llama-1-30b")
        full = placement([NodeLayers(1, 0, 12)])
        with pytest.raises(PlacementError, match=r"node 1 \(L4\) holds 12 layers .* at most 11 are measured"):
            full.kv_capacity(cluster, model, 1)

    def test_frame(self):
        cluster = load_cluster("single24")
        table = load_placement("single24/llama-2-70b/example-homogeneous").to_frame(cluster)
        assert table["node"].tolist() == list(range(24))
        assert table["machine"].tolist() == [node.machine for node in cluster.nodes]
        assert table.query("node == 6").iloc[0][["first_layer", "end_layer", "layers"]].tolist() == [
            12,
            24,
            12,
        ]
        assert table.query("node == 1")["layers"].item() == 0
        assert table["layers"].sum() == 80

    def test_report(self):
        assert PlanReport("optimal", 100.0, 110.0).gap == pytest.approx(0.1)
        assert PlanReport("heuristic").gap is None
        assert PlanReport("heuristic", upper_bound_tokens_per_s=5.0).gap is None


class TestOn:
    def test_the_cluster_itself(self):
        cluster = load_cluster("single24")
        assert HELIX.on(cluster) is cluster

    @pytest.mark.parametrize(
        "name", [name for name in placement_names() if load_placement(name).part is not None]
    )
    def test_part(self, name):
        part = load_placement(name)
        whole = load_cluster(name.split("/")[0])
        assert part.on(whole) is part.part
        assert part.on(whole).name == part.cluster
        assert set(part.on(whole).machine_counts()) <= set(whole.machine_counts())

    def test_part_under_its_own_name(self):
        cluster = load_cluster("single24-a100")
        assert load_placement("single24/llama-2-70b/separate-a100").on(cluster) is cluster

    @pytest.mark.parametrize("other", ["geo24", "single24-l4", "small10"])
    def test_part_of_another(self, other):
        part = load_placement("single24/llama-2-70b/separate-a100")
        with pytest.raises(
            PlacementError, match=f"which is not part of cluster {other!r}; load cluster 'single24-a100'"
        ):
            part.on(load_cluster(other))


class TestUsableLinks:
    LAYERS = (NodeLayers(0, 0, 4), NodeLayers(1, 4, 6), NodeLayers(2, 2, 6), NodeLayers(3, 0, 2))

    def test_exact(self):
        cluster = single_region({"T4": 5})
        assert usable_links(cluster, self.LAYERS, 6, partial_inference=False) == (
            (SOURCE, 0), (SOURCE, 3), (1, SINK), (2, SINK), (0, 1), (3, 2),
        )  # fmt: skip

    def test_partial_inference(self):
        cluster = single_region({"T4": 5})
        exact = usable_links(cluster, self.LAYERS, 6, partial_inference=False)
        partial = usable_links(cluster, self.LAYERS, 6)
        assert set(partial) - set(exact) == {(0, 2), (3, 0)}

    def test_nothing_leads_into_the_middle_from_the_source(self):
        cluster = single_region({"T4": 1})
        assert usable_links(cluster, [NodeLayers(0, 1, 6)], 6) == ((0, SINK),)

    @given(st.integers(0, 50), st.data())
    def test_what_a_link_means(self, seed, data):
        cluster = random_sparse({"T4": 6}, degree=3, rng=seed)
        layers = []
        for node in range(6):
            first = data.draw(st.integers(0, 4))
            layers.append(NodeLayers(node, first, data.draw(st.integers(first + 1, 5))))
        exact = usable_links(cluster, layers, 5, partial_inference=False)
        partial = usable_links(cluster, layers, 5)
        order = [(link.sender, link.receiver) for link in cluster.links]
        assert list(partial) == [link for link in order if link in set(partial)]
        assert set(exact) <= set(partial) <= set(order)
        for sender, receiver in order:
            reached = 0 if sender == SOURCE else layers[sender].end_layer
            if receiver == SINK:
                here, there = reached == 5, reached == 5
            else:
                here = reached == layers[receiver].first_layer
                inside = layers[receiver].first_layer <= reached < layers[receiver].end_layer
                there = inside and (here or sender != SOURCE)
            assert ((sender, receiver) in exact) == here
            assert ((sender, receiver) in partial) == there


def test_held_by():
    holders = held_by(HELIX.layers, 80)
    assert len(holders) == 80
    for layer, nodes in enumerate(holders):
        assert nodes == [h.node for h in HELIX.layers if h.first_layer <= layer < h.end_layer]
    assert held_by([NodeLayers(0, 1, 9)], 3) == [[], [0], [0]]


def test_frames_have_plain_columns():
    table = HELIX.to_frame(load_cluster("single24"))
    assert isinstance(table, pd.DataFrame)
    assert list(table) == ["node", "machine", "region", "first_layer", "end_layer", "layers"]
