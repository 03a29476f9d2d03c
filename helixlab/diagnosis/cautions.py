"""What should be known before figures of a run are used: it turned queries away, changed, or was overrun."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from helixlab.diagnosis.facts import Facts
from helixlab.diagnosis.finding import Finding
from helixlab.diagnosis.times import in_window
from helixlab.diagnosis.wording import number
from helixlab.simulation import Result

__all__ = ["cautions"]

UNSTEADY_ABOVE = 0.1
"""Change from the first to the second half of the window, as part of the mean."""
BLOCKS = 10
SIGMAS = 3.0
SATURATED_BELOW = 0.9
"""Part of the tokens asked for that is served in the window."""
PILES_UP_ABOVE = 1.7
"""Queries at the end over those at half time; twice as many if they only come, as many if all is steady."""


def cautions(result: Result, facts: Facts) -> Iterator[Finding]:
    """Findings that are not about the way from bound to throughput."""
    yield from _stopped(result)
    yield from _rejected(result)
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


def _rejected(result: Result) -> Iterator[Finding]:
    row, ended = result.summary.iloc[0], result.queries
    turned_away = ended[ended["outcome"] != "finished"]
    fed = int(row["queries_fed"])
    if turned_away.empty or not fed:
        return
    served = ended.loc[ended["outcome"] == "finished", "input_tokens"]
    dropped, refused = int(row["queries_dropped"]), int(row["queries_refused"])
    text = f"{len(turned_away)} of {fed} queries were turned away"
    suggestion = "Let them wait with on_full='wait'; dropping favours short queries."
    if refused:
        why = turned_away.loc[turned_away["outcome"] == "refused", "reason"].mode().iloc[0]
        text += f", {refused} of them for good: {why}"
        if not dropped:
            suggestion = "Give the nodes on their way fewer layers, or leave such queries out."
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
        {"queries_dropped": dropped, "queries_refused": refused, "queries_fed": fed},
    )


def _unsteady(result: Result, facts: Facts) -> Iterator[Finding]:
    """Whether tokens/s change over the window, by more than they vary from block to block."""
    ended = in_window(result) if len(result.iterations) else result.iterations
    if len(ended) < 10 * BLOCKS:
        return
    row = result.summary.iloc[0]
    edges = np.linspace(row["window_start_s"], row["window_end_s"], BLOCKS + 1)
    counted, _ = np.histogram(ended["end_s"], edges, weights=ended["tokens"].to_numpy(dtype=float))
    rates = counted / (facts.window_s / BLOCKS)
    first, second = rates[: BLOCKS // 2], rates[BLOCKS // 2 :]
    mean = float(rates.mean())
    change = float(second.mean() - first.mean())
    noise = float(np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / (BLOCKS // 2)))
    if mean <= 0 or abs(change) < UNSTEADY_ABOVE * mean or abs(change) < SIGMAS * noise:
        return
    yield Finding(
        "unsteady",
        min(abs(change) / mean, 1.0),
        f"The run is not steady: {number(float(first.mean()))} tokens per second in the first half of the"
        f" window, {number(float(second.mean()))} in the second.",
        "Warm up for longer, or measure for longer, before comparing such figures.",
        {"first_half_tokens_per_s": float(first.mean()), "second_half_tokens_per_s": float(second.mean())},
    )


def _saturated(result: Result, facts: Facts) -> Iterator[Finding]:
    """Whether more was asked for than was served, so that queries piled up."""
    offered = facts.offered_tokens_per_s - facts.rejected_tokens_per_s
    if not 0 < offered < float("inf") or facts.processed_tokens_per_s >= SATURATED_BELOW * offered:
        return
    row = result.summary.iloc[0]
    half, end = (_in_system(result, row["window_end_s"] - back * facts.window_s) for back in (0.5, 0.0))
    if offered < facts.flow_tokens_per_s and end < PILES_UP_ABOVE * half:
        return  # what is missing is under way: queries take their time
    behind_s = max(float(row["last_finish_s"] - row["window_end_s"]), 0.0)
    yield Finding(
        "saturated",
        1 - facts.served_tokens_per_s / offered,
        f"More is asked for than can be served: {number(offered)} tokens per second come,"
        f" {number(facts.processed_tokens_per_s)} end, and queries pile up, {half} at half time, {end} at the"
        f" end; the last one ended {number(behind_s)} seconds after the window.",
        "Latencies grow with the length of such a run; lower the rate, helixlab.goodput finds the largest.",
        {
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
