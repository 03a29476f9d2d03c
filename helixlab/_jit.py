"""Decorators of compiled functions, the cache of compiled code on disk, and the notes on compiling.

numba keeps compiled functions on disk, and decides by the file of a function alone whether the copy is still
good. helixlab's compiled functions call each other across files. So the name of the cache folder depends on
the content of all files with functions of the same part, and on the processor.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import numba
from numba import types
from numba.core import serialize
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator

from helixlab._code_cache import Place, place_of
from helixlab._interrupts import ctrl_c_at_once
from helixlab.errors import SchedulingError

__all__ = ["compiled", "from_user", "inlined", "rare"]

PARTS: dict[str, tuple[str, ...]] = {
    "engine": ("engine", "scheduling", "execution"),
    "planner": ("planning",),
}
"""Parts of the compiled code: packages whose compiled functions call each other."""

OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "nogil": True}
"""Options of all compiled functions.

Compiled code allocates nothing, so it keeps no reference counts: that is most of the speed. It does not need
Python either, so that threads can simulate side by side."""

INTERNAL: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of functions that only compiled code calls.

They need no entry from Python, which saves a quarter of the time to compile."""

WAIT_S: Final = 180.0
"""Longest wait for another process that compiles the same function."""
LOOK_S: Final = 0.1
"""Pause between two looks at whether that process is done."""


def _widen(kind: Any) -> Any:
    """Return the type in which a helper gets an argument: int64 for integers of all widths, and for enums."""
    kind = types.unliteral(kind)
    signed = kind in types.signed_domain or isinstance(kind, types.IntEnumMember)
    return types.int64 if signed else kind


