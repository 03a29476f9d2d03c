"""What each cause of lost tokens/s is called, told with, and mended by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pandas as pd

from helixlab.diagnosis import demand
from helixlab.diagnosis.balance import gini, max_over_mean
from helixlab.diagnosis.facts import SATURATED_ABOVE, Facts
from helixlab.diagnosis.idle import IDLE_CAUSES
from helixlab.diagnosis.idle_words import idle_words
from helixlab.diagnosis.phrases import against_preemption, computed_again, cut_words, how_busy
from helixlab.diagnosis.room import cache_words, make_room, raise_the_mark
from helixlab.diagnosis.sampled import mean_of, samples
from helixlab.diagnosis.told import Case, Told, part
from helixlab.diagnosis.unused_links import told_of_unused_links
from helixlab.diagnosis.wording import counted, node_names, number, part_of, percent, sentence, times
from helixlab.placement.files import PLANNED
from helixlab.simulation import Result

__all__ = ["LOSS_CAUSES", "Told", "tell"]

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


def _more_queries(case: Case, suggestion: str, otherwise: str) -> str:
    """The suggestion, unless the queries that there are do not get in: then more of them are of no use."""
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
    suggestion = _more_queries(
        case,
        "Keep more queries in flight, so that batches are larger, or measure with lengths as planned.",
        "Batches would be larger if more queries were let in",
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
    more = ", or keep more queries in flight to fill the time" if case.facts.more_would_help else ""
    suggestion = f"Use fewer stages or nearer nodes{more}."
    return part("on the way, after they are sent", suggestion, "link_latency_s")(case)


def _busy_links(case: Case) -> Told:
    suggestion = "Cut prompts with execution='chunked', as whole ones hold up links for long."
    if case.is_chunked:
        suggestion = f"Use fewer stages or faster links, or smaller chunks: {TUNE}."
    return part("waiting for links that send something else", suggestion, "link_wait_s")(case)


def _full_kv_caches(case: Case) -> Told:
    row = case.result.summary.iloc[0]
    waited, fed = int(row["queries_waited"]), int(row["queries_fed"])
    share = case.time_share("held_s", "kv_wait_s")
    who = f"{part_of(waited, fed)} held" if waited else "queries are let in slowly"
    waiting = f", and {percent(share)} of the time of tokens is waiting for room" if share > 0 else ""
    caches, evidence = cache_words(case.result)
    inside = samples(case.result, case.result.timeline)
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
            "expected_mean": mean_of(inside, inside["bottleneck_kv_expected_fraction"]),
        },
    )


def _preemption(case: Case) -> Told:
    count = int(case.result.summary["queries_preempted"].item())
    text, evidence = computed_again(count), {"queries_preempted": float(count)}
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
        f"{who} busy nearly all the time, and queries wait there; on average nodes were busy"
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
        f"Queries travel in lumps: {counted(facts.serving, 'was', 'were')} being served, about"
        f" {number(batch)} to a batch, {how_busy(busy)}, and tokens wait for their turn"
        f" {percent(case.time_share('batch_wait_s'))} of theirs",
        suggestion,
        {"serving": facts.serving, "queries_a_batch": batch, "busy_mean": busy},
    )


def _few_queries(case: Case) -> Told:
    facts = case.facts
    one = facts.active == 1
    served, nodes = (
        counted(facts.serving, "query was", "queries were"),
        counted(facts.active, "node", "nodes"),
    )
    text = f"Only {served} being served on {nodes}, too few to keep {'it' if one else 'all of them'} at work"
    if facts.serving >= facts.active:
        which = "it" if one else "each of them"
        text = f"{sentence(served)} being served on {nodes}, and {which} was at times without one"
    return Told(
        text,
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
        "What binds the flow did not work all the time, and this result does not tell where queries were",
        "Simulate with keep_breakdown=True and look again.",
        {},
    )


_TELL: Final[dict[str, Callable[[Case], Told]]] = {
    "little asked for": demand.little_asked_for,
    "requests ran out": demand.requests_ran_out,
    **dict.fromkeys(IDLE_CAUSES, _idle),
    "below the share": _below_the_share,
    "placement": _placement,
    "filling up": demand.filling_up,
    "nothing ended": demand.nothing_ended,
    "rejected": demand.rejected,
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
    "few queries": _few_queries,
    "waiting": _waiting,
}
LOSS_CAUSES: Final = tuple(_TELL)


def tell(cause: str, result: Result, facts: Facts, idle: pd.DataFrame) -> Told:
    """Words and numbers of a cause, for this result."""
    return _TELL[cause](Case(result, facts, idle, cause))
