"""Causes of lost tokens/s: the name, the explanation and the advice of each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import pandas as pd

from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis.measures import (
    PAPER,
    SATURATED_ABOVE,
    Facts,
    gini,
    left_out_flow,
    max_over_mean,
    node_samples,
    node_time_means,
    queued_s,
    small_links_rule,
    time_mean,
    window_samples,
)
from helixlab.diagnosis.text import factor, joined, node_numbers, number, percent, share_of
from helixlab.flow.small_links import RELATIVE, rule_in_words
from helixlab.placement.io import PLANNED
from helixlab.simulation import Result
from helixlab.simulation.provenance import KV_RULES

__all__ = ["Cause", "Explanation", "explain", "refusals"]

NEAR: Final = 0.8
"""Fraction of the maximum flow from which on a run is near it."""
MARGIN: Final = 0.005
"""Fraction of the maximum flow by which a run may exceed it and still be at it."""
TUNE: Final = "helixlab.tune_execution looks for what serves most"


class Cause(StrEnum):
    """Causes and cautions that a finding may name.

    The functions below explain the causes, in the same order; the module `diagnose` explains the cautions.
    """

    LITTLE_ASKED_FOR = "little asked for"
    RAN_OUT = "requests ran out"
    NO_LAYERS = "no layers"
    NO_PATH = "no path"
    NO_FLOW = "no flow"
    BELOW_THE_SHARE = "below the share"
    KV_CACHE_MASKED = "KV cache masked"
    BATCH_TOO_SMALL = "batch too small"
    NEVER_CHOSEN = "never chosen"
    NOTHING_UPSTREAM = "nothing upstream"
    NOTHING_SENT = "nothing sent"
    PLACEMENT = "placement"
    FILLING_UP = "filling up"
    NOTHING_ENDED = "nothing ended"
    REJECTED = "rejected"
    COSTLY_BATCHES = "costly batches"
    OVERHEAD = "overhead"
    FULL_KV_CACHES = "full KV caches"
    PREEMPTION = "preemption"
    BUSY_LINKS = "busy links"
    SENDING = "sending"
    LINK_LATENCY = "link latency"
    IMBALANCE = "imbalance"
    BUBBLES = "bubbles"
    FEW_REQUESTS = "few requests"
    WAITING = "waiting"
    # Cautions, which name no lost tokens
    UNSTEADY = "unsteady"
    SATURATED = "saturated"
    OUTSIDE_THE_WINDOW = "outside the window"
    STOPPED_EARLY = "stopped early"


@dataclass(frozen=True)
class Explanation:
    """Explanation of a cause in one run.

    Parameters
    ----------
    text : str
        Sentences that say what is the case, with numbers.
    advice : str
        Sentences that say what could be done.
    evidence : mapping
        Numbers behind the text.
    """

    text: str
    advice: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """Facts of a run, and the nodes that are idle for the cause in question: rows of `idle_nodes`."""

    facts: Facts
    idle: list[dict[Hashable, Any]]

    @property
    def result(self) -> Result:
        """Result of the run."""
        return self.facts.result

    @property
    def nodes(self) -> str:
        """Numbers of the idle nodes, to begin a sentence."""
        return f"Idle: {node_numbers([row['node'] for row in self.idle])}"

    def count(self, name: str) -> int:
        """Return a count of requests of the summary, named without ``requests_``."""
        return int(self.result.metrics[f"requests_{name}"])


_EXPLAIN: Final[dict[Cause, Callable[[Case], Explanation]]] = {}


def explain(cause: Cause | str, facts: Facts, idle: pd.DataFrame | None = None) -> Explanation:
    """Explain a cause of lost tokens/s in one run, and say what could be done.

    Parameters
    ----------
    cause : Cause or str
        Name of the cause.
    facts : Facts
        Measures of the run.
    idle : DataFrame, optional
        Idle nodes of the run, from `helixlab.diagnosis.idle_nodes`, for causes that are about some.
    """
    known = Cause(cause)
    nodes = [] if idle is None else idle[idle["cause"] == known.value].to_dict("records")
    return _EXPLAIN[known](Case(facts, nodes))


def _explains(cause: Cause) -> Callable[[Callable[[Case], Explanation]], Callable[[Case], Explanation]]:
    """Enter a function as the explanation of a cause."""

    def enter(function: Callable[[Case], Explanation]) -> Callable[[Case], Explanation]:
        _EXPLAIN[cause] = function
        return function

    return enter


# Demand: fewer requests than could be served


@_explains(Cause.LITTLE_ASKED_FOR)
def _little_asked_for(case: Case) -> Explanation:
    """Less arrived than could be served."""
    facts, queued = case.facts, case.count("queued")
    text = f"Offered load: {number(facts.offered_tokens_per_s)} tokens/s"
    if not facts.offered_tokens_per_s > 0:
        text = "No request arrived in the window"
    text += f"; maximum flow: {number(facts.max_flow_tokens_per_s)} tokens/s."
    if queued:
        text += (
            " Requests queued all the same, for want of free KV cache:"
            f" {share_of(queued, case.count('fed'))}{_mean_queued_time(case)}."
        )
    advice = "This does not speak against the placement; offer a higher rate to find its limit."
    if not facts.has_free_kv_cache:
        advice = f"KV caches keep requests out at this rate already. {_free_kv_cache(case)}"
    elif facts.load is not None and facts.load.label == "filling":
        advice = "Measure for longer: this run is too short to tell whether that much can be served."
    elif not facts.more_would_help:
        advice = "Lower the rate: requests pile up at this one already."
    evidence = {"offered_tokens_per_s": facts.offered_tokens_per_s, "requests_queued": queued}
    return Explanation(text, advice, evidence)


def _mean_queued_time(case: Case) -> str:
    """Write how long requests were queued, on average over all, where that is known."""
    mean_s = queued_s(case.result) / max(case.count("fed"), 1)
    return "" if math.isnan(mean_s) else f", {number(mean_s)} s on average over all requests"


@_explains(Cause.RAN_OUT)
def _requests_ran_out(case: Case) -> Explanation:
    """The given requests ended before the window did."""
    window_s = case.facts.window_length_s
    served_s = case.facts.demand_fraction * window_s
    when = f"{number(served_s)} s into" if served_s > 0 else "before"
    return Explanation(
        f"The last of the given requests ended {when} the window of {number(window_s)} s.",
        "Give more requests, or shorten the warm-up and the window, before judging the placement.",
        {"asked_s": served_s, "window_s": window_s},
    )


# Idle nodes


@_explains(Cause.NO_LAYERS)
def _no_layers(case: Case) -> Explanation:
    """The placement gives nodes nothing to do."""
    return Explanation(
        f"{case.nodes}. The placement assigns no layers there.",
        "Plan with all nodes, or see whether the upper bound can be reached without these.",
        _rows(case),
    )


@_explains(Cause.NO_PATH)
def _no_path(case: Case) -> Explanation:
    """Nodes hold layers off any path from source to sink."""
    return Explanation(
        f"{case.nodes}. Layers are assigned there, but no path of links from source to sink goes through.",
        "Add links from nodes that end where these layers begin, and to nodes that begin where these end.",
        _rows(case),
    )


@_explains(Cause.NO_FLOW)
def _no_flow(case: Case) -> Explanation:
    """The maximum flow does without nodes, and the scheduler follows it."""
    return Explanation(
        f"{case.nodes}. The maximum flow does not use this capacity, and the scheduler follows the flow.",
        "Assign layers there that the flow is short of.",
        _rows(case),
    )


@_explains(Cause.BELOW_THE_SHARE)
def _below_the_share(case: Case) -> Explanation:
    """All links to nodes are left out for their small flow."""
    facts = case.facts
    rule, table = small_links_rule(facts.result), left_out_flow(facts.result)
    advice = "Use another scheduler, or plan so that fewer nodes share a sender's flow."
    if rule == PAPER:
        advice = f"Use small_links={RELATIVE!r}, or plan so that fewer nodes share a sender's flow."
    text = (
        f"The scheduler leaves out links with {rule_in_words(rule)}, and links that then lead nowhere:"
        f" {len(table)} in all. Without these, at most {number(facts.passing_tokens_per_s)} of the"
        f" {number(facts.max_flow_tokens_per_s)} tokens/s of the maximum flow get through."
    )
    evidence = {
        "small_links": rule,
        "passing_tokens_per_s": facts.passing_tokens_per_s,
        "max_flow_tokens_per_s": facts.max_flow_tokens_per_s,
        "links": table.to_dict("records"),
    }
    if case.idle:  # links may be missed where no node is idle for it
        text, evidence = f"{case.nodes}. {text}", {**_rows(case), **evidence}
    return Explanation(text, advice, evidence)


@_explains(Cause.KV_CACHE_MASKED)
def _kv_cache_masked(case: Case) -> Explanation:
    """The scheduler expected the KV caches of nodes to be too full."""
    return Explanation(
        f"{case.nodes}. The scheduler expected too full a KV cache there. {_masked(case)}",
        f"Assign fewer layers there, which leaves more KV cache{_raise_the_mark(case)}.",
        _rows(case),
    )


@_explains(Cause.BATCH_TOO_SMALL)
def _batch_too_small(case: Case) -> Explanation:
    """Prompts do not fit in one batch of nodes."""
    return Explanation(
        f"{case.nodes}. Prompts do not fit in one batch there. {_masked(case)}",
        "Cut prompts into chunks with execution='chunked', or keep the first layers off such machines.",
        _rows(case),
    )


def _masked(case: Case) -> str:
    """Write how often prompts were kept away from idle nodes."""
    kept_away = sum(row["kv_masked"] + row["batch_masked"] for row in case.idle)
    considered = sum(row["considered"] for row in case.idle)
    return f"Prompts kept away: {share_of(kept_away, considered)}."


@_explains(Cause.NEVER_CHOSEN)
def _never_chosen(case: Case) -> Explanation:
    """The scheduler could have sent requests to nodes and did not."""
    advice = "Use a scheduler that spreads requests, such as helix, or let this one consider busy fractions."
    if case.facts.follows_flow:
        advice = (
            "Measure for longer, so that each node gets a turn, or plan for a larger share of flow there."
        )
    return Explanation(
        f"{case.nodes}. The scheduler could have sent requests there but always chose other nodes.",
        advice,
        _rows(case),
    )


@_explains(Cause.NOTHING_UPSTREAM)
def _nothing_upstream(case: Case) -> Explanation:
    """No node that could send to idle ones sent anything on."""
    return Explanation(
        f"{case.nodes}. No node with a link there sent anything on in the window.",
        "Look at the nodes before these first.",
        _rows(case),
    )


@_explains(Cause.NOTHING_SENT)
def _nothing_sent(case: Case) -> Explanation:
    """The coordinator sent nothing."""
    return Explanation(
        f"{case.nodes}. The coordinator sent nothing in the window.",
        "See whether requests were rejected or queued; if not, measure for longer before judging.",
        _rows(case),
    )


def _rows(case: Case) -> dict[str, Any]:
    return {"nodes": case.idle}


# Placement


@_explains(Cause.PLACEMENT)
def _placement(case: Case) -> Explanation:
    """The maximum flow of the placement is below the upper bound of the machines."""
    facts = case.facts
    if facts.upper_bound_tokens_per_s <= 0:
        return _no_bound(facts)
    within = min(facts.max_flow_tokens_per_s, facts.offered_tokens_per_s)
    reached = facts.served_tokens_per_s / within if within > 0 else 1.0
    text = (
        f"Maximum flow of the placement: {number(facts.max_flow_tokens_per_s)} tokens/s, limited by"
        f" {_cut_in_words(facts.flow_cut)}; upper bound of the machines:"
        f" {number(facts.upper_bound_tokens_per_s)} tokens/s.{_least_spare(facts)}"
    )
    advice = "Look for a placement with more flow, with helixlab.plan and objective='flow'"
    if case.result.provenance["placement"]["source"] == PLANNED:
        advice = "Give the planner more time to find a placement with more flow, with objective='flow'"
    advice += "; where links limit it, a faster network helps."
    if reached > 1 + MARGIN:
        text += " This run served more than the flow"
        text += ", as its batches cost less than typical ones." if _compute_binds(facts) else "."
        advice = "The flow is no limit here; plan with helixlab.plan and objective='throughput' instead."
    elif reached < NEAR:
        advice = (
            f"This run serves {percent(reached)} of what the placement allows. Deal with the other findings"
            " first; a placement with more flow helps after that."
        )
    evidence = {
        "bottlenecks": facts.flow_cut.to_dict("records"),
        "binding_cut": facts.run_cut.to_dict("records"),
        "bound_tokens_per_s": facts.upper_bound_tokens_per_s,
    }
    return Explanation(text, advice, evidence)


def _no_bound(facts: Facts) -> Explanation:
    """Explain in place of losses, which are fractions of the upper bound, why that is 0."""
    serving = facts.result.serving_nodes
    overfull = serving.loc[serving["capacity_tokens_per_s"] <= 0, "node"].tolist()
    who = f" on {node_numbers(overfull)}" if overfull else ""
    return Explanation(
        f"The maximum flow and the upper bound are 0, because of more layers{who} than were measured."
        f" Served all the same: {number(facts.served_tokens_per_s)} tokens/s. No losses can be computed.",
        "Judge such a run by its throughput, or use machines that hold the model in fewer layers per node.",
        {"nodes": overfull, "served_tokens_per_s": facts.served_tokens_per_s},
    )


def _compute_binds(facts: Facts) -> bool:
    return bool((facts.flow_cut["kind"] == "compute").any())


def _least_spare(facts: Facts) -> str:
    """Write what bound the run, where that is not what binds the flow."""
    cut = facts.run_cut
    if _ends(cut) in (set(), _ends(facts.flow_cut)):
        return ""
    busy = percent(float(cut["busy_fraction"].mean()))
    return f" Least spare capacity in this run: {_cut_in_words(cut)}, busy {busy} of the time."


def _ends(cut: pd.DataFrame) -> set[tuple[object, ...]]:
    return set(cut[["kind", "sender", "receiver"]].itertuples(index=False, name=None))


def _cut_in_words(cut: pd.DataFrame) -> str:
    """Write the nodes, links and network cards of a cut."""
    words = []
    compute = cut.loc[cut["kind"] == "compute", "sender"].tolist()
    if compute:
        words.append(f"the compute of {node_numbers(compute)}")
    links = [
        f"link {row['sender']} to {row['receiver']}" for row in cut[cut["kind"] == "link"].to_dict("records")
    ]
    words += links if len(links) <= 3 else [*links[:3], f"{len(links) - 3} more"]
    cards = cut.loc[cut["kind"] == "network card", "sender"].drop_duplicates().tolist()
    if cards:
        owners = ["the coordinator"] * (not {SOURCE, SINK}.isdisjoint(cards))
        nodes = [card for card in cards if card not in (SOURCE, SINK)]
        owners += [node_numbers(nodes)] if nodes else []
        words.append(f"the network bandwidth of {joined(owners)}")
    return joined(words) if words else "nothing"


# A run that has not settled


@_explains(Cause.FILLING_UP)
def _filling_up(case: Case) -> Explanation:
    """Prompts ran ahead of the decodes that belong to them."""
    processed, served = case.facts.processed_tokens_per_s, case.facts.served_tokens_per_s
    advice = "Warm up for longer, until as many requests end as start."
    if case.facts.queue_grows:
        advice = "Lower the rate: prompts come faster than their requests end."
    elif case.facts.is_online:
        advice = "Measure for longer, until as many requests end as start."
    return Explanation(
        f"The system was still filling up. Tokens processed: {number(processed)} tokens/s; decodes with the"
        f" prompts that belong to them: {number(served)} tokens/s.",
        advice,
        {"processed_tokens_per_s": processed, "served_tokens_per_s": served},
    )


@_explains(Cause.NOTHING_ENDED)
def _nothing_ended(case: Case) -> Explanation:
    """No iteration came to its end in the window."""
    window_s, in_flight = case.facts.window_length_s, _in_flight_at_the_end(case)
    return Explanation(
        f"No iteration ended in the window of {number(window_s)} s. Requests in flight at its end:"
        f" {in_flight}.",
        "Measure for longer, until prompts and decodes end all the time.",
        {"window_s": window_s, "requests_in_flight": in_flight},
    )


def _in_flight_at_the_end(case: Case) -> int:
    """Count the requests in flight at the end of the window, those that have ended since included."""
    requests, (_, end_s) = case.result.requests, case.result.window_s
    since = (requests["arrival_s"] <= end_s) & (requests["end_s"] > end_s)
    return int(since.sum()) + case.count("in_flight")


# Rejected requests


@_explains(Cause.REJECTED)
def _rejected(case: Case) -> Explanation:
    """Requests were dropped or refused."""
    facts = case.facts
    reason, advice = refusals(
        facts, "Let requests wait with on_full='wait', or free KV cache with fewer layers per node."
    )
    text = f"Requests rejected: {number(facts.rejected_tokens_per_s)} tokens/s{reason}."
    if facts.all_rejected:
        ended = len(case.result.requests)
        text = f"Requests rejected: {share_of(ended, ended)}{reason}."
        if case.count("finished"):
            text = f"Requests rejected: all that ended in the window{reason}."
    return Explanation(text, advice, {"rejected_tokens_per_s": facts.rejected_tokens_per_s})


def refusals(facts: Facts, for_dropped: str) -> tuple[str, str]:
    """Write why requests were refused, to end a sentence, and advise what would have helped."""
    requests, row = facts.result.requests, facts.result.metrics
    refused = int(row["requests_refused"])
    if not refused:
        return "", for_dropped
    reasons = requests.loc[requests["outcome"] == "refused", "reason"]
    # A reason is worded for one request.
    main = re.sub(r"\bit\b", "such a request", reasons.mode().iloc[0], count=1)
    all_of_them = refused == int((requests["outcome"] != "finished").sum())
    for_good = "for good" if all_of_them else f"{refused} of these for good"
    mostly = "" if reasons.nunique() == 1 else "mostly "
    for_refused = "Assign fewer layers to the nodes on the paths, or leave such requests out."
    if facts.result.links["batch_masked"].sum() > 0 or "batch" in main:
        for_refused = "Use execution='chunked', which cuts long prompts, or leave such requests out."
    return f", {for_good}, {mostly}because {main}", for_dropped if row["requests_dropped"] else for_refused


# What binds the flow worked, but got less through


@_explains(Cause.COSTLY_BATCHES)
def _costly_batches(case: Case) -> Explanation:
    """Batches cost more per token than the planner assumes."""
    cut = case.facts.flow_cut
    worked = float((cut["capacity_tokens_per_s"] * cut["busy_fraction"]).sum())
    used = float(cut["used_tokens_per_s"].sum())
    slower = worked / used if used > 0 else float("inf")
    where, why = "nodes", "batches were smaller than, or unlike, the typical one"
    advice = _more_requests(
        case,
        "Keep more requests in flight, so that batches are larger, or measure with lengths as planned.",
        "Batches would be larger if more requests were let in",
    )
    if not _compute_binds(case.facts):
        where, why = "links", "prompts and decodes came in another mix"
        advice = "Measure with lengths as planned, or plan for these."
    elif case.facts.cuts_prompts:
        advice = f"Allow larger chunks or more decodes in a batch: {TUNE}."
    return Explanation(
        f"Busy time per token at the {where} that limit the flow: {factor(slower)} what the planner assumes,"
        f" because {why}.",
        advice,
        {"cost_over_planned": slower, "bottlenecks": cut.to_dict("records")},
    )


def _more_requests(case: Case, advice: str, otherwise: str) -> str:
    """Advise more requests, unless those that there are do not get in: then more are of no use."""
    if case.facts.more_would_help:
        return advice
    if not case.facts.has_free_kv_cache:
        return f"{otherwise}, for which KV caches lack space. {_free_kv_cache(case)}"
    return f"{otherwise}; there are enough requests, so look at the other findings."


@_explains(Cause.OVERHEAD)
def _overhead(case: Case) -> Explanation:
    """Activations are gathered before the first layer of a node."""
    return _part_of_latency(
        case,
        "gathering activations on the device before the first layer of a node",
        "Use fewer nodes per path, each with more layers, so that activations are gathered less often.",
        "overhead_s",
    )


# What binds the flow did not work, as requests were elsewhere


@_explains(Cause.FULL_KV_CACHES)
def _full_kv_caches(case: Case) -> Explanation:
    """KV caches, or what the scheduler expects of them, keep requests out."""
    facts, queued = case.facts, case.count("queued")
    share = facts.latency_fraction("queued_s", "kv_wait_s")
    text = "KV caches, or what the scheduler expects of them, keep requests out while nodes are idle."
    if queued:
        text += f" Requests queued: {share_of(queued, case.count('fed'))}."
    else:
        text += " Requests are let in slowly."
    if share > 0:
        text += f" Waiting for free KV cache: {percent(share)} of the latency."
    caches, evidence = _cache_use(case)
    inside = window_samples(case.result, case.result.timeline)
    return Explanation(
        text + caches,
        _free_kv_cache(case),
        {
            "requests_queued": queued,
            "queued_fraction": facts.queued_fraction,
            "time_share": share,
            **evidence,
            "expected_mean": time_mean(inside, inside["bottleneck_kv_expected_fraction"]),
        },
    )


def _free_kv_cache(case: Case) -> str:
    """Advise what lets more requests in, the most effective first."""
    return f"Assign fewer layers to the fullest nodes, or more nodes to their layers{_raise_the_mark(case)}."


def _raise_the_mark(case: Case) -> str:
    """Advise, to end a sentence, to fill more of each KV cache where that is possible."""
    mark = float(case.result.provenance["settings"]["kv_high_water_mark"])
    if mark >= 1 or not case.result.provenance["scheduler"].get("plans_ahead"):
        return ""
    usual, _ = KV_RULES[case.result.metrics["mode"]]
    if mark < usual:
        return f"; kv_high_water_mark, only {number(mark)} here, can be raised too"
    if not case.facts.is_online:  # as much is in flight as the rule of feeding lets in
        return ""
    return f"; raising kv_high_water_mark, {number(mark)} here, helps less"


def _cache_use(case: Case) -> tuple[str, dict[str, Any]]:
    """Write how full KV caches were, with the numbers behind it; nothing where the window does not say."""
    samples = node_samples(case.result)
    if len(samples):
        means, when = node_time_means(samples, ["kv_used_fraction", "kv_expected_fraction"]), "in the window"
    elif not case.facts.is_online:  # online, all requests have left at the end
        means, when = case.result.serving_nodes.set_index("node")[["kv_used_fraction"]], "at the end"
    else:
        return "", {}
    used = means["kv_used_fraction"]
    node = used.idxmax()
    text = f" Mean KV cache use {when}: {percent(float(used.mean()))}; highest, on node {node}:"
    text += f" {percent(float(used.max()))}"
    if "kv_expected_fraction" in means and case.result.provenance["scheduler"].get("plans_ahead"):
        expected = float(means["kv_expected_fraction"].to_dict()[node])
        text += f", expected by the scheduler: {percent(expected)}"
    return f"{text}.", {
        "kv_used_max": float(used.max()),
        "kv_used_mean": float(used.mean()),
        "kv_used_gini": gini(used.tolist()),
        "kv_used_max_over_mean": max_over_mean(used.tolist()),
    }


@_explains(Cause.PREEMPTION)
def _preemption(case: Case) -> Explanation:
    """Requests lost their KV cache to others, and were computed again."""
    count, fed = case.count("preempted"), case.count("fed")
    text = f"Preemptions, each with a KV cache lost and computed again: {count}; requests in all: {fed}."
    evidence: dict[str, Any] = {"requests_preempted": count, "requests_fed": fed}
    if case.facts.part_s:
        evidence["time_share"] = case.facts.latency_fraction("lost_s")
        text += f" Lost work: {percent(evidence['time_share'])} of the latency."
    advice = (
        "Preemption is rare enough to ignore; where it increases, assign fewer layers to the fullest nodes."
    )
    if case.facts.preempts_often:
        advice = "Assign fewer layers to the fullest nodes, or keep fewer requests in flight."
    return Explanation(text, advice, evidence)


def _part_of_latency(case: Case, doing: str, advice: str, part: str) -> Explanation:
    """Explain a cause by the fraction of the latency that one part of it takes."""
    share = case.facts.latency_fraction(part)
    return Explanation(f"Time spent {doing}: {percent(share)} of the latency.", advice, {part: share})


@_explains(Cause.BUSY_LINKS)
def _busy_links(case: Case) -> Explanation:
    """Work waits for links that send something else."""
    advice = "Cut prompts with execution='chunked', as whole prompts occupy links for long."
    if case.facts.cuts_prompts:
        advice = f"Use fewer stages or faster links, or smaller chunks: {TUNE}."
    return _part_of_latency(case, "waiting for links that send something else", advice, "link_wait_s")


@_explains(Cause.SENDING)
def _sending(case: Case) -> Explanation:
    """Activations take long to be sent."""
    advice = "Place neighbouring layers on nodes with fast links between them."
    return _part_of_latency(case, "sending", advice, "sending_s")


@_explains(Cause.LINK_LATENCY)
def _link_latency(case: Case) -> Explanation:
    """Activations take long to arrive once they are sent."""
    more = ", or keep more requests in flight to fill the time" if case.facts.more_would_help else ""
    advice = f"Use fewer stages or nearer nodes{more}."
    return _part_of_latency(case, "between sending and arrival (link latency)", advice, "link_latency_s")


@_explains(Cause.IMBALANCE)
def _imbalance(case: Case) -> Explanation:
    """Some nodes are busy all the time while others wait."""
    serving = case.result.serving_nodes
    busy = serving["busy_fraction"]
    saturated = serving.loc[busy >= SATURATED_ABOVE, "node"].tolist()
    advice = "Assign fewer layers there."
    if not case.facts.follows_flow:
        advice = "Send less there, as the helix scheduler would, or assign fewer layers there."
    return Explanation(
        f"Busy nearly all the time, with requests waiting: {node_numbers(saturated)}. Mean busy"
        f" fraction of nodes: {percent(float(busy.mean()))}.",
        advice,
        {
            "nodes": saturated,
            "busy_max": float(busy.max()),
            "busy_mean": float(busy.mean()),
            "busy_gini": gini(busy.tolist()),
            "busy_max_over_mean": max_over_mean(busy.tolist()),
            **_cache_use(case)[1],
        },
    )


@_explains(Cause.BUBBLES)
def _bubbles(case: Case) -> Explanation:
    """Requests travel in groups, so that nodes wait in between."""
    facts = case.facts
    busy = float(case.result.serving_nodes["busy_fraction"].mean())
    computed = facts.latency_fraction("compute_s", "overhead_s") * facts.requests_in_service
    working = float(case.result.nodes["busy_fraction"].sum())
    batch = computed / working if working > 0 else float("nan")
    advice = "Cut prompts with execution='chunked', so that decodes need not wait behind whole prompts."
    if facts.cuts_prompts:
        advice = f"Smaller chunks block less, and cost more: {TUNE}."
    return Explanation(
        f"Requests travel in groups: {number(facts.requests_in_service)} in service on average, about"
        f" {number(batch)} per batch. Mean busy fraction of nodes: {percent(busy)}. Time spent waiting for a"
        f" turn at nodes: {percent(facts.latency_fraction('batch_wait_s'))} of the latency.",
        advice,
        {"serving": facts.requests_in_service, "requests_a_batch": batch, "busy_mean": busy},
    )


@_explains(Cause.FEW_REQUESTS)
def _few_requests(case: Case) -> Explanation:
    """Too few requests are in service to keep all nodes at work."""
    facts = case.facts
    count, nodes = facts.requests_in_service, facts.active_nodes
    larger = "a higher rate" if facts.is_online else "a larger initial_requests"
    if not facts.is_online and facts.has_given_requests:
        larger += ", with enough requests given"
    why = "too few to keep every node at work"
    if count >= nodes:
        why = "yet not every node had one all the time"
    return Explanation(
        f"Requests in service on average: {number(count)}; active nodes: {nodes}; {why}.",
        _more_requests(
            case,
            f"Keep more requests in flight: {larger}.",
            "All nodes would be at work if more requests were let in",
        ),
        {"serving": count, "active_nodes": nodes},
    )


@_explains(Cause.WAITING)
def _waiting(case: Case) -> Explanation:
    """The run has not noted where requests were."""
    return Explanation(
        "What limits the flow was idle part of the time. This result does not show where requests were then.",
        "Simulate with keep_breakdown=True and diagnose again.",
        {},
    )
