"""What each cause of lost tokens/s is called, told with, and mended by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from helixlab.diagnosis.balance import gini, max_over_mean
from helixlab.diagnosis.facts import SATURATED_ABOVE, Facts
from helixlab.diagnosis.idle import IDLE_CAUSES
from helixlab.diagnosis.idle_words import idle_words
from helixlab.diagnosis.phrases import (
    FEWER_IN_FLIGHT,
    computed_again,
    cut_words,
    held_for,
    how_busy,
    refusals,
)
from helixlab.diagnosis.room import cache_words, make_room, raise_the_mark
from helixlab.diagnosis.wording import counted, node_names, number, part_of, percent, sentence, times
from helixlab.simulation import Result

__all__ = ["LOSS_CAUSES", "Told", "tell"]

TUNE: Final = "helixlab.tune_execution looks for what serves most"
NEAR: Final = 0.8
"""Part of the maximum flow from which on a run is near it."""


@dataclass(frozen=True)
class Told:
    """What a cause is told with, before what it costs is added."""

    text: str
    suggestion: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class _Case:
    result: Result
    facts: Facts
    idle: pd.DataFrame
    cause: str


def _little_asked_for(case: _Case) -> Told:
    facts, waited = case.facts, int(case.result.summary["queries_waited"].item())
    held = ""
    if waited:
        who = part_of(waited, int(case.result.summary["queries_fed"].item()), "queries")
        held = f"; even so {who} held for want of room{held_for(case.result)}"
    asked = f"Only {number(facts.offered_tokens_per_s)} tokens per second were asked for"
    return Told(
        f"{asked if facts.offered_tokens_per_s > 0 else 'No query came in the window'}, and the maximum flow"
        f" is {number(facts.flow_tokens_per_s)}{held}",
        "This says nothing against the placement; ask for a higher rate to find its limit."
        if facts.more_would_help
        else f"KV caches keep queries out at this rate already. {make_room(case.result)}",
        {"offered_tokens_per_s": facts.offered_tokens_per_s, "queries_waited": waited},
    )


def _requests_ran_out(case: _Case) -> Told:
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


def _placement(case: _Case) -> Told:
    facts = case.facts
    within = min(facts.flow_tokens_per_s, facts.offered_tokens_per_s)
    reached = facts.processed_tokens_per_s / within if within > 0 else 1.0
    more = "; this run served more, as its batches cost less than typical ones" * (reached > 1)
    suggestion = (
        "Plan again with helixlab.plan, which widens what binds; if links do, a faster network helps."
    )
    if reached > 1:
        suggestion = (
            "The flow is no limit here, so plan by what is served: helixlab.plan with objective='throughput'."
        )
    elif reached < NEAR:
        suggestion = (
            f"This run serves {percent(reached)} of what the placement lets through, so mend first what is"
            " named besides; a wider placement helps after that."
        )
    return Told(
        f"The placement lets {number(facts.flow_tokens_per_s)} tokens per second through, bound by"
        f" {cut_words(facts.cut)}; the machines could serve up to {number(facts.bound_tokens_per_s)}{more}",
        suggestion,
        {"bottlenecks": facts.cut.to_dict("records"), "bound_tokens_per_s": facts.bound_tokens_per_s},
    )


def _filling_up(case: _Case) -> Told:
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


def _nothing_ended(case: _Case) -> Told:
    window_s, in_flight = case.facts.window_s, int(case.result.summary["queries_in_flight"].item())
    return Told(
        f"Nothing ended in the {counted(window_s, 'second', 'seconds')} of the window, at whose end"
        f" {counted(in_flight, 'query was', 'queries were')} in flight, so that it tells nothing of them",
        "Measure for longer, until prompts and decodes end all the time.",
        {"window_s": window_s, "queries_in_flight": in_flight},
    )


def _rejected(case: _Case) -> Told:
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


def _more_queries(case: _Case, suggestion: str, otherwise: str) -> str:
    """The suggestion, unless the queries that there are do not get in: then more of them are of no use."""
    if case.facts.more_would_help:
        return suggestion
    if not case.facts.has_room:
        return f"{otherwise}, for which KV caches lack room. {make_room(case.result)}"
    return f"{otherwise}; there are enough of them, so look at what else is found."


def _costly_batches(case: _Case) -> Told:
    cut = case.facts.cut
    worked = float((cut["capacity_tokens_per_s"] * cut["busy_fraction"]).sum())
    used = float(cut["used_tokens_per_s"].sum())
    slower = worked / used if used > 0 else float("inf")
    who = "the nodes that bind the flow"
    why = "because their batches were smaller or other than the typical one"
    suggestion = _more_queries(
        case,
        "Keep more queries in flight, so that batches are larger, or measure with lengths as planned.",
        "Batches would be larger if more queries were let in",
    )
    if not (cut["kind"] == "compute").any():
        who, why = "the links that bind the flow", "because prompts and decodes came in another mix"
        suggestion = "Measure with lengths as planned, or plan for these."
    elif _is_chunked(case):
        suggestion = f"Allow larger chunks or more decodes in a batch: {TUNE}."
    return Told(
        f"While they worked, {who} took {times(slower)} as long for a token as the planner supposes, {why}",
        suggestion,
        {"cost_over_planned": slower, "bottlenecks": cut.to_dict("records")},
    )


def _is_chunked(case: _Case) -> bool:
    return bool(case.result.provenance["execution"]["parameters"].get("chunk_tokens"))


def _time_share(case: _Case, *parts: str) -> float:
    whole = sum(case.facts.time.values())
    return sum(case.facts.time[part] for part in parts) / whole if whole else 0.0


def _part(words: str, suggestion: str, *parts: str) -> Callable[[_Case], Told]:
    def told(case: _Case) -> Told:
        share = _time_share(case, *parts)
        evidence = {part: _time_share(case, part) for part in parts}
        return Told(f"Tokens spend {percent(share)} of their time {words}", suggestion, evidence)

    return told


def _link_latency(case: _Case) -> Told:
    more = ", or keep more queries in flight to fill the time" if case.facts.more_would_help else ""
    suggestion = f"Use fewer stages or nearer nodes{more}."
    return _part("on the way, after they are sent", suggestion, "link_latency_s")(case)


def _full_kv_caches(case: _Case) -> Told:
    row = case.result.summary.iloc[0]
    waited, fed = int(row["queries_waited"]), int(row["queries_fed"])
    share = _time_share(case, "held_s", "kv_wait_s")
    who = f"{part_of(waited, fed, 'queries')} held" if waited else "queries are let in slowly"
    waiting = f", and {percent(share)} of the time of tokens is waiting for room" if share > 0 else ""
    caches, evidence = cache_words(case.result)
    return Told(
        f"KV caches, or what the scheduler expects of them, keep queries out while nodes stand idle: {who}"
        + waiting
        + (f"; {caches}" if caches else ""),
        make_room(case.result),
        {
            "queries_waited": waited,
            "held_fraction": case.facts.held_fraction,
            "time_share": share,
            **evidence,
            "expected_mean": float(case.result.timeline["bottleneck_kv_expected_fraction"].mean()),
        },
    )


def _preemption(case: _Case) -> Told:
    count = int(case.result.summary["queries_preempted"].item())
    return Told(
        f"{computed_again(count)}, which takes {percent(_time_share(case, 'lost_s'))} of the time of tokens",
        FEWER_IN_FLIGHT,
        {"queries_preempted": count, "time_share": _time_share(case, "lost_s")},
    )


def _imbalance(case: _Case) -> Told:
    nodes = case.result.nodes
    held = nodes[nodes["end_layer"] > nodes["first_layer"]]
    busy = held["busy_fraction"]
    saturated = held.loc[busy >= SATURATED_ABOVE, "node"].tolist()
    one = len(saturated) == 1
    who = f"{sentence(node_names(saturated))} {'was' if one else 'were'}"
    return Told(
        f"{who} busy nearly all the time, and queries wait there; on average nodes were busy"
        f" {percent(float(busy.mean()))} of the time",
        "Send less there: follow the flow with the helix scheduler, or take layers off "
        + ("it." if one else "them."),
        {
            "nodes": saturated,
            "busy_max": float(busy.max()),
            "busy_mean": float(busy.mean()),
            "busy_gini": gini(busy.tolist()),
            "busy_max_over_mean": max_over_mean(busy.tolist()),
        },
    )


def _bubbles(case: _Case) -> Told:
    facts, nodes = case.facts, case.result.nodes
    busy = float(nodes.loc[nodes["end_layer"] > nodes["first_layer"], "busy_fraction"].mean())
    computed = _time_share(case, "compute_s", "overhead_s") * facts.serving
    working = float(nodes["busy_fraction"].sum())
    batch = computed / working if working > 0 else float("nan")
    suggestion = (
        "Cut prompts with execution='chunked', so that they do not block the decodes behind them while other"
        " nodes wait."
    )
    if _is_chunked(case):
        suggestion = f"Smaller chunks block less, and cost more: {TUNE}."
    return Told(
        f"Queries travel in lumps: {counted(facts.serving, 'was', 'were')} being served, about"
        f" {number(batch)} to a batch, {how_busy(busy)}, and tokens wait for their turn"
        f" {percent(_time_share(case, 'batch_wait_s'))} of theirs",
        suggestion,
        {"serving": facts.serving, "queries_a_batch": batch, "busy_mean": busy},
    )


def _few_queries(case: _Case) -> Told:
    facts = case.facts
    return Told(
        f"Only {counted(facts.serving, 'query was', 'queries were')} being served on"
        f" {counted(facts.active, 'node', 'nodes')}, too few to keep"
        f" {'it at work all the time' if facts.active == 1 else 'all of them at work'}",
        _more_queries(
            case,
            "Keep more queries in flight: a "
            + (
                "higher rate."
                if case.result.summary["mode"].item() == "online"
                else "larger initial_queries"
                + (", of requests enough." if case.result.provenance["workload"]["requests_hash"] else ".")
            ),
            "All nodes would be at work if more queries were let in",
        ),
        {"serving": facts.serving, "active_nodes": facts.active},
    )


def _waiting(case: _Case) -> Told:
    return Told(
        "What binds the flow did not work all the time, and this result does not tell where queries were",
        "Simulate with keep_breakdown=True and look again.",
        {},
    )


_TELL: Final[dict[str, Callable[[_Case], Told]]] = {
    "little asked for": _little_asked_for,
    "requests ran out": _requests_ran_out,
    **dict.fromkeys(
        IDLE_CAUSES, lambda case: Told(*idle_words(case.idle, case.cause, raise_the_mark(case.result)))
    ),
    "placement": _placement,
    "filling up": _filling_up,
    "nothing ended": _nothing_ended,
    "rejected": _rejected,
    "costly batches": _costly_batches,
    "overhead": _part(
        "being brought together and onto the device before a node's first layer",
        "Fewer nodes on the way, each with more layers, bring activations together less often.",
        "overhead_s",
    ),
    "full KV caches": _full_kv_caches,
    "preemption": _preemption,
    "busy links": _part(
        "waiting for links that send something else",
        "Use a scheduler that follows the flow, or cut prompts, which hold up links for long.",
        "link_wait_s",
    ),
    "sending": _part(
        "being sent",
        "Place neighbouring layers on nodes with fast links between them.",
        "sending_s",
    ),
    "link latency": _link_latency,
    "imbalance": _imbalance,
    "bubbles": _bubbles,
    "few queries": _few_queries,
    "waiting": _waiting,
}
LOSS_CAUSES: Final = tuple(_TELL)


def tell(cause: str, result: Result, facts: Facts, idle: pd.DataFrame) -> Told:
    """Words and numbers of a cause, for this result."""
    return _TELL[cause](_Case(result, facts, idle, cause))
