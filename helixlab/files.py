"""Reading and writing files so that nothing is half-written and every failure has one clear line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from helixlab.errors import FileFormatError

__all__ = [
    "NO_ROOM",
    "content_hash",
    "parse_json",
    "read_json",
    "read_text",
    "replacing",
    "write_json",
    "write_text",
]


NO_ROOM: Final = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""Numbers of the errors of a full disk, or of a limit as good as that."""


def content_hash(content: Any) -> str:
    """A short hash of plain data that does not depend on the order of keys.

    Examples
    --------
    >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    Raises
    ------
    OSError
        It cannot be written; where there is no room, under the name of `path`.

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
    # The ending stays the same: some writers choose their format by it.
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
        if error.errno in NO_ROOM and error.filename is None:  # a write does not say to which file
            error.filename = os.fspath(target)
        raise
    finally:
        beside.unlink(missing_ok=True)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 text file; raise FileFormatError where it cannot be read.

    Raises
    ------
    FileFormatError
        The file is missing, unreadable or not text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror or error}; check the path") from None
    except UnicodeDecodeError:
        raise FileFormatError(f"{path} is not a UTF-8 text file; check that it is the right file") from None


def _refuse_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a number JSON knows")


def parse_json(text: str, source: str) -> Any:
    """Parse strict JSON (no NaN, no infinities); `source` names it in errors.

    Raises
    ------
    FileFormatError
        The text is not strict JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{source} is not valid JSON ({error}); the file may be cut off, fetch or write it again"
        ) from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a strict JSON file, see `parse_json`."""
    return parse_json(read_text(path), str(path))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file at once: whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def json_ready(value: Any) -> Any:
    """Replace what JSON cannot say (NaN, infinities) by null, recursively."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return value


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file at once; NaN and infinities become null."""
    write_text(path, json.dumps(json_ready(value), indent=1) + "\n")
