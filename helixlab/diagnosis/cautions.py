"""What should be known before figures of a run are used: it turned queries away, changed, or was overrun."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from helixlab.diagnosis.facts import Facts
from helixlab.diagnosis.finding import Finding
from helixlab.diagnosis.phrases import against_preemption, computed_again, refusals
from helixlab.diagnosis.steadiness import BLOCKS, asked_span, drift, load_of
from helixlab.diagnosis.times import in_window
from helixlab.diagnosis.unused_links import passing_tokens_per_s, told_of_unused_links
from helixlab.diagnosis.wording import counted, listed, number, part_of, percent, sentence
from helixlab.simulation import Result
from helixlab.workload.workload import LEAST_DURATION_S

__all__ = ["cautions"]

ENOUGH = 10 * BLOCKS
"""Iterations from which on a window is worth cutting into blocks."""
LEAST_LOST: Final = 0.01
"""Part of the maximum flow from which on it is worth a sentence that it cannot get through."""
IDLE_END = 0.05
"""Part of a window after the last request from which on it is worth a sentence."""


def cautions(result: Result, facts: Facts) -> Iterator[Finding]:
    """Findings that are not about the way from bound to throughput."""
    yield from _stopped(result)
    yield from _unused_links(result, facts)
    yield from _outside(result)
    yield from _rejected(result)
    yield from _preempted(result, facts)
    yield from _unsteady(result, facts)
    yield from _saturated(result, facts)


def _stopped(result: Result) -> Iterator[Finding]:
    row, workload = result.summary.iloc[0], result.provenance["workload"]
    if not row["partial"]:
        return
    warmup_s = 0.0 if workload["mode"] == "online" else workload["warmup_s"]
    asked_s = workload["duration_s"] + warmup_s
    done_s = min(float(row["window_end_s"] - row["start_s"]), asked_s)
    yield Finding(
        "stopped early",
        1 - done_s / asked_s,
        f"The run was stopped: {number(done_s)} of {number(asked_s)} seconds were simulated.",
        "Run it to its end before comparing its figures.",
        {"simulated_s": done_s, "asked_s": asked_s},
    )


def _unused_links(result: Result, facts: Facts) -> Iterator[Finding]:
    """Whether links that carry too little are missed, also where no node is idle for it."""
    lost = facts.flow_tokens_per_s - passing_tokens_per_s(result)
    if facts.bound_tokens_per_s > 0 and lost > LEAST_LOST * facts.flow_tokens_per_s:
        told = told_of_unused_links(result)
        cost = min(lost / facts.bound_tokens_per_s, 1.0)
        yield Finding("below the share", cost, f"{sentence(told.text)}.", told.suggestion, told.evidence)


def _outside(result: Result) -> Iterator[Finding]:
    """Whether the window leaves given requests out, or goes on after the last of them."""
    row = result.summary.iloc[0]
    came = result.queries["arrival_s"] - row["start_s"]
    given = row["mode"] == "online" and result.provenance["workload"]["requests_hash"]
    if not given or row["partial"] or came.empty:
        return
    first_s, end_s = (float(row[f"window_{end}_s"] - row["start_s"]) for end in ("start", "end"))
    last_s, number_of = float(came.max()), len(came)
    before, after = int((came < first_s).sum()), int((came > end_s).sum())
    behind_s = end_s - max(last_s, first_s)
    idle = behind_s / (end_s - first_s)
    parts = []
    if before + after:
        when = [f"{before} before it"] * (before > 0) + [f"{after} after it"] * (after > 0)
        parts.append(
            f"{sentence(part_of(before + after, number_of))} left out of what is measured: {listed(when)}, as"
            f" the window is from {number(first_s)} to {_at(end_s)} and requests come from"
            f" {number(float(came.min()))} to {_at(last_s)}"
        )
    if idle > IDLE_END:
        parts.append(
            f"The last request comes at {_at(last_s)}, and the window goes on to {_at(end_s)}, so that tokens"
            " per second are less than while requests came"
        )
    if parts:
        yield Finding(
            "outside the window",
            min(max((before + after) / number_of, idle if idle > IDLE_END else 0.0), 1.0),
            f"{'. '.join(parts)}.",
            "Leave duration_s and warmup_s out, so that the window goes from the first request to the last"
            f" (or to {LEAST_DURATION_S:g} seconds, if later).",
            {
                "requests": number_of,
                "before_the_window": before,
                "after_the_window": after,
                "first_request_s": float(came.min()),
                "last_request_s": last_s,
                "window_start_s": first_s,
                "window_end_s": end_s,
            },
        )


def _at(time_s: float) -> str:
    return counted(time_s, "second", "seconds")


def _rejected(result: Result) -> Iterator[Finding]:
    row, ended = result.summary.iloc[0], result.queries
    turned_away = ended[ended["outcome"] != "finished"]
    fed = int(row["queries_fed"])
    if turned_away.empty or not fed:
        return
    served = ended.loc[ended["outcome"] == "finished", "input_tokens"]
    for_good, suggestion = refusals(
        result, "Let them wait with on_full='wait'; dropping favours short queries."
    )
    text = f"{sentence(part_of(len(turned_away), fed))} turned away{for_good}"
    if len(served) and turned_away["input_tokens"].mean() > served.mean():
        text += (
            f"; their prompts had {number(float(turned_away['input_tokens'].mean()))} tokens on average,"
            f" those served {number(float(served.mean()))}, so the throughput looks better than it is"
        )
    yield Finding(
        "rejected",
        len(turned_away) / fed,
        f"{text}.",
        suggestion,
        {name: int(row[name]) for name in ("queries_dropped", "queries_refused", "queries_fed")},
    )


def _preempted(result: Result, facts: Facts) -> Iterator[Finding]:
    count, fed = (int(result.summary[name].item()) for name in ("queries_preempted", "queries_fed"))
    bound = facts.bound_tokens_per_s
    if count:
        yield Finding(
            "preemption",
            min(facts.again_tokens_per_s / bound, 1.0) if bound > 0 else 0.0,
            f"{computed_again(count)}; {counted(fed, 'query', 'queries')} came in all.",
            against_preemption(facts),
            {"queries_preempted": count, "queries_fed": fed},
        )


def _unsteady(result: Result, facts: Facts) -> Iterator[Finding]:
    """Whether tokens/s change over the window, by more than they vary from block to block."""
    ended = in_window(result) if len(result.iterations) else result.iterations
    if len(ended) < ENOUGH or facts.asked_fraction < 1:  # where requests ran out, that is what is told
        return
    row = result.summary.iloc[0]
    edges = np.linspace(row["window_start_s"], row["window_end_s"], BLOCKS + 1)
    tokens, _ = np.histogram(ended["end_s"], edges, weights=ended["tokens"].to_numpy(dtype=float))
    rates = tokens / (facts.window_s / BLOCKS)
    moved = drift(rates)
    if moved.trend != "moving":
        return
    first, second = (float(half.mean()) for half in np.split(rates, 2))
    given = row["mode"] == "offline" and result.provenance["workload"]["requests_hash"]
    yield Finding(
        "unsteady",
        min(abs(moved.relative), 1.0),
        f"The run is not steady: {number(first)} tokens per second in the first half of the window,"
        f" {number(second)} in the second.",
        ("If the given requests ran out, give more; else warm up" if given else "Warm up")
        + " for longer, or measure for longer, before comparing such figures.",
        {"first_half_tokens_per_s": first, "second_half_tokens_per_s": second},
    )


def _saturated(result: Result, facts: Facts) -> Iterator[Finding]:
    """Whether more was asked for than was served, so that queries piled up."""
    row = result.summary.iloc[0]
    if row["mode"] != "online" or row["partial"] or result.queries.empty or facts.window_s <= 0:
        return
    load = load_of(result)
    if not load.grows:
        return
    stay = min(load.growth_per_s / load.arrivals_per_s, 1.0)
    offered = facts.offered_tokens_per_s - facts.rejected_tokens_per_s
    late = 1 - facts.served_tokens_per_s / offered if offered > 0 else 0.0
    came_s, end_s, what = *asked_span(result), "the last request"
    if end_s == row["window_end_s"]:
        came_s, what = float(row["window_start_s"]), "the window"
    half, end = (_in_system(result, end_s - back * (end_s - came_s)) for back in (0.5, 0.0))
    behind_s = max(float(row["last_finish_s"]) - end_s, 0.0)
    yield Finding(
        "saturated",
        max(stay, late),
        f"More is asked for than can be served: {percent(stay)} of the queries that come stay in the queue."
        f" {sentence(counted(half, 'query was', 'queries were'))} in flight at half time, {end} at the end;"
        f" the last one ended {counted(behind_s, 'second', 'seconds')} after {what}.",
        "Latencies grow with the length of such a run; lower the rate, helixlab.goodput finds the largest.",
        {
            "load": load.label,
            "offered_tokens_per_s": offered,
            "served_tokens_per_s": facts.served_tokens_per_s,
            "queries_at_half_time": half,
            "queries_at_the_end": end,
        },
    )


def _in_system(result: Result, time_s: float) -> int:
    """Queries that have arrived and not ended; online, where all are in the table."""
    queries = result.queries
    return int(((queries["arrival_s"] <= time_s) & (queries["end_s"] > time_s)).sum())
