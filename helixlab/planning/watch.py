"""The clock of a search: when it is to end, and what it had found when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

__all__ = ["Watch"]


class Watch:
    """Time since a search began, and the trace of its incumbent and bound.

    Parameters
    ----------
    time_limit_s : float, optional
        After which the search is to end.
    on_progress : callable
        Called with the seconds so far, the incumbent and the bound.

    Examples
    --------
    >>> watch = Watch(None, lambda seconds, incumbent, bound: print(incumbent, bound))
    >>> watch.note(1.0, 3.0)
    1.0 3.0
    >>> watch.tell(1.0, 3.0)  # nothing is better than it was
    1.0 3.0
    >>> len(watch.trace), watch.late()
    (1, False)
    """

    def __init__(
        self, time_limit_s: float | None, on_progress: Callable[[float, float, float], None]
    ) -> None:
        self.limit_s = math.inf if time_limit_s is None else time_limit_s
        self.trace: list[tuple[float, float, float]] = []
        self._began, self._on_progress = time.perf_counter(), on_progress

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return time.perf_counter() - self._began

    def late(self, part: float = 1.0) -> bool:
        """Whether so much of the time is over."""
        return self.seconds > part * self.limit_s

    def note(self, incumbent: float, bound: float = math.nan) -> None:
        """Add to the trace that one of them has become better."""
        self.trace.append((self.seconds, incumbent, bound))
        self._on_progress(*self.trace[-1])

    def tell(self, incumbent: float, bound: float = math.nan) -> None:
        """Show where the search is."""
        self._on_progress(self.seconds, incumbent, bound)
