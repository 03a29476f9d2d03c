"""Execution of one notebook, in a process that `reproduce` starts."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from helixlab._io import DISK_FULL, replacing, write_text
from helixlab._parents import end_with
from helixlab.errors import NotebookError

__all__ = ["disk_full_text", "main", "papermill_or_error", "run_notebook"]

KERNEL: Final = "python3"
INLINE: Final = "module://matplotlib_inline.backend_inline"


def papermill_or_error() -> ModuleType:
    """Import papermill, which comes with the extra packages for notebooks, when it is needed.

    Raises
    ------
    NotebookError
        Papermill or Jupyter's kernel is not installed.
    """
    try:
        import_module("ipykernel")
        return import_module("papermill")
    except ModuleNotFoundError as error:
        raise NotebookError(
            f"notebooks cannot be run without the package {error.name}; pip install 'helixlab[notebooks]'"
        ) from None


def run_notebook(path: Path, executed: Path, parameters: dict[str, Any]) -> None:
    """Run a notebook from start to end in its folder, by the current Python.

    Raises
    ------
    NotebookError
        The notebook fails; its copy shows where.
    """
    papermill, failure = papermill_or_error(), ""
    with _kernel(), replacing(executed) as beside:
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


@contextlib.contextmanager
def _kernel() -> Iterator[None]:
    """Let the kernel be this interpreter, whatever kernels the user has installed under the same name.

    The kernel shows no progress bars, which nobody would see moving, and all pictures, whatever MPLBACKEND
    says.
    """
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    names = ("JUPYTER_PATH", "TQDM_DISABLE")
    before = {name: os.environ[name] for name in names if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="helixlab-kernel-") as folder:
        kernel = Path(folder, "kernels", KERNEL)
        kernel.mkdir(parents=True)
        content = {
            "argv": command,
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "env": {"MPLBACKEND": INLINE},
        }
        write_text(kernel / "kernel.json", json.dumps(content))
        more = [before["JUPYTER_PATH"]] if "JUPYTER_PATH" in before else []
        os.environ |= {"JUPYTER_PATH": os.pathsep.join([folder, *more]), "TQDM_DISABLE": "1"}
        try:
            yield
        finally:
            for name in names:
                del os.environ[name]
            os.environ |= before


def main() -> int:
    """Run the notebook that stdin names; the last line of stdout says what went wrong, if anything did."""
    job = json.loads(sys.stdin.read())
    end_with(job["parent"])
    # Jupyter's check of notebooks loads this grammar of addresses, which notebooks do not have; building it
    # would take two seconds in every process.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    error = None
    try:
        run_notebook(Path(job["path"]), Path(job["executed"]), job["parameters"])
    except NotebookError as failed:
        error = str(failed)
    except OSError as failed:
        where = f": {failed.filename}" if failed.filename else ""
        error = disk_full_text(failed) or f"{job['path']} cannot be run: {failed.strerror or failed}{where}"
    print(json.dumps({"error": error}), flush=True)
    return 0 if error is None else 2


def disk_full_text(error: OSError) -> str | None:
    """Say what to do about an error of a full disk; None for other errors.

    Examples
    --------
    >>> disk_full_text(OSError(28, "No space left on device", "/figures/a.png"))
    '/figures/a.png cannot be written (No space left on device); free some space, and call it again to go on'
    """
    if error.errno not in DISK_FULL:
        return None
    file = error.filename or "a file"
    return f"{file} cannot be written ({error.strerror}); free some space, and call it again to go on"


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    sys.exit(main())
