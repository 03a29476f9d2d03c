"""Finished runs on disk: one small file each, named after everything that determines it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from helixlab.contents import digest
from helixlab.errors import FileFormatError
from helixlab.experiments.problems import SweepError
from helixlab.files import read_json, write_json

__all__ = ["Store"]

FORMAT: Final = "helixlab-run"
VERSION: Final = 1


class Store:
    """A folder of finished runs. Without a path nothing is kept.

    Parameters
    ----------
    path : path or None
        It is made if it is not there.

    Raises
    ------
    SweepError
        `path` is no folder, or nothing can be written there.

    Examples
    --------
    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> store.keep("a1", {"events": 7, "wall_s": None}, {"scheduler": "helix"})
    >>> store.kept("a1")
    {'events': 7, 'wall_s': None}
    >>> store.kept("b2") is None
    True
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        if path is not None and not isinstance(path, str | os.PathLike):
            raise SweepError(f"store is {path!r}; give the path of a folder, or None to keep nothing")
        self.folder = None if path is None else Path(path)
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SweepError(
                    f"store {self.folder} cannot be a folder ({error.strerror or error}); give another path"
                ) from None

    def kept(self, key: str) -> dict[str, Any] | None:
        """Figures of a finished run; None if it is not there, or its file is not whole."""
        if self.folder is None:
            return None
        path = self.folder / f"{key}.json"
        try:
            content = read_json(path) if path.is_file() else None
        except FileFormatError:
            return None
        if not isinstance(content, dict) or not isinstance(content.get("figures"), dict):
            return None
        figures = content["figures"]
        stated = [content.get(name) for name in ("format", "version", "key", "digest")]
        return figures if stated == [FORMAT, VERSION, key, digest(figures)] else None

    def keep(self, key: str, figures: dict[str, Any], labels: dict[str, Any]) -> None:
        """Write a finished run, whole or not at all; `labels` are for readers.

        Raises
        ------
        SweepError
            It cannot be written.
        """
        if self.folder is None:
            return
        content = {"format": FORMAT, "version": VERSION, "key": key, "run": labels}
        try:
            write_json(self.folder / f"{key}.json", content | {"figures": figures, "digest": digest(figures)})
        except OSError as error:
            raise SweepError(
                f"a finished run cannot be written to {self.folder} ({error.strerror or error}); make room,"
                " or give another store"
            ) from None
