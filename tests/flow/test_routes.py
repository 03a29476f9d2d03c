"""A flow as routes."""

import pytest

from helixlab.cluster import load_cluster
from helixlab.flow import decompose, max_flow
from helixlab.model import load_model
from helixlab.placement import load_placement, placement_names


def routes_of(name):
    placement = load_placement(name)
    flow = max_flow(load_cluster(name.split("/")[0]), load_model(placement.model), placement)
    return flow, decompose(flow)


@pytest.mark.parametrize("name", placement_names())
def test_published(name):
    flow, routes = routes_of(name)
    assert routes["flow_tokens_per_s"].sum() == pytest.approx(flow.value_tokens_per_s, rel=1e-4)
    assert routes["path"].is_unique
    assert (routes["share"] > 0).all()
    for path in routes["path"]:
        assert isinstance(path, tuple)
        assert len(set(path)) == len(path)


def test_one_pipeline_is_one_route():
    _, routes = routes_of("single24/llama-1-30b/separate-l4")
    assert routes.to_dict("records") == [
        {"path": tuple(range(8)), "flow_tokens_per_s": pytest.approx(355.6, abs=200), "share": 1.0}
    ]


def test_the_widest_first():
    _, routes = routes_of("hetero42/llama-2-70b/helix")
    assert len(routes) > 3
    assert routes["flow_tokens_per_s"].is_monotonic_decreasing


def test_no_flow_has_no_routes():
    flow, routes = routes_of("geo24/llama-2-70b/separate-a100")
    assert flow.value_tokens_per_s == 0
    assert list(routes) == ["path", "flow_tokens_per_s", "share"]
    assert routes.empty
