"""Notebooks: a parameter that makes no sense ends in one line, and what they write goes to the project."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helixlab.reproduce import NotebookError, reproduce
from helixlab.reproduce.parameters import check_parameters, output_folder

GOOD: dict[str, list[Any]] = {
    "scale": ["full", "smoke"],
    "seed": [0, 7, np.int64(3), 2**80],
    "seeds": [1, 20],
    "n_jobs": [1, 64, -1],
    "replan": [True, False],
    "figures": [["5a"], ["5a", "table8"]],
    "output": [None, "figures", Path("figures")],
    "store": [None, "runs", Path("runs")],
    "on_full": ["wait", "drop"],
    "requests_in_flight": [1, 180],
    "own": ["whatever", None],
}
BAD: dict[str, list[Any]] = {
    "scale": ["Full", "", None, 1, ["full"], {}, True],
    "seed": ["5", 5.0, -1, None, True, [0], float("nan")],
    "seeds": ["5", 2.0, 0, -3, None, True, [1, 2]],
    "n_jobs": ["2", 2.0, -1.0, 0, -2, None, True, False],
    "replan": ["False", 0, 1, None, []],
    "figures": [[], "5a", ["5a", 5], [None], [["5a"]], None, {"5a": 1}, ("5a",)],
    "output": ["", "  ", 5, False, [], "a\0b", b"figures"],
    "store": ["", 0, True, {}],
    "on_full": ["Wait", "", None, True],
    "requests_in_flight": [0, -1, 1.5, "180", None, True],
}


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The shell of a notebook: its cells so far, and its names."""
    shell = SimpleNamespace(history_manager=SimpleNamespace(input_hist_parsed=[""]), user_ns={})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    return shell


def ran(notebook: SimpleNamespace, *cells: str) -> None:
    notebook.history_manager.input_hist_parsed.extend(cells)


@pytest.mark.parametrize("name", GOOD)
def test_values_that_make_sense(name: str) -> None:
    for value in GOOD[name]:
        check_parameters(**{name: value})


@pytest.mark.parametrize("name", BAD)
def test_values_that_make_none(name: str) -> None:
    for value in [*BAD[name], "x" * 500, "two\nlines", object()]:
        if (
            isinstance(value, str)
            and name in ("output", "store")
            and value.strip(" \0")
            and "\0" not in value
        ):
            continue
        with pytest.raises(NotebookError, match=f"^{name} is .*; give ") as raised:
            check_parameters(**{name: value})
        assert len(str(raised.value).splitlines()) == 1
        assert len(str(raised.value)) < 170


def test_a_parameter_that_the_notebook_does_not_have(notebook: SimpleNamespace) -> None:
    ran(notebook, 'scale = "full"\nseed = 0', '# Parameters\nscale = "smoke"\nsede = 3\n')
    with pytest.raises(NotebookError, match=r"no parameter 'sede'; give any of scale, seed$"):
        check_parameters(scale="smoke", seed=0)


@pytest.mark.parametrize(
    "cells",
    [
        ["# Parameters\nscale = 'smoke'\n"],
        ["seed = 0", "figure = draw()\naxes = 3"],  # what a reader has run so far
        ["# Parameters\nsede = 3", "# Parameters\nseed = 3"],  # mended, and run again
        ["%matplotlib inline", "this is no Python"],
    ],
)
def test_what_else_a_notebook_has_run_does_no_harm(notebook: SimpleNamespace, cells: list[str]) -> None:
    ran(notebook, *cells)
    check_parameters(scale="smoke", seed=0)


def test_figures_are_those_of_the_notebook(notebook: SimpleNamespace) -> None:
    ran(notebook, 'figures = ["9a", "10a"]', '# Parameters\nfigures = ["9z"]\n')
    check_parameters(figures=["10a"])
    with pytest.raises(NotebookError, match=r"figures has '9z'; give a list of any of 9a, 10a$"):
        check_parameters(figures=["9a", "9z"])


@pytest.mark.parametrize("wrong", [{"seed": "5"}, {"seed": -1}, {"seeds": 2.0}, {"replan": 1}])
def test_reproduce_takes_the_same(root: Path, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(NotebookError, match=f"{next(iter(wrong))} is .*; give "):
        reproduce(root / "notebooks", output=tmp_path / "figures", **wrong)
    assert not (tmp_path / "figures").exists()


# Where files go


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Notebooks of the study, two folders below."""
    folder = tmp_path / "work" / "project"
    write(folder / "notebooks" / "01_first.ipynb", "output = output_folder(output)")
    return folder


def write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [source]}]}), encoding="utf-8")


@pytest.mark.parametrize("inside", [".", "notebooks", "notebooks/more/deep", "figures", "own"])
def test_the_project_around_the_working_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], inside: str
) -> None:
    (project / inside).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(project / inside)
    assert output_folder() == project / "figures"
    assert capsys.readouterr().out == ""


def test_the_project_below_the_working_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.parent)
    assert output_folder() == project / "figures", "not beside it"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"Files go to {project / 'figures'}: ")
    write(project.parent / "another" / "notebooks" / "01_first.ipynb", "output_folder(output)")
    assert output_folder() == project.parent / "figures", "nobody knows which of the two"


def test_without_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own" / "notebooks"  # somebody's, of another kind
    write(own / "01_sales.ipynb", "plot()")
    (own / "02_broken.ipynb").mkdir()
    monkeypatch.chdir(own)
    assert output_folder() == own / "figures"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"Files go to {own / 'figures'}: ")


def test_the_editor_knows_the_notebook(
    project: Path, tmp_path: Path, notebook: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    notebook.user_ns["__vsc_ipynb_file__"] = str(project / "notebooks" / "01_first.ipynb")
    assert output_folder() == project / "figures"
    notebook.user_ns["__vsc_ipynb_file__"] = "/no/such.ipynb"
    assert output_folder() == elsewhere / "figures"


def test_a_folder_that_is_given_wins(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert output_folder("mine") == Path("mine")
    assert output_folder(project / "mine") == project / "mine"
    (project / "file").touch()
    with pytest.raises(NotebookError, match="is no folder; give another path"):
        output_folder("file")
