"""What a result says of itself is true."""

import json
from dataclasses import replace

import pandas as pd
import pytest

import helixlab as hx
from helixlab.errors import FileFormatError
from helixlab.scheduling import Scheduler
from helixlab.simulation.columns import TABLES

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
SHORT = hx.offline(warmup_s=0, duration_s=5, rng=0)
ALWAYS = 0


def first(state, sender, request):
    return state.nodes[sender].first_link


def first_of(place):
    def choose(state, sender, request):
        return state.nodes[sender].first_link + place

    return choose


def source(placement=SYSTEM[2], **how):
    return hx.simulate(*SYSTEM[:2], placement, workload=SHORT, **how).provenance


def test_a_changed_placement_is_not_shown_as_the_published_one():
    other = replace(SYSTEM[2], kv_capacity_token_layers={0: 200_000})
    result = hx.simulate(*SYSTEM[:2], other, workload=SHORT)
    shown = f"small10/llama-1-30b/helix@{other.content_hash[:8]}"
    assert result.metrics["placement"] == result.provenance["placement"]["name"] == shown
    assert result.metrics["placement_hash"] == other.content_hash
    assert shown in repr(result)


def test_own_functions_have_hashes():
    one, same, other = (
        source(scheduler=Scheduler("mine", first_of(place)))["scheduler"] for place in (0, 0, 0.0)
    )
    assert one == same
    assert one["hash"] != other["hash"]
    assert source(scheduler=Scheduler("mine", first))["scheduler"]["hash"] != one["hash"]
    assert source(scheduler="swarm")["scheduler"]["hash"] != source(scheduler="random")["scheduler"]["hash"]


def test_own_policies_have_hashes():
    def alone(node, request):
        return node.batch_prompts + node.batch_decode_tokens == 0

    def everything(node, request):
        return True

    one, other = (
        source(execution=hx.Execution("mine", admits))["execution"] for admits in (alone, everything)
    )
    assert one["hash"] != other["hash"]


def test_it_says_which_code_ran():
    assert len(source()["versions"]["helixlab_code"]) == 16


def test_the_origin_tells_settings_that_are_not_the_usual_ones():
    usual = hx.simulate(*SYSTEM, workload=SHORT)
    for words in ("dropped", "kv_high_water_mark", "expected_output_ratio", "arrivals"):
        assert words not in usual.origin
    online = hx.online(rate_tokens_per_s=50, duration_s=5, trace="azure-conv", rng=0)
    assert "arrivals" not in hx.simulate(*SYSTEM, workload=online).origin
    other = hx.simulate(
        *SYSTEM,
        workload=replace(online, arrivals="poisson"),
        on_full="drop",
        kv_high_water_mark=0.85,
        expected_output_ratio=1.0,
    )
    named = "; arrivals poisson; requests dropped on full; kv_high_water_mark 0.85; expected_output_ratio 1; "
    assert named in other.origin


def test_dropping_is_named_wherever_a_result_is_shown():
    waits, drops = (hx.simulate(*SYSTEM, workload=SHORT, on_full=what) for what in ("wait", "drop"))
    assert "drop" not in repr(waits)
    assert "offline, requests dropped on full: " in repr(drops)
    assert "<th>on_full</th><td>drop</td>" in drops._repr_html_()


@pytest.mark.parametrize("part", ["name", "layers", "hash"])
def test_a_result_changed_by_hand_is_refused(tmp_path, part):
    folder = hx.simulate(*SYSTEM, workload=SHORT).save(tmp_path / "run")
    content = json.loads((folder / "result.json").read_text())
    placement = content["provenance"]["placement"]
    placement[part] = placement["layers"][:-1] if part == "layers" else "another"
    (folder / "result.json").write_text(json.dumps(content))
    with pytest.raises(
        FileFormatError, match="its placement is not the one it says it ran with; simulate again"
    ):
        hx.load_result(folder)


def test_a_summary_changed_by_hand_is_refused(tmp_path):
    folder = hx.simulate(*SYSTEM, workload=SHORT).save(tmp_path / "run")
    summary = pd.read_parquet(folder / "summary.parquet")
    summary.assign(placement="another").to_parquet(folder / "summary.parquet")
    with pytest.raises(FileFormatError, match="was changed after it was written"):
        hx.load_result(folder)


