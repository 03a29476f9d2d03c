"""Reading and writing of files: nothing is half-written, and every failure has one clear line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from helixlab._validation import shown
from helixlab.errors import FileFormatError

__all__ = [
    "DISK_FULL",
    "check_format",
    "check_keys",
    "content_hash",
    "foreign_kind",
    "parse_json",
    "read_json",
    "read_text",
    "replacing",
    "write_json",
    "write_text",
]


DISK_FULL: Final = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""Error numbers of a full disk or an exhausted quota."""
DEEPEST: Final = 100
"""Largest depth of nested lists and objects; much deeper ones could not even be printed."""


def content_hash(content: Any) -> str:
    """Hash plain data, independently of the order of keys; the hash is short.

    Examples
    --------
    >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` when the block succeeds.

    Raises
    ------
    OSError
        The file cannot be written; for a full disk, the error names `path`.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with replacing(target) as beside:
    ...     _ = beside.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays the same because some writers choose their format by it.
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)  # a temporary file starts private
        os.replace(beside, target)
    except OSError as error:
        if error.errno in DISK_FULL and error.filename is None:  # an error of a write does not name the file
            error.filename = os.fspath(target)
        raise
    finally:
        beside.unlink(missing_ok=True)


_KINDS: Final = {
    b"\xff\xfe\x00\x00": "text in UTF-32",
    b"\x00\x00\xfe\xff": "text in UTF-32",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PK\x03\x04": "a zip archive, as Excel workbooks are",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "an array of numpy",
    b"SQLite format 3": "an SQLite database",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}
"""Kinds of files by their first bytes."""


def foreign_kind(start: bytes) -> str | None:
    """Find the kind of a file by its first bytes; None for what may be UTF-8 text.

    Examples
    --------
    >>> foreign_kind("name".encode("utf-16")), foreign_kind("name".encode("utf-8-sig"))
    ('text in UTF-16', None)
    """
    known = (kind for magic, kind in _KINDS.items() if start.startswith(magic))
    return next(known, "binary, or text in UTF-16" if b"\0" in start else None)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 text file, with a byte order mark or without one.

    Raises
    ------
    FileFormatError
        The file is missing, unreadable or not text.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # the latter for a path with a null character
        reason = getattr(error, "strerror", None) or error
        raise FileFormatError(f"cannot read {path}: {reason}; check the path") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = foreign_kind(content[:16])
        reason = f"it is {kind}" if kind else f"byte {error.start} is not valid UTF-8"
        raise FileFormatError(
            f"{path} is not a UTF-8 text file ({reason}); save it as UTF-8, or check the path"
        ) from None


def _refuse_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a number JSON knows")


def parse_json(text: str, source: str) -> Any:
    """Parse strict JSON: no NaN, no infinities, no key twice in an object, not nested too deep.

    Parameters
    ----------
    text : str
        Text to parse.
    source : str
        Name of the file in errors.

    Raises
    ------
    FileFormatError
        The text is not strict JSON.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
            raise FileFormatError(
                f"{source} has the key {shown(twice)} twice in one object; keep one of them"
            )
        return content

    try:
        content = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{source} is not valid JSON ({error}); the file may be cut off, fetch or write it again"
        ) from None
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(DEEPEST):
        within = (inner.values() if isinstance(inner, dict) else inner for inner in level)
        level = [value for values in within for value in values if isinstance(value, dict | list)]
    if not level:
        return content
    raise FileFormatError(f"{source} is nested more than {DEEPEST} deep; check that it is the right file")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a strict JSON file, see `parse_json`."""
    return parse_json(read_text(path), str(path))


def check_format(content: Any, source: str, what: str, format: str, version: int) -> None:
    """Check that content is a file of this format and version; errors say what it looks like.

    Parameters
    ----------
    content : plain data
        Content of the file.
    source : str
        Name of the file in errors.
    what : str
        Kind of content that is expected, such as ``"model"``.
    format, version : str, int
        Expected values of these keys.

    Raises
    ------
    FileFormatError
        The file has other values of these keys, or none.
    """
    if not isinstance(content, dict) or "format" not in content:
        raise FileFormatError(
            f"{source} is no {what} file but {_likeness(content)}; give a file of format {format!r}, as"
            f" save_{what} writes it"
        )
    if content["format"] != format:
        raise FileFormatError(f"{source} has format {shown(content['format'])}; a {what} file has {format!r}")
    found = content.get("version")
    if type(found) is not int or found != version:
        raise FileFormatError(f"{source} is of version {shown(found)}; this helixlab reads version {version}")


def check_keys(content: Any, where: str, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Check that content is an object with all `keys` and no others but the `optional` ones.

    Parameters
    ----------
    content : plain data
        Content to check.
    where : str
        Name of the object in errors.
    keys, optional : sequence of str
        Keys that the object must have, and may have.

    Raises
    ------
    FileFormatError
        The content is no such object.

    Examples
    --------
    >>> check_keys({"name": "mine"}, "model", ["name"])
    {'name': 'mine'}
    """
    if not isinstance(content, dict):
        raise FileFormatError(f"{where} is {shown(content)}; give an object with the keys {', '.join(keys)}")
    for key in keys:
        if key not in content:
            raise FileFormatError(f"{where} has no {key!r}; add it")
    for key in content:
        if key not in keys and key not in optional:
            known = ", ".join((*keys, *optional))
            raise FileFormatError(
                f"{where} has the unknown key {shown(key)}; leave it out, known are: {known}"
            )
    return content


def _likeness(content: Any) -> str:
    """Describe what JSON without a format seems to be."""
    if not isinstance(content, dict):
        return f"holds {shown(content)}"
    if {"architectures", "model_type", "hidden_size", "num_hidden_layers"} & set(content):
        return "looks like the config.json of a Hugging Face model, which helixlab does not read"
    if "nbformat" in content:
        return "looks like a notebook"
    keys = ", ".join(map(shown, list(content)[:8])) + (", ..." if len(content) > 8 else "")
    return f"holds an object with the keys {keys}" if keys else "holds an empty object"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, as a whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def json_ready(value: Any) -> Any:
    """Replace values that JSON does not have (NaN, infinities) by null, recursively."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return value


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file, as a whole or not at all; NaN and infinities become null."""
    write_text(path, json.dumps(json_ready(value), indent=1) + "\n")
