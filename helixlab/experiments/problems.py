"""What can be wrong with a sweep."""

from __future__ import annotations

from helixlab.errors import HelixlabError

__all__ = ["NOT_RUN", "SweepError"]

NOT_RUN = "not run: interrupted"
"""The error of runs that a sweep did not come to."""


class SweepError(HelixlabError):
    """A sweep is asked for something impossible, or cannot go on."""