@pytest.mark.parametrize(("table", "column"), [("summary", "decode_tokens_per_s"), ("nodes", "tokens")])
def test_metrics_changed_by_hand_are_refused(tmp_path, table, column):
    folder = hx.simulate(*SYSTEM, workload=SHORT).save(tmp_path / "run")
    content = pd.read_parquet(folder / f"{table}.parquet")
    content.assign(**{column: 999}).to_parquet(folder / f"{table}.parquet", index=False)
    with pytest.raises(
        FileFormatError, match=f"changed after it was written: table {table!r} is another one"
    ):
        hx.load_result(folder)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("scheduler", "name", "random"),
        ("workload", "seed", 7),
        ("cluster", "name", "geo24"),
        ("settings", "on_full", "drop"),
    ],
)
def test_a_provenance_that_the_summary_contradicts_is_refused(tmp_path, part, key, value):
    workload = hx.offline(duration_s=5, warmup_s=0)
    folder = hx.simulate(*SYSTEM, scheduler="swarm", workload=workload).save(tmp_path / "run")
    content = json.loads((folder / "result.json").read_text())
    content["provenance"][part][key] = value
    (folder / "result.json").write_text(json.dumps(content))
    what = part if key == "name" else key
    with pytest.raises(FileFormatError, match=f"its {what} is not the one it says it ran with"):
        hx.load_result(folder)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("settings", "kv_high_water_mark", 0.5),
        ("cluster", "hash", "0123456789abcdef"),
        ("scheduler", "parameters", [1.0]),
        ("workload", "trace", "sharegpt"),
        ("versions", "helixlab", "9.9"),
        ("notes", "more", "than there was"),
    ],
)
def test_a_provenance_changed_by_hand_is_refused(tmp_path, part, key, value):
    folder = hx.simulate(*SYSTEM, workload=SHORT).save(tmp_path / "run")
    content = json.loads((folder / "result.json").read_text())
    content["provenance"].setdefault(part, {})[key] = value
    (folder / "result.json").write_text(json.dumps(content))
    with pytest.raises(
        FileFormatError, match="changed after it was written: its provenance is another one; simulate again"
    ):
        hx.load_result(folder)


def test_a_result_may_be_loaded_and_saved_again(tmp_path):
    online = hx.online(rate_tokens_per_s=50, duration_s=5, rng=0)
    for at, how in enumerate(({}, {"workload": online, "execution": "chunked", "kv_high_water_mark": 1 / 3})):
        once = hx.simulate(*SYSTEM, **{"workload": SHORT} | how)
        again = hx.load_result(once.save(tmp_path / f"{at} once"))
        third = hx.load_result(again.save(tmp_path / f"{at} again"))
        assert third.provenance == again.provenance
        assert third.origin == once.origin


def test_every_table_says_where_it_comes_from(tmp_path):
    result = hx.simulate(*SYSTEM, workload=SHORT, keep_batches=True, keep_breakdown=True)
    again = hx.load_result(result.save(tmp_path / "run"))
    for name in TABLES:
        table, loaded = getattr(result, name), getattr(again, name)
        assert table.attrs["origin"] == loaded.attrs["origin"] == result.origin
        pd.testing.assert_frame_equal(table, loaded)
        assert table.equals(loaded)
        assert pd.read_parquet(tmp_path / "run" / f"{name}.parquet").attrs["origin"] == result.origin
    assert again.save(tmp_path / "again")
    assert "origin" not in hx.max_flow(*SYSTEM).bottlenecks.attrs


def test_tables_of_several_results_have_no_single_origin():
    first, other = (hx.simulate(*SYSTEM, workload=SHORT, scheduler=name) for name in ("helix", "swarm"))
    both = pd.concat([first.nodes, other.nodes], ignore_index=True)
    assert len(both) == 20
    assert "origin" not in both.attrs
    assert pd.concat([first.nodes, first.nodes]).attrs["origin"] == first.origin
    assert len(first.nodes.merge(other.nodes, on="node")) == 10
