"""Public names of a package, listed in the stub file beside it and loaded when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lazy_loader

from helixlab._interrupts import whole_imports

__all__ = ["attach_stub"]


def attach_stub(
    package: str, filename: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make ``__getattr__``, ``__dir__`` and ``__all__`` of a package from its stub.

    Parameters
    ----------
    package : str
        Name of the package, its ``__name__``.
    filename : str
        Path of its ``__init__.py``, its ``__file__``; the ``.pyi`` file beside it has the names as
        ``from .module import name as name``, which type checkers and editors read too.

    Returns
    -------
    tuple
        The three, for the package to assign. Ctrl-C waits until an import is complete.
    """
    stub = str(Path(filename).with_suffix(".pyi"))
    load, _, names = lazy_loader.attach_stub(package, stub)

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with whole_imports():
            value = load(name)
        setattr(sys.modules[package], name, value)  # next time it is found without asking
        return value

    return __getattr__, lambda: list(names), names
