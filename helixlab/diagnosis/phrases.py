"""Parts of sentences about a result: what binds its flow, why queries were refused, how busy nodes were."""

from __future__ import annotations

import math
import re
from typing import Final

import pandas as pd

from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis.facts import SATURATED_ABOVE, Facts
from helixlab.diagnosis.sampled import held_s
from helixlab.diagnosis.wording import listed, node_names, number, percent
from helixlab.simulation import Result

__all__ = ["against_preemption", "computed_again", "cut_words", "held_for", "how_busy", "refusals"]

FEWER_IN_FLIGHT: Final = "Give the fullest nodes fewer layers, or keep fewer queries in flight."
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
    """How many queries were refused for good, and why, to end a sentence; and what would have helped."""
    queries, row = result.queries, result.summary.iloc[0]
    refused = int(row["queries_refused"])
    if not refused:
        return "", for_dropped
    reasons = queries.loc[queries["outcome"] == "refused", "reason"]
    # A reason is told of one query.
    why = re.sub(r"\bit\b", "such a query", reasons.mode().iloc[0], count=1)
    all_of_them = refused == int((queries["outcome"] != "finished").sum())
    for_good = " for good" if all_of_them else f", {refused} of them for good"
    because = "because" if reasons.nunique() == 1 else "mostly because"
    for_refused = "Give the nodes on their way fewer layers, or leave such queries out."
    if result.links["batch_masked"].sum() > 0 or "batch" in reasons.mode().iloc[0]:
        for_refused = (
            "Serve them with execution='chunked', which cuts long prompts, or leave such queries out."
        )
    return f"{for_good}, {because} {why}", for_dropped if row["queries_dropped"] else for_refused


def against_preemption(facts: Facts) -> str:
    """What to do about preempted queries."""
    return FEWER_IN_FLIGHT if facts.preempted else SELDOM


def computed_again(count: int) -> str:
    """How often a query was preempted."""
    often = "Once" if count == 1 else f"{count} times"
    return f"{often} a query lost its KV cache to another and was computed again"


def held_for(result: Result) -> str:
    """How long queries of the run waited at the coordinator, on the mean of all, where that is known."""
    each_s = held_s(result) / max(int(result.summary["queries_fed"].item()), 1)
    return "" if math.isnan(each_s) else f", {number(each_s)} seconds on the mean of all"


def how_busy(busy: float) -> str:
    """How busy nodes were while queries waited: little, or not."""
    share = percent(busy)
    if busy >= SATURATED_ABOVE:
        return f"nodes were busy {share} of the time"
    return f"yet nodes were busy {'' if share == 'hardly any' else 'only '}{share} of the time"
