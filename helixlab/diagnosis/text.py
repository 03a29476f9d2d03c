"""Text of a diagnosis: numbers and lists as they are read aloud, and phrases that several causes share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import pandas as pd

from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis.measures import SATURATED_ABOVE, Facts, binding_cut, queued_s
from helixlab.simulation import Result

__all__ = [
    "Case",
    "Told",
    "against_preemption",
    "computed_again",
    "counted",
    "cut_words",
    "held_for",
    "how_busy",
    "listed",
    "node_names",
    "number",
    "part",
    "part_of",
    "percent",
    "refusals",
    "sentence",
    "times",
]


def number(value: float) -> str:
    """Three digits that count, without exponents.

    Examples
    --------
    >>> number(1289.557), number(64.23), number(0.04567)
    ('1290', '64.2', '0.0457')
    """
    if value == 0 or not abs(value) < 1e15:
        return f"{value:.0f}"
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
    if abs(value) < 1:
        return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.6f}".rstrip("0").rstrip(".") or "0"
    if abs(value) >= 1000:
        return str(round(value, -(len(str(int(abs(value)))) - 3))).removesuffix(".0")
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    """A share in percent, or in words where no digit of it would be left.

    Examples
    --------
    >>> percent(0.183), percent(0.0042), percent(1.0), percent(0.0004)
    ('18 percent', '0.4 percent', '100 percent', 'hardly any')
    """
    value = 100 * share
    if abs(value) < 0.05:
        return "hardly any"
    return f"{value:.0f} percent" if abs(value) >= 0.95 else f"{value:.1f} percent"


def counted(value: float, thing: str, several: str) -> str:
    """So many things.

    Examples
    --------
    >>> counted(1, "request was", "requests were"), counted(16.3, "request was", "requests were")
    ('1 request was', '16.3 requests were')
    """
    told = number(value)
    return f"{told} {thing if told == '1' else several}"


def part_of(some: int, whole: int) -> str:
    """Some of the requests, and the verb in the past.

    Examples
    --------
    >>> part_of(1, 47), part_of(3, 47), part_of(47, 47), part_of(1, 1)
    ('1 of 47 requests was', '3 of 47 requests were', 'all 47 requests were', 'the only request was')
    """
    if some == whole:
        return "the only request was" if whole == 1 else f"all {whole} requests were"
    return f"{some} of {whole} requests {'was' if some == 1 else 'were'}"


def times(factor: float) -> str:
    """How many times as much.

    Examples
    --------
    >>> times(2.04), times(1.5), times(1.012)
    ('twice', '1.5 times', '1.01 times')
    """
    if 1.95 <= factor <= 2.05:
        return "twice"
    told = f"{float(f'{factor:.2g}'):g}"
    return f"{factor:.2f} times" if told == "1" else f"{told} times"


def listed(things: Sequence[Any]) -> str:
    """Things with commas and an *and*.

    Examples
    --------
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    words = [str(thing) for thing in things]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def node_names(nodes: Sequence[int], most: int = 6) -> str:
    """Nodes by number, only some of them where there are many.

    Examples
    --------
    >>> node_names([3]), node_names([3, 7, 12])
    ('node 3', 'nodes 3, 7 and 12')
    >>> node_names(range(20))
    '20 nodes, among them 0, 1 and 2'
    """
    if len(nodes) == 1:
        return f"node {nodes[0]}"
    if len(nodes) <= most:
        return f"nodes {listed(list(nodes))}"
    return f"{len(nodes)} nodes, among them {listed(list(nodes)[:3])}"


def sentence(text: str) -> str:
    """With a capital letter in front.

    Examples
    --------
    >>> sentence("node 3 is idle.")
    'Node 3 is idle.'
    """
    return text[:1].upper() + text[1:]


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


FEWER_IN_FLIGHT: Final = "Give the fullest nodes fewer layers, or keep fewer requests in flight."
SELDOM: Final = "This is seldom enough to be left alone; where it grows, give the fullest nodes fewer layers."


def cut_words(cut: pd.DataFrame) -> str:
    """What binds the maximum flow."""
    words = []
    compute = cut.loc[cut["kind"] == "compute", "sender"].tolist()
    if compute:
        words.append(f"the compute of {node_names(compute)}")
    links = [f"{row['sender']} to {row['receiver']}" for row in cut[cut["kind"] == "link"].to_dict("records")]
    if links:
        shown = links if len(links) <= 3 else [*links[:3], f"{len(links) - 3} more"]
        words.append(f"the link{'s' * (len(links) > 1)} {listed(shown)}")
    cards = cut.loc[cut["kind"] == "network card", "sender"].drop_duplicates().tolist()
    if cards:
        whose = ["the coordinator"] * (not {SOURCE, SINK}.isdisjoint(cards))
        nodes = [card for card in cards if card not in (SOURCE, SINK)]
        whose += [node_names(nodes)] if nodes else []
        words.append(f"the network card{'s' * (len(cards) > 1)} of {listed(whose)}")
    return listed(words) if words else "nothing"


def refusals(result: Result, for_dropped: str) -> tuple[str, str]:
    """How many requests were refused for good, and why, to end a sentence; and what would have helped."""
    requests, row = result.requests, result.summary.iloc[0]
    refused = int(row["requests_refused"])
    if not refused:
        return "", for_dropped
    reasons = requests.loc[requests["outcome"] == "refused", "reason"]
    # A reason is told of one request.
    why = re.sub(r"\bit\b", "such a request", reasons.mode().iloc[0], count=1)
    all_of_them = refused == int((requests["outcome"] != "finished").sum())
    for_good = " for good" if all_of_them else f", {refused} of them for good"
    because = "because" if reasons.nunique() == 1 else "mostly because"
    for_refused = "Give the nodes on their way fewer layers, or leave such requests out."
    if result.links["batch_masked"].sum() > 0 or "batch" in reasons.mode().iloc[0]:
        for_refused = (
            "Serve them with execution='chunked', which cuts long prompts, or leave such requests out."
        )
    return f"{for_good}, {because} {why}", for_dropped if row["requests_dropped"] else for_refused


def against_preemption(facts: Facts) -> str:
    """What to do about preempted requests."""
    return FEWER_IN_FLIGHT if facts.preempted else SELDOM


def computed_again(count: int) -> str:
    """How often a request was preempted."""
    often = "Once" if count == 1 else f"{count} times"
    return f"{often} a request lost its KV cache to another and was computed again"


def held_for(result: Result) -> str:
    """How long requests of the run waited at the coordinator, on the mean of all, where that is known."""
    each_s = queued_s(result) / max(int(result.summary["requests_fed"].item()), 1)
    return "" if math.isnan(each_s) else f", {number(each_s)} seconds on the mean of all"


def how_busy(busy: float) -> str:
    """How busy nodes were while requests waited: little, or not."""
    share = percent(busy)
    if busy >= SATURATED_ABOVE:
        return f"nodes were busy {share} of the time"
    return f"yet nodes were busy {'' if share == 'hardly any' else 'only '}{share} of the time"
