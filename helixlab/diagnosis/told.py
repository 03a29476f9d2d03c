"""What a cause is told with: the run it is told of, and the words and numbers that come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from helixlab.diagnosis.facts import Facts
from helixlab.diagnosis.tightest import binding_cut
from helixlab.diagnosis.wording import percent
from helixlab.simulation import Result

__all__ = ["Case", "Told", "part"]


@dataclass(frozen=True)
class Told:
    """What a cause is told with, before what it costs is added."""

    text: str
    suggestion: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A run and one cause of what it lost."""

    result: Result
    facts: Facts
    idle: pd.DataFrame
    cause: str

    @cached_property
    def run_cut(self) -> pd.DataFrame:
        """What bound the run."""
        return binding_cut(self.result)

    @property
    def follows_flow(self) -> bool:
        """Whether the scheduler does."""
        return bool(self.result.provenance["scheduler"].get("follows_flow"))

    @property
    def is_chunked(self) -> bool:
        """Whether prompts are cut."""
        return bool(self.result.provenance["execution"]["parameters"].get("chunk_tokens"))

    def time_share(self, *parts: str) -> float:
        """Part of the time of tokens that these parts of their latency take."""
        whole = sum(self.facts.time.values())
        return sum(self.facts.time[each] for each in parts) / whole if whole else 0.0


def part(words: str, suggestion: str, *parts: str) -> Callable[[Case], Told]:
    """A cause that is told by how much of the time of tokens these parts of their latency take."""

    def told(case: Case) -> Told:
        share = case.time_share(*parts)
        evidence = {each: case.time_share(each) for each in parts}
        return Told(f"Tokens spend {percent(share)} of their time {words}", suggestion, evidence)

    return told
