"""Where compiled code is kept: in the user's cache, or, where that cannot be written, for one run only."""

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
"""Environment variable that names the folder of a run to the processes that it starts."""
ROOM: Final = 16 << 20
"""Bytes that a folder must have room for: the compiled code takes about 10 MB."""
TRIES: Final = 100


@dataclass(frozen=True)
class Place:
    """A folder for compiled code.

    Parameters
    ----------
    folder : Path
    lasting : bool
        The next run finds there what this one compiled.
    """

    folder: Path
    lasting: bool


def place_of(name: str) -> Place | None:
    """Where the compiled code called `name` is kept; None if nothing can be written anywhere.

    In ``HELIXLAB_CACHE_DIR``, the user's cache, or a temporary folder, which the processes of a run share and
    the last one removes.
    """
    for base in _lasting_bases():
        folder = base / name
        if any(folder.rglob("*.nbi")) or _writable(folder):
            return Place(folder, lasting=True)
    run = _folder_of_run()
    return None if run is None else Place(run / name, lasting=False)


def share() -> None:
    """Let this process and those that it is about to start keep compiled code in one place."""
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
            file.write(bytes(ROOM))
    except OSError:
        return False
    return True


@cache
def _folder_of_run() -> Path | None:
    """The temporary folder of this run, made by this process or by the one that started it.

    It has the same name for all processes of a user, so that they share it, and that the next one takes over
    what a killed one left.
    """
    inherited = os.environ.get(RUN_CACHE)
    if inherited and _is_private(Path(inherited)):
        return Path(inherited)
    try:
        folder = Path(tempfile.gettempdir(), f"helixlab-compiled-{os.getuid()}")
        if not _held(folder):
            folder = Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))
            if not _held(folder):
                atexit.register(_removed, folder, os.getpid())
    except OSError:
        return None
    os.environ[RUN_CACHE] = str(folder)
    return folder


def _is_private(folder: Path) -> bool:
    """Whether only this user can put files there: compiled code of others must not be run."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _held(folder: Path) -> bool:
    """Make a folder and hold it, so that no other process removes it before this one ends."""
    for _ in range(TRIES):
        lock = -1
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if not _is_private(folder):
                return False
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(lock), os.stat(folder / "lock")):
                atexit.register(_released, folder, lock, os.getpid())
                return True
        except FileNotFoundError:  # somebody has just removed it
            pass
        except OSError:
            return False
        if lock >= 0:
            os.close(lock)
    return False


def _released(folder: Path, lock: int, holder: int) -> None:
    """Remove a folder, unless others hold it."""
    if os.getpid() == holder:  # and not a fork of it
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _removed(folder, holder)


def _removed(folder: Path, holder: int) -> None:
    if os.getpid() == holder:
        aside = folder.with_name(f"{folder.name}-{holder}-old")
        with suppress(OSError):
            os.rename(folder, aside)  # at once: nobody finds half of it
            shutil.rmtree(aside, ignore_errors=True)
