"""Placement files of the Helix paper's own simulator."""

import pytest

from helixlab.cluster import load_cluster
from helixlab.errors import FileFormatError, PlacementError
from helixlab.flow import max_flow
from helixlab.model import load_model
from helixlab.placement import load_placement, read_placement_ini, usable_links

CLUSTER, MODEL = load_cluster("single24"), load_model("llama-2-70b")


@pytest.fixture
def written(tmp_path):
    """A file that states these layers; node names are two above the index."""

    def write(layers):
        lines = [f"compute_node_{h.node + 2}={list(range(h.first_layer, h.end_layer))}" for h in layers]
        path = tmp_path / "ilp_sol.ini"
        path.write_text("\n".join(["[Settings]", "offset=2", "[Solution]", *lines]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", ["example-ilp", "example-swarm", "example-homogeneous", "helix"])
def test_published(written, name):
    published = load_placement(f"single24/llama-2-70b/{name}")
    read = read_placement_ini(written(published.layers), CLUSTER, MODEL)
    assert read.layers == published.layers
    assert (read.name, read.method) == ("single24/llama-2-70b/ilp_sol", "ilp_sol")
    assert read.source == "placement file ilp_sol.ini"
    assert read.links == usable_links(CLUSTER, read.layers, 80, partial_inference=False)
    if name in ("example-swarm", "example-homogeneous", "helix"):
        assert set(read.links) == set(published.links)


def test_flow_is_the_published_one(written):
    published = load_placement("single24/llama-2-70b/example-ilp")
    read = read_placement_ini(written(published.layers), CLUSTER, MODEL)
    assert max_flow(CLUSTER, MODEL, read).value_tokens_per_s == pytest.approx(1289.5557702751464, abs=1e-6)


def test_for_partial_inference_only(written):
    published = load_placement("single24/llama-2-70b/example-petals")
    read = read_placement_ini(written(published.layers), CLUSTER, MODEL)
    assert set(read.links) < set(published.links)


def test_another_model_or_cluster(written):
    path = written(load_placement("single24/llama-2-70b/helix").layers)
    with pytest.raises(PlacementError, match=r"holds layers up to .*, llama-1-30b has 60"):
        read_placement_ini(path, CLUSTER, load_model("llama-1-30b"))
    with pytest.raises(PlacementError, match="cluster 'small10' has nodes 0 to 9"):
        read_placement_ini(path, load_cluster("small10"), MODEL)


def test_missing_layers(written):
    layers = load_placement("single24/llama-2-70b/example-homogeneous").layers
    with pytest.raises(PlacementError, match=r"placement 'single24/llama-2-70b/ilp_sol' misses layers 48-54"):
        read_placement_ini(written(layers[1:]), CLUSTER, MODEL)


def test_no_such_file(tmp_path):
    with pytest.raises(FileFormatError, match="check the path"):
        read_placement_ini(tmp_path / "none.ini", CLUSTER, MODEL)
