"""The study: its numbered notebooks, run as a reader would run them, several at a time, and reported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd
from joblib import effective_n_jobs

from helixlab._code_cache import share
from helixlab._io import write_text
from helixlab._progress import bar
from helixlab._validation import as_flag, as_jobs, as_seed, as_whole
from helixlab.reproduce.kernel import disk_full_text, papermill_or_error
from helixlab.reproduce.notebooks import (
    Notebook,
    NotebookError,
    numbered_notebooks,
    read_notebook,
    with_figures,
)
from helixlab.reproduce.records import (
    answers,
    finished_record,
    finished_records,
    locked,
    notebook_key,
    other_parameters,
    take_over,
    workplace,
)
from helixlab.reproduce.report import write_report

__all__ = ["Job", "ended", "reproduce", "start"]


@dataclass
class Job:
    """A notebook to be run, or being run."""

    notebook: Notebook
    parameters: dict[str, Any]
    key: str
    expected_s: float
    started_s: float = 0.0
    made: Path = Path()
    process: subprocess.Popen[str] | None = field(default=None, repr=False)


def start(job: Job, beside: Path, target: Path) -> Job:
    """Start to run a notebook, which writes into a folder of its own in `beside`."""
    # The name is new every time: what a killed kernel still writes is not taken for this run's.
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
        [sys.executable, "-m", "helixlab.reproduce.kernel"],
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
        if (full := disk_full_text(failed)) is None:
            raise
        error = full
    raise NotebookError(error.replace(str(job.made), str(target)))


SCALES: Final = ("smoke", "full")
NEEDED: Final = ("scale", "seed", "output")
TYPICAL_S: Final = {
    "full": {
        "14_execution": 330.0,
        "03_placement": 270.0,
        "12_beyond_the_paper": 225.0,
        "09_high_heterogeneity": 120.0,
        "07_single_cluster": 80.0,
        "08_geo_distributed": 60.0,
        "10_deep_dives": 60.0,
        "11_ablations": 50.0,
    },
    "smoke": {"03_placement": 60.0, "14_execution": 50.0},
}
"""Seconds that some notebooks take, two at a time on two cores: the longest start first, and the progress bar
estimates the time left."""
OTHERS_S: Final = {"full": 18.0, "smoke": 16.0}
LOOK_EVERY_S: Final = 0.1


def reproduce(
    notebooks: str | os.PathLike[str] = "notebooks",
    *,
    scale: str = "full",
    figures: Iterable[str] | None = None,
    seed: int = 0,
    seeds: int | None = None,
    n_jobs: int = 1,
    replan: bool = False,
    output: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Run the numbered notebooks, which write figures and the tables behind them, and write ``REPORT.md``.

    Each notebook is run from start to end in a process of its own, by the current Python, in its folder. Its
    parameters are ``scale``, ``seed`` and ``output``, which every notebook must have, and those of the others
    below that its cell with the tag ``parameters`` assigns.

    A finished notebook is not run again: its record in ``executed`` has a hash of the notebook, its
    parameters, helixlab's code and data and the versions of its packages, and of every file that it wrote.
    More figures than are asked for do no harm. What a notebook makes replaces what it made before when it has
    ended well, so that a killed call can simply be made again. ``REPORT.md`` covers all notebooks that are
    finished at this scale, by this call or an earlier one.

    Parameters
    ----------
    notebooks : path
        Folder of the notebooks.
    scale : str
        ``"full"``, as published, or ``"smoke"``, the same with short windows.
    figures : iterable of str, optional
        Run only the notebooks that make these figures of the paper (``"5a"``, or ``"5"`` for all panels).
    seed : int
        Seed of everything that draws.
    seeds : int, optional
        Number of seeds that means are taken over, in notebooks that do; by default their own number.
    n_jobs : int
        Number of notebooks at a time; -1 for one per core.
    replan : bool
        Search anew for the placements that ship with helixlab.
    output : path, optional
        Folder that the notebooks write into; copies of the executed notebooks are put into ``executed`` in
        it. By default ``figures``, at smoke scale ``figures/smoke``, since one folder has the results of one
        scale.
    progress : bool, optional
        Show a progress bar; by default in notebooks and on terminals.

    Returns
    -------
    DataFrame
        One row for each notebook: notebook, wall_s (of the run that made it), fresh (True if this call ran
        it), executed (path of the copy).

    Raises
    ------
    NotebookError
        There is no notebook, or one does not take the parameters or fails; its copy shows where.
    FileFormatError
        A notebook cannot be read.

    Warns
    -----
    UserWarning
        After Ctrl-C, before KeyboardInterrupt is raised: the number of finished notebooks. They stay, and the
        same call goes on with the others.
    """
    if scale not in SCALES:
        raise NotebookError(f"scale is {scale!r}; give one of {', '.join(SCALES)}")
    n_jobs = effective_n_jobs(as_jobs(n_jobs, error=NotebookError))
    seeds = None if seeds is None else as_whole(seeds, "seeds", least=1, error=NotebookError)
    seed, replan = as_seed(seed, "seed", error=NotebookError), as_flag(replan, "replan", error=NotebookError)
    if output is None:
        output = Path("figures") if scale == "full" else Path("figures", scale)
    target = Path(output).resolve()
    found = [read_notebook(path.resolve(), NEEDED) for path in numbered_notebooks(notebooks)]
    chosen = [(each, each.figures) for each in found] if figures is None else with_figures(found, figures)
    papermill_or_error()
    given = {"scale": scale, "seed": seed, "seeds": seeds, "replan": replan, "n_jobs": 1}
    target.mkdir(parents=True, exist_ok=True)
    with locked(target):
        records, fresh = _make(chosen, target, given, scale, n_jobs, progress)
        finished = finished_records(target, found, scale) | records
        named = [notebook for notebook in found if notebook.name in finished]
        write_report(
            target,
            [notebook.name for notebook in named],
            finished,
            scale=scale,
            seeds=seeds,
            others={each.name: other_parameters(each, finished[each.name], given) for each in named},
        )
    rows = [
        (
            notebook.name,
            records[notebook.name]["wall_s"],
            notebook.name in fresh,
            str(target / "executed" / notebook.path.name),
        )
        for notebook, _ in chosen
    ]
    return pd.DataFrame(rows, columns=["notebook", "wall_s", "fresh", "executed"])


