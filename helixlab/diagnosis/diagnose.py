"""`diagnose`: what a result says, in order of what it costs, and what to know before its metrics are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab._equality import ByContent
from helixlab._html import card
from helixlab._io import json_ready
from helixlab.diagnosis.causes import LOSS_CAUSES, tell
from helixlab.diagnosis.idle import idle_nodes, passing_tokens_per_s, told_of_unused_links
from helixlab.diagnosis.losses import losses
from helixlab.diagnosis.measures import Facts, facts_of, in_window
from helixlab.diagnosis.steady_state import BLOCKS, asked_span, drift, load_of
from helixlab.diagnosis.text import (
    against_preemption,
    computed_again,
    counted,
    listed,
    node_names,
    number,
    part_of,
    percent,
    refusals,
    sentence,
)
from helixlab.errors import SimulationError, memory_for
from helixlab.simulation import Result
from helixlab.workload.workload import LEAST_DURATION_S

__all__ = ["CAUSES", "Finding", "cautions", "diagnose"]


@dataclass(frozen=True, eq=False)
class Finding(ByContent):
    """One thing that a result says about the run.

    Parameters
    ----------
    cause : str
        Short name of it, one of ``helixlab.diagnosis.CAUSES``.
    cost : float
        What is lost to it, from 0 to 1: tokens/s as part of the upper bound. Findings that are not about
        lost tokens state the part of what they are about: of the requests (``"rejected"``, where others came
        in their place), of the throughput (``"unsteady"``), of what was asked for (``"saturated"``), of the
        time that was to be simulated (``"stopped early"``), of the requests or of the window
        (``"outside the window"``).
    text : str
        What is the case, in plain English.
    suggestion : str
        What could be done.
    evidence : mapping
        The numbers behind it.

    Examples
    --------
    >>> print(Finding("no layers", 0.25, "Node 3 holds no layers.", "Give it some.", {"nodes": [3]}))
    Node 3 holds no layers. Give it some.
    """

    cause: str
    cost: float
    text: str
    suggestion: str
    evidence: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "evidence", MappingProxyType(dict(self.evidence)))

    def __str__(self) -> str:
        return f"{self.text} {self.suggestion}"

    def _repr_html_(self) -> str:
        rows = {name: value for name, value in self.evidence.items() if _is_rows(value)}
        plain = {name: value for name, value in self.evidence.items() if name not in rows}
        several = {
            name: f"{counted(len(value), 'row', 'rows')}, in evidence[{name!r}]"
            for name, value in rows.items()
        }
        first = pd.DataFrame(next(iter(rows.values()))) if rows else None
        return card(f"{self.cause} (cost {self.cost:.1%})", plain | several, first, note=str(self))

    def __repr__(self) -> str:
        return f"Finding({self.cause!r}, cost={self.cost:.2f}: {self.text})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.cause, self.cost, self.text, self.suggestion, dict(self.evidence))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON.

        Examples
        --------
        >>> Finding("no layers", 0.25, "Node 3 holds no layers.", "Give it some.", {}).to_dict()["cost"]
        0.25
        """
        plain: dict[str, Any] = json_ready(
            {
                "cause": self.cause,
                "cost": self.cost,
                "text": self.text,
                "suggestion": self.suggestion,
                "evidence": dict(self.evidence),
            }
        )
        return plain


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and isinstance(value[0], dict)


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
    came = result.requests["arrival_s"] - row["start_s"]
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
    row, ended = result.summary.iloc[0], result.requests
    turned_away = ended[ended["outcome"] != "finished"]
    fed = int(row["requests_fed"])
    if turned_away.empty or not fed:
        return
    served = ended.loc[ended["outcome"] == "finished", "input_tokens"]
    for_good, suggestion = refusals(
        result, "Let them wait with on_full='wait'; dropping favours short requests."
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
        {name: int(row[name]) for name in ("requests_dropped", "requests_refused", "requests_fed")},
    )


