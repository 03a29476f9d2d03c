"""The documentation: it builds without a warning, its code runs, and it has everything that is public."""

import argparse
import html
import os
import re
import shlex
import subprocess
import sys

import pytest

import helixlab as hx
from helixlab import cli, diagnosis, plotting
from helixlab.cli import parser
from helixlab.simulation.progress_table import COLUMNS

PAGES = ("index", "concepts", "how-to", "questions")
PATTERN_OF_CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATTERN_OF_COMMANDS = re.compile(
    r"^```console\n\$ helixlab ((?:.*\\\n)*.*)\n((?:(?!```).*\n)*)```$", re.MULTILINE
)


def page(root, name):
    return (root / "docs" / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    """The site as it is built."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", folder / "trees"]
    done = subprocess.run(
        [*command, root / "docs", folder / "site"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_the_site_builds_without_a_warning(root, site):
    pages = {path.stem for path in site.rglob("*.html")}
    assert {path.stem for path in (root / "docs").glob("*.md")} <= pages
    assert {path.stem for path in (root / "notebooks").glob("*.ipynb")} <= pages
    simulate = (site / "generated" / "api" / "helixlab.simulate.html").read_text(encoding="utf-8")
    assert "kv_high_water_mark" in simulate


@pytest.mark.parametrize("name", PAGES)
def test_the_code_runs_as_written(root, tmp_path, name):
    code = PATTERN_OF_CODE.findall(page(root, name))
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


def test_no_page_with_code_is_left_out(root):
    with_code = {
        path.stem for path in (root / "docs").glob("*.md") if PATTERN_OF_CODE.search(path.read_text())
    }
    assert with_code == set(PAGES)


def test_the_index_has_every_page(root):
    pages = {path.stem for path in (root / "docs").glob("*.md")} - {"index"}
    text = page(root, "index")
    assert set(re.findall(r"\((\S+)\.md\)", text)) == pages
    assert set(re.search(r"```\{toctree\}\n:hidden:\n\n(.*?)```", text, re.DOTALL)[1].split()) == pages


def commands(root):
    """The examples of the command line: the arguments of each, and what the page shows of its answer."""
    found = PATTERN_OF_COMMANDS.findall(page(root, "command-line"))
    return [(shlex.split(line.replace("\\\n", " ")), shown.splitlines()) for line, shown in found]


def test_the_command_line_has_every_verb_and_option(root, site):
    whole = parser()
    [verbs] = [each for each in whole._actions if isinstance(each, argparse._SubParsersAction)]
    shown = (site / "command-line.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<section id="([\w-]+)">(.*?)</section>', shown, re.DOTALL))
    assert list(dict.fromkeys(verb for (verb, *_), _ in commands(root))) == list(verbs.choices)
    assert {"--help", "--version"} <= set(re.findall(r"[\w-]+", shown))
    for verb, its in verbs.choices.items():
        said = html.unescape(re.sub(r"<[^>]+>", "", sections[verb]))
        for action in its._actions[1:]:  # the first is --help
            assert {*action.option_strings, *(action.choices or ())} <= set(re.findall(r"[\w-]+", said))
            assert (action.help or "") in said


def test_the_commands_do_as_the_page_says(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")  # else lines are as long as the terminal is wide
    for arguments, shown in commands(root):
        if arguments[0] == "reproduce":  # it takes long, and is tested elsewhere
            assert parser().parse_args(arguments)
            continue
        assert cli.main(arguments) == 0
        figures = r"[\d.]+" if "--estimate" in arguments else "$^"  # those are of the machine
        printed = iter(re.sub(figures, "", capsys.readouterr().out).splitlines())
        for line in shown:
            assert line == "..." or re.sub(figures, "", line) in printed, f"{arguments}: {line}"


def test_the_columns_of_the_progress_table_are_explained(root):
    assert all(re.search(rf"^\|.*\b{name}", page(root, "how-to"), re.M) for name, _ in COLUMNS.values())


def test_every_column_of_a_result_is_described(site):
    shown = html.unescape(re.sub(r"<[^>]+>", "", (site / "result.html").read_text(encoding="utf-8")))
    for _, name, *_, description in hx.Result.describe().itertuples(index=False):
        assert name in shown
        assert description.replace("`", "") in shown.replace("`", "")


def test_all_that_is_public_is_in_the_api(root):
    blocks = re.findall(r"^```\{eval-rst\}\n(.*?)^```$", page(root, "api"), re.MULTILINE | re.DOTALL)
    listed = set(re.findall(r"^   ([\w.]+)$", "\n".join(blocks), re.MULTILINE))
    drawing = {name for name in plotting.__all__ if callable(getattr(plotting, name))}
    assert set(hx.__all__) - listed == {"errors", "plotting"}  # the last two have sections
    assert drawing - listed == set()
    assert set(diagnosis.__all__) - listed == {"CAUSES"}


def test_what_it_points_at_is_there(root):
    for path in (root / "docs").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            there = root / target.removeprefix("generated/") if target.startswith("generated/") else None
            assert (there or path.parent / target).exists(), f"{path.name}: {target}"
        for name in re.findall(r"`((?:data|tests|figures)/[\w./-]*)`", text):
            assert (root / name).exists() or name == "figures/REPORT.md", f"{path.name}: {name}"
        for name in re.findall(r"`hx\.(\w+)", text):
            assert hasattr(hx, name), f"{path.name}: hx.{name}"
