"""One notebook of `reproduce`, in a process of its own: begun, and taken over when it has ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helixlab.code_cache import share
from helixlab.experiments.kernel import no_room
from helixlab.experiments.notebooks import Notebook, NotebookError
from helixlab.experiments.records import take_over
from helixlab.files import write_text

__all__ = ["Job", "ended", "start"]


@dataclass
class Job:
    """One notebook to be run."""

    notebook: Notebook
    parameters: dict[str, Any]
    key: str
    expected_s: float
    started_s: float = 0.0
    made: Path = Path()
    process: subprocess.Popen[str] | None = field(default=None, repr=False)


def start(job: Job, beside: Path, target: Path) -> Job:
    """Begin to run a notebook, which writes into a folder of its own in `beside`."""
    # A name of its own every time: what a killed kernel still writes is not taken for this run's.
    job.made = Path(tempfile.mkdtemp(prefix=f"{job.notebook.name}-", dir=beside))
    parameters = job.parameters | {"output": str(job.made)}
    if "store" in job.notebook.defaults:
        parameters["store"] = str(target / "runs")
    executed = job.made / "executed" / job.notebook.path.name
    order = {
        "path": str(job.notebook.path),
        "executed": str(executed),
        "parameters": parameters,
        "parent": os.getpid(),
    }
    share()
    temporary = beside / "temporary"  # where the next call removes what a killed one leaves
    temporary.mkdir(exist_ok=True)
    job.process = subprocess.Popen(
        [sys.executable, "-m", "helixlab.experiments.kernel"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        encoding="utf-8", errors="replace",  # whatever the locale
        # Bytecode that a full disk cuts short would be taken for whole by the next call.
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary.absolute())},
    )  # fmt: skip
    assert job.process.stdin is not None, "it is a pipe"
    job.process.stdin.write(json.dumps(order))
    job.process.stdin.close()
    job.started_s = time.perf_counter()
    return job


def ended(job: Job, target: Path, now_s: float) -> dict[str, Any]:
    """Take over what a notebook made; where it failed, only the copy that shows where."""
    assert job.process is not None, "it was started"
    assert job.process.stdout is not None, "it is a pipe"
    lines = job.process.stdout.read().splitlines()
    error = f"{job.notebook.path.name} was ended from outside (code {job.process.returncode}); run it again"
    if lines:
        error = json.loads(lines[-1])["error"]
    copy = Path("executed", job.notebook.path.name)
    made = job.made / copy
    try:
        if made.is_file():  # it was run elsewhere than where its files are in the end
            write_text(made, made.read_text(encoding="utf-8").replace(str(job.made), str(target)))
        if error is None:
            record = take_over(
                job.made,
                target,
                job.notebook.name,
                key=job.key,
                parameters=job.parameters,
                wall_s=now_s - job.started_s,
            )
            shutil.rmtree(job.made, ignore_errors=True)
            return record
        if made.is_file():
            (target / copy).parent.mkdir(parents=True, exist_ok=True)
            os.replace(made, target / copy)
    except OSError as failed:
        if (full := no_room(failed)) is None:
            raise
        error = full
    raise NotebookError(error.replace(str(job.made), str(target)))
