"""The folder of compiled code: in the user's cache or, if that cannot be written, a temporary one per run."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import platformdirs

__all__ = ["Place", "place_of", "share"]

RUN_CACHE: Final = "HELIXLAB_RUN_CACHE"
"""Environment variable with the temporary folder of a run, for the processes that the run starts."""
FREE_BYTES: Final = 16 << 20
"""Space that a folder must have: the compiled code takes about 10 MB."""
TRIES: Final = 100
"""Number of attempts to make a folder that other processes keep removing."""


@dataclass(frozen=True)
class Place:
    """A folder for compiled code.

    Parameters
    ----------
    folder : Path
        Path of the folder.
    lasting : bool
        Whether the next run finds there what this one compiled.
    """

    folder: Path
    lasting: bool


def place_of(name: str) -> Place | None:
    """Find the folder for the compiled code called `name`; None if nothing can be written anywhere.

    It is in ``HELIXLAB_CACHE_DIR``, in the user's cache, or in a temporary folder that the processes of a run
    share and the last one removes.
    """
    for base in _lasting_bases():
        folder = base / name
        if any(folder.rglob("*.nbi")) or _writable(folder):
            return Place(folder, lasting=True)
    run = _folder_of_run()
    return None if run is None else Place(run / name, lasting=False)


def share() -> None:
    """Make this process and those that it is about to start share one folder for compiled code."""
    if not any(_writable(base) for base in _lasting_bases()):
        _folder_of_run()


def _lasting_bases() -> Iterator[Path]:
    asked = os.environ.get("HELIXLAB_CACHE_DIR")
    with suppress(FileNotFoundError):  # relative to a working directory that was deleted
        if asked:
            yield Path(asked).absolute() / "compiled"
    own = Path(platformdirs.user_cache_dir("helixlab"))
    if own.is_absolute():  # without HOME it may be "~/.cache/helixlab", a folder in the working directory
        yield own / "compiled"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(FREE_BYTES))
    except OSError:
        return False
    return True


@cache
def _folder_of_run() -> Path | None:
    """Find or make the temporary folder of this run, which may be that of the process that started this one.

    It has the same name for all processes of a user. So they share it, and the next process takes over a
    folder that a killed one left.
    """
    inherited = os.environ.get(RUN_CACHE)
    if inherited and _is_private(Path(inherited)):
        return Path(inherited)
    try:
        folder = Path(tempfile.gettempdir(), f"helixlab-compiled-{os.getuid()}")
        if not _lock(folder):
            folder = Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
            if not _lock(folder):
                atexit.register(_remove, folder, os.getpid())
    except OSError:
        return None
    os.environ[RUN_CACHE] = str(folder)
    return folder


def _is_private(folder: Path) -> bool:
    """Tell whether only this user can put files in a folder: compiled code of others must not run."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _lock(folder: Path) -> bool:
    """Make a folder and lock it until this process ends, so that no other process removes it."""
    for _ in range(TRIES):
        file = -1
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if not _is_private(folder):
                return False
            file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(file), os.stat(folder / "lock")):
                atexit.register(_release, folder, file, os.getpid())
                return True
        except FileNotFoundError:  # another process has just removed it
            pass
        except OSError:
            return False
        if file >= 0:
            os.close(file)
    return False


def _release(folder: Path, file: int, owner: int) -> None:
    """Remove a folder, unless other processes have locked it."""
    if os.getpid() == owner:  # and not a fork of it
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder, owner)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        aside = folder.with_name(f"{folder.name}-{owner}-old")
        with suppress(OSError):
            os.rename(folder, aside)  # at once, so that no process finds half of it
            shutil.rmtree(aside, ignore_errors=True)
