"""Parameters of the study's notebooks: checks of their values, and the folder that a notebook writes into."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Final

from helixlab._validation import shown
from helixlab.reproduce.notebooks import NotebookError

__all__ = ["check_parameters", "check_value", "output_folder"]

_INJECTED: Final = re.compile(r"\s*# Parameters\b")
"""First line of the cell that papermill inserts after the one with the tag ``parameters``."""
_FIRST_CELLS_BYTES: Final = 65_536


def check_parameters(**parameters: Any) -> None:
    """Refuse parameters of a notebook with values that make no sense, and unknown parameters.

    Papermill only warns of a parameter that a notebook does not have, and passes some values on as text.

    Parameters
    ----------
    **parameters
        All parameters of the notebook, by name. The values of scale, seed, seeds, n_jobs, replan, figures,
        output, store, on_full and requests_in_flight are checked; others may be anything.

    Raises
    ------
    NotebookError
        A value makes no sense, or papermill was given another parameter.

    Examples
    --------
    >>> check_parameters(scale="full", seed=-1)
    Traceback (most recent call last):
    helixlab.reproduce.notebooks.NotebookError: seed is -1; give a whole number from 0 up
    """
    cells = list(_cells_that_ran())
    injected = next((cell for cell in reversed(cells) if _INJECTED.match(cell)), "")
    for name in _assigned(injected):
        if name not in parameters:
            raise NotebookError(
                f"the notebook has no parameter {name!r}; give any of {', '.join(parameters)}"
            )
    for name, value in parameters.items():
        check_value(name, value)
    if "figures" in parameters:
        _check_members(parameters["figures"], [cell for cell in cells if not _INJECTED.match(cell)])


def check_value(name: str, value: object) -> None:
    """Refuse a value that a parameter of this name does not take.

    Raises
    ------
    NotebookError
        The value makes no sense.
    """
    fits, allowed = _RULES.get(name, _ANY)
    if not fits(value):
        raise NotebookError(f"{name} is {shown(value)}; give {allowed}")


def output_folder(output: str | os.PathLike[str] | None = None) -> Path:
    """Find the folder that a notebook writes into, whatever its working directory is.

    Parameters
    ----------
    output : path, optional
        Path of the folder. The default is ``figures`` in the project, which is the folder with the study's
        ``notebooks``: the nearest one from the working directory upwards (in VS Code, from the notebook), or
        else the only one directly below the working directory. Without a project it is ``figures`` in the
        working directory. Where no project is found upwards, the choice is printed.

    Raises
    ------
    NotebookError
        A file has that name.
    """
    folder = Path("figures").absolute() if output is None else Path(output)
    if output is None:
        above = (each for start in _starts() for each in (start, *start.parents) if _is_project(each))
        if (project := next(above, None)) is not None:
            folder = project / "figures"
        else:
            below = [path.parent for path in Path.cwd().glob("*/notebooks") if _is_project(path.parent)]
            folder = below[0] / "figures" if len(below) == 1 else folder
            print(
                f"Files go to {folder}: neither the working directory nor a folder above it has the study's"
                " notebooks/. The parameter output names another folder."
            )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise NotebookError(f"output is {shown(str(folder))}, which is no folder; give another path")
    return folder


def _is_project(folder: Path) -> bool:
    return any(map(_asks_here, sorted((folder / "notebooks").glob("*.ipynb"))))


def _asks_here(notebook: Path) -> bool:
    """Tell whether a notebook calls `output_folder` in its first cells, as those of the study do."""
    try:
        with notebook.open("rb") as file:
            return f"{output_folder.__name__}(".encode() in file.read(_FIRST_CELLS_BYTES)
    except OSError:
        return False


def _starts() -> Iterator[Path]:
    """Yield the notebook's folder, if its editor names it, and the working directory."""
    notebook = getattr(_shell(), "user_ns", {}).get("__vsc_ipynb_file__")
    if isinstance(notebook, str) and Path(notebook).is_file():
        yield Path(notebook).absolute().parent
    yield Path.cwd()


def _shell() -> Any:
    """Get the current shell, if it is IPython."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def _cells_that_ran() -> Iterator[str]:
    """Yield the sources of all cells up to this one."""
    history = getattr(_shell(), "history_manager", None)
    yield from getattr(history, "input_hist_parsed", ())


def _assigned(cell: str) -> dict[str, ast.expr]:
    """Map the names that a cell assigns to their expressions."""
    try:
        lines = ast.parse(cell).body
    except SyntaxError:
        return {}
    return {
        target.id: line.value
        for line in lines
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    }


def _check_members(figures: Sequence[str], cells: Sequence[str]) -> None:
    """Refuse figures that are not among those in the cell with the tag ``parameters``."""
    written = [_assigned(cell).get("figures") for cell in cells]
    members = [member for each in written if isinstance(each, ast.List) for member in each.elts]
    known = [str(member.value) for member in members if isinstance(member, ast.Constant)]
    for name in figures:
        if known and name not in known:
            raise NotebookError(f"figures has {shown(name)}; give a list of any of {', '.join(known)}")


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_path(value: object) -> bool:
    if not isinstance(value, str | os.PathLike):
        return value is None
    path = os.fspath(value)
    return isinstance(path, str) and bool(path.strip()) and "\0" not in path


def _is_one_of(*values: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in values


def _are_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


_Rule = tuple[Callable[[Any], bool], str]

_ANY: Final[_Rule] = (lambda value: True, "")
_RULES: Final[Mapping[str, _Rule]] = {
    "scale": (_is_one_of("full", "smoke"), "'full' or 'smoke'"),
    "seed": (lambda value: _is_whole(value, 0), "a whole number from 0 up"),
    "seeds": (lambda value: _is_whole(value, 1), "a whole number from 1 up"),
    "n_jobs": (
        lambda value: _is_whole(value, -1) and value != 0,
        "a whole number from 1 up, or -1 for all cores",
    ),
    "requests_in_flight": (lambda value: _is_whole(value, 1), "a whole number from 1 up"),
    "replan": (lambda value: isinstance(value, bool), "True or False"),
    "on_full": (_is_one_of("wait", "drop"), "'wait' or 'drop'"),
    "figures": (_are_names, "a list of names such as ['5a', '5b']"),
    "output": (_is_path, "the path of a folder, or None for figures in the project"),
    "store": (_is_path, "the path of a folder, or None for runs in the output"),
}
"""Check of each parameter's value, and the words for the allowed ones."""
