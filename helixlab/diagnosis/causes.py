"""Causes of lost tokens/s: the name, the explanation and the advice of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from helixlab.diagnosis.idle import IDLE_CAUSES, idle_words, told_of_unused_links
from helixlab.diagnosis.measures import (
    SATURATED_ABOVE,
    Facts,
    gini,
    max_over_mean,
    mean_of,
    node_means,
    node_samples,
    samples,
)
from helixlab.diagnosis.text import (
    Case,
    Told,
    against_preemption,
    computed_again,
    counted,
    cut_words,
    held_for,
    how_busy,
    node_names,
    number,
    part,
    part_of,
    percent,
    refusals,
    sentence,
    times,
)
from helixlab.placement.io import PLANNED
from helixlab.simulation import Result
from helixlab.simulation.simulate import KV_RULES

__all__ = [
    "LOSS_CAUSES",
    "Told",
    "cache_words",
    "filling_up",
    "little_asked_for",
    "make_room",
    "nothing_ended",
    "raise_the_mark",
    "rejected",
    "requests_ran_out",
    "tell",
]


def make_room(result: Result) -> str:
    """What lets more requests in, the most effective first."""
    return f"Give the fullest nodes fewer layers, or more nodes those layers{raise_the_mark(result)}."


def raise_the_mark(result: Result) -> str:
    """To end a sentence: whether more of each KV cache could be filled, and what to expect of that."""
    mark = float(result.provenance["settings"]["kv_high_water_mark"])
    if mark >= 1 or not result.provenance["scheduler"].get("plans_ahead"):
        return ""
    mode = result.summary["mode"].item()
    usual, _ = KV_RULES[mode]
    if mark < usual:
        return f"; kv_high_water_mark, only {number(mark)} here, can be raised too"
    if mode == "offline":  # as much is in flight as the rule of feeding lets in
        return ""
    return f"; raising kv_high_water_mark, {number(mark)} here, helps less"


def cache_words(result: Result) -> tuple[str, dict[str, Any]]:
    """How full KV caches were, and the numbers behind it; nothing where that is not known of the window."""
    nodes = result.nodes
    with_layers = nodes.loc[nodes["end_layer"] > nodes["first_layer"], "node"]
    inside = node_samples(result)
    if len(inside):
        means = node_means(inside, ["kv_used_fraction", "kv_expected_fraction"])
        words = "in the window node {node} had the fullest cache, on average {most} in use{expected}"
    elif result.summary["mode"].item() == "offline":  # online, all requests have left at the end
        means = nodes.set_index("node").loc[with_layers, ["kv_used_fraction"]]
        words = "at the end node {node} had the fullest cache, {most} in use"
    else:
        return "", {}
    used = means["kv_used_fraction"]
    node = used.idxmax()
    expected = ""
    if "kv_expected_fraction" in means and result.provenance["scheduler"].get("plans_ahead"):
        share = float(means["kv_expected_fraction"].to_dict()[node])
        expected = f", where the scheduler expected {percent(share)}"
    words = words.format(node=node, most=percent(float(used.max())), expected=expected)
    return f"{words}, and the mean of all nodes was {percent(float(used.mean()))}", {
        "kv_used_max": float(used.max()),
        "kv_used_mean": float(used.mean()),
        "kv_used_gini": gini(used.tolist()),
        "kv_used_max_over_mean": max_over_mean(used.tolist()),
    }


def little_asked_for(case: Case) -> Told:
    """What arrived is below what could be served."""
    facts, waited = case.facts, int(case.result.summary["requests_queued"].item())
    held = ""
    if waited:
        who = part_of(waited, int(case.result.summary["requests_fed"].item()))
        held = f"; even so {who} held for want of room{held_for(case.result)}"
    asked = f"Only {number(facts.offered_tokens_per_s)} tokens per second were asked for"
    return Told(
        f"{asked if facts.offered_tokens_per_s > 0 else 'No request came in the window'}, and the maximum"
        " flow"
        f" is {number(facts.flow_tokens_per_s)}{held}",
        _ask_for_more(case),
        {"offered_tokens_per_s": facts.offered_tokens_per_s, "requests_queued": waited},
    )


def _ask_for_more(case: Case) -> str:
    if not case.facts.has_room:
        return f"KV caches keep requests out at this rate already. {make_room(case.result)}"
    if case.facts.load == "filling":
        return "Measure for longer: this run is too short to tell whether so much can be served."
    if not case.facts.more_would_help:
        return "Ask for less: requests pile up at this rate already."
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
        suggestion = "Lower the rate: prompts come faster than the requests that they belong to end."
    elif case.result.summary["mode"].item() == "online":
        suggestion = "Measure for longer, until as many requests end as start."
    else:
        suggestion = "Warm up for longer, until as many requests end as start."
    return Told(
        f"The system was still filling up: {number(processed)} tokens per second ended, but so many of them"
        f" were of prompts that the decodes stand for {number(served)} only",
        suggestion,
        {"processed_tokens_per_s": processed, "served_tokens_per_s": served},
    )


def _in_flight(case: Case) -> int:
    """At the end of the window: those in the table are of requests that have ended since."""
    requests, end_s = case.result.requests, case.result.summary["window_end_s"].item()
    since = (requests["arrival_s"] <= end_s) & (requests["end_s"] > end_s)
    return int(since.sum()) + int(case.result.summary["requests_in_flight"].item())


def nothing_ended(case: Case) -> Told:
    """No iteration came to its end in the window."""
    window_s, in_flight = case.facts.window_s, _in_flight(case)
    return Told(
        f"Nothing ended in the {counted(window_s, 'second', 'seconds')} of the window, at whose end"
        f" {counted(in_flight, 'request was', 'requests were')} in flight, so that it tells nothing of them",
        "Measure for longer, until prompts and decodes end all the time.",
        {"window_s": window_s, "requests_in_flight": in_flight},
    )


def rejected(case: Case) -> Told:
    """Requests were turned away."""
    facts = case.facts
    for_good, suggestion = refusals(
        case.result,
        "Let them wait with on_full='wait', or make room in the KV caches with fewer layers a node.",
    )
    who = f"Requests of {number(facts.rejected_tokens_per_s)} tokens per second were"
    if facts.only_turned_away:
        each = len(case.result.requests)
        who = "The only request was" if each == 1 else f"All {each} requests were"
        if case.result.summary["requests_finished"].item():
            who = "All requests that ended in the window were"
    return Told(
        f"{who} turned away{for_good}",
        suggestion,
        {"rejected_tokens_per_s": facts.rejected_tokens_per_s},
    )


TUNE: Final = "helixlab.tune_execution looks for what serves most"
NEAR: Final = 0.8
"""Part of the maximum flow from which on a run is near it."""
MARGIN: Final = 0.005
"""Part of it by which a run may be beyond it and still be at it."""


def _placement(case: Case) -> Told:
    facts = case.facts
    within = min(facts.flow_tokens_per_s, facts.offered_tokens_per_s)
    reached = facts.served_tokens_per_s / within if within > 0 else 1.0
    more = ""
    suggestion = "Look for a wider one with helixlab.plan and objective='flow'"
    if case.result.provenance["placement"]["source"] == PLANNED:
        suggestion = "The planner may find a wider one in more time, with objective='flow'"
    suggestion += "; if links bind, a faster network helps."
    if reached > 1 + MARGIN:
        more = "; this run served more"
        if (facts.cut["kind"] == "compute").any():
            more += ", as its batches cost less than typical ones"
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
        f" {cut_words(facts.cut)}{_tightest(case)}; the machines could serve up to"
        f" {number(facts.bound_tokens_per_s)}{more}",
        suggestion,
        {
            "bottlenecks": facts.cut.to_dict("records"),
            "least_room": case.run_cut.to_dict("records"),
            "bound_tokens_per_s": facts.bound_tokens_per_s,
        },
    )


def _tightest(case: Case) -> str:
    """What bound the run, where that is not what binds the flow."""
    cut = case.run_cut
    if _ends(cut) in (set(), _ends(case.facts.cut)):
        return ""
    busy = percent(float(cut["busy_fraction"].mean()))
    return f" (in this run least room was left at {cut_words(cut)}, busy {busy} of the time)"


def _ends(cut: pd.DataFrame) -> set[tuple[object, ...]]:
    return set(cut[["kind", "sender", "receiver"]].itertuples(index=False, name=None))


def _more_requests(case: Case, suggestion: str, otherwise: str) -> str:
    """The suggestion, unless the requests that there are do not get in: then more of them are of no use."""
    if case.facts.more_would_help:
        return suggestion
    if not case.facts.has_room:
        return f"{otherwise}, for which KV caches lack room. {make_room(case.result)}"
    return f"{otherwise}; there are enough of them, so look at what else is found."


def _costly_batches(case: Case) -> Told:
    cut = case.facts.cut
    worked = float((cut["capacity_tokens_per_s"] * cut["busy_fraction"]).sum())
    used = float(cut["used_tokens_per_s"].sum())
    slower = worked / used if used > 0 else float("inf")
    who = "the nodes that bind the flow"
    why = "because their batches were smaller or other than the typical one"
    suggestion = _more_requests(
        case,
        "Keep more requests in flight, so that batches are larger, or measure with lengths as planned.",
        "Batches would be larger if more requests were let in",
    )
    if not (cut["kind"] == "compute").any():
        who, why = "the links that bind the flow", "because prompts and decodes came in another mix"
        suggestion = "Measure with lengths as planned, or plan for these."
    elif case.is_chunked:
        suggestion = f"Allow larger chunks or more decodes in a batch: {TUNE}."
    return Told(
        f"While they worked, {who} took {times(slower)} as long for a token as the planner supposes, {why}",
        suggestion,
        {"cost_over_planned": slower, "bottlenecks": cut.to_dict("records")},
    )


def _link_latency(case: Case) -> Told:
    more = ", or keep more requests in flight to fill the time" if case.facts.more_would_help else ""
    suggestion = f"Use fewer stages or nearer nodes{more}."
    return part("on the way, after they are sent", suggestion, "link_latency_s")(case)


def _busy_links(case: Case) -> Told:
    suggestion = "Cut prompts with execution='chunked', as whole ones hold up links for long."
    if case.is_chunked:
        suggestion = f"Use fewer stages or faster links, or smaller chunks: {TUNE}."
    return part("waiting for links that send something else", suggestion, "link_wait_s")(case)


def _full_kv_caches(case: Case) -> Told:
    row = case.result.summary.iloc[0]
    waited, fed = int(row["requests_queued"]), int(row["requests_fed"])
    share = case.time_share("queued_s", "kv_wait_s")
    who = f"{part_of(waited, fed)} held" if waited else "requests are let in slowly"
    waiting = f", and {percent(share)} of the time of tokens is waiting for room" if share > 0 else ""
    caches, evidence = cache_words(case.result)
    inside = samples(case.result, case.result.timeline)
    return Told(
        f"KV caches, or what the scheduler expects of them, keep requests out while nodes stand idle: {who}"
        + waiting
        + (f"; {caches}" if caches else ""),
        make_room(case.result),
        {
            "requests_queued": waited,
            "held_fraction": case.facts.held_fraction,
            "time_share": share,
            **evidence,
            "expected_mean": mean_of(inside, inside["bottleneck_kv_expected_fraction"]),
        },
    )


def _preemption(case: Case) -> Told:
    count = int(case.result.summary["requests_preempted"].item())
    text, evidence = computed_again(count), {"requests_preempted": float(count)}
    if case.facts.time:
        evidence["time_share"] = case.time_share("lost_s")
        text += f", which takes {percent(evidence['time_share'])} of the time of tokens"
    return Told(text, against_preemption(case.facts), evidence)


def _imbalance(case: Case) -> Told:
    nodes = case.result.nodes
    held = nodes[nodes["end_layer"] > nodes["first_layer"]]
    busy = held["busy_fraction"]
    saturated = held.loc[busy >= SATURATED_ABOVE, "node"].tolist()
    one = len(saturated) == 1
    who = f"{sentence(node_names(saturated))} {'was' if one else 'were'}"
    return Told(
        f"{who} busy nearly all the time, and requests wait there; on average nodes were busy"
        f" {percent(float(busy.mean()))} of the time",
        ("Take" if case.follows_flow else "Send less there, as the helix scheduler would, or take")
        + f" layers off {'it' if one else 'them'}.",
        {
            "nodes": saturated,
            "busy_max": float(busy.max()),
            "busy_mean": float(busy.mean()),
            "busy_gini": gini(busy.tolist()),
            "busy_max_over_mean": max_over_mean(busy.tolist()),
            **cache_words(case.result)[1],
        },
    )


def _bubbles(case: Case) -> Told:
    facts, nodes = case.facts, case.result.nodes
    busy = float(nodes.loc[nodes["end_layer"] > nodes["first_layer"], "busy_fraction"].mean())
    computed = case.time_share("compute_s", "overhead_s") * facts.serving
    working = float(nodes["busy_fraction"].sum())
    batch = computed / working if working > 0 else float("nan")
    suggestion = (
        "Cut prompts with execution='chunked', so that they do not block the decodes behind them while other"
        " nodes wait."
    )
    if case.is_chunked:
        suggestion = f"Smaller chunks block less, and cost more: {TUNE}."
    return Told(
        f"Requests travel in lumps: {counted(facts.serving, 'was', 'were')} being served, about"
        f" {number(batch)} to a batch, {how_busy(busy)}, and tokens wait for their turn"
        f" {percent(case.time_share('batch_wait_s'))} of theirs",
        suggestion,
        {"serving": facts.serving, "requests_a_batch": batch, "busy_mean": busy},
    )


def _few_requests(case: Case) -> Told:
    facts = case.facts
    one = facts.active == 1
    served, nodes = (
        counted(facts.serving, "request was", "requests were"),
        counted(facts.active, "node", "nodes"),
    )
    text = f"Only {served} being served on {nodes}, too few to keep {'it' if one else 'all of them'} at work"
    if facts.serving >= facts.active:
        which = "it" if one else "each of them"
        text = f"{sentence(served)} being served on {nodes}, and {which} was at times without one"
    return Told(
        text,
        _more_requests(
            case,
            "Keep more requests in flight: a "
            + (
                "higher rate."
                if case.result.summary["mode"].item() == "online"
                else "larger initial_requests"
                + (", of requests enough." if case.result.provenance["workload"]["requests_hash"] else ".")
            ),
            "All nodes would be at work if more requests were let in",
        ),
        {"serving": facts.serving, "active_nodes": facts.active},
    )


def _idle(case: Case) -> Told:
    follows_flow = case.follows_flow
    return Told(
        *idle_words(case.idle, case.cause, mark=raise_the_mark(case.result), follows_flow=follows_flow)
    )


def _below_the_share(case: Case) -> Told:
    nodes = case.idle[case.idle["cause"] == case.cause]
    told = told_of_unused_links(case.result)
    who = f"{node_names(nodes['node'].tolist())} {'is' if len(nodes) == 1 else 'are'}"
    return replace(
        told,
        text=f"{sentence(who)} idle because {told.text}",
        evidence={"nodes": nodes.to_dict("records"), **told.evidence},
    )


def _waiting(case: Case) -> Told:
    return Told(
        "What binds the flow did not work all the time, and this result does not tell where requests were",
        "Simulate with keep_breakdown=True and look again.",
        {},
    )


_TELL: Final[dict[str, Callable[[Case], Told]]] = {
    "little asked for": little_asked_for,
    "requests ran out": requests_ran_out,
    **dict.fromkeys(IDLE_CAUSES, _idle),
    "below the share": _below_the_share,
    "placement": _placement,
    "filling up": filling_up,
    "nothing ended": nothing_ended,
    "rejected": rejected,
    "costly batches": _costly_batches,
    "overhead": part(
        "being brought together and onto the device before a node's first layer",
        "Fewer nodes on the way, each with more layers, bring activations together less often.",
        "overhead_s",
    ),
    "full KV caches": _full_kv_caches,
    "preemption": _preemption,
    "busy links": _busy_links,
    "sending": part(
        "being sent",
        "Place neighbouring layers on nodes with fast links between them.",
        "sending_s",
    ),
    "link latency": _link_latency,
    "imbalance": _imbalance,
    "bubbles": _bubbles,
    "few requests": _few_requests,
    "waiting": _waiting,
}
LOSS_CAUSES: Final = tuple(_TELL)


def tell(cause: str, result: Result, facts: Facts, idle: pd.DataFrame) -> Told:
    """Words and numbers of a cause, for this result."""
    return _TELL[cause](Case(result, facts, idle, cause))
