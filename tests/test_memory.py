"""What memory is left, in a container too."""

import numpy as np
import pytest

from helixlab import _memory as memory


def group(folder, version, limit, used=300_000_000, reclaimable=100_000_000):
    names = memory.LIMITS[{1: "memory", 2: ""}[version]]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names[:2], (limit, used), strict=True):
        (folder / name).write_text(f"{content}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {reclaimable}\n")


@pytest.mark.parametrize(
    ("version", "entry", "folder"),
    [
        (2, "0::/", ""),
        (2, "0::/user/job", "user/job"),
        (2, "0::/user/job", "user"),  # the group above limits too
        (2, "0::/not/seen/from/inside", ""),
        (1, "4:memory:/docker/abc", "memory/docker/abc"),
        (1, "4:memory:/docker/abc", "memory"),
    ],
)
def test_the_limit_of_a_container(tmp_path, version, entry, folder):
    of_process = tmp_path / "cgroup"
    of_process.write_text(f"7:cpu:/else\n{entry}\n")
    group(tmp_path / "groups" / folder, version, limit=1_000_000_000)
    assert list(memory._groups_free_mb(tmp_path / "groups", of_process)) == [800.0]


def test_groups_without_a_limit(tmp_path):
    of_process = tmp_path / "cgroup"
    assert not list(memory._groups_free_mb(tmp_path, of_process)), "no control groups at all"
    of_process.write_text("0::/\n")
    assert not list(memory._groups_free_mb(tmp_path, of_process)), "none that we may read"
    group(tmp_path, 2, limit="max")
    assert not list(memory._groups_free_mb(tmp_path, of_process))


@pytest.mark.parametrize(
    ("machine_mb", "groups_mb", "expected"),
    [
        (5000.0, [800.0, 900.0], 800.0),
        (500.0, [800.0], 500.0),
        (np.nan, [800.0], 800.0),
        (np.nan, [], np.nan),
    ],
)
def test_what_is_free_is_the_least(monkeypatch, machine_mb, groups_mb, expected):
    monkeypatch.setattr(memory, "_machine_free_mb", lambda: machine_mb)
    monkeypatch.setattr(memory, "_groups_free_mb", lambda: iter(groups_mb))
    assert memory.free_mb() == pytest.approx(expected, nan_ok=True)
