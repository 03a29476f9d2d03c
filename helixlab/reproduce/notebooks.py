"""Notebooks as files: their order, parameters and figures."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from helixlab._io import read_json
from helixlab.errors import HelixlabError

__all__ = ["Notebook", "NotebookError", "numbered_notebooks", "read_notebook", "with_figures"]


_NUMBERED: Final = re.compile(r"\d+_.*\.ipynb")
_TOO_DEEP: Final = (RecursionError, MemoryError)
"""Errors of Python's parser on expressions in hundreds of brackets."""


class NotebookError(HelixlabError):
    """A notebook is missing, does not take the parameters, or fails."""


@dataclass(frozen=True)
class Notebook:
    """A notebook that can be run with parameters.

    Parameters
    ----------
    path : Path
        Path of the notebook.
    defaults : dict
        Names and values of the cell with the tag ``parameters``; None for a value that is not plain.
    """

    path: Path
    defaults: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the file, without its ending."""
        return self.path.stem

    @property
    def figures(self) -> list[str]:
        """Figures and tables of the paper that the notebook makes: its parameter ``figures``."""
        named = self.defaults.get("figures")
        return [str(name) for name in named] if isinstance(named, list) else []

    def takes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Select the given parameters that the notebook has and that are not None."""
        return {name: value for name, value in given.items() if name in self.defaults and value is not None}


def numbered_notebooks(folder: str | os.PathLike[str]) -> list[Path]:
    """List the notebooks whose names start with a number and ``_``, in the order of the numbers.

    Raises
    ------
    NotebookError
        The folder has no such notebook.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("10_late.ipynb", "2_early.ipynb", "scratch.ipynb"):
    ...     _ = (folder / name).write_text("{}")
    >>> [path.name for path in numbered_notebooks(folder)]
    ['2_early.ipynb', '10_late.ipynb']
    """
    found = [path for path in Path(folder).glob("*.ipynb") if _NUMBERED.fullmatch(path.name)]
    if not found:
        raise NotebookError(
            f"{os.fspath(folder)} holds no notebooks with names like 01_topology.ipynb; call this in the top"
            " folder of the project, or name the folder they are in"
        )
    return sorted(found, key=lambda path: (int(path.name.split("_")[0]), path.name))


def read_notebook(path: Path, needed: Iterable[str]) -> Notebook:
    """Read a notebook that must have these parameters.

    Raises
    ------
    NotebookError
        A parameter is missing, or the file is not a notebook.
    FileFormatError
        The file cannot be read.
    """
    try:
        tagged = [
            cell for cell in read_json(path)["cells"] if "parameters" in cell["metadata"].get("tags", ())
        ]
        lines = ast.parse("".join(tagged[0]["source"])).body if tagged else []
    except (LookupError, TypeError, AttributeError, SyntaxError, ValueError, *_TOO_DEEP) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotebookError(f"{path} is not a notebook ({reason}); write it again") from None
    defaults: dict[str, Any] = {}
    for line in lines:
        if isinstance(line, ast.Assign):
            names = [target.id for target in line.targets if isinstance(target, ast.Name)]
            defaults |= dict.fromkeys(names, _plain(line.value))
    for name in needed:
        if name not in defaults:
            raise NotebookError(
                f"{path.name} has no parameter {name!r}; assign it in the cell with the tag 'parameters'"
            )
    return Notebook(path, defaults)


def with_figures(notebooks: Iterable[Notebook], figures: Iterable[str]) -> list[tuple[Notebook, list[str]]]:
    """Choose the notebooks that make these figures, each with those that it makes.

    Parameters
    ----------
    notebooks : iterable of Notebook
        Notebooks to choose from.
    figures : iterable of str
        Names of figures such as ``"5a"`` or ``"table8"``, or the number of a figure for all of its panels.

    Raises
    ------
    NotebookError
        No notebook makes one of them.
    """
    asked, chosen = [str(figure) for figure in figures], []
    for notebook in notebooks:
        made = [name for name in notebook.figures if name in asked or name.rstrip("abcdefgh") in asked]
        if made:
            chosen.append((notebook, made))
    all_made = {name for notebook in notebooks for name in notebook.figures}
    for name in asked:
        if name not in all_made | {each.rstrip("abcdefgh") for each in all_made}:
            raise NotebookError(
                f"no notebook makes figure {name!r}; give any of {', '.join(sorted(all_made))}"
            )
    return chosen


def _plain(value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, *_TOO_DEEP):
        return None
