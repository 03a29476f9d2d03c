"""Memory in use by this process, and memory that the machine, container and shell still allow it."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import psutil

__all__ = ["free_mb", "peak_rss_mb", "rss_mb"]

GROUPS: Final = Path("/sys/fs/cgroup")
LIMITS: Final = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Files of Linux control groups, of version 2 and of version 1.

By folder: the file with the limit, the file with the memory in use, and the line of ``memory.stat`` with the
part of it that the kernel can reclaim.
"""


def peak_rss_mb() -> float:
    """Return the peak resident memory of this process in MB.

    Examples
    --------
    >>> peak_rss_mb() > 10
    True
    """
    # psutil has no peak on Linux. The usual ru_maxrss would count the parent's memory at the time it forked;
    # the kernel's high-water mark counts this program alone.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def rss_mb() -> float:
    """Return the resident memory of this process at the moment, in MB.

    Examples
    --------
    >>> 10 < rss_mb() < 1e6
    True
    """
    return float(psutil.Process().memory_info().rss) / 1e6


def free_mb() -> float:
    """Return the memory that machine, container and shell still allow, in MB.

    psutil knows the machine only. A container has a limit of its own, and a process that exceeds it is
    killed, however much the machine has left. The shell may set a limit, too, by ``ulimit -v``.

    Examples
    --------
    >>> free_mb() >= 0
    True
    """
    limits = [_machine_free_mb(), *_groups_free_mb(), _limit_free_mb()]
    return min((free for free in limits if not math.isnan(free)), default=math.nan)


def _machine_free_mb() -> float:
    return float(psutil.virtual_memory().available) / 1e6


def _limit_free_mb() -> float:
    """Return what is left of the address space that the process may have; NaN without such a limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return math.nan
    return max(limit - float(psutil.Process().memory_info().vms), 0) / 1e6


def _groups_free_mb(groups: Path = GROUPS, of_process: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """Yield what is left below each limit on this process: of its control group, and of those around it."""
    try:
        entries = of_process.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for entry in entries:  # number:controllers:path
        _, controller, path = entry.split(":", 2)
        if controller not in LIMITS:
            continue
        limit_file, used_file, reclaimable = LIMITS[controller]
        inside = PurePosixPath(path.lstrip("/"))
        for group in [inside, *inside.parents]:
            folder = groups / controller / group
            try:
                limit, used = (folder / limit_file).read_text().strip(), int((folder / used_file).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                if limit != "max":
                    yield (int(limit) - used + int(stat.get(reclaimable, 0))) / 1e6
            except (OSError, ValueError):  # the path does not exist as seen from inside a container
                continue
