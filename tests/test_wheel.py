"""The wheel holds all that the library needs, and works far from the source tree."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROBE = """
import json
from importlib.resources import files
import helixlab as hx
from helixlab._data import read_table
cluster = hx.load_cluster("single24")
print(json.dumps({
    "helixlab": hx.__file__,
    "data": str(files("helixlab.data")),
    "version": hx.__version__,
    "nodes": len(cluster.nodes),
    "columns": list(read_table("profiles/layer_times.csv").columns),
}))
"""


@pytest.fixture(scope="module")
def source(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is made of, so that nothing left over from another build gets in."""
    copy = tmp_path_factory.mktemp("source")
    for folder in ("helixlab", "data"):
        shutil.copytree(root / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(root / file, copy / file)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the setuptools of the running environment."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked by pip; the libraries come from the running environment."""
    target = tmp_path_factory.mktemp("target")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", str(target), str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def run(arguments: list[str], installed: Path, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_the_library_and_its_data(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    files = {path.relative_to(source).as_posix() for path in source.glob("helixlab/**/*") if path.is_file()}
    data = {path.relative_to(source).as_posix() for path in source.glob("data/**/*") if path.is_file()}
    assert names == files | {f"helixlab/{name}" for name in data}
    assert len(licences) == 1


def test_wheel_works_without_the_source_tree(installed: Path, tmp_path: Path) -> None:
    # The environment of the tests has the source tree installed too: what was imported must be the wheel.
    seen = json.loads(run([sys.executable, "-c", PROBE], installed, tmp_path))
    assert Path(seen["helixlab"]).is_relative_to(installed)
    assert Path(seen["data"]).is_relative_to(installed)
    assert seen["nodes"] == 24
    assert seen["columns"] == ["model", "machine", "phase", "batch_tokens", "layer_ms"]


def test_wheel_brings_the_command(installed: Path, tmp_path: Path) -> None:
    assert "single24" in run([str(installed / "bin" / "helixlab"), "list"], installed, tmp_path)
