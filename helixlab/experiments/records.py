"""What finished notebooks left behind, and whether it is still what they would make."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from helixlab.contents import digest, library_digest
from helixlab.errors import FileFormatError
from helixlab.experiments.notebooks import Notebook
from helixlab.files import read_json, write_json
from helixlab.tables import data_file

__all__ = ["data_digest", "finished_record", "forget", "notebook_key", "take_over"]

FORMAT: Final = "helixlab-notebook"
VERSION: Final = 1
DRAWN_WITH: Final = (
    "matplotlib",
    "seaborn",
    "scipy",
    "highspy",
    "cvxpy",
    "pyarrow",
    "papermill",
    "ipykernel",
)
"""Packages beside those of `library_digest` that may change what a notebook shows."""


@cache
def data_digest() -> str:
    """Of all bundled data, names and contents, and of the style of the figures.

    Examples
    --------
    >>> data_digest() == data_digest()
    True
    """
    whole = hashlib.sha256()
    for name, file in sorted(_files(data_file()), key=lambda each: each[0]):
        content = file.read_bytes()
        whole.update(f"{name} {len(content)} ".encode() + content)
    for path in sorted(Path(__file__).parents[1].rglob("*.mplstyle")):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:32]


def _files(folder: Traversable, inside: str = "") -> Iterable[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        name = f"{inside}{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files(entry, f"{name}/")
        elif not entry.name.endswith(".pyc"):
            yield name, entry


def notebook_key(notebook: Notebook, parameters: dict[str, Any]) -> str:
    """A hash of all that determines what a notebook makes: itself, parameters, library, data, versions."""
    source = hashlib.sha256(notebook.path.read_bytes()).hexdigest()
    return digest([source, parameters, library_digest(), data_digest(), _versions()])


def _versions() -> list[str]:
    found = []
    for package in DRAWN_WITH:
        try:
            found.append(version(package))
        except PackageNotFoundError:
            found.append("")
    return found


def finished_record(output: Path, name: str, key: str) -> dict[str, Any] | None:
    """The record of a finished notebook; None if it made something else, or its files were changed."""
    record = _record(output, name)
    if record is None or record.get("key") != key:
        return None
    if all(_hash(output / file) == known for file, known in record["files"].items()):
        return record
    return None


def forget(output: Path, name: str) -> None:
    """Remove what a notebook left behind, so that nothing stale is taken for fresh."""
    record = _record(output, name)
    if record is not None:
        for file in record["files"]:
            (output / file).unlink(missing_ok=True)
    _path(output, name).unlink(missing_ok=True)


def take_over(made: Path, output: Path, name: str, key: str, wall_s: float) -> dict[str, Any]:
    """Move what a notebook made into the output folder, and write its record when all is there."""
    files = {}
    for path in sorted(made.rglob("*")):
        if path.is_file():
            file = path.relative_to(made)
            (output / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, output / file)
            files[file.as_posix()] = _hash(output / file)
    record = {"format": FORMAT, "version": VERSION, "key": key, "wall_s": wall_s, "files": files}
    write_json(_path(output, name), record)
    return record


def _path(output: Path, name: str) -> Path:
    return output / "executed" / f"{name}.json"


def _record(output: Path, name: str) -> dict[str, Any] | None:
    try:
        record = read_json(_path(output, name)) if _path(output, name).is_file() else None
    except FileFormatError:
        return None
    if not isinstance(record, dict) or [record.get(each) for each in ("format", "version")] != [
        FORMAT,
        VERSION,
    ]:
        return None
    files = record.get("files")
    plain = isinstance(files, dict) and all(
        isinstance(file, str) and not Path(file).is_absolute() and ".." not in Path(file).parts
        for file in files
    )
    return record if plain else None


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
