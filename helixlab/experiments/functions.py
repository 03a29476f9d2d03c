"""Functions on their way to another process, in parts that can always be unpacked.

Functions of helixlab and of installed packages travel as names. Those of the user travel by value, with all
they use, so that a worker needs no copy of the module they come from, and cannot have another version of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from helixlab.contents import globals_read, installed, library_name

__all__ = ["ByName", "ByValue", "sent", "taken"]


@dataclass(frozen=True)
class ByName:
    """A module, or a function in it."""

    module: str
    name: str = ""


@dataclass(frozen=True, eq=False)
class ByValue:
    """A function of the user's; its global names and enclosed values are sent ones too."""

    code: CodeType
    module: str
    defaults: Any
    keyword_defaults: Any
    dispatcher: type | None
    options: dict[str, Any]
    globals: dict[str, Any] = field(default_factory=dict)
    enclosed: list[tuple[Any, ...]] = field(default_factory=list)


def sent(value: Any, memory: dict[int, Any] | None = None) -> Any:
    """Replace functions and modules by what `taken` makes them of again; the rest stays.

    Examples
    --------
    >>> factor = 3
    >>> def times(number):
    ...     return factor * number
    >>> taken(sent(times))(14)
    42
    >>> sent(sent)
    ByName(module='helixlab.experiments.functions', name='sent')
    """
    memory = {} if memory is None else memory
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(sent(item, memory) for item in value)
    if isinstance(value, ModuleType):
        return ByName(value.__name__)
    own = library_name(value)
    if own is not None:
        return ByName(*own)
    function = getattr(value, "py_func", value)  # what numba has compiled
    if not isinstance(function, FunctionType):
        return value
    if installed(function.__module__) is not None and "." not in function.__qualname__:
        return ByName(function.__module__, function.__name__)
    if id(value) not in memory:
        memory[id(value)] = shipped = ByValue(
            function.__code__,
            function.__module__,
            sent(function.__defaults__, memory),
            function.__kwdefaults__,
            None if function is value else type(value),
            dict(getattr(value, "targetoptions", {})),
        )
        shipped.globals.update({name: sent(each, memory) for name, each in globals_read(function)})
        for cell in function.__closure__ or ():
            shipped.enclosed.append((sent(cell.cell_contents, memory),) if _is_set(cell) else ())
    return memory[id(value)]


def taken(value: Any, memory: dict[int, Any] | None = None) -> Any:
    """Undo `sent`.

    Raises
    ------
    ImportError, AttributeError
        A module or function is not here.
    """
    memory = {} if memory is None else memory
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(taken(item, memory) for item in value)
    if isinstance(value, ByName):
        module = import_module(value.module)
        return getattr(module, value.name) if value.name else module
    if not isinstance(value, ByValue):
        return value
    if id(value) not in memory:
        cells = tuple(CellType() for _ in value.enclosed)
        defaults = taken(value.defaults, memory)
        function = FunctionType(value.code, {}, value.code.co_name, defaults, cells)
        function.__module__, function.__kwdefaults__ = value.module, value.keyword_defaults
        made = function if value.dispatcher is None else value.dispatcher(function, {}, value.options)
        memory[id(value)] = made
        function.__globals__.update({name: taken(each, memory) for name, each in value.globals.items()})
        for cell, content in zip(cells, value.enclosed, strict=True):
            if content:
                cell.cell_contents = taken(content[0], memory)
    return memory[id(value)]


def _is_set(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
