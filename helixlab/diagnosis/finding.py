"""A finding: one thing that a result says, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pandas as pd

from helixlab._equality import ByContent
from helixlab.diagnosis.wording import counted
from helixlab.files import json_ready
from helixlab.html import card

__all__ = ["Finding"]


@dataclass(frozen=True, eq=False)
class Finding(ByContent):
    """One thing that a result says about the run.

    Parameters
    ----------
    cause : str
        Short name of it, one of ``helixlab.diagnosis.CAUSES``.
    cost : float
        What is lost to it, from 0 to 1: tokens/s as part of the upper bound. Findings that are not about
        lost tokens state the part of what they are about: of the queries (``"rejected"``, where others came
        in their place), of the throughput (``"unsteady"``), of what was asked for (``"saturated"``), of the
        time that was to be simulated (``"stopped early"``), of the requests or of the window
        (``"outside the window"``).
    text : str
        What is the case, in plain English.
    suggestion : str
        What could be done.
    evidence : mapping
        The numbers behind it.

    Examples
    --------
    >>> print(Finding("no layers", 0.25, "Node 3 holds no layers.", "Give it some.", {"nodes": [3]}))
    Node 3 holds no layers. Give it some.
    """

    cause: str
    cost: float
    text: str
    suggestion: str
    evidence: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "evidence", MappingProxyType(dict(self.evidence)))

    def __str__(self) -> str:
        return f"{self.text} {self.suggestion}"

    def _repr_html_(self) -> str:
        rows = {name: value for name, value in self.evidence.items() if _is_rows(value)}
        plain = {name: value for name, value in self.evidence.items() if name not in rows}
        several = {
            name: f"{counted(len(value), 'row', 'rows')}, in evidence[{name!r}]"
            for name, value in rows.items()
        }
        first = pd.DataFrame(next(iter(rows.values()))) if rows else None
        return card(f"{self.cause} (cost {self.cost:.1%})", plain | several, first, note=str(self))

    def __repr__(self) -> str:
        return f"Finding({self.cause!r}, cost={self.cost:.2f}: {self.text})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.cause, self.cost, self.text, self.suggestion, dict(self.evidence))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON.

        Examples
        --------
        >>> Finding("no layers", 0.25, "Node 3 holds no layers.", "Give it some.", {}).to_dict()["cost"]
        0.25
        """
        plain: dict[str, Any] = json_ready(
            {
                "cause": self.cause,
                "cost": self.cost,
                "text": self.text,
                "suggestion": self.suggestion,
                "evidence": dict(self.evidence),
            }
        )
        return plain


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and isinstance(value[0], dict)
