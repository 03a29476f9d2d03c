"""Links that a run did without because they carry too little of the flow, and what that costs."""

from __future__ import annotations

from typing import Any, Final

import networkx as nx

from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis.told import Told
from helixlab.diagnosis.wording import counted, number
from helixlab.flow import links_left_out
from helixlab.flow.small_links import RELATIVE, rule_in_words, table_of_links
from helixlab.placement.placement import End
from helixlab.simulation import Result

__all__ = ["passing_tokens_per_s", "told_of_unused_links", "unused_links"]

PAPER: Final = "paper"
"""The rule of results that name none."""


def unused_links(result: Result) -> set[tuple[End, End]]:
    """Links that the scheduler left out for their flow; none where it does not follow the flow.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> unused_links(hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=20, rng=0)))
    set()
    """
    if not result.provenance["scheduler"].get("follows_flow", False):
        return set()
    return links_left_out(_flow_on_links(result), _rule(result))


def passing_tokens_per_s(result: Result) -> float:
    """Of the maximum flow, what gets through without them at the most: network cards are left aside."""
    most = float(result.summary["max_flow_tokens_per_s"].item())
    unused = unused_links(result)
    if not len(table_of_links(_flow_on_links(result), unused)):
        return most
    graph = nx.DiGraph()
    for row in result.nodes.to_dict("records"):
        graph.add_edge((row["node"], "in"), (row["node"], "out"), capacity=row["capacity_tokens_per_s"])
    for row in result.links.to_dict("records"):
        ends = row["sender"], row["receiver"]
        if ends not in unused:
            graph.add_edge((ends[0], "out"), (ends[1], "in"), capacity=row["capacity_tokens_per_s"])
    start, end = (SOURCE, "out"), (SINK, "in")
    if start not in graph or end not in graph:
        return 0.0
    return min(most, float(nx.maximum_flow_value(graph, start, end)))


def told_of_unused_links(result: Result) -> Told:
    """Which rule left links out, what they carry, and what gets through without them."""
    rule = _rule(result)
    table = table_of_links(_flow_on_links(result), unused_links(result))
    most, passing = float(result.summary["max_flow_tokens_per_s"].item()), passing_tokens_per_s(result)
    text = (
        f"the scheduler leaves out links with {rule_in_words(rule).replace(' %', ' percent')}, and those from"
        f" which none leads on: {counted(len(table), 'link', 'links')} in all; at most {number(passing)} of"
        f" the {number(most)} tokens per second of the maximum flow get through without them"
    )
    suggestion = "Use another scheduler, or plan so that fewer nodes share a sender's flow."
    if rule == PAPER:
        suggestion = f"Use small_links={RELATIVE!r}, or plan so that fewer nodes share a sender's flow."
    evidence: dict[str, Any] = {
        "small_links": rule,
        "passing_tokens_per_s": passing,
        "max_flow_tokens_per_s": most,
        "links": table.to_dict("records"),
    }
    return Told(text, suggestion, evidence)


def _rule(result: Result) -> str:
    return str(result.provenance["settings"].get("small_links", PAPER))


def _flow_on_links(result: Result) -> dict[tuple[End, End], float]:
    links = result.links
    return dict(
        zip(zip(links["sender"], links["receiver"], strict=True), links["flow_tokens_per_s"], strict=True)
    )
