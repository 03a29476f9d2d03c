"""Causes that lie in what was asked for, and when: words, numbers and suggestions."""

from __future__ import annotations

from helixlab.diagnosis.phrases import held_for, refusals
from helixlab.diagnosis.room import make_room
from helixlab.diagnosis.told import Case, Told
from helixlab.diagnosis.wording import counted, number, part_of

__all__ = ["filling_up", "little_asked_for", "nothing_ended", "rejected", "requests_ran_out"]


def little_asked_for(case: Case) -> Told:
    """What arrived is below what could be served."""
    facts, waited = case.facts, int(case.result.summary["queries_waited"].item())
    held = ""
    if waited:
        who = part_of(waited, int(case.result.summary["queries_fed"].item()))
        held = f"; even so {who} held for want of room{held_for(case.result)}"
    asked = f"Only {number(facts.offered_tokens_per_s)} tokens per second were asked for"
    return Told(
        f"{asked if facts.offered_tokens_per_s > 0 else 'No query came in the window'}, and the maximum flow"
        f" is {number(facts.flow_tokens_per_s)}{held}",
        _ask_for_more(case),
        {"offered_tokens_per_s": facts.offered_tokens_per_s, "queries_waited": waited},
    )


def _ask_for_more(case: Case) -> str:
    if not case.facts.has_room:
        return f"KV caches keep queries out at this rate already. {make_room(case.result)}"
    if case.facts.load == "filling":
        return "Measure for longer: this run is too short to tell whether so much can be served."
    if not case.facts.more_would_help:
        return "Ask for less: queries pile up at this rate already."
    return "This says nothing against the placement; ask for a higher rate to find its limit."


def requests_ran_out(case: Case) -> Told:
    """The given requests ended before the window did."""
    fraction, window_s = case.facts.asked_fraction, case.facts.window_s
    ended = (
        f"after {number(fraction * window_s)} of the {number(window_s)} seconds of the window"
        if fraction > 0
        else "before the window began"
    )
    return Told(
        f"The given requests ran out {ended}, and nothing was left to do",
        "Give more requests, or a shorter warm-up and window, before judging the placement.",
        {"asked_s": fraction * window_s, "window_s": window_s},
    )


def filling_up(case: Case) -> Told:
    """Prompts ran ahead of the decodes that belong to them."""
    processed, served = case.facts.processed_tokens_per_s, case.facts.served_tokens_per_s
    if case.facts.saturated:
        suggestion = "Lower the rate: prompts come faster than the queries that they belong to end."
    elif case.result.summary["mode"].item() == "online":
        suggestion = "Measure for longer, until as many queries end as start."
    else:
        suggestion = "Warm up for longer, until as many queries end as start."
    return Told(
        f"The system was still filling up: {number(processed)} tokens per second ended, but so many of them"
        f" were of prompts that the decodes stand for {number(served)} only",
        suggestion,
        {"processed_tokens_per_s": processed, "served_tokens_per_s": served},
    )


def _in_flight(case: Case) -> int:
    """At the end of the window: those in the table are of queries that have ended since."""
    queries, end_s = case.result.queries, case.result.summary["window_end_s"].item()
    since = (queries["arrival_s"] <= end_s) & (queries["end_s"] > end_s)
    return int(since.sum()) + int(case.result.summary["queries_in_flight"].item())


def nothing_ended(case: Case) -> Told:
    """No iteration came to its end in the window."""
    window_s, in_flight = case.facts.window_s, _in_flight(case)
    return Told(
        f"Nothing ended in the {counted(window_s, 'second', 'seconds')} of the window, at whose end"
        f" {counted(in_flight, 'query was', 'queries were')} in flight, so that it tells nothing of them",
        "Measure for longer, until prompts and decodes end all the time.",
        {"window_s": window_s, "queries_in_flight": in_flight},
    )


def rejected(case: Case) -> Told:
    """Queries were turned away."""
    facts = case.facts
    for_good, suggestion = refusals(
        case.result,
        "Let them wait with on_full='wait', or make room in the KV caches with fewer layers a node.",
    )
    who = f"Queries of {number(facts.rejected_tokens_per_s)} tokens per second were"
    if facts.only_turned_away:
        each = len(case.result.queries)
        who = "The only query was" if each == 1 else f"All {each} queries were"
        if case.result.summary["queries_finished"].item():
            who = "All queries that ended in the window were"
    return Told(
        f"{who} turned away{for_good}",
        suggestion,
        {"rejected_tokens_per_s": facts.rejected_tokens_per_s},
    )
