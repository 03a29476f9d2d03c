"""Errors that a user can meet, under one base class.

Every message names the wrong value and says how to correct it; the command line prints it as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from traceback import clear_frames

__all__ = [
    "ClusterError",
    "ContentError",
    "FileFormatError",
    "HelixlabError",
    "ModelError",
    "NotebookError",
    "OutOfMemoryError",
    "PlacementError",
    "SchedulingError",
    "SimulationError",
    "SolverError",
    "SweepError",
    "UnknownNameError",
    "UsageError",
    "WorkloadError",
    "memory_for",
    "name_source",
]


class HelixlabError(Exception):
    """Base class of every error that helixlab raises on purpose."""


class FileFormatError(HelixlabError):
    """Error in a file: it is incomplete, hostile, or of another kind than its reader expects."""


class ClusterError(HelixlabError):
    """Error in a cluster, which breaks an invariant."""


class ModelError(HelixlabError):
    """Error in a model or measured profile, or in its use outside its range."""


class PlacementError(HelixlabError):
    """Error in a placement, which cannot serve the model on the cluster, or in planning one."""


class SolverError(HelixlabError):
    """Failure of the solver, or of handing a program to it."""


class SchedulingError(HelixlabError):
    """Error in a scheduler, which is unknown, does not compile, or returns an impossible answer."""


class ContentError(HelixlabError):
    """Error of hashing a value whose content cannot be compared between processes."""


class UsageError(HelixlabError):
    """Error in the arguments of the command line."""


class WorkloadError(HelixlabError):
    """Error in a workload, whose requests make no sense or cannot be served."""


class SweepError(HelixlabError):
    """Error in the arguments of a sweep, or failure of it."""


class NotebookError(HelixlabError):
    """Error in a notebook, which is missing, does not take the parameters, or fails."""


class SimulationError(HelixlabError):
    """Error in the arguments of a simulation, or failure of it."""


class OutOfMemoryError(HelixlabError, MemoryError):
    """Error of a task that needs more memory than the system provides."""


@contextmanager
def name_source(source: str, error: type[HelixlabError]) -> Iterator[None]:
    """Prefix errors raised in the block with the name of the file that they concern.

    Parameters
    ----------
    source : str
        Name of the file.
    error : type
        Type of the errors.

    Examples
    --------
    >>> with name_source("my.json", ClusterError):
    ...     raise ClusterError("no nodes")
    Traceback (most recent call last):
        ...
    helixlab.errors.ClusterError: my.json: no nodes
    """
    try:
        yield
    except error as caught:
        raise error(f"{source}: {caught}") from None


@contextmanager
def memory_for(task: str, mend: str) -> Iterator[None]:
    """Turn a MemoryError into a message that names the task and says how to need less memory.

    Parameters
    ----------
    task : str
        Name of the task, as in ``"simulating"``.
    mend : str
        Advice that would need less memory.

    Raises
    ------
    OutOfMemoryError
        Memory ran out.

    Examples
    --------
    >>> with memory_for("counting", "count fewer"):
    ...     raise MemoryError("Unable to allocate 1 TiB")
    Traceback (most recent call last):
        ...
    helixlab.errors.OutOfMemoryError: memory ran out while counting (Unable to allocate 1 TiB); count fewer
    """
    try:
        yield
        return
    except OutOfMemoryError:
        raise
    except MemoryError as error:
        asked = str(error).partition(" for an array")[0]  # the message of numpy, without its end
        amount = f" ({asked})" if asked else ""
        clear_frames(error.__traceback__)  # it would keep the large arrays of the task alive
    raise OutOfMemoryError(f"memory ran out while {task}{amount}; {mend}") from None


class UnknownNameError(HelixlabError):
    """Error in a name, which is not among the known ones.

    Parameters
    ----------
    what : str
        Kind of the name: ``"cluster"``, ``"scheduler"`` ...
    name : str
        Name that was given.
    known : iterable of str
        Names that are known.

    Examples
    --------
    >>> str(UnknownNameError("cluster", "singel24", ["single24", "hetero42"]))
    "unknown cluster 'singel24'; did you mean 'single24'? Known: hetero42, single24"
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        self.what, self.name, self.known = what, name, sorted(known)
        close = get_close_matches(str(name), self.known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ";"
        listed = close if close and len(self.known) > 20 else self.known
        more = ", ..." if len(listed) < len(self.known) else ""
        super().__init__(f"unknown {what} {name!r}{hint} Known: {', '.join(listed)}{more}")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:
        return type(self), (self.what, self.name, self.known)
