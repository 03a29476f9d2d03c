"""Measured profiles: layer times, KV capacity, batch limits, and what they refuse."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from helixlab.errors import ModelError, UnknownNameError
from helixlab.model import BatchLimits, MachineProfile, load_model, model_names

LLAMA = load_model("llama-2-70b")
A100 = LLAMA.profile("A100")
EVERY_PROFILE = [profile for name in model_names() for profile in load_model(name).profiles.values()]


def small(**other):
    """A profile with two points and two numbers of layers."""
    values = {
        "machine": "H100",
        "prompt_batch_tokens": (0, 1000),
        "prompt_layer_s": (0.0, 0.004),
        "decode_batch_tokens": (0, 300),
        "decode_layer_s": (0.0, 0.003),
        "kv_blocks": (5000, 4000),
        "max_prompt_requests": (3, 2),
        "max_decode_tokens": (480, 240),
        "typical_layers": 1,
        "typical_layers_when_tight": 2,
        "initial_relative_speed": 100,
    }
    return MachineProfile(**(values | other))


class TestLayerTimes:
    def test_measured_points(self):
        times = LLAMA.layer_times().query("machine == 'A100' and phase == 'prompt'")
        assert times["layer_s"].head(4).tolist() == [0.0, 0.002, 0.004, 0.005]
        for tokens, seconds in zip(times["batch_tokens"], times["layer_s"], strict=True):
            assert A100.prompt_time_s(tokens) == seconds

    def test_linear_between_points(self):
        assert A100.prompt_time_s(125) == pytest.approx(0.001)
        assert A100.prompt_time_s(625) == pytest.approx(0.0045)
        assert small().prompt_time_s(250) == pytest.approx(0.001)
        assert small().decode_time_s(100) == pytest.approx(0.001)

    def test_a_batch_is_prompt_plus_decode(self):
        both = A100.layer_time_s(prompt_tokens=750, decode_tokens=40)
        assert both == A100.prompt_time_s(750) + A100.decode_time_s(40)
        assert A100.layer_time_s(0, 0) == 0

    @pytest.mark.parametrize("profile", EVERY_PROFILE, ids=repr)
    def test_one_decode_token_costs_what_two_cost(self, profile):
        assert profile.layer_time_s(0, 1) == 2 * profile.decode_time_s(1)
        assert profile.decode_table_s[1] == 2 * profile.decode_time_s(1)
        assert profile.layer_time_s(0, 2) == profile.decode_time_s(2)

    @pytest.mark.parametrize("profile", EVERY_PROFILE, ids=repr)
    def test_tables_are_the_interpolation(self, profile):
        for tokens in (0, 1, 2, 17, 499, len(profile.prompt_table_s) - 1):
            assert profile.prompt_table_s[tokens] == profile.prompt_time_s(tokens)
        for tokens in (0, 2, 17, len(profile.decode_table_s) - 1):
            assert profile.decode_table_s[tokens] == profile.decode_time_s(tokens)
        assert np.all(profile.prompt_table_s[1:] > 0)
        assert np.all(profile.decode_table_s[1:] > 0)

    @given(st.integers(0, 1000), st.integers(0, 300))
    def test_between_the_points_next_to_it(self, prompt, decode):
        profile = small()
        assert 0 <= profile.prompt_time_s(prompt) <= 0.004
        assert profile.layer_time_s(prompt, decode) >= profile.prompt_time_s(prompt)

    @pytest.mark.parametrize(("phase", "tokens"), [("prompt", 1001), ("prompt", -1), ("decode", 300.5)])
    def test_outside_the_table(self, phase, tokens):
        with pytest.raises(
            ModelError, match=rf"{tokens} {phase} tokens on H100 is outside the measured 0 to"
        ):
            getattr(small(), f"{phase}_time_s")(tokens)

    def test_not_a_number_is_outside_too(self):
        with pytest.raises(ModelError, match="outside the measured"):
            small().prompt_time_s(float("nan"))


class TestServingLimits:
    def test_check_values(self):
        assert A100.max_layers == 12
        assert A100.kv_capacity_token_layers(1) == 16 * 498326
        assert A100.kv_capacity_token_layers(12) == 3377472
        assert {machine: p.max_layers for machine, p in LLAMA.profiles.items()} == {
            "A100": 12, "V100": 4, "L4": 7, "L4x2": 14, "T4": 4, "T4x2": 9, "T4x4": 18,
        }  # fmt: skip

    def test_batch_limits(self):
        assert A100.batch_limits(1) == BatchLimits(3, 3 * 2048, 480, 480_000)
        assert small().batch_limits(2) == BatchLimits(2, 2 * 2048, 240, 240_000)

    def test_batch_limits_beyond_the_table_are_the_last(self):
        assert A100.batch_limits(20) == A100.batch_limits(12)
        assert small().batch_limits(1000) == small().batch_limits(2)

    @pytest.mark.parametrize("layers", [0, -1])
    def test_no_limits_for_no_layers(self, layers):
        with pytest.raises(ModelError, match=f"measured with 1 to 2 layers, not with {layers}"):
            small().batch_limits(layers)

    @pytest.mark.parametrize("layers", [0, 3])
    def test_no_capacity_outside_the_table(self, layers):
        with pytest.raises(ModelError, match=f"measured with 1 to 2 layers, not with {layers}; hold fewer"):
            small().kv_capacity_token_layers(layers)

    @pytest.mark.parametrize("profile", EVERY_PROFILE, ids=repr)
    def test_more_layers_leave_less_cache(self, profile):
        capacity = [profile.kv_capacity_token_layers(k) for k in range(1, profile.max_layers + 1)]
        assert all(after < before for before, after in pairwise(capacity))

    def test_table(self):
        table = LLAMA.serving_limits()
        assert len(table) == sum(profile.max_layers for profile in LLAMA.profiles.values())
        row = table.query("machine == 'T4' and layers_on_node == 4").iloc[0]
        assert row["kv_capacity_token_layers"] == LLAMA.profile("T4").kv_capacity_token_layers(4)
        assert row["max_prompt_tokens"] == LLAMA.profile("T4").batch_limits(4).prompt_tokens


class TestWrongProfiles:
    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"machine": ""}, "printable, non-empty name"),
            ({"machine": 7}, "machine 7"),
            ({"machine": "a\nb"}, "printable"),
            ({"prompt_batch_tokens": (0,), "prompt_layer_s": (0.0,)}, "prompt times of H100: 1 batch sizes"),
            ({"prompt_batch_tokens": (0, 1, 2)}, "3 batch sizes and 2 times"),
            ({"prompt_batch_tokens": (1, 1000)}, "do not start at 0 and rise"),
            ({"decode_batch_tokens": (0, 0)}, "decode times of H100.*do not start at 0"),
            ({"decode_batch_tokens": (0, 2.5)}, "a batch size is 2.5"),
            ({"decode_batch_tokens": (0, True)}, "a batch size is True"),
            ({"decode_batch_tokens": (0, 10**15)}, "at most|from 0 to 10000000"),
            ({"decode_batch_tokens": "01"}, "give a sequence of numbers"),
            ({"decode_layer_s": (0.1, 0.2)}, "0 tokens take 0.1 s; give 0"),
            ({"decode_layer_s": (0.0, 0.0)}, "a time is 0.0"),
            ({"decode_layer_s": (0.0, float("nan"))}, "a time is nan"),
            ({"decode_layer_s": (0.0, float("inf"))}, "a time is inf"),
            ({"decode_layer_s": (0.0, "1")}, "a time is '1'"),
            ({"kv_blocks": ()}, "give every limit for 1, 2"),
            ({"kv_blocks": (5000,)}, "give every limit for 1, 2"),
            ({"kv_blocks": (5000, 0)}, "kv_blocks of H100 is 0"),
            ({"kv_blocks": (5000, 10**400)}, "kv_blocks of H100 is 1000"),
            ({"max_prompt_requests": (3, -1)}, "max_prompt_requests of H100 is -1"),
            ({"max_decode_tokens": (480, 1.5)}, "max_decode_tokens of H100 is 1.5"),
            ({"typical_layers": 3}, "typical_layers of H100 is 3; give a whole number from 1 to 2"),
            ({"typical_layers_when_tight": 0}, "typical_layers_when_tight of H100 is 0"),
            ({"initial_relative_speed": 0}, "initial_relative_speed of H100 is 0"),
            ({"initial_relative_speed": float("nan")}, "initial_relative_speed of H100 is nan"),
        ],
    )
    def test_refused(self, other, message):
        with pytest.raises(ModelError, match=message) as caught:
            small(**other)
        assert len(str(caught.value)) < 300

    def test_lists_will_do(self):
        assert small(kv_blocks=[5000, 4000]) == small()


class TestModel:
    def test_bundled(self):
        assert model_names() == ["llama-1-30b", "llama-2-70b"]
        assert (LLAMA.layers, LLAMA.layer_bytes, LLAMA.token_bytes) == (80, 1.53e9, 2)
        assert LLAMA.activation_bytes == 16384
        other = load_model("llama-1-30b")
        assert (other.layers, other.layer_bytes, other.activation_bytes) == (60, 1e9, 13312)

    def test_unknown_machine(self):
        with pytest.raises(
            UnknownNameError, match="machine profile for llama-2-70b 'A1000'; did you mean 'A100'"
        ):
            LLAMA.profile("A1000")

    def test_a_gpu_of_ones_own(self):
        model = LLAMA.with_profile(small())
        assert model.profile("H100") == small()
        assert "H100" not in LLAMA.profiles
        assert set(model.profiles) == {*LLAMA.profiles, "H100"}

    def test_a_model_never_changes(self):
        with pytest.raises(TypeError):
            LLAMA.profiles["A100"] = small()  # type: ignore[index]

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"name": " "}, "printable, non-empty name"),
            ({"layers": 0}, "layers of model 'llama-2-70b' is 0"),
            ({"layers": True}, "layers of model 'llama-2-70b' is True"),
            ({"layers": 2.0}, "layers of model 'llama-2-70b' is 2.0"),
            ({"layers": 10**9}, "give a whole number from 1 to 100000"),
            ({"layer_bytes": 0}, "layer_bytes of model 'llama-2-70b' is 0"),
            ({"token_bytes": float("inf")}, "token_bytes of model 'llama-2-70b' is inf"),
            ({"activation_bytes": "16384"}, "activation_bytes of model 'llama-2-70b' is '16384'"),
            (
                {"profiles": {"A100": small()}},
                "the profile under 'A100' is of machine 'H100'; use one name for both",
            ),
        ],
    )
    def test_refused(self, other, message):
        with pytest.raises(ModelError, match=message):
            replace(LLAMA, **other)
