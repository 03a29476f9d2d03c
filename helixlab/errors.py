"""Errors a user can meet, under one base class.

Every message names the value that is wrong and says how to mend it, so that the command line
can print it as it is.
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
    "FlowError",
    "HelixlabError",
    "ModelError",
    "OutOfMemoryError",
    "PlacementError",
    "SchedulingError",
    "SimulationError",
    "SolverError",
    "SweepError",
    "UnknownNameError",
    "WorkloadError",
    "memory_for",
]


class HelixlabError(Exception):
    """Base class of every error that helixlab raises on purpose."""


class FileFormatError(HelixlabError):
    """A file is not what its reader expects: cut off, hostile, or of another kind."""


class ClusterError(HelixlabError):
    """A cluster breaks one of its invariants."""


class ModelError(HelixlabError):
    """A model or its measured profile is missing or asked outside its range."""


class PlacementError(HelixlabError):
    """A placement cannot serve the model on the cluster, or none can be planned."""


class SolverError(HelixlabError):
    """A program cannot be handed to the solver, or the solver fails on it."""


class FlowError(HelixlabError):
    """The flow graph has no path from source to sink."""


class SchedulingError(HelixlabError):
    """A scheduler is unknown, does not compile, or answers with something impossible."""


class ContentError(HelixlabError):
    """Something's content cannot be told from one process to the next, so that it has no hash."""


class WorkloadError(HelixlabError):
    """A workload holds requests that make no sense or cannot be served."""


class SimulationError(HelixlabError):
    """A simulation was asked for something impossible."""


class SweepError(HelixlabError):
    """A sweep is asked for something impossible, or cannot go on."""


class OutOfMemoryError(HelixlabError, MemoryError):
    """The memory that the system gives is not enough for what was asked."""


@contextmanager
def memory_for(task: str, mend: str) -> Iterator[None]:
    """Say what was being done when memory ran out, and how to need less.

    Parameters
    ----------
    task : str
        What is done, as in ``"simulating"``.
    mend : str
        What would need less memory.

    Raises
    ------
    OutOfMemoryError
        Instead of MemoryError.

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
        asked = str(error).partition(" for an array")[0]  # numpy says how much, and of what
        amount = f" ({asked})" if asked else ""
        clear_frames(error.__traceback__)  # what was calculated so far is a lot, and would be kept with it
    raise OutOfMemoryError(f"memory ran out while {task}{amount}; {mend}") from None


class UnknownNameError(HelixlabError):
    """A name is not among the known ones.

    Parameters
    ----------
    what : str
        What was looked for: ``"cluster"``, ``"scheduler"`` ...
    name : str
        The name that was given.
    known : iterable of str
        Names that would have been right.

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
