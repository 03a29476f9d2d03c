"""Processes end with the one that started them, however that ended and whatever they were doing."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

SWEEP = """
import helixlab as hx
grid = {"placement": "small10/llama-1-30b/helix", "workload": hx.offline(duration_s=400_000)}
hx.sweep(grid, seeds=2, n_jobs=2, progress=False)
"""
REPRODUCE = """
from helixlab.reproduce import reproduce
reproduce("notebooks", scale="smoke", output=OUTPUT)
"""


def processes():
    """Of this machine: parent, start and command line, by number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended meanwhile
            continue
        if state != "Z":
            found[int(folder.name)] = int(parent), rest[17], command
    return found


def descendants(number):
    """Start and command line of a process and all that it started, by number."""
    there, found = processes(), {number}
    while more := {other for other, (parent, _, _) in there.items() if parent in found} - found:
        found |= more
    return {other: there[other][1:] for other in found & set(there)}


def left_of(several):
    there = processes()
    return {number: what for number, what in several.items() if there.get(number, ())[1:] == what}


def wait_until(condition, seconds, what):
    until = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < until, what
        time.sleep(0.05)
    return met


@pytest.fixture
def killed(root):
    """Start code, kill it with -9 when a process of such a command line is there, and see all others go."""
    begun = []

    def kill(code, awaited, then_s):
        child = subprocess.Popen(
            [sys.executable, "-c", code], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        begun.append(child)

        def started():
            assert child.poll() is None, "it ended by itself"
            several = descendants(child.pid)
            return several if any(awaited in command for _, command in several.values()) else None

        wait_until(started, 120, f"no {awaited}")
        time.sleep(then_s)
        several = descendants(child.pid)
        assert len(several) > 1
        child.kill()
        child.wait()
        wait_until(lambda: not left_of(several), 20, "they go on without their parent")

    yield kill
    for child in begun:
        child.kill()
        child.wait()


@pytest.mark.parametrize("then_s", [0.0, 0.4, 3.0])
def test_workers_of_a_sweep_that_was_killed(killed, then_s):
    """While they start, while they load what they need, and at work."""
    killed(SWEEP, "popen_loky", then_s)


def test_kernels_of_a_study_that_was_killed(killed, tmp_path):
    killed(REPRODUCE.replace("OUTPUT", repr(str(tmp_path))), "ipykernel_launcher", 0.5)


def test_a_parent_that_is_gone_before_it_is_watched():
    code = (
        "import os, time; from helixlab._parents import end_with; end_with(os.getppid() + 1); time.sleep(60)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 1
