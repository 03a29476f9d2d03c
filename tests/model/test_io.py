"""Model files: there and back, and everything that can be wrong with one."""

import json
import os
import warnings
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from helixlab.errors import FileFormatError, HelixlabError, ModelError, UnknownNameError
from helixlab.model import load_model, machine_throughput, model_names, save_model

LLAMA = load_model("llama-1-30b")


@pytest.fixture
def content(tmp_path):
    """What `save_model` writes, as plain data."""
    save_model(LLAMA, tmp_path / "model.json")
    return json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))


@pytest.fixture
def written(tmp_path):
    """A file that holds a text, or plain data as JSON."""

    def write(what):
        path = tmp_path / "my-model.json"
        path.write_text(what if isinstance(what, str) else json.dumps(what), encoding="utf-8")
        return path

    return write


def complaint(path):
    """What reading the file complains about; None if nothing."""
    try:
        load_model(path)
    except HelixlabError as error:
        return str(error)
    return None


class TestThereAndBack:
    @pytest.mark.parametrize("name", model_names())
    def test_bundled(self, name, tmp_path):
        save_model(load_model(name), tmp_path / "model.json")
        assert load_model(tmp_path / "model.json") == load_model(name)
        assert load_model(str(tmp_path / "model.json")) == load_model(name)

    def test_a_gpu_of_ones_own(self, tmp_path):
        h100 = replace(LLAMA.profile("A100"), machine="H100", initial_relative_speed=150.5)
        model = replace(LLAMA.with_profile(h100), name="mine")
        save_model(model, tmp_path / "mine.json")
        back = load_model(tmp_path / "mine.json")
        assert back == model
        assert repr(back).startswith("Model('mine': 60 layers of 1 GB, profiles of A100, H100")
        counts = {"H100": 2, "T4": 8}
        for machine, values in machine_throughput(model, counts).items():
            assert machine_throughput(back, counts)[machine].tolist() == values.tolist()

    def test_any_ending(self, tmp_path):
        save_model(LLAMA, tmp_path / "model")
        assert load_model(tmp_path / "model") == LLAMA

    def test_a_file_does_not_hide_a_bundled_model(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "llama-1-30b").write_text("something else", encoding="utf-8")
        assert load_model("llama-1-30b") == LLAMA

    def test_nothing_half_written(self, tmp_path):
        save_model(LLAMA, tmp_path / "model.json")
        assert os.listdir(tmp_path) == ["model.json"]


class TestNames:
    @pytest.mark.parametrize("name", ["llama", "", "../models.csv", "x" * 5000, "a\0b"])
    def test_unknown(self, name):
        with pytest.raises(UnknownNameError, match="llama-1-30b, llama-2-70b"):
            load_model(name)

    def test_what_is_close(self):
        with pytest.raises(UnknownNameError, match="did you mean 'llama-2-70b'"):
            load_model("llama2-70b")

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileFormatError, match="check the path"):
            load_model(tmp_path / "none.json")


