"""The throughput estimate T(k): the paper's figures, and the shape of it in any mix of machines."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from helixlab.cluster import load_cluster
from helixlab.errors import ModelError, UnknownNameError
from helixlab.model import (
    load_model,
    machine_throughput,
    model_names,
    node_throughput,
    typical_decode_tokens,
)

MODELS = {name: load_model(name) for name in model_names()}
LLAMA = MODELS["llama-2-70b"]
SINGLE24 = {"A100": 4, "L4": 8, "T4": 12}


@pytest.mark.parametrize(("machine", "layers", "value"), [
    ("A100", 1, 23834), ("A100", 12, 952), ("L4", 7, 532), ("T4", 4, 758),
])  # fmt: skip
def test_check_values(machine, layers, value):
    table = machine_throughput(LLAMA, SINGLE24)
    assert round(table[machine][layers]) == value


def test_most_compute_of_single24():
    table = machine_throughput(LLAMA, load_cluster("single24").machine_counts())
    most = sum(n * np.max(np.arange(len(table[m])) * table[m]) for m, n in SINGLE24.items()) / LLAMA.layers
    assert most == pytest.approx(2803.860988, abs=1e-6)


def test_shape():
    table = machine_throughput(LLAMA, SINGLE24 | {"V100": 0})
    assert {machine: len(values) for machine, values in table.items()} == {"A100": 13, "L4": 8, "T4": 5}
    assert all(values[0] == 0 for values in table.values())
    assert all(np.all(values[1:] > 0) for values in table.values())


def test_the_mix_matters():
    alone, mixed = machine_throughput(LLAMA, {"A100": 4}), machine_throughput(LLAMA, SINGLE24)
    assert alone["A100"][12] > mixed["A100"][12]


def test_node_throughput_is_the_table_where_there_is_one():
    table = machine_throughput(LLAMA, SINGLE24)
    for machine, values in table.items():
        for k in range(1, len(values)):
            capacity = LLAMA.profile(machine).kv_capacity_token_layers(k)
            assert node_throughput(LLAMA, SINGLE24, machine, k, capacity) == values[k]
            assert typical_decode_tokens(LLAMA, SINGLE24, machine, k, capacity) > 0


def test_less_cache_means_less_throughput():
    values = [node_throughput(LLAMA, SINGLE24, "L4", 10, kv) for kv in (0, 400_000, 800_000, 1_600_000)]
    assert values[0] == 0
    assert values == sorted(values)
    assert typical_decode_tokens(LLAMA, SINGLE24, "L4", 10, 0) == 0


@given(st.dictionaries(st.sampled_from(sorted(LLAMA.profiles)), st.integers(1, 60), min_size=1), st.data())
def test_any_mix(counts, data):
    model = MODELS[data.draw(st.sampled_from(sorted(MODELS)))]
    table = machine_throughput(model, counts)
    assert list(table) == list(counts)
    for machine, values in table.items():
        assert len(values) == model.profile(machine).max_layers + 1
        assert np.all(np.isfinite(values))
        assert np.all(values[1:] > 0)
    same = machine_throughput(model, dict(reversed(counts.items())))
    for machine, values in table.items():
        np.testing.assert_allclose(same[machine], values)


def test_a_model_shorter_than_what_a_machine_holds():
    few = MODELS["llama-1-30b"]
    short = type(few)("short", 3, few.layer_bytes, few.token_bytes, few.activation_bytes, few.profiles)
    table = machine_throughput(short, {"A100": 2, "T4": 1})
    assert {machine: len(values) for machine, values in table.items()} == {"A100": 4, "T4": 4}
    assert all(np.all(values[1:] > 0) for values in table.values())


class TestErrors:
    @pytest.mark.parametrize("counts", [{}, {"A100": 0}])
    def test_no_machines(self, counts):
        with pytest.raises(ModelError, match="no machines to estimate"):
            machine_throughput(LLAMA, counts)

    def test_unknown_machine(self):
        with pytest.raises(UnknownNameError, match="machine profile for llama-2-70b 'H100'"):
            machine_throughput(LLAMA, {"H100": 1})

    @pytest.mark.parametrize("layers", [0, 81])
    def test_layers_that_no_node_holds(self, layers):
        with pytest.raises(ModelError, match=f"1 to 80 layers of llama-2-70b, not {layers}"):
            node_throughput(LLAMA, SINGLE24, "L4", layers, 10**6)

    def test_a_machine_that_is_not_counted(self):
        with pytest.raises(ModelError, match="machine_counts names no V100"):
            node_throughput(LLAMA, SINGLE24, "V100", 4, 10**6)

    def test_no_room_for_a_batch(self):
        t4 = LLAMA.profile("T4")
        tiny = type(t4)(**{f: getattr(t4, f) for f in t4.__dataclass_fields__} | {"kv_blocks": (1, 1, 1, 1)})
        model = LLAMA.with_profile(tiny)
        assert machine_throughput(model, {"A100": 4, "T4": 8})["T4"].tolist() == [0] * 5
        with pytest.raises(ModelError, match="none of T4 has KV cache for a batch of llama-2-70b"):
            machine_throughput(model, {"T4": 8})

    def test_a_start_value_that_is_far_off(self):
        t4 = LLAMA.profile("T4")
        values = {f: getattr(t4, f) for f in t4.__dataclass_fields__}
        fast = type(t4)(**values | {"initial_relative_speed": 1e6})
        table, other = (
            machine_throughput(LLAMA.with_profile(fast), SINGLE24),
            machine_throughput(LLAMA, SINGLE24),
        )
        for machine, throughputs in table.items():
            np.testing.assert_allclose(throughputs, other[machine], rtol=0.1)

    def test_a_profile_with_too_few_points(self):
        t4 = LLAMA.profile("T4")
        values = {f: getattr(t4, f) for f in t4.__dataclass_fields__}
        short = type(t4)(**values | {"prompt_batch_tokens": (0, 100), "prompt_layer_s": (0.0, 0.01)})
        with pytest.raises(ModelError, match="prompt tokens on T4 is outside the measured 0 to 100"):
            machine_throughput(LLAMA.with_profile(short), {"T4": 20})
