"""Records of finished notebooks, by which they are known to be up to date, and the folder they write into."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from helixlab._data import data_file
from helixlab._hashing import digest, library_digest
from helixlab._io import read_json, write_json
from helixlab.errors import FileFormatError
from helixlab.reproduce.notebooks import Notebook, NotebookError

__all__ = [
    "answers",
    "data_digest",
    "finished_record",
    "finished_records",
    "locked",
    "notebook_key",
    "other_parameters",
    "take_over",
    "workplace",
]


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """Make a folder where notebooks write until they have ended; remove what killed calls left there."""
    place = target / ".parts"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep other calls from writing into a folder; the lock goes with the process, however that ends."""
    lock = FileLock(target / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise NotebookError(
            f"another call of reproduce is writing to {target}; wait for it, or give another output"
        ) from None
    try:
        yield
    finally:
        lock.release()


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
"""Packages that may change what a notebook shows, beside those of `library_digest`."""
DRAWN_BY: Final = ("seed", "seeds", "replan")
"""Parameters whose other values the report mentions."""


@cache
def data_digest() -> str:
    """Hash all bundled data, names and contents, and the style of the figures.

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
    """Hash all that determines what a notebook makes: itself, parameters, library, data, versions."""
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


def finished_record(output: Path, notebook: Notebook) -> dict[str, Any] | None:
    """Read the record of a finished notebook; None if it would now make something else, or files changed."""
    record = _record(output, notebook.name)
    if record is None or record.get("key") != notebook_key(notebook, record["parameters"]):
        return None
    if all(_hash(output / file) == known for file, known in record["files"].items()):
        return record
    return None


def answers(record: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    """Tell whether a record has all that these parameters ask for; it may have more figures."""
    made, asked = dict(record["parameters"]), dict(parameters)
    return set(asked.pop("figures", ())) <= set(made.pop("figures", ())) and made == asked


def finished_records(output: Path, notebooks: Iterable[Notebook], scale: str) -> dict[str, Any]:
    """Read the records of all notebooks that are finished at this scale, by this call or an earlier one."""
    records = {notebook.name: finished_record(output, notebook) for notebook in notebooks}
    return {
        name: record
        for name, record in records.items()
        if record is not None and record["parameters"]["scale"] == scale
    }


def other_parameters(
    notebook: Notebook, record: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """List the parameters with which a notebook was finished, where it would be given others now."""
    was, now = notebook.defaults | record["parameters"], notebook.defaults | notebook.takes(given)
    return {name: was[name] for name in DRAWN_BY if was.get(name) != now.get(name)}


def take_over(
    made: Path, output: Path, name: str, *, key: str, parameters: Mapping[str, Any], wall_s: float
) -> dict[str, Any]:
    """Replace what a notebook made before by what it has made now, and its record last."""
    record_file = _path(output, name).relative_to(output).as_posix()
    files = {
        path.relative_to(made).as_posix(): _hash(path) for path in sorted(made.rglob("*")) if path.is_file()
    }
    record = {
        "format": FORMAT,
        "version": VERSION,
        "key": key,
        "parameters": dict(parameters),
        "wall_s": wall_s,
        "files": files,
    }
    # Everything is written before anything is replaced, so that a full disk costs nothing. The earlier record
    # stays until the last step: if this is cut short, it no longer matches, and still lists what to remove.
    write_json(made / record_file, record)
    for file in files:
        _move(made, output, file)
    for file in _outdated_files(output, name, files):
        (output / file).unlink(missing_ok=True)
    _move(made, output, record_file)
    return record


def _move(made: Path, output: Path, file: str) -> None:
    (output / file).parent.mkdir(parents=True, exist_ok=True)
    os.replace(made / file, output / file)


def _outdated_files(output: Path, name: str, files: Collection[str]) -> set[str]:
    """List files that a notebook made before and neither it nor another notebook makes now."""
    earlier = _record(output, name)
    if earlier is None:
        return set()
    others = {path.stem for path in _path(output, name).parent.glob("*.json")} - {name}
    kept = {file for other in others for file in (_record(output, other) or {"files": ()})["files"]}
    return set(earlier["files"]) - set(files) - kept


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
    files, parameters = record.get("files"), record.get("parameters")
    plain = isinstance(files, dict) and all(
        "\0" not in file and not Path(file).is_absolute() and ".." not in Path(file).parts for file in files
    )
    if not plain:
        return None
    return record | {"parameters": parameters if isinstance(parameters, dict) else {}}


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
