"""Progress bars, shown where a person is looking and only for what takes a while."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from tqdm.auto import tqdm

__all__ = ["bar"]

DELAY_S: Final = 1.0
"""Seconds before a bar appears, as work that ends sooner needs none."""


def bar(progress: bool | None, **options: Any) -> tqdm:
    """Return a progress bar of tqdm.

    Parameters
    ----------
    progress : bool or None
        True to show the bar, False to hide it. None: in a notebook or on a terminal, after a second; but not
        if the environment has ``TQDM_DISABLE``, nor into pipes and files.
    **options
        Arguments of tqdm.

    Examples
    --------
    >>> with bar(False, total=3, desc="runs") as shown:
    ...     for _ in range(3):
    ...         _ = shown.update()
    """
    shown = _is_interactive() if progress is None else progress
    return tqdm(disable=not shown or sys.stderr is None, delay=DELAY_S if progress is None else 0, **options)


def _is_interactive() -> bool:
    """Return True in a notebook and on a terminal."""
    if os.environ.get("TQDM_DISABLE"):
        return False
    in_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    return in_notebook or (sys.stderr is not None and sys.stderr.isatty())
