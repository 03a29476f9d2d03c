"""Compiled code: kept where it can be, else shared by the processes of a run, and never run damaged."""

import os
import subprocess
import sys
import textwrap

import pytest

from helixlab import _code_cache as code_cache

COMPILE = """
import numpy as np
from helixlab.planning.prices import cheapest_covers
cost, choice = np.zeros(5), np.zeros(5, dtype=np.int64)
cheapest_covers(np.ones(1), np.full(1, 2), cost, choice)
print(cost.tolist())
"""


@pytest.fixture
def blocked(tmp_path):
    """An environment in which no cache folder can be made, not even by root, and its temporary folder."""
    file = tmp_path / "file"
    file.write_text("")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    folders = ("HELIXLAB_CACHE_DIR", "XDG_CACHE_HOME", "HOME")
    environment = os.environ | {name: str(file / name) for name in folders} | {"TMPDIR": str(temporary)}
    environment.pop(code_cache.RUN_CACHE, None)
    return environment, temporary


def start(code, environment, **how):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )


def ran(code, environment, **how):
    process = start(code, environment, **how)
    out, said = process.communicate()
    assert (process.returncode, out.splitlines()[-1:]) == (0, ["[0.0, 1.0, 1.0, 2.0, 2.0]"]), said
    return said


def test_what_was_compiled_is_found_again_and_what_is_damaged_is_compiled_again(tmp_path):
    environment = os.environ | {"HELIXLAB_CACHE_DIR": str(tmp_path)}
    assert "compiling the planner, once per installation" in ran(COMPILE, environment)
    assert ran(COMPILE, environment) == ""
    [index], [data] = tmp_path.rglob("*.nbi"), tmp_path.rglob("*.nbc")
    whole = {file: file.read_bytes() for file in (index, data)}
    for file, damaged in (
        (data, whole[data][:-100]),
        (data, whole[data][:5000] + bytes(100) + whole[data][5100:]),
        (index, whole[index][:20]),
    ):
        file.write_bytes(damaged)
        assert "compiling the planner" in ran(COMPILE, environment)
        assert data.read_bytes()[:100] == whole[data][:100]
    assert ran(COMPILE, environment) == ""


def test_a_full_disk_and_a_folder_that_goes_away_are_said(tmp_path):
    environment = os.environ | {"HELIXLAB_CACHE_DIR": str(tmp_path)}
    broken = """
        import os
        from helixlab import _jit as jit
        def full(self, *arguments):
            raise OSError(28, "No space left on device")
        jit.FunctionCache.save_overload = full
    """
    said = ran(textwrap.dedent(broken) + COMPILE, environment)
    assert "the compiled planner cannot be kept in" in said
    assert "No space left on device" in said


def test_processes_of_one_run_compile_once_and_leave_nothing(blocked):
    environment, temporary = blocked
    parent = """
        import subprocess, sys
        from helixlab._code_cache import share
        share()
        said = [subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True).stderr
                for _ in range(2)]
        print(said)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(parent), COMPILE],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.count("compiling the planner for this run alone") == 1
    assert "once per installation" not in done.stdout
    assert list(temporary.iterdir()) == []


def test_two_processes_at_once_and_one_that_is_killed(blocked):
    environment, temporary = blocked
    killed = start(COMPILE + "import time; time.sleep(600)", environment)
    assert killed.stdout.readline() == "[0.0, 1.0, 1.0, 2.0, 2.0]\n"
    killed.kill()
    killed.communicate()
    assert len(list(temporary.iterdir())) == 1
    both = [start(COMPILE, environment) for _ in range(2)]  # they find what the killed one left
    assert [process.communicate()[1] for process in both] == ["", ""]
    assert list(temporary.iterdir()) == []


def test_nothing_can_be_written_anywhere(blocked):
    environment, _ = blocked
    nowhere = """
        import tempfile
        tempfile.tempdir = "/proc/1/nowhere"
    """
    assert "for this run alone" in ran(textwrap.dedent(nowhere) + COMPILE, environment)


def test_a_folder_of_somebody_else_is_not_used(blocked):
    environment, temporary = blocked
    planted = temporary / f"helixlab-compiled-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    ran(COMPILE, environment)
    assert list(temporary.iterdir()) == [planted]
    assert list(planted.iterdir()) == []
    link = temporary / "link"
    link.symlink_to(planted)
    ran(COMPILE, environment | {code_cache.RUN_CACHE: str(link)})
    assert list(planted.iterdir()) == []


def test_without_a_home_nothing_is_written_into_the_working_directory(monkeypatch):
    monkeypatch.delenv("HELIXLAB_CACHE_DIR", raising=False)
    monkeypatch.setattr(code_cache.platformdirs, "user_cache_dir", lambda name: "~/.cache/helixlab")
    assert list(code_cache._lasting_bases()) == []


def test_stderr_that_is_closed_or_missing(tmp_path):
    for number, lost in enumerate(("sys.stderr = None", "sys.stderr.close()")):
        environment = os.environ | {"HELIXLAB_CACHE_DIR": str(tmp_path / str(number))}
        ran(f"import sys; {lost}\n" + COMPILE, environment)