def _helper(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function for calls from compiled code, once for integers of all widths.

    numba would compile it for each combination of int32 columns, int64 variables and literals in the calls.
    """
    dispatcher = numba.njit(**INTERNAL, **options)(function)
    resolve = dispatcher.get_call_template

    def resolve_widened(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        widened = {name: _widen(kind) for name, kind in named.items()}
        return resolve(tuple(_widen(kind) for kind in arguments), widened)

    dispatcher.get_call_template = resolve_widened
    return dispatcher


def inlined(function: Callable[..., Any]) -> Any:
    """Decorator of small functions: compiled as part of the functions that call them."""
    return _helper(function, forceinline=True)


def rare(function: Callable[..., Any]) -> Any:
    """Decorator of functions that run seldom: compiled once and called, which saves time to compile."""
    return _helper(function)


@cache
def _place(part: str) -> Place | None:
    """Find the folder for the compiled code of one of `PARTS`; None if nothing can be written anywhere."""
    root = Path(__file__).parent
    cpu = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    digest = hashlib.sha256(f"{numba.__version__} {sys.version} {cpu}".encode())
    sources = [
        root / "_jit.py",
        *(path for package in PARTS[part] for path in sorted((root / package).glob("*.py"))),
    ]
    for path in sources:
        digest.update(path.name.encode() + path.read_bytes())
    return place_of(f"{part}-{digest.hexdigest()[:16]}")


def _part_of(function: Callable[..., Any]) -> tuple[str, str]:
    """Find the part, one of `PARTS`, and the package of a function."""
    package = function.__module__.split(".")[1]
    (part,) = (part for part, packages in PARTS.items() if package in packages)
    return part, package


class _Locator(UserProvidedCacheLocator):
    """A locator that tells numba the folder of a function."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        part, package = _part_of(function)
        place = _place(part)
        assert place is not None, "there is one where a cache is made"
        self._place, self._py_file, self._lineno = place, file, function.__code__.co_firstlineno
        self._cache_path = str(place.folder / package)

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _Locator:
        """Make the locator of a function, even for a read-only folder: the function may be there already."""
        return cls(function, file)

    def get_source_stamp(self) -> str:
        """Return an empty stamp: the name of the folder depends on the source already."""
        return ""

    def ensure_cache_path(self) -> None:
        """Make the folder, unless it belongs to a run that has ended."""
        if not self._place.lasting and not self._place.folder.parent.is_dir():
            raise FileNotFoundError(2, "the folder of the run was removed", str(self._place.folder.parent))
        os.makedirs(self._cache_path, exist_ok=True)


class _Content(CompileResultCacheImpl):
    """A file of the cache, with a checksum: damaged machine code must not run."""

    _locator_classes = [_Locator]  # noqa: RUF012, numba declares it so

    def reduce(self, compiled: Any) -> tuple[bytes, bytes]:
        """Turn a compiled function into its checksum and content."""
        content = serialize.dumps(super().reduce(compiled))
        return hashlib.sha256(content).digest(), content

    def rebuild(self, context: Any, kept: tuple[bytes, bytes]) -> Any:
        """Turn a checksum and content back into the function."""
        checksum, content = kept
        if hashlib.sha256(content).digest() != checksum:
            raise ValueError("the file is damaged")
        return super().rebuild(context, serialize.loads(content))


class _Cache(FunctionCache):
    """The cache of one function: one process compiles it while others wait; a damaged copy is replaced."""

    _impl_class = _Content
    _lock = -1

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.part, _ = _part_of(function)
        self.lock_path = Path(self.cache_path, f"{self._impl.filename_base}.lock")

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Load the compiled function; None if there is none, and then this process is to compile it."""
        found = self._loaded(signature, context)
        if found is None:
            self._take_turn()
            found = self._loaded(signature, context)
        if found is None:
            _say_compiling(self.part)
        return found

    def _loaded(self, signature: Any, context: Any) -> Any:
        try:
            return super().load_overload(signature, context)
        except MemoryError:
            raise
        except Exception:  # a file that is cut off or overwritten raises whatever its bytes happen to mean
            with suppress(OSError):
                self.flush()
            return None

    def _take_turn(self) -> None:
        """Wait until no other process compiles this function; go on at once where locks do not work."""
        with suppress(OSError):
            self._impl.locator.ensure_cache_path()
            self._lock = os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o600)
            until = time.monotonic() + WAIT_S
            while time.monotonic() < until:
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    _say_waiting(self.part)
                    time.sleep(LOOK_S)

    def end_turn(self) -> None:
        """Let the next process go on."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep a function for the next process, or warn that this failed."""
        try:
            super().save_overload(signature, compiled)
        except OSError as error:
            _say_not_kept(self.part, error.strerror or str(error))


def compiled(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function: compile it for `signature` and keep the result on disk for the next process."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**OPTIONS)(function)
        part, _ = _part_of(function)
        if _place(part) is None:
            _say_compiling(part)
            with ctrl_c_at_once():
                dispatcher.compile(signature)
        else:
            # numba's own cache fails where a file is damaged or the disk is full.
            dispatcher._cache = kept = _Cache(function)
            try:
                with ctrl_c_at_once():
                    dispatcher.compile(signature)
            finally:
                kept.end_turn()
        dispatcher.disable_compile()
        return dispatcher

    return decorate


def _say(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # a closed stderr is no reason to fail
            print(f"helixlab: {text}", file=sys.stderr, flush=True)


@cache
def _say_compiling(part: str) -> None:
    """Say once, on stderr, that a part is being compiled, and how long that takes."""
    place = _place(part)
    if place is not None and place.lasting:
        _say(f"compiling the {part}, once per installation (about 40 s) ...")
    else:
        _say(
            f"compiling the {part} for this run alone (about 40 s), as no cache folder can be written; set"
            " HELIXLAB_CACHE_DIR to one that can"
        )


@cache
def _say_waiting(part: str) -> None:
    _say(f"waiting for another process that compiles the {part} ...")


@cache
def _say_not_kept(part: str, reason: str) -> None:
    place = _place(part)
    where = "" if place is None else f" in {place.folder}"
    _say(
        f"warning: the compiled {part} cannot be kept{where} ({reason}), so that the next process compiles it"
        " again; free some space, or set HELIXLAB_CACHE_DIR to another folder"
    )


def from_user(signature: Any, function: Callable[..., Any], what: str) -> Any:
    """Compile a function that a user wrote; `what` names it in the error.

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
