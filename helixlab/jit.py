"""Compiled code: one place that decides where it is cached and says when it is being made.

numba keeps compiled functions on disk, but looks only at the file a function stands in when it
decides whether the copy is still good. helixlab's compiled functions call each other across files,
so the cache folder is named after the content of all files that the functions in it may stand in.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import platformdirs
from numba.core import config

from helixlab.errors import SchedulingError
from helixlab.interrupts import ctrl_c_at_once

__all__ = ["compiled", "from_user", "inlined", "rare"]

PARTS: dict[str, tuple[str, ...]] = {
    "engine": ("scheduling", "execution", "simulation"),
    "planner": ("planning",),
}
"""Packages whose compiled functions call each other."""

OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "nogil": True}
"""Nothing is allocated in compiled code, so reference counts need not be kept: that is most of the speed.

Nor is Python needed there, so that threads can simulate side by side."""

INTERNAL: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""What only compiled code calls needs no way in from Python: a quarter of the time to compile."""

inlined = numba.njit(forceinline=True, **INTERNAL)
"""Decorator of the engine's small functions: compiled as part of what calls them."""

rare = numba.njit(**INTERNAL)
"""Decorator of what happens seldom: compiled once and called, which keeps compiling the engine short."""


@cache
def cache_folder(part: str) -> str:
    """Folder of the compiled code of one of `PARTS`, writable.

    It is in ``HELIXLAB_CACHE_DIR``, the user's cache, or a temporary folder.
    """
    root = Path(__file__).parent
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    sources = [
        root / "jit.py",
        *(path for package in PARTS[part] for path in sorted((root / package).glob("*.py"))),
    ]
    for path in sources:
        digest.update(path.name.encode() + path.read_bytes())
    asked = os.environ.get("HELIXLAB_CACHE_DIR")
    for base in filter(None, (asked, platformdirs.user_cache_dir("helixlab"))):
        folder = Path(base) / "compiled" / f"{part}-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return str(folder)
        except OSError:
            continue
    return tempfile.mkdtemp(prefix="helixlab-compiled-")


def compiled(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile for `signature` and keep the result on disk for the next process."""

    def decorate(function: Callable[..., Any]) -> Any:
        package = function.__module__.split(".")[1]
        (part,) = (part for part, packages in PARTS.items() if package in packages)
        _note_first_compile(part)
        before = config.CACHE_DIR  # type: ignore[attr-defined]
        config.CACHE_DIR = cache_folder(part)  # type: ignore[attr-defined]
        try:
            with ctrl_c_at_once():
                return numba.njit(signature, cache=True, **OPTIONS)(function)
        finally:
            config.CACHE_DIR = before  # type: ignore[attr-defined]

    return decorate


@cache
def _note_first_compile(part: str) -> None:
    """Say once, on stderr, that compiled code is being made and that this will not happen again."""
    if not any(Path(cache_folder(part)).rglob("*.nbi")):
        print(
            f"helixlab: compiling the {part}, once per installation (about 40 s) ...",
            file=sys.stderr,
            flush=True,
        )


def from_user(signature: Any, function: Callable[..., Any], what: str) -> Any:
    """Compile a function that a user wrote, with an error that says what is wrong with it.

    Raises
    ------
    SchedulingError
        numba cannot compile it.
    """
    if isinstance(function, numba.core.registry.CPUDispatcher):
        function = function.py_func
    try:
        return numba.njit(signature, **OPTIONS, boundscheck=True)(function)
    except (numba.core.errors.NumbaError, TypeError, AttributeError, LookupError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise SchedulingError(
            f"{what} does not compile: {' '.join(lines[:3])}; write it with numbers, arrays and the"
            " functions of helixlab.scheduling only"
        ) from error
