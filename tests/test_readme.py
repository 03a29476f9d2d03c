"""The README: its code runs as it is written, its commands exist, its paths are there."""

import re
import shlex
import subprocess
import sys

import pytest

from helixlab import cli


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for named, content in fenced if named == language]


def test_the_code_runs_as_written(readme, tmp_path):
    script = tmp_path / "readme.py"
    code = blocks(readme, "python")
    assert len(code) == 5
    script.write_text("\n".join([*code, "print(sorted(set(result.requests['outcome'])))"]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Flow(" in done.stdout
    assert "decode_tokens_per_s" in done.stdout
    assert done.stdout.splitlines()[-1] == "['finished']"
    assert (tmp_path / "my-result" / "result.json").is_file()


def test_the_first_example_is_short(readme):
    lines = [
        line for line in blocks(readme, "python")[0].splitlines() if line and not line.startswith("import")
    ]
    assert len(lines) <= 10


def test_the_commands_have_the_options_shown(readme, capsys):
    usage = next(block for block in blocks(readme, "") if block.startswith("helixlab list"))
    commands = re.sub(r"\n +", " ", usage).splitlines()
    assert [command.split()[1] for command in commands] == [
        "list",
        "plan",
        "flow",
        "simulate",
        "explain",
        "reproduce",
    ]
    for command in commands:
        _, verb, *shown = shlex.split(re.sub(r"[\[\]]", " ", command))
        with pytest.raises(SystemExit):
            cli.main([verb, "--help"])
        helped = capsys.readouterr().out
        known = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", helped.split("options:")[-1])) - {
            "-h",
            "--help",
        }
        assert {word for word in shown if word.startswith("-")} == known


def test_the_paths_are_there(readme, root):
    for path in re.findall(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:cff|yml|md)|LICENSE)`", readme):
        assert (root / path).exists(), path


def test_the_make_targets_are_there(readme, root):
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make (reproduce|test|bench|docs)\b", readme)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
