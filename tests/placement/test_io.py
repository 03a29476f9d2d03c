"""Placement files: there and back, by name, and everything that can be wrong with one."""

import json
import math
import os
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from helixlab.cluster import load_cluster
from helixlab.errors import FileFormatError, HelixlabError, PlacementError, UnknownNameError
from helixlab.model import load_model
from helixlab.placement import PlanReport, load_placement, placement_names, save_placement
from helixlab.planning import plan

SMALL = load_placement("small10/llama-1-30b/helix")
PART = "single24/llama-2-70b/separate-a100"


@pytest.fixture
def content(tmp_path):
    """A placement file as plain data: of a part of a cluster, with a report."""
    report = PlanReport("time limit", 1.5, 2.5, 3.5, ((0.0, 1.0, 9.0), (1.0, 1.5, 2.5)))
    save_placement(replace(load_placement(PART), report=report), tmp_path / "placement.json")
    return json.loads((tmp_path / "placement.json").read_text(encoding="utf-8"))


@pytest.fixture
def written(tmp_path):
    """A file that holds a text, or plain data as JSON."""

    def write(what):
        path = tmp_path / "my-placement.json"
        path.write_text(what if isinstance(what, str) else json.dumps(what), encoding="utf-8")
        return path

    return write


def complaint(path):
    """What reading the file complains about; None if nothing."""
    try:
        load_placement(path)
    except HelixlabError as error:
        return str(error)
    return None


class TestThereAndBack:
    @pytest.mark.parametrize("name", placement_names())
    def test_bundled(self, name, tmp_path):
        placement = load_placement(name)
        assert placement.name == name
        save_placement(placement, tmp_path / "placement.json")
        assert load_placement(tmp_path / "placement.json") == placement
        assert load_placement(str(tmp_path / "placement.json")).part == placement.part

    def test_planned(self, tmp_path):
        cluster, model = load_cluster("hetero42"), load_model("llama-2-70b")
        placement = plan(cluster, model, method="separate", overfill=True)
        save_placement(placement, tmp_path / "placement")
        back = load_placement(tmp_path / "placement")
        assert back == placement
        assert back.kv_capacity_token_layers == placement.kv_capacity_token_layers
        assert back.report == placement.report

    def test_report_of_a_search_that_has_not_found_anything_yet(self, tmp_path):
        trace = ((0.0, -math.inf, math.inf), (1.0, 5.0, math.inf), (2.0, 5.0, 6.0))
        save_placement(
            replace(SMALL, report=PlanReport("time limit", 5.0, 6.0, 2.0, trace)), tmp_path / "p.json"
        )
        back = load_placement(tmp_path / "p.json").report
        assert back is not None
        assert (back.status, back.gap) == ("time limit", pytest.approx(0.2))
        assert back.trace[2] == (2.0, 5.0, 6.0)
        assert math.isnan(back.trace[0][1])
        assert math.isnan(back.trace[1][2])

    def test_nothing_half_written(self, tmp_path):
        save_placement(SMALL, tmp_path / "placement.json")
        assert os.listdir(tmp_path) == ["placement.json"]


class TestNames:
    @pytest.mark.parametrize(
        "name", ["helix", "", "../placements/small10", "single24", "x" * 5000, "a\0b", "/"]
    )
    def test_unknown(self, name):
        with pytest.raises(UnknownNameError, match="unknown placement"):
            load_placement(name)

    def test_what_is_close(self):
        with pytest.raises(UnknownNameError, match="did you mean 'single24/llama-2-70b/helix'"):
            load_placement("single24/llama-2-70b/helicks")

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileFormatError, match="check the path"):
            load_placement(tmp_path / "none.json")

    def test_ini(self):
        with pytest.raises(FileFormatError, match="call read_placement_ini with both"):
            load_placement("ilp_sol.ini")


