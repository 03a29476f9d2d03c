"""Readers of a Result's tables: the metrics by name, the measured window, the nodes that serve."""

import pytest

import helixlab as hx
from helixlab.errors import SimulationError


@pytest.fixture(scope="module")
def result():
    system = hx.load_cluster("single24"), hx.load_model("llama-2-70b")
    placement = hx.load_placement("single24/llama-2-70b/example-homogeneous")
    return hx.simulate(*system, placement, workload=hx.offline(warmup_s=20, duration_s=60))


def test_metrics_are_the_row_of_the_summary(result):
    assert result.metrics.equals(result.summary.loc[0])


def test_the_window(result):
    start_s, end_s = result.window_s
    assert (start_s, end_s) == (result.metrics["window_start_s"], result.metrics["window_end_s"])
    for table, by in ((result.iterations, "end_s"), (result.timeline, "time_s")):
        inside = result.in_window(table)
        assert 0 < len(inside) < len(table)
        assert inside.equals(table[(table[by] >= start_s) & (table[by] <= end_s)])
    came = result.in_window(result.requests, by="arrival_s")
    assert came["arrival_s"].between(start_s, end_s).all()


def test_serving_nodes_hold_layers(result):
    assert 0 < len(result.serving_nodes) < len(result.nodes)
    assert (result.serving_nodes["end_layer"] > result.serving_nodes["first_layer"]).all()
    assert (result.nodes.drop(result.serving_nodes.index)["end_layer"] == 0).all()


def test_no_such_table_or_column(result):
    with pytest.raises(SimulationError, match="table is 5; give a table of this result"):
        result.in_window(5)
    with pytest.raises(SimulationError, match="no column 'x'; it has node, machine"):
        result.in_window(result.nodes, by="x")
