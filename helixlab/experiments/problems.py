"""What can be wrong with a sweep."""

from __future__ import annotations

from helixlab.errors import HelixlabError

__all__ = ["SweepError"]


class SweepError(HelixlabError):
    """A sweep is asked for something impossible, or cannot go on."""
