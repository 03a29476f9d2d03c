"""`diagnose`: findings about a run, ranked by cost, with cautions about the use of its metrics."""

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
from helixlab.diagnosis.causes import Cause, Explanation, explain, refusals
from helixlab.diagnosis.losses import idle_nodes, split_losses
from helixlab.diagnosis.measures import Facts, facts_of
from helixlab.diagnosis.steady_state import BLOCKS, arrival_span, drift
from helixlab.diagnosis.text import number, percent, share_of
from helixlab.errors import SimulationError, memory_for
from helixlab.simulation import Result
from helixlab.workload.workload import LEAST_DURATION_S

__all__ = ["CAUSES", "Finding", "diagnose"]

CAUSES: Final = tuple(cause.value for cause in Cause)
"""Names of all causes and cautions."""
LEAST_COST: Final = 0.005
"""Fraction of the upper bound below which a loss is not worth a finding."""
LEAST_BLOCKED: Final = 0.01
"""Fraction of the maximum flow lost with left-out links from which on it is worth a caution."""
ENOUGH_ITERATIONS: Final = 10 * BLOCKS
"""Number of iterations from which on a window is worth cutting into blocks."""
IDLE_END: Final = 0.05
"""Fraction of a window after the last request from which on it is worth a caution."""


@dataclass(frozen=True, eq=False)
class Finding(ByContent):
    """Finding of a diagnosis: a cause, its cost, and what to do about it.

    Parameters
    ----------
    cause : str
        Short name of the cause, one of ``helixlab.diagnosis.CAUSES``.
    cost : float
        Loss due to the cause, from 0 to 1: tokens/s as a fraction of the upper bound. Findings that are not
        about lost tokens state a fraction of what they are about: of the requests (``"rejected"``, where
        others came in their place), of the throughput (``"unsteady"``), of what was asked for
        (``"saturated"``), of the time that was to be simulated (``"stopped early"``), of the requests or of
        the window (``"outside the window"``).
    text : str
        Explanation of the finding, with numbers.
    advice : str
        Advice on what could be done.
    evidence : mapping
        Numbers behind the text.

    Examples
    --------
    >>> print(Finding("no layers", 0.25, "Node 3 holds no layers.", "Give it some.", {"nodes": [3]}))
    Node 3 holds no layers. Give it some.
    """

    cause: str
    cost: float
    text: str
    advice: str
    evidence: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "evidence", MappingProxyType(dict(self.evidence)))

    def __str__(self) -> str:
        return f"{self.text} {self.advice}"

    def __repr__(self) -> str:
        return f"Finding({self.cause!r}, cost={self.cost:.2f}: {self.text})"

    def _repr_html_(self) -> str:
        tables = {name: value for name, value in self.evidence.items() if _is_table(value)}
        plain = {name: value for name, value in self.evidence.items() if name not in tables}
        counts = {name: f"see evidence[{name!r}] (rows: {len(value)})" for name, value in tables.items()}
        first = pd.DataFrame(next(iter(tables.values()))) if tables else None
        return card(f"{self.cause} (cost {self.cost:.1%})", plain | counts, first, note=str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.cause, self.cost, self.text, self.advice, dict(self.evidence))

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain data, for JSON.

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
                "advice": self.advice,
                "evidence": dict(self.evidence),
            }
        )
        return plain