def _preempted(result: Result, facts: Facts) -> Iterator[Finding]:
    count, fed = (int(result.summary[name].item()) for name in ("requests_preempted", "requests_fed"))
    bound = facts.bound_tokens_per_s
    if count:
        yield Finding(
            "preemption",
            min(facts.again_tokens_per_s / bound, 1.0) if bound > 0 else 0.0,
            f"{computed_again(count)}; {counted(fed, 'request', 'requests')} came in all.",
            against_preemption(facts),
            {"requests_preempted": count, "requests_fed": fed},
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
    """Whether more was asked for than was served, so that requests piled up."""
    row = result.summary.iloc[0]
    if row["mode"] != "online" or row["partial"] or result.requests.empty or facts.window_s <= 0:
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
        f"More is asked for than can be served: {percent(stay)} of the requests that come stay in the queue."
        f" {sentence(counted(half, 'request was', 'requests were'))} in flight at half time, {end} at"
        " the end;"
        f" the last one ended {counted(behind_s, 'second', 'seconds')} after {what}.",
        "Latencies grow with the length of such a run; lower the rate, helixlab.goodput finds the largest.",
        {
            "load": load.label,
            "offered_tokens_per_s": offered,
            "served_tokens_per_s": facts.served_tokens_per_s,
            "requests_at_half_time": half,
            "requests_at_the_end": end,
        },
    )


def _in_system(result: Result, time_s: float) -> int:
    """Requests that have arrived and not ended; online, where all are in the table."""
    requests = result.requests
    return int(((requests["arrival_s"] <= time_s) & (requests["end_s"] > time_s)).sum())


CAUSES: Final = (*LOSS_CAUSES, "unsteady", "saturated", "outside the window", "stopped early")
LEAST_COST: Final = 0.005
"""Part of the upper bound below which a loss is not worth a sentence."""


@memory_for("diagnosing the result", "diagnose one of a shorter duration_s")
def diagnose(result: Result) -> list[Finding]:
    """What kept a run from serving more, ranked by what it costs.

    Parameters
    ----------
    result : Result
        Of `simulate`. With ``keep_breakdown=True`` it is told where the time of tokens went; without, the
        run time losses are summed up as one finding.

    Returns
    -------
    list of Finding
        The most costly first. The costs of findings about lost tokens/s are parts of the upper bound;
        ``helixlab.diagnosis.losses(result)`` is the table they come from, and says how it is reckoned.

    Raises
    ------
    SimulationError
        `result` is not a Result.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> workload = hx.offline(initial_requests=2, warmup_s=10, duration_s=20, rng=0)
    >>> result = hx.simulate(
    ...     cluster, model, placement, scheduler="swarm", workload=workload, keep_breakdown=True
    ... )
    >>> hx.diagnose(result)[0].cause
    'few requests'
    """
    if not isinstance(result, Result):
        raise SimulationError(f"diagnose needs a Result, got {result!r:.60}; load one with load_result")
    facts, idle = facts_of(result), idle_nodes(result)
    table = losses(result)
    findings: list[Finding] = []
    if facts.bound_tokens_per_s <= 0:
        findings.append(_without_bound(result, facts))
        table = table.iloc[:0]
    for row in table.to_dict("records"):
        cost = row["tokens_per_s"] / facts.bound_tokens_per_s
        if cost < LEAST_COST:
            continue
        told = tell(row["cause"], result, facts, idle)
        lost = (
            f"this accounts for about {number(row['tokens_per_s'])} tokens per second,"
            f" {percent(row['share'])} of what is lost"
        )
        evidence = {"tokens_per_s": row["tokens_per_s"], "share_of_lost": row["share"], **told.evidence}
        findings.append(Finding(row["cause"], cost, f"{told.text}; {lost}.", told.suggestion, evidence))
    named = {finding.cause for finding in findings}
    findings += [finding for finding in cautions(result, facts) if finding.cause not in named]
    for cause in idle.loc[~idle["cause"].isin(named), "cause"].unique():
        told = tell(cause, result, facts, idle)
        text = f"{told.text}; this costs nothing here."
        findings.append(Finding(cause, 0.0, text, told.suggestion, told.evidence))
    return sorted(findings, key=lambda finding: -finding.cost)


def _without_bound(result: Result, facts: Facts) -> Finding:
    """Told in place of losses, which are parts of the bound, where the bound is 0."""
    nodes = result.nodes
    held = nodes["end_layer"] > nodes["first_layer"]
    overfull = nodes.loc[held & (nodes["capacity_tokens_per_s"] <= 0), "node"].tolist()
    who = node_names(overfull) if overfull else "the nodes"
    hold = "holds" if len(overfull) == 1 else "hold"
    return Finding(
        "placement",
        0.0,
        f"The maximum flow and the upper bound are 0, because {who} {hold} more"
        f" layers than were measured; {number(facts.served_tokens_per_s)} tokens per second were"
        " served all the same, and no loss can be reckoned.",
        "Judge such a run by its throughput, or use machines that hold the model in fewer layers a node.",
        {"nodes": overfull, "served_tokens_per_s": facts.served_tokens_per_s},
    )
