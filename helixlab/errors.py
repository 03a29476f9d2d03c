"""Errors a user can meet, under one base class.

Every message names the value that is wrong and says how to mend it, so that the command line
can print it as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ClusterError",
    "ContentError",
    "FileFormatError",
    "FlowError",
    "HelixlabError",
    "ModelError",
    "PlacementError",
    "SchedulingError",
    "SimulationError",
    "SolverError",
    "UnknownNameError",
    "WorkloadError",
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
