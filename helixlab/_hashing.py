"""Digests of the content that determines a run, never of names.

Objects are digested field by field. Functions of the user are digested by their bytecode and by everything
they use: constants, defaults, enclosed and global values, other functions, modules. `library_digest` covers
the code of helixlab itself.
"""

from __future__ import annotations

import dataclasses
import dis
import hashlib
import json
import platform
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, ModuleType
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab.cluster import Cluster
from helixlab.errors import ContentError
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.workload import Workload
from helixlab.workload.traces import arrival_names, arrivals_per_interval, trace_lengths, trace_names

__all__ = ["digest", "globals_read", "installed", "library_digest", "library_name"]

RESULTS_DEPEND_ON: Final = ("helixlab", "networkx", "numba", "numpy", "pandas")
"""Packages whose version may change a result."""


def digest(value: Any, what: str = "it") -> str:
    """Hash content, the same in every process; `what` names the value in errors.

    Raises
    ------
    ContentError
        Part of the content is of a kind that has no such hash.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> cluster = load_cluster("small10")
    >>> digest(cluster) == digest(dataclasses.replace(cluster, name="another name"))
    True
    >>> digest(cluster) == digest(dataclasses.replace(cluster, links=cluster.links[1:]))
    False
    """
    text = json.dumps(_described(value, what, ()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def library_digest() -> str:
    """Hash the source code of helixlab and the versions of the packages that results depend on.

    Examples
    --------
    >>> library_digest() == library_digest()
    True
    """
    root = Path(__file__).parent
    running = [version(package) for package in RESULTS_DEPEND_ON]
    running += [platform.python_version(), platform.machine(), sys.platform]
    whole = hashlib.sha256(json.dumps(running).encode())
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(root).as_posix()} {len(content)} ".encode() + content)
    return whole.hexdigest()[:32]


def library_name(function: Any) -> tuple[str, str] | None:
    """Return module and name of a function of helixlab itself; None for any other.

    Examples
    --------
    >>> library_name(library_name)
    ('helixlab._hashing', 'library_name')
    >>> library_name(len) is None
    True
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", None)
    if not isinstance(module, str) or not module.startswith("helixlab.") or not isinstance(name, str):
        return None
    return (module, name) if getattr(import_module(module), name, None) is function else None


def _described(value: Any, what: str, inside: tuple[int, ...]) -> Any:
    """Describe content as plain data; `inside` are the functions that are being described."""

    def described(*parts: Any) -> list[Any]:
        return [_described(part, what, inside) for part in parts]

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | complex | Enum | np.dtype | EllipsisType):
        return [type(value).__name__, repr(value)]
    if isinstance(value, np.generic):
        return [value.dtype.str, repr(value)]
    if isinstance(value, tuple | list):
        return [type(value).__name__, getattr(value, "_fields", None), *described(*value)]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(json.dumps(item) for item in described(*value))]
    if isinstance(value, Mapping):
        pairs = [[*described(key, value[key])] for key in value]
        return ["mapping", *sorted(pairs, key=json.dumps)]  # equal mappings may differ in their order
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return ["array", repr(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, pd.DataFrame):
        return ["table", *([name, *described(value[name].to_numpy())] for name in value)]
    if isinstance(value, type):
        members = list(value) if issubclass(value, Enum) else []
        return ["type", value.__module__, value.__qualname__, repr(members)]
    if isinstance(value, ModuleType):
        return ["module", value.__name__, installed(value.__name__)]
    if isinstance(value, CodeType):
        counts = [value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags]
        names = [value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars]
        return ["code", value.co_code.hex(), counts, names, *described(*value.co_consts)]
    if dataclasses.is_dataclass(value):
        return [type(value).__name__, *described(*_parts(value))]
    return _described_function(value, what, inside)


def _parts(value: Any) -> Iterator[Any]:
    """List all fields that are content, and the content that they refer to by name."""
    names = [field.name for field in dataclasses.fields(value)]
    if isinstance(value, Cluster):
        names = ["content_hash"]  # quick with a million links
    if isinstance(value, Placement):
        names = ["layers", "links", "kv_capacity_token_layers", "part"]
    for name in names:
        if name != "name" or not isinstance(value, Model):
            yield name, getattr(value, name)
    if isinstance(value, Workload):
        if value.trace in trace_names():
            yield trace_lengths(value.trace)
        if value.arrivals in arrival_names():
            yield arrivals_per_interval(value.arrivals)


def _described_function(value: Any, what: str, inside: tuple[int, ...]) -> Any:
    own = library_name(value)
    if own is not None:
        return ["helixlab", *own]
    if isinstance(value, BuiltinFunctionType | np.ufunc):
        return ["builtin", getattr(value, "__module__", None), value.__name__]
    function = getattr(value, "py_func", value)  # of a function compiled by numba
    if not isinstance(function, FunctionType):
        if type(value).__module__.startswith("numba."):
            return ["numba", repr(value)]  # one of its types
        raise ContentError(
            f"{what} uses {value!r:.60} ({type(value).__name__}), whose content cannot be compared"
            " between processes; use functions, numbers, tuples and arrays"
        )
    if id(function) in inside:
        return ["again", inside.index(id(function))]  # it calls itself
    state = installed(function.__module__)
    if state is not None:
        return ["installed", function.__module__, function.__qualname__, state]
    options = sorted((key, repr(option)) for key, option in getattr(value, "targetoptions", {}).items())
    uses = [function.__code__, function.__defaults__, function.__kwdefaults__, *_enclosed(function)]
    uses += [*globals_read(function), *_from_modules(function)]
    return ["function", options, _described(uses, what, (*inside, id(function)))]


def _enclosed(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            yield name, "not set"


def globals_read(function: FunctionType) -> list[tuple[str, Any]]:
    """List names and values of the globals that a function and its inner functions read.

    Examples
    --------
    >>> [name for name, _ in globals_read(digest)]
    ['_described', 'hashlib', 'json']
    """
    names = set(_arguments(function.__code__, "LOAD_GLOBAL", "LOAD_NAME")) & set(function.__globals__)
    return [(name, function.__globals__[name]) for name in sorted(names)]


def _from_modules(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """List names and values that a function reads from modules of the user."""
    attributes = sorted(set(_arguments(function.__code__, "LOAD_ATTR", "LOAD_METHOD")))
    reads, modules = globals_read(function), set()
    while reads:
        _, value = reads.pop(0)
        if not isinstance(value, ModuleType) or f"{value.__name__}.".startswith("helixlab."):
            continue
        if value.__name__ not in modules and installed(value.__name__) is None:
            modules.add(value.__name__)
            found = [(each, getattr(value, each)) for each in attributes if hasattr(value, each)]
            yield from found
            reads += found


def _arguments(code: CodeType, *operations: str) -> Iterator[str]:
    """List the arguments of these operations in the bytecode of a function and its inner functions."""
    yield from (step.argval for step in dis.get_instructions(code) if step.opname in operations)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _arguments(constant, *operations)


def installed(name: str | None) -> str | None:
    """Return the state of a module that was installed or comes with Python; None for one of the user.

    Examples
    --------
    >>> installed("numpy.linalg") is None, installed("__main__") is None
    (False, True)
    """
    if name in sys.builtin_module_names:
        return platform.python_version()
    module = sys.modules.get(name or "")
    file = getattr(module, "__file__", None)
    folders = [sysconfig.get_path(which) for which in ("stdlib", "purelib", "platlib")]
    if name == "__main__" or not file or not any(Path(file).is_relative_to(folder) for folder in folders):
        return None
    package = sys.modules.get((name or "").split(".")[0])
    content = Path(file).read_bytes() if Path(file).is_file() else b""
    return f"{getattr(package, '__version__', '')} {hashlib.sha256(content).hexdigest()[:16]}"
