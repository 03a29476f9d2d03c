"""A saved figure is three whole files, the same bytes every time."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import helixlab as hx
from helixlab.diagnosis import idle_nodes, losses, time_breakdown
from helixlab.errors import FileFormatError
from helixlab.plotting import panels, plot_throughput, save_figure, save_table

TABLE = pd.DataFrame({"method": ["helix", "swarm"], "decode_tokens_per_s": [250.0, 125.0]})


def test_three_files_with_the_table_behind(tmp_path: Path) -> None:
    files = save_figure(plot_throughput(TABLE).figure, "bars", tmp_path / "new" / "folder", TABLE)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "bars.csv",
        "bars.pdf",
        "bars.png",
    ]
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    assert files["pdf"].read_bytes().startswith(b"%PDF")
    pd.testing.assert_frame_equal(pd.read_csv(files["csv"]), TABLE)


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    once = save_figure(plot_throughput(TABLE).figure, "bars", tmp_path / "once", TABLE)
    again = save_figure(plot_throughput(TABLE).figure, "bars", tmp_path / "again", TABLE)
    assert b"CreationDate" not in once["pdf"].read_bytes()
    for ending, path in once.items():
        assert path.read_bytes() == again[ending].read_bytes(), ending


def test_saving_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    save_figure(plot_throughput(TABLE).figure, "bars", tmp_path, TABLE)
    save_figure(plot_throughput(TABLE).figure, "bars", tmp_path, TABLE.head(1))
    assert len(list(tmp_path.iterdir())) == 3
    assert len(pd.read_csv(tmp_path / "bars.csv")) == 1


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_name_is_not_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileFormatError, match="plain name"):
        save_figure(plot_throughput(TABLE).figure, name, tmp_path, TABLE)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileFormatError, match="another folder"):
        save_figure(plot_throughput(TABLE).figure, "bars", tmp_path / "file", TABLE)


def test_the_figure_can_be_drawn_on_after_saving(tmp_path: Path) -> None:
    figure = plot_throughput(TABLE).figure
    engine = figure.get_layout_engine()
    save_figure(figure, "bars", tmp_path, TABLE)
    assert figure.get_layout_engine() is engine


def test_the_runs_behind_a_figure_are_written_into_it(tmp_path: Path) -> None:
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    runs = [
        hx.simulate(cluster, model, placement, scheduler=name, workload=hx.offline(warmup_s=0, duration_s=5))
        for name in ("helix", "swarm")
    ]
    figure, _ = panels()
    files = save_figure(figure, "two", tmp_path, pd.DataFrame({"x": [1]}), results=runs)
    with Image.open(files["png"]) as picture:
        told = picture.info["Description"]
    assert told.splitlines() == [result.origin for result in runs]
    for result in runs:
        assert placement.content_hash[:8] in result.origin
        assert result.provenance["scheduler"]["name"] in result.origin
        assert "seed 0" in result.origin


def test_a_table_of_runs_says_what_they_were(tmp_path: Path) -> None:
    grid = {"placement": "small10/llama-1-30b/helix", "scheduler": ["helix", "swarm"]}
    workload = hx.offline(warmup_s=0, duration_s=5)
    runs = hx.sweep(grid | {"workload": workload}, seeds=2, progress=False)
    figure, _ = panels()
    for files in (
        save_figure(figure, "itself", tmp_path, runs),
        save_figure(figure, "apart", tmp_path, TABLE, results=runs),
    ):
        with Image.open(files["png"]) as picture:
            told = picture.info["Description"].splitlines()
        assert len(told) == 2
        for line, scheduler in zip(told, ("helix", "swarm"), strict=True):
            assert hx.load_placement(grid["placement"]).content_hash[:8] in line
            assert f"scheduler {scheduler}; execution greedy; on_full wait; mode offline; trace" in line
            assert "warmup_s 0; duration_s 5; seed 0, 1; helixlab" in line


def test_runs_of_other_settings_have_lines_of_their_own(tmp_path: Path) -> None:
    grid = {
        "placement": "small10/llama-1-30b/helix",
        "execution": [hx.chunked(), hx.chunked(chunk_tokens=128)],
        "on_full": ["wait", "drop"],
        "kv_high_water_mark": [0.5, 0.85],
        "expected_output_ratio": 2.0,
        "workload": hx.offline(warmup_s=0, duration_s=5),
    }
    save_table(TABLE, "bars", tmp_path, results=hx.sweep(grid, progress=False))
    lines = (tmp_path / "bars.origin.txt").read_text().splitlines()
    assert len(lines) == 8
    for line in lines:
        assert "; expected_output_ratio 2; " in line
    assert sum("; chunk_tokens 128; " in line for line in lines) == 4
    assert sum("; on_full drop; kv_high_water_mark 0.5; " in line for line in lines) == 2


@pytest.mark.parametrize("results", [3, ["a"], "some"])
def test_results_that_are_none(tmp_path: Path, results: object) -> None:
    figure, _ = panels()
    with pytest.raises(FileFormatError, match="give results of simulate"):
        save_figure(figure, "none", tmp_path, TABLE, results=results)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_names_no_runs_has_them_beside_it(tmp_path):
    runs = pd.DataFrame({"placement": "mine", "placement_hash": "abc", "scheduler": "helix", "seed": [0, 1]})
    save_table(TABLE, "bars", tmp_path)
    assert not (tmp_path / "bars.origin.txt").exists()
    save_table(TABLE, "bars", tmp_path, results=runs)
    (line,) = (tmp_path / "bars.origin.txt").read_text().splitlines()
    assert line.startswith("placement mine (abc); scheduler helix; seed 0, 1; helixlab ")
    with pytest.raises(FileFormatError, match="give results of simulate"):
        save_table(TABLE, "bars", tmp_path, results=[TABLE])


def test_tables_of_a_result_bring_their_origin(tmp_path):
    result = hx.simulate(
        hx.load_cluster("small10"),
        hx.load_model("llama-1-30b"),
        hx.load_placement("small10/llama-1-30b/helix"),
        workload=hx.offline(warmup_s=0, duration_s=5),
        keep_breakdown=True,
    )
    for table in (result.nodes, losses(result), idle_nodes(result), time_breakdown(result)):
        save_table(table.head(3), "few", tmp_path)
        assert (tmp_path / "few.origin.txt").read_text() == f"{result.origin}\n"
    figure, _ = panels()
    files = save_figure(figure, "drawn", tmp_path, result.nodes)
    with Image.open(files["png"]) as picture:
        assert picture.info["Description"] == result.origin
    assert not (tmp_path / "drawn.origin.txt").exists(), "the picture has it"
    save_table(result.summary, "itself", tmp_path)
    assert not (tmp_path / "itself.origin.txt").exists(), "it names what ran in its columns"
