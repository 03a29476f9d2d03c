"""The documentation: it builds without a warning, its code runs, and it has everything that is public."""

import os
import re
import subprocess
import sys

import pytest

import helixlab as hx
from helixlab import plotting
from helixlab.simulation.watch import COLUMNS

PAGES = ("index", "concepts", "how-to")


def page(root, name):
    return (root / "docs" / f"{name}.md").read_text(encoding="utf-8")


def test_the_site_builds_without_a_warning(root, tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees"]
    done = subprocess.run(
        [*command, root / "docs", tmp_path / "site"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (tmp_path / "site").rglob("*.html")}
    assert {path.stem for path in (root / "docs").glob("*.md")} <= pages
    assert {path.stem for path in (root / "notebooks").glob("*.ipynb")} <= pages
    simulate = (tmp_path / "site" / "generated" / "api" / "helixlab.simulate.html").read_text(
        encoding="utf-8"
    )
    assert "kv_high_water_mark" in simulate


@pytest.mark.parametrize("name", PAGES)
def test_the_code_runs_as_written(root, tmp_path, name):
    code = re.findall(r"^```python\n(.*?)^```$", page(root, name), re.MULTILINE | re.DOTALL)
    assert code
    (tmp_path / "page.py").write_text(
        "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in "\n".join(code).splitlines()),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_columns_of_a_watched_run_are_explained(root):
    assert all(re.search(rf"^\|.*\b{name}", page(root, "how-to"), re.M) for name, _ in COLUMNS.values())


def test_all_that_is_public_is_in_the_api(root):
    blocks = re.findall(r"^```\{eval-rst\}\n(.*?)^```$", page(root, "api"), re.MULTILINE | re.DOTALL)
    listed = set(re.findall(r"^   ([\w.]+)$", "\n".join(blocks), re.MULTILINE))
    drawing = {name for name in plotting.__all__ if callable(getattr(plotting, name))}
    assert set(hx.__all__) - listed == {"__version__", "errors", "plotting"}  # the last two have sections
    assert drawing - listed == set()


def test_what_it_points_at_is_there(root):
    for path in (root / "docs").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
        for name in re.findall(r"`((?:data|tests|figures)/[\w./-]*)`", text):
            assert (root / name).exists() or name == "figures/REPORT.md", f"{path.name}: {name}"
        for name in re.findall(r"`hx\.(\w+)", text):
            assert hasattr(hx, name), f"{path.name}: hx.{name}"
