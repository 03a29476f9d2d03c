"""What no placement exceeds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from helixlab.cluster import load_cluster, single_region
from helixlab.flow import max_flow, upper_bound
from helixlab.model import load_model, machine_throughput
from helixlab.placement import load_placement, placement_names

LLAMA = load_model("llama-1-30b")


@pytest.mark.parametrize(
    ("cluster", "model", "value"),
    [
        ("single24", "llama-2-70b", 2045.641),
        ("geo24", "llama-2-70b", 2045.641),
        ("hetero42", "llama-2-70b", 6528.9),
        ("single24", "llama-1-30b", 1563.7),
        ("small10", "llama-1-30b", 340.7),
    ],
)
def test_values(cluster, model, value):
    digits = len(str(value).partition(".")[2])
    assert upper_bound(load_cluster(cluster), load_model(model)) == pytest.approx(
        value, abs=0.6 * 10**-digits
    )


@pytest.mark.parametrize("name", [name for name in placement_names() if "separate" not in name])
def test_no_published_placement_exceeds_it(name):
    placement = load_placement(name)
    cluster, model = load_cluster(name.split("/")[0]), load_model(placement.model)
    own = placement.on(cluster)
    assert max_flow(cluster, model, placement).value_tokens_per_s <= upper_bound(own, model) * (1 + 1e-9)


def test_a_cluster_that_cannot_hold_the_model():
    assert upper_bound(load_cluster("small10"), load_model("llama-2-70b")) == 0
    assert upper_bound(single_region({"T4": 8}), LLAMA) == 0  # 56 of 60 layers
    assert upper_bound(single_region({"T4": 9}), LLAMA) > 0


def test_reached_by_equal_machines_that_hold_the_model_just_once():
    cluster = single_region({"A100": 5})
    throughput = machine_throughput(LLAMA, {"A100": 5})["A100"]
    assert upper_bound(cluster, LLAMA) == pytest.approx(throughput[12], rel=1e-9)


@settings(max_examples=40)
@given(
    st.dictionaries(st.sampled_from(sorted(LLAMA.profiles)), st.integers(1, 8), min_size=1),
    st.integers(1, 90),
)
def test_the_largest_flow_that_the_nodes_can_run(counts, layers):
    model = replace(LLAMA, layers=layers)
    bound = upper_bound(single_region(counts), model)
    table = machine_throughput(model, counts)

    def runs(flow):
        return sum(
            n * np.max(np.arange(len(table[m])) * np.minimum(table[m], flow)) for m, n in counts.items()
        )

    if bound:
        assert runs(bound) == pytest.approx(layers * bound, rel=1e-9)
    # The inequality holds up to the bound and nowhere beyond it: enough to try where its terms bend.
    for flow in sorted({float(value) for values in table.values() for value in values[1:]}):
        if flow > bound * (1 + 1e-9):
            assert runs(flow) < layers * flow
        else:
            assert runs(flow) >= layers * flow * (1 - 1e-9)
