"""`diagnose`: what a result says, in order of what it costs."""

from __future__ import annotations

from typing import Final

from helixlab.diagnosis.causes import LOSS_CAUSES, tell
from helixlab.diagnosis.cautions import cautions
from helixlab.diagnosis.facts import Facts, facts_of
from helixlab.diagnosis.finding import Finding
from helixlab.diagnosis.idle import idle_nodes
from helixlab.diagnosis.losses import losses
from helixlab.diagnosis.wording import node_names, number, percent
from helixlab.errors import SimulationError, memory_for
from helixlab.simulation import Result

__all__ = ["CAUSES", "diagnose"]

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
    >>> workload = hx.offline(initial_queries=2, warmup_s=10, duration_s=20, rng=0)
    >>> result = hx.simulate(
    ...     cluster, model, placement, scheduler="swarm", workload=workload, keep_breakdown=True
    ... )
    >>> hx.diagnose(result)[0].cause
    'few queries'
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