def _make(
    chosen: list[tuple[Notebook, list[str]]],
    target: Path,
    given: dict[str, Any],
    scale: str,
    n_jobs: int,
    progress: bool | None,
) -> tuple[dict[str, Any], set[str]]:
    """Run the notebooks that are not finished; return all records, and the names of those that ran."""
    jobs, records, asked = [], {}, []
    for notebook, made in chosen:
        parameters = notebook.takes(given)
        if "figures" in notebook.defaults:
            parameters["figures"] = made
        asked.append((notebook, parameters))
        record = finished_record(target, notebook)
        if record is not None and answers(record, parameters):
            records[notebook.name] = record
            continue
        key = notebook_key(notebook, parameters)
        expected_s = TYPICAL_S[scale].get(notebook.name, OTHERS_S[scale])
        jobs.append(Job(notebook, parameters, key, expected_s))
    fresh = {job.notebook.name for job in jobs}
    if fresh:
        try:
            records |= _run_all(jobs, target, n_jobs, progress)
        except KeyboardInterrupt:
            warnings.warn(_interruption(asked, target), stacklevel=3)
            raise
    return records, fresh


def _run_all(waiting: list[Job], target: Path, n_jobs: int, progress: bool | None) -> dict[str, Any]:
    """Run notebooks side by side, the longest first; return their records."""
    waiting = sorted(waiting, key=lambda job: -job.expected_s)
    total_s, done_s = sum(job.expected_s for job in waiting), 0.0
    running: list[Job] = []
    records: dict[str, Any] = {}
    began_s = time.perf_counter()
    with (
        workplace(target) as beside,
        bar(
            progress,
            total=100,
            unit="%",
            desc="notebooks",
            bar_format="{desc} {percentage:3.0f} %|{bar}| {postfix}",
        ) as shown,
    ):
        try:
            while waiting or running:
                while waiting and len(running) < n_jobs:
                    running.append(start(waiting.pop(0), beside, target))
                time.sleep(LOOK_EVERY_S)
                now_s = time.perf_counter()
                for job in [job for job in running if job.process and job.process.poll() is not None]:
                    running.remove(job)
                    records[job.notebook.name] = ended(job, target, now_s)
                    done_s += job.expected_s
                share = done_s + sum(min(now_s - job.started_s, 0.95 * job.expected_s) for job in running)
                shown.n = round(100 * share / total_s, 1)
                left_s = (now_s - began_s) * (total_s - share) / max(share, 1e-9)
                names = ", ".join(job.notebook.name for job in running)
                shown.set_postfix_str(f"about {_duration_text(left_s)} left; running {names}", refresh=False)
                shown.refresh()
        finally:
            for job in running:
                if job.process is not None:
                    job.process.kill()
                    job.process.wait()
    return records


def _interruption(asked: list[tuple[Notebook, dict[str, Any]]], target: Path) -> str:
    """Say how far an interrupted call came, by the records it left."""
    found = [(finished_record(target, notebook), parameters) for notebook, parameters in asked]
    finished = sum(record is not None and answers(record, parameters) for record, parameters in found)
    verb = "is" if finished == 1 else "are"
    return (
        f"interrupted; {finished} of {len(asked)} notebooks {verb} finished in {target}; the same call goes"
        " on with the others"
    )


def _duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
