"""Run the numbered notebooks, one after the other, as a reader would."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pandas as pd
from tqdm import tqdm

from helixlab.errors import HelixlabError
from helixlab.files import read_json, replacing

__all__ = ["NotebookError", "numbered_notebooks", "reproduce"]

SCALES: Final = ("smoke", "full")
KERNEL: Final = "python3"
_NUMBERED: Final = re.compile(r"\d+_.*\.ipynb")


class NotebookError(HelixlabError):
    """A notebook is missing, does not take the parameters, or fails."""


def numbered_notebooks(folder: str | os.PathLike[str]) -> list[Path]:
    """Notebooks whose names start with a number and ``_``, in the order of the numbers.

    Raises
    ------
    NotebookError
        There are none.

    Examples
    --------
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


def reproduce(
    notebooks: str | os.PathLike[str] = "notebooks",
    *,
    scale: str = "full",
    seed: int = 0,
    output: str | os.PathLike[str] = "figures",
) -> pd.DataFrame:
    """Run the numbered notebooks, which write figures and the tables behind them.

    Each one is run from start to end in a process of its own, by the Python that runs this, in the folder it
    is in, with the parameters ``scale``, ``seed`` and ``output``. It is checked first that every notebook has
    them in its cell with the tag ``parameters``.

    Parameters
    ----------
    notebooks : path
        Folder of the notebooks.
    scale : str
        ``"full"``, as published, or ``"smoke"``, the same in little.
    seed : int
        Of everything that draws.
    output : path
        Folder for what they write; the notebooks as they were run are put into ``executed`` in it.

    Returns
    -------
    DataFrame
        One row a notebook: notebook, wall_s, executed (path of the copy).

    Raises
    ------
    NotebookError
        There is no notebook, or one does not take the parameters or fails; its copy shows where.
    FileFormatError
        A notebook cannot be read.
    """
    if scale not in SCALES:
        raise NotebookError(f"scale is {scale!r}; give one of {', '.join(SCALES)}")
    found = [path.resolve() for path in numbered_notebooks(notebooks)]
    target = Path(output).resolve()
    parameters = {"scale": scale, "seed": seed, "output": str(target)}
    for path in found:
        _check_parameters(path, parameters)
    papermill, rows = _papermill(), []
    with _this_python(), tqdm(found, unit="notebook", disable=None) as bar:
        for path in bar:
            bar.set_description(path.stem)
            started, executed = time.perf_counter(), target / "executed" / path.name
            _run(papermill, path, executed, parameters)
            rows.append((path.stem, time.perf_counter() - started, str(executed)))
    return pd.DataFrame(rows, columns=["notebook", "wall_s", "executed"])


def _papermill() -> ModuleType:
    """It comes with the extra packages for notebooks, so it is looked for when it is needed."""
    try:
        import_module("ipykernel")
        return import_module("papermill")
    except ModuleNotFoundError as error:
        raise NotebookError(
            f"notebooks cannot be run without the package {error.name}; pip install 'helixlab[notebooks]'"
        ) from None


@contextlib.contextmanager
def _this_python() -> Iterator[None]:
    """Let the kernel be this interpreter, whatever kernels the user has installed under the same name."""
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory(prefix="helixlab-kernel-") as folder:
        kernel = Path(folder, "kernels", KERNEL)
        kernel.mkdir(parents=True)
        content = {"argv": command, "display_name": "Python 3 (ipykernel)", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(content), encoding="utf-8")
        os.environ["JUPYTER_PATH"] = folder if before is None else f"{folder}{os.pathsep}{before}"
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


def _check_parameters(path: Path, parameters: dict[str, Any]) -> None:
    known = _parameters_of(path)
    for name in parameters:
        if name not in known:
            raise NotebookError(
                f"{path.name} has no parameter {name!r}; assign it in the cell with the tag 'parameters'"
            )


def _parameters_of(path: Path) -> set[str]:
    """Names assigned in the cell with the tag ``parameters``."""
    try:
        tagged = [
            cell for cell in read_json(path)["cells"] if "parameters" in cell["metadata"].get("tags", ())
        ]
        lines = ast.parse("".join(tagged[0]["source"])).body if tagged else []
    except (KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise NotebookError(f"{path} is not a notebook ({_first_line(error)}); write it again") from None
    targets = [target for line in lines if isinstance(line, ast.Assign) for target in line.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _run(papermill: ModuleType, path: Path, executed: Path, parameters: dict[str, Any]) -> None:
    failure = ""
    with replacing(executed) as beside:
        try:
            papermill.execute_notebook(
                str(path),
                str(beside),
                parameters=parameters,
                kernel_name=KERNEL,
                language="python",
                cwd=str(path.parent),
                progress_bar=False,
            )
        except papermill.PapermillExecutionError as error:  # the copy is whole and shows the traceback
            failure = f"{error.ename}: {_first_line(error.evalue)}; {executed} shows where"
        except (RuntimeError, ValueError, LookupError) as error:  # what Jupyter raises has no base of its own
            raise NotebookError(f"{path} cannot be run: {_first_line(error)}; write it again") from None
    if failure:
        raise NotebookError(f"{path.name} failed with {failure}")


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
