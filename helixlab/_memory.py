"""Memory: what this process has and had, and what the machine or the container would still give."""

from __future__ import annotations

import math
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["free_mb", "peak_rss_mb", "rss_mb"]

GROUPS: Final = Path("/sys/fs/cgroup")
LIMITS: Final = {  # folder, then file with the limit, with what is used, and what of it can be taken back
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Linux control groups, of version 2 and of version 1."""


def peak_rss_mb() -> float:
    """The most memory this process has had, in MB.

    On Linux from the kernel's high-water mark of this program; the usual ``ru_maxrss`` would count
    the parent's memory at the time it forked.

    Examples
    --------
    >>> peak_rss_mb() > 10
    True
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def rss_mb() -> float:
    """The memory this process has at the moment, in MB; where that is not known, the most it has had."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return peak_rss_mb()


def free_mb() -> float:
    """The memory that machine, container and shell would still give, in MB; NaN if none of them tells.

    A container has a limit of its own, and a process that exceeds it is killed, however much the machine
    has left; so may the shell have, by ``ulimit -v``.
    """
    told = [_machine_free_mb(), *_groups_free_mb(), _limit_free_mb()]
    return min((left for left in told if not math.isnan(left)), default=math.nan)


def _machine_free_mb() -> float:
    known = Path("/proc/meminfo")
    if known.is_file():
        for line in known.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024 / 1e6
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, ValueError, AttributeError):
        return math.nan


def _limit_free_mb() -> float:
    """What is left of the address space that the process may have."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/statm")
    if most == resource.RLIM_INFINITY or not status.is_file():
        return math.nan
    pages = int(status.read_text(encoding="ascii").split()[0])
    return max(most - pages * os.sysconf("SC_PAGE_SIZE"), 0) / 1e6


def _groups_free_mb(groups: Path = GROUPS, of_process: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """What is left below each limit on this process: of its control group, and of those that it is in."""
    try:
        entries = of_process.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for entry in entries:  # number:controllers:path
        _, controller, path = entry.split(":", 2)
        if controller not in LIMITS:
            continue
        limit, used, reclaimable = LIMITS[controller]
        inside = PurePosixPath(path.lstrip("/"))
        for at in [inside, *inside.parents]:
            folder = groups / controller / at
            try:
                most, taken = (folder / limit).read_text().strip(), int((folder / used).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                if most != "max":
                    yield (int(most) - taken + int(stat.get(reclaimable, 0))) / 1e6
            except (OSError, ValueError):  # not there, as seen from inside of a container
                continue
