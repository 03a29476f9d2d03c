"""Running the notebooks: order, parameters, interpreter, what is written, and how it fails."""

import importlib
import os
import sys
from pathlib import Path

import nbformat
import pytest

from helixlab import cli
from helixlab.errors import HelixlabError
from helixlab.experiments import NotebookError, numbered_notebooks, reproduce

PARAMETERS = 'scale = "full"\nseed = 7\noutput = "nowhere"'
WRITES = """\
import sys
from pathlib import Path
Path(output).mkdir(parents=True, exist_ok=True)
with open(Path(output, "log.txt"), "a") as log:
    print({name!r}, scale, seed, sys.executable, Path.cwd().name, file=log)
"""

# The Jupyter packages warn of their own future; that is not what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def notebook(*sources, tagged=True):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if tagged:
        cells[0].metadata["tags"] = ["parameters"]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "notebooks"
    path.mkdir()
    return path


def write(folder, name, *sources, **options):
    nbformat.write(notebook(*sources, **options), folder / name)


def test_notebooks_run_in_order_with_their_parameters(folder, tmp_path, monkeypatch):
    # A kernel that the user has installed under the usual name is not the one that runs.
    kernel = tmp_path / "data" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "data"))
    for name in ("10_last", "02_first"):
        write(folder, f"{name}.ipynb", PARAMETERS, WRITES.format(name=name))
    write(folder, "draft.ipynb", "1 / 0", tagged=False)
    output = tmp_path / "figures"

    table = reproduce(folder, scale="smoke", seed=3, output=output)

    ran = (output / "log.txt").read_text().splitlines()
    assert ran == [f"{name} smoke 3 {sys.executable} notebooks" for name in ("02_first", "10_last")]
    assert list(table["notebook"]) == ["02_first", "10_last"]
    assert (table["wall_s"] > 0).all()
    copies = sorted((output / "executed").iterdir())
    assert [str(path) for path in copies] == list(table["executed"])
    for path in copies:
        executed = nbformat.read(path, as_version=4)
        assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    for path in folder.iterdir():
        assert not any(cell.get("execution_count") for cell in nbformat.read(path, as_version=4).cells)
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "data")


def test_a_notebook_that_fails(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    write(folder, "1_bad.ipynb", PARAMETERS, "raise ValueError('first line\\nsecond line')")
    write(folder, "2_never.ipynb", PARAMETERS, WRITES.format(name="2_never"))
    output = tmp_path / "figures"
    arguments = ["--scale", "smoke", "--notebooks", str(folder), "--output", str(output)]
    assert cli.main(["reproduce", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "1_bad.ipynb failed with ValueError: first line;" in lines[0]
    copy = output / "executed" / "1_bad.ipynb"
    assert str(copy) in lines[0]
    assert "second line" in copy.read_text()
    assert [path for path in output.rglob("*") if path.is_file()] == [copy]
    assert "JUPYTER_PATH" not in os.environ


@pytest.mark.parametrize(
    ("sources", "tagged", "missing"),
    [
        (["scale = 'full'\nseed = 0", "output = 1"], True, "output"),
        ([PARAMETERS], False, "scale"),
        (["pass"], True, "scale"),
    ],
)
def test_parameters_a_notebook_does_not_have(folder, tmp_path, sources, tagged, missing):
    write(folder, "1_fine.ipynb", PARAMETERS, WRITES.format(name="1_fine"))
    write(folder, "2_bad.ipynb", *sources, tagged=tagged)
    with pytest.raises(NotebookError, match=f"2_bad.ipynb has no parameter '{missing}'"):
        reproduce(folder, output=tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("content", ["", "{}", "[1, 2", "\x00\x01", '{"cells": 3, "nbformat": 4}'])
def test_files_that_are_no_notebooks(folder, tmp_path, content):
    (folder / "1_bad.ipynb").write_text(content)
    with pytest.raises(HelixlabError, match=r"1_bad.ipynb"):
        reproduce(folder, output=tmp_path / "figures")


def test_no_notebooks(folder):
    for place in (folder, folder / "missing", Path(__file__)):
        with pytest.raises(NotebookError, match="holds no notebooks"):
            numbered_notebooks(place)


def test_scales():
    with pytest.raises(HelixlabError, match="scale is 'vast'; give one of smoke, full"):
        reproduce("notebooks", scale="vast")


@pytest.mark.parametrize("missing", ["papermill", "ipykernel"])
def test_without_the_packages_for_notebooks(folder, monkeypatch, missing):
    write(folder, "1_fine.ipynb", PARAMETERS)

    def import_module(name):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.import_module(name)

    module = sys.modules[reproduce.__module__]
    monkeypatch.setattr(module, "import_module", import_module)
    with pytest.raises(
        NotebookError, match=rf"without the package {missing}; pip install 'helixlab\[notebooks\]'"
    ):
        reproduce(folder)