class TestHostileFiles:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not valid JSON"),
            ("{", "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            (
                "[]",
                r"is no model file but holds \[\]; give a file of format 'helixlab-model', as save_model",
            ),
            ("7", "is no model file but holds 7"),
            ("{}", "holds an empty object"),
            ('{"name": "mine", "layers": 3}', "holds an object with the keys 'name', 'layers'; give"),
            (
                '{"hidden_size": 3072}',
                "looks like the config.json of a Hugging Face model, which helixlab does not read",
            ),
            ('{"nbformat": 4}', "looks like a notebook"),
            (
                '{"format": "helixlab-model", "format": 1}',
                "has the key 'format' twice in one object; keep one of them",
            ),
            ('{"format": "helixlab-cluster"}', "has format 'helixlab-cluster'; a model file has"),
            ('{"format": "helixlab-model"}', "is of version None"),
            ('{"format": "helixlab-model", "version": 2}', "is of version 2; this helixlab reads version 1"),
            ('{"format": "helixlab-model", "version": true}', "is of version True"),
            ('{"format": "helixlab-model", "version": 1}', "has no 'name'; add it"),
        ],
    )
    def test_other_texts(self, written, text, message):
        with pytest.raises(FileFormatError, match=message) as caught:
            load_model(written(text))
        assert "my-model.json" in str(caught.value)
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
    def test_numbers_that_json_has_not(self, written, content, number):
        text = json.dumps(content | {"layer_bytes": "HERE"}).replace('"HERE"', number)
        with pytest.raises(FileFormatError, match=f"{number} is not a number"):
            load_model(written(text))

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("layers", "60", "layers of model 'llama-1-30b' is '60'"),
            ("layers", True, "is True"),
            ("layers", 1e300, r"is 1e\+300"),
            ("layers", 10**300, "is 1000"),
            ("layer_bytes", None, "layer_bytes of model 'llama-1-30b' is None"),
            ("layer_bytes", 10**400, "layer_bytes"),
            ("layer_bytes", -1, "is -1"),
            ("token_bytes", [2], r"is \[2\]"),
            ("name", 7, "printable"),
            ("name", "a\u0000b", "printable"),
        ],
    )
    def test_values(self, written, content, key, value, message):
        with pytest.raises(ModelError, match=message) as caught:
            load_model(written(content | {key: value}))
        assert "my-model.json" in str(caught.value)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("kv_blocks", 7, "kv_blocks of A100 is 7; give a sequence"),
            ("kv_blocks", {"1": 2}, "give a sequence"),
            ("kv_blocks", [1, None], "every limit|kv_blocks of A100 is None"),
            ("prompt_layer_s", [0, "x"], "times"),
            ("decode_batch_tokens", [0, 1] * 50_000, "batch sizes"),
            ("typical_layers", 1.5, "typical_layers of A100 is 1.5"),
            ("machine", None, "machine None"),
        ],
    )
    def test_values_of_a_profile(self, written, content, key, value, message):
        content["profiles"][0][key] = value
        with pytest.raises(ModelError, match=message) as caught:
            load_model(written(content))
        assert len(str(caught.value)) < 300

    def test_keys(self, written, content):
        with pytest.raises(
            FileFormatError, match="unknown key 'colour'; leave it out, known are: format, version"
        ):
            load_model(written(content | {"colour": "red"}))
        del content["profiles"][0]["kv_blocks"]
        with pytest.raises(FileFormatError, match=r"profile 0 of .*my-model.json has no 'kv_blocks'; add it"):
            load_model(written(content))
        content["profiles"] = [7]
        with pytest.raises(
            FileFormatError, match=r"profile 0 of .* is 7; give an object with the keys machine"
        ):
            load_model(written(content))
        content["profiles"] = {}
        with pytest.raises(FileFormatError, match=r"profiles of .* are {}; give a list"):
            load_model(written(content))

    def test_two_profiles_of_a_machine(self, written, content):
        content["profiles"].append(content["profiles"][0])
        with pytest.raises(ModelError, match="'A100' has two profiles; keep one"):
            load_model(written(content))

    @given(cut=st.floats(0, 1, exclude_max=True))
    def test_cut_off(self, cut, tmp_path_factory):
        path = tmp_path_factory.mktemp("cut") / "model.json"
        save_model(LLAMA, path)
        text = path.read_text(encoding="utf-8").strip()
        path.write_text(text[: int(cut * len(text))], encoding="utf-8")
        with pytest.raises(FileFormatError, match="cut off"):
            load_model(path)

    @given(data=st.data())
    def test_any_value_anywhere(self, data, tmp_path_factory):
        path = tmp_path_factory.mktemp("any") / "model.json"
        save_model(replace(LLAMA, name="mine"), path)
        content = json.loads(path.read_text(encoding="utf-8"))
        place = data.draw(st.sampled_from([content, content["profiles"][0]]))
        key = data.draw(st.sampled_from(sorted(place)))
        place[key] = data.draw(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
            | st.text() | st.lists(st.integers() | st.floats(0, 9) | st.none())
        )  # fmt: skip
        path.write_text(json.dumps(content), encoding="utf-8")
        message = complaint(path)
        if message is None:
            model = load_model(path)
            save_model(model, path)
            assert load_model(path) == model
        else:
            assert "model.json" in message


class TestNamesOfOthers:
    @pytest.mark.parametrize("name", ["llama-2-70b", "LLaMA-2-70b "])
    def test_a_file_that_bears_the_name_of_a_bundled_one(self, name, tmp_path):
        save_model(replace(LLAMA, name=name), tmp_path / "mine.json")
        message = (
            f"mine.json calls its model {name!r}, but its content is not that of the bundled one; rename it,"
            " or results are taken for those of another model"
        )
        with pytest.warns(UserWarning, match=message):
            load_model(tmp_path / "mine.json")

    @pytest.mark.parametrize(
        "model", [LLAMA, replace(LLAMA, name="LLaMA-1-30b"), replace(LLAMA, name="mine")]
    )
    def test_those_that_are_what_they_say(self, model, tmp_path):
        save_model(model, tmp_path / "mine.json")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_model(tmp_path / "mine.json") == model
