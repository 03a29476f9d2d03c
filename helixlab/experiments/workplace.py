"""Where notebooks write until they have ended, and that one call alone writes to an output folder."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helixlab.experiments.notebooks import NotebookError

__all__ = ["alone", "workplace"]


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A folder where notebooks write until they have ended; what killed calls left there is removed."""
    place = target / ".parts"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Nobody else writes there meanwhile; the lock goes with the process, however that ends."""
    with (target / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NotebookError(
                f"another call of reproduce is writing to {target}; wait for it, or give another output"
            ) from None
        yield
