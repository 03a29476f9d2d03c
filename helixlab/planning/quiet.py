"""Keeping what a library of C prints out of our own output."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["without_stdout"]


@contextmanager
def without_stdout() -> Iterator[None]:
    """Drop what is written to the process's standard output, by whatever language.

    Examples
    --------
    >>> with without_stdout():
    ...     done = os.system("echo dropped")
    >>> done
    0
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError):  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        with suppress(OSError, TypeError, AttributeError):
            # C keeps a buffer of its own, and would write it when the process ends.
            ctypes.CDLL("msvcrt" if sys.platform == "win32" else None).fflush(None)
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)
