"""Progress bars: shown where someone is looking, of what takes a while."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from tqdm.auto import tqdm

__all__ = ["bar"]

DELAY_S: Final = 1.0
"""What is over sooner needs no bar."""


def bar(progress: bool | None, **of: Any) -> tqdm:
    """A progress bar of tqdm, made with the arguments `of`.

    Parameters
    ----------
    progress : bool or None
        Whether to show it. None: in a notebook or on a terminal, after a second; but not where the
        environment has ``TQDM_DISABLE``, nor into pipes and files.

    Examples
    --------
    >>> with bar(False, total=3, desc="runs") as shown:
    ...     for _ in range(3):
    ...         _ = shown.update()
    """
    shown = _someone_looks() if progress is None else progress
    return tqdm(disable=not shown or sys.stderr is None, delay=DELAY_S if progress is None else 0, **of)


def _someone_looks() -> bool:
    if os.environ.get("TQDM_DISABLE"):
        return False
    in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    return in_notebook or (sys.stderr is not None and sys.stderr.isatty())