def _is_table(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and isinstance(value[0], dict)


@memory_for("diagnosing the result", "diagnose one of a shorter duration_s")
def diagnose(result: Result) -> list[Finding]:
    """Find what kept a run from serving more, ranked by cost.

    Parameters
    ----------
    result : Result
        Result of `simulate`. With ``keep_breakdown=True`` findings say where the time of tokens went;
        without, losses at run time are one finding.

    Returns
    -------
    list of Finding
        The most costly first. The costs of findings about lost tokens/s are fractions of the upper bound;
        ``helixlab.diagnosis.losses(result)`` is the table they come from, and says how it is computed.

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
    findings: list[Finding] = []
    bound = facts.upper_bound_tokens_per_s
    if bound <= 0:  # losses are fractions of it
        findings.append(_finding(Cause.PLACEMENT, 0.0, explain(Cause.PLACEMENT, facts)))
    for row in split_losses(facts, idle).to_dict("records") if bound > 0 else []:
        cause, lost, share = Cause(row["cause"]), row["tokens_per_s"], row["share"]
        if lost / bound >= LEAST_COST:
            price = f"This costs about {number(lost)} tokens/s, {percent(share)} of what is lost."
            numbers = {"tokens_per_s": lost, "share_of_lost": share}
            findings.append(_finding(cause, lost / bound, explain(cause, facts, idle), price, numbers))
    named = {finding.cause for finding in findings}
    findings += [caution for caution in _cautions(facts) if caution.cause not in named]
    for name in idle.loc[~idle["cause"].isin(named), "cause"].unique():
        cause = Cause(name)
        findings.append(_finding(cause, 0.0, explain(cause, facts, idle), "This costs nothing here."))
    return sorted(findings, key=lambda finding: -finding.cost)


def _finding(
    cause: Cause,
    cost: float,
    explanation: Explanation,
    price: str = "",
    numbers: Mapping[str, float] = MappingProxyType({}),
) -> Finding:
    """Make a finding of an explanation, with its price as the last sentence."""
    text = f"{explanation.text} {price}".rstrip()
    return Finding(cause.value, cost, text, explanation.advice, {**numbers, **explanation.evidence})


# Cautions


def _cautions(facts: Facts) -> Iterator[Finding]:
    """Find what to know of a run before its metrics are used, besides its losses."""
    checks = (
        _stopped_early,
        _links_left_out,
        _outside_the_window,
        _some_rejected,
        _some_preempted,
        _unsteady,
        _saturated,
    )
    found = (check(facts) for check in checks)
    return (caution for caution in found if caution is not None)


def _stopped_early(facts: Facts) -> Finding | None:
    """The run was stopped before its end."""
    row, workload = facts.result.metrics, facts.result.provenance["workload"]
    if not row["partial"]:
        return None
    warmup_s = 0.0 if workload["mode"] == "online" else workload["warmup_s"]
    asked_s = workload["duration_s"] + warmup_s
    done_s = min(float(row["window_end_s"] - row["start_s"]), asked_s)
    explanation = Explanation(
        f"The run was stopped early. Simulated: {number(done_s)} of {number(asked_s)} s.",
        "Let it run to its end before comparing its metrics.",
        {"simulated_s": done_s, "asked_s": asked_s},
    )
    return _finding(Cause.STOPPED_EARLY, 1 - done_s / asked_s, explanation)


def _links_left_out(facts: Facts) -> Finding | None:
    """Links that the scheduler leaves out are missed, also where no node is idle because of it."""
    lost = facts.max_flow_tokens_per_s - facts.passing_tokens_per_s
    bound = facts.upper_bound_tokens_per_s
    if bound <= 0 or lost <= LEAST_BLOCKED * facts.max_flow_tokens_per_s:
        return None
    return _finding(Cause.BELOW_THE_SHARE, min(lost / bound, 1.0), explain(Cause.BELOW_THE_SHARE, facts))


def _outside_the_window(facts: Facts) -> Finding | None:
    """The window leaves given requests out, or goes on after the last of them."""
    row, requests = facts.result.metrics, facts.result.requests
    if not (facts.is_online and facts.has_given_requests) or row["partial"] or requests.empty:
        return None
    came_s = requests["arrival_s"] - row["start_s"]
    start_s, end_s = (float(each - row["start_s"]) for each in facts.result.window_s)
    first_s, last_s, count = float(came_s.min()), float(came_s.max()), len(came_s)
    before, after = int((came_s < start_s).sum()), int((came_s > end_s).sum())
    idle = (end_s - max(last_s, start_s)) / (end_s - start_s)
    late = (min(first_s, end_s) - start_s) / (end_s - start_s)
    parts = []
    if before + after:
        parts.append(
            f"Requests outside the window: {share_of(before + after, count)}, {before} before and {after}"
            f" after. Window: {number(start_s)} to {number(end_s)} s; arrivals: {number(first_s)} to"
            f" {number(last_s)} s."
        )
    if idle > IDLE_END:
        parts.append(
            f"The last request arrives at {number(last_s)} s and the window ends at {number(end_s)} s, so"
            " tokens/s are lower than while requests arrived."
        )
    if late > IDLE_END:
        parts.append(
            f"The first request arrives at {number(first_s)} s and the window starts at {number(start_s)} s,"
            " so tokens/s are lower than while requests arrived."
        )
    if not parts:
        return None
    explanation = Explanation(
        " ".join(parts),
        "Let arrival_s start at 0, and leave out duration_s and warmup_s: the window then goes from the first"
        f" request to the last (or to {LEAST_DURATION_S:g} s, if later).",
        {
            "requests": count,
            "before_the_window": before,
            "after_the_window": after,
            "first_request_s": first_s,
            "last_request_s": last_s,
            "window_start_s": start_s,
            "window_end_s": end_s,
        },
    )
    shares = [(before + after) / count, *(each for each in (idle, late) if each > IDLE_END)]
    cost = min(max(shares), 1.0)
    return _finding(Cause.OUTSIDE_THE_WINDOW, cost, explanation)


def _some_rejected(facts: Facts) -> Finding | None:
    """Requests were turned away, though others came in their place."""
    row, ended = facts.result.metrics, facts.result.requests
    rejected = ended[ended["outcome"] != "finished"]
    fed = int(row["requests_fed"])
    if rejected.empty or not fed:
        return None
    served = ended.loc[ended["outcome"] == "finished", "input_tokens"]
    reason, advice = refusals(
        facts, "Let requests wait with on_full='wait'; dropping favours short requests."
    )
    text = f"Requests rejected: {share_of(len(rejected), fed)}{reason}."
    if len(served) and rejected["input_tokens"].mean() > served.mean():
        text += (
            f" Mean prompt length: rejected {number(float(rejected['input_tokens'].mean()))} tokens, served"
            f" {number(float(served.mean()))}, so that the throughput looks better than it is."
        )
    evidence = {name: int(row[name]) for name in ("requests_dropped", "requests_refused", "requests_fed")}
    return _finding(Cause.REJECTED, len(rejected) / fed, Explanation(text, advice, evidence))


def _some_preempted(facts: Facts) -> Finding | None:
    """Requests were preempted, at a cost too small to be a loss."""
    if not facts.result.metrics["requests_preempted"]:
        return None
    bound = facts.upper_bound_tokens_per_s
    cost = min(facts.recomputed_tokens_per_s / bound, 1.0) if bound > 0 else 0.0
    return _finding(Cause.PREEMPTION, cost, explain(Cause.PREEMPTION, facts))


def _unsteady(facts: Facts) -> Finding | None:
    """Tokens/s change over the window, by more than they vary from block to block."""
    ended = facts.result.in_window(facts.result.iterations)
    if len(ended) < ENOUGH_ITERATIONS or facts.demand_fraction < 1:  # where requests ran out, that is found
        return None
    edges = np.linspace(*facts.result.window_s, BLOCKS + 1)
    tokens, _ = np.histogram(ended["end_s"], edges, weights=ended["tokens"].to_numpy(dtype=float))
    rates = tokens / (facts.window_length_s / BLOCKS)
    moved = drift(rates)
    if moved.trend != "moving":
        return None
    first, second = (float(half.mean()) for half in np.split(rates, 2))
    advice = "Warm up"
    if not facts.is_online and facts.has_given_requests:
        advice = "If the given requests ran out, give more; else warm up"
    explanation = Explanation(
        f"The run is not steady. First half of the window: {number(first)} tokens/s; second half:"
        f" {number(second)} tokens/s.",
        f"{advice} for longer, or measure for longer, before comparing such metrics.",
        {"first_half_tokens_per_s": first, "second_half_tokens_per_s": second},
    )
    return _finding(Cause.UNSTEADY, min(abs(moved.relative), 1.0), explanation)


def _saturated(facts: Facts) -> Finding | None:
    """More was asked for than was served, so that requests piled up."""
    load, row = facts.load, facts.result.metrics
    if load is None or not load.grows:
        return None
    stay = min(load.growth_per_s / load.arrivals_per_s, 1.0)
    offered = facts.offered_tokens_per_s - facts.rejected_tokens_per_s
    late = 1 - facts.served_tokens_per_s / offered if offered > 0 else 0.0
    first_s, end_s = arrival_span(facts.result)
    until = "the last arrival"
    if end_s == row["window_end_s"]:
        first_s, until = float(row["window_start_s"]), "the end of the window"
    half, end = (_in_system(facts.result, end_s - back * (end_s - first_s)) for back in (0.5, 0.0))
    behind_s = max(float(row["last_finish_s"]) - end_s, 0.0)
    explanation = Explanation(
        f"More is asked for than can be served. Requests that stay in the queue: {percent(stay)}. In flight"
        f" at half time: {half}; at the end: {end}. Time from {until} to that of the last request:"
        f" {number(behind_s)} s.",
        "Lower the rate: latencies grow with the length of such a run. helixlab.goodput finds the highest.",
        {
            "load": load.label,
            "offered_tokens_per_s": offered,
            "served_tokens_per_s": facts.served_tokens_per_s,
            "requests_at_half_time": half,
            "requests_at_the_end": end,
        },
    )
    return _finding(Cause.SATURATED, max(stay, late), explanation)


def _in_system(result: Result, time_s: float) -> int:
    """Count the requests that have arrived and not ended; online, where all are in the table."""
    requests = result.requests
    return int(((requests["arrival_s"] <= time_s) & (requests["end_s"] > time_s)).sum())