@pytest.mark.filterwarnings("ignore:.*calls its placement")
class TestHostileFiles:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not valid JSON"),
            ('{"format":', "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            ("[]", r"is no placement file but holds \[\]; give a file of format 'helixlab-placement'"),
            ('{"layers": [], "layers": []}', "has the key 'layers' twice in one object"),
            ('{"format": "helixlab-model"}', "has format 'helixlab-model'"),
            ('{"format": "helixlab-placement"}', "is of version None"),
            ('{"format": "helixlab-placement", "version": 1.0}', "is of version 1.0"),
            ('{"format": "helixlab-placement", "version": 9}', "this helixlab reads version 1"),
            ('{"format": "helixlab-placement", "version": 1}', "'name' is None; give it as text"),
        ],
    )
    def test_other_texts(self, written, text, message):
        with pytest.raises(FileFormatError, match=message) as caught:
            load_placement(written(text))
        assert "my-placement.json" in str(caught.value)
        assert len(str(caught.value)) < 500

    def test_not_text(self, tmp_path):
        path = tmp_path / "placement.json"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(FileFormatError, match="not a UTF-8 text file"):
            load_placement(path)

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
    def test_numbers_that_json_has_not(self, written, content, number):
        text = json.dumps(content | {"layers": [[0, 0, "HERE"]]}).replace('"HERE"', number)
        with pytest.raises(FileFormatError, match=f"{number} is not a number"):
            load_placement(written(text))

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("name", None, "'name' is None; give it as text"),
            ("cluster", 7, "'cluster' is 7"),
            ("source", ["x"], r"'source' is \['x'\]"),
            ("layers", None, r"'layers' is None; give a list of \[node, first layer, end layer\]"),
            ("layers", {"0": [0, 1]}, "'layers' is {'0'"),
            ("layers", [[0, 1]], r"'layers' holds \[0, 1\]; give \[node, first layer, end layer\]"),
            ("layers", [7], "'layers' holds 7"),
            ("layers", [[True, 0, 1]], "a node or layer is True; give a whole number"),
            ("layers", [[0, 0.0, 1]], "a node or layer is 0.0"),
            ("layers", [[0, "0", 1]], "a node or layer is '0'"),
            ("layers", [[0, -1, 1]], "a node or layer is -1"),
            ("layers", [[0, 0, 10**300]], "a node or layer is 1000"),
            ("layers", [[0, 0, None]], "a node or layer is None"),
            ("links", [["source"]], r"'links' holds \['source'\]; give \[sender, receiver\]"),
            ("links", [["source", "drain"]], "an end of a link that is not 'source' or 'sink' is 'drain'"),
            ("links", [["source", False]], "is False"),
            ("links", [[[], {}]], r"is \[\]"),
            ("links", "source", "'links' is 'source'"),
            ("kv_capacity_token_layers", [1], "'kv_capacity_token_layers' is"),
            ("kv_capacity_token_layers", {"one": 1}, "names node 'one'; write its index"),
            ("kv_capacity_token_layers", {"01": 1}, "names node '01'"),
            ("kv_capacity_token_layers", {"-1": 1}, "names node '-1'"),
            ("kv_capacity_token_layers", {"٣": 1}, "names node"),
            ("kv_capacity_token_layers", {"0": 1.5}, "a KV capacity is 1.5"),
            ("kv_capacity_token_layers", {"0": True}, "a KV capacity is True"),
            ("kv_capacity_token_layers", {"0": -1}, "a KV capacity is -1"),
            ("colour", "red", "unknown key 'colour'; leave it out"),
            ("part", "single24", "part of .*my-placement.json is no cluster file but holds 'single24'"),
            ("part", {"format": "helixlab-cluster"}, "part of .*is of version None"),
            ("report", [1], r"'report' is \[1\]; give an object with status"),
            ("report", {"status": "heuristic"}, "'report' is .*give an object with status"),
        ],
    )
    def test_values(self, written, content, key, value, message):
        with pytest.raises(FileFormatError, match=message) as caught:
            load_placement(written(content | {key: value}))
        assert "my-placement.json" in str(caught.value)
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("status", 5, "'report' is"),
            ("wall_s", "long", "'report' holds 'long'"),
            ("wall_s", True, "'report' holds True"),
            ("objective_tokens_per_s", [], r"'report' holds \[\]"),
            ("upper_bound_tokens_per_s", 10**400, "'report' holds 1000"),
            ("trace", [[1, 2]], r"'trace' holds \[1, 2\]"),
            ("trace", [[1, 2, "x"]], "'report' holds 'x'"),
            ("trace", None, "'trace' is None"),
            ("more", 1, "'report' is"),
        ],
    )
    def test_reports(self, written, content, key, value, message):
        content["report"][key] = value
        with pytest.raises(FileFormatError, match=message):
            load_placement(written(content))

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("layers", [[0, 5, 5]], r"node 0 holds layers \[5, 5\)"),
            ("layers", [[0, 0, 80]] * 2, "node 0 is listed 2 times"),
            ("layers", [[n // 2, 0, 1] for n in range(100_000)], "node 0 is listed 2 times"),
            ("links", [["source", 0]] * 2, "link source -> 0 is listed 2 times"),
            ("links", [[0, n % 70_000] for n in range(100_000)], "link 0 -> 0 is listed 2 times"),
            ("kv_capacity_token_layers", {"9": 1}, "node 9, which holds no layers"),
            ("cluster", "geo24-a100", "has the nodes and links of 'single24-a100'; use one name for both"),
        ],
    )
    def test_impossible(self, written, content, key, value, message):
        with pytest.raises(PlacementError, match=message) as caught:
            load_placement(written(content | {key: value}))
        assert "my-placement.json: " in str(caught.value)

    @given(cut=st.floats(0, 1, exclude_max=True))
    def test_cut_off(self, cut, tmp_path_factory):
        path = tmp_path_factory.mktemp("cut") / "placement.json"
        save_placement(load_placement(PART), path)
        text = path.read_text(encoding="utf-8").strip()
        path.write_text(text[: int(cut * len(text))], encoding="utf-8")
        with pytest.raises(FileFormatError, match="cut off"):
            load_placement(path)

    @given(data=st.data())
    def test_any_value_anywhere(self, data, tmp_path_factory):
        path = tmp_path_factory.mktemp("any") / "placement.json"
        save_placement(load_placement(PART), path)
        content = json.loads(path.read_text(encoding="utf-8"))
        key = data.draw(st.sampled_from(sorted(content)))
        ends = st.integers(-1, 5) | st.sampled_from(["source", "sink"]) | st.none()
        content[key] = data.draw(
            st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.lists(ends, max_size=3))
            | st.dictionaries(st.text("0123", min_size=1), st.integers(-1))
        )  # fmt: skip
        path.write_text(json.dumps(content), encoding="utf-8")
        message = complaint(path)
        if message is None:
            placement = load_placement(path)
            save_placement(placement, path)
            assert load_placement(path) == placement
        else:
            assert "placement.json" in message
            assert len(message) < 600
