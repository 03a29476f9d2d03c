"""Idle nodes: which did nothing in the window, and why."""

from __future__ import annotations

from typing import Any, Final

import networkx as nx
import pandas as pd

from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis.text import Told, counted, node_names, number, sentence
from helixlab.flow import links_left_out
from helixlab.flow.small_links import RELATIVE, rule_in_words, table_of_links
from helixlab.placement.placement import End
from helixlab.simulation import Result

__all__ = [
    "IDLE_CAUSES",
    "NO_FLOW",
    "idle_nodes",
    "idle_words",
    "passing_tokens_per_s",
    "told_of_unused_links",
    "unused_links",
]


_IDLE_TEXTS: Final = {
    "no layers": (
        "{nodes} {hold} no layers",
        "Plan with all nodes, or see whether the bound is within reach without them.",
    ),
    "no way through": (
        "{nodes} {hold} layers, but no path of links leads over {them} from source to sink",
        "Link {them} to nodes that end where {they} {begin} and go on where {they} {end}.",
    ),
    "no flow": (
        "{nodes} {hold} layers, but the maximum flow does without {them} and the scheduler follows the flow",
        "Give {them} layers that the flow is short of.",
    ),
    "KV cache masked": (
        "{nodes} {are} idle because the scheduler expected {their} KV cache to be too full {masked}",
        "Give {them} fewer layers, which leaves more KV cache{mark}.",
    ),
    "batch too small": (
        "{nodes} {are} idle because prompts do not fit in one batch there, {masked}",
        "Cut prompts into chunks with execution='chunked', or keep such machines off the first layers.",
    ),
    "never chosen": (
        "{nodes} {are} idle though the scheduler could have sent requests there: all through the window it"
        " chose others",
        "{spread}",
    ),
    "nothing upstream": (
        "{nodes} {are} idle because no node that could send to {them} sent anything on in the window",
        "Look at those nodes first.",
    ),
    "nothing sent": (
        "{nodes} {are} idle because the coordinator sent nothing in the window",
        "See whether requests were turned away or held; if not, measure for longer before judging.",
    ),
}


_SPREAD: Final = (
    "Use a scheduler that spreads requests, such as helix, or let this one look at how busy nodes are."
)
_SHARES: Final = (
    "Measure for longer, so that each has its turn, or plan for a larger share of the flow there."
)


def idle_words(
    idle: pd.DataFrame, cause: str, *, mark: str, follows_flow: bool
) -> tuple[str, str, dict[str, Any]]:
    """Text, suggestion and evidence about the nodes that are idle for this cause.

    `mark` is what can be said of raising kv_high_water_mark, `follows_flow` whether the scheduler does so.
    """
    nodes = idle[idle["cause"] == cause]
    one = len(nodes) == 1
    words = {
        "nodes": node_names(nodes["node"].tolist()),
        "hold": "holds" if one else "hold",
        "are": "is" if one else "are",
        "them": "it" if one else "them",
        "they": "it" if one else "they",
        "their": "its" if one else "their",
        "begin": "begins" if one else "begin",
        "end": "ends" if one else "end",
        "mark": mark,
        "masked": _masked(nodes),
        "spread": _SHARES if follows_flow else _SPREAD,
    }
    text, suggestion = (template.format(**words) for template in _IDLE_TEXTS[cause])
    return sentence(text), suggestion, {"nodes": nodes.to_dict("records")}


def _masked(nodes: pd.DataFrame) -> str:
    """How often requests were kept away."""
    kept_away = int(nodes[["kv_masked", "batch_masked"]].to_numpy().sum())
    considered = int(nodes["considered"].sum())
    if kept_away == considered:
        return f"each time that a request could have come, {counted(kept_away, 'time', 'times')} in all"
    return f"{kept_away} of the {considered} times that a request could have come"


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


NO_FLOW: Final = 1e-6
"""Part of the maximum flow up to which a flow is none: flows are computed in floating point."""

IDLE_CAUSES: Final = (
    "no layers",
    "no way through",
    "no flow",
    "below the share",
    "KV cache masked",
    "batch too small",
    "never chosen",
    "nothing upstream",
    "nothing sent",
)
MASKS: Final = ("considered", "kv_masked", "batch_masked")


def idle_nodes(result: Result) -> pd.DataFrame:
    """Nodes that did nothing in the window, neither ended a batch nor were at one, and why.

    Parameters
    ----------
    result : Result
        Of `simulate`.

    Returns
    -------
    DataFrame
        One row an idle node: node, machine, cause, flow_tokens_per_s (of the maximum flow through it),
        potential_tokens_per_s, inbound (links to it), share (the largest part of its sender's flow among
        them), considered (how often prompts could have come), kv_masked and batch_masked (how often they
        were kept from it by that). The causes:

        no layers
            The placement gives it nothing to do.
        no way through
            No path of links leads from the source over it to the sink.
        no flow
            The maximum flow does without it, and the scheduler follows the flow.
        below the share
            Each link to it is left out for its flow, see `helixlab.flow.links_left_out`, or leads no further.
        KV cache masked
            Its KV cache was expected to be too full for most requests that could have come.
        batch too small
            Most prompts that could have come do not fit in one batch there.
        never chosen
            The scheduler could have chosen it and did not.
        nothing upstream
            No node that could send to it sent anything on in the window: they were idle too, or still at
            their first batch.
        nothing sent
            The coordinator sent no request on in the window, so that there was nothing to choose.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=20, rng=0))
    >>> len(idle_nodes(result))
    0
    """
    nodes, links = result.nodes, result.links
    through = _on_a_path(links)
    outbound = links.groupby("sender")["flow_tokens_per_s"].sum()
    follows_flow = bool(result.provenance["scheduler"].get("follows_flow", False))
    received = links.loc[links["tokens_per_s"] > 0, "receiver"]
    at_work_itself = (nodes["tokens"] > 0) | (nodes["busy_fraction"] > 0) | nodes["node"].isin(received)
    idle = nodes[~at_work_itself]
    at_work = set(links.loc[links["tokens_per_s"] > 0, "sender"])
    none = NO_FLOW * float(result.summary["max_flow_tokens_per_s"].item())
    left_out_to: dict[Any, set[Any]] = {node: set() for node in idle["node"]}
    for sender, receiver in unused_links(result):
        left_out_to.setdefault(receiver, set()).add(sender)
    rows: list[dict[str, Any]] = []
    for node in idle.to_dict("records"):
        inbound = links[links["receiver"] == node["node"]]
        sent = inbound["sender"].map(outbound)
        share = (inbound["flow_tokens_per_s"] / sent.where(sent > 0)).fillna(0.0)
        allowed = inbound[~inbound["sender"].isin(left_out_to[node["node"]])]
        masked = {name: int(allowed[name].sum()) for name in MASKS}
        mostly = 2 * (masked["kv_masked"] + masked["batch_masked"]) > masked["considered"]
        if node["end_layer"] <= node["first_layer"]:
            cause = "no layers"
        elif node["node"] not in through:
            cause = "no way through"
        elif follows_flow and not (inbound["flow_tokens_per_s"] > none).any():
            cause = "no flow"
        elif allowed.empty:
            cause = "below the share"
        elif mostly:
            cause = "KV cache masked" if masked["kv_masked"] >= masked["batch_masked"] else "batch too small"
        elif SOURCE not in at_work:
            cause = "nothing sent"
        elif not set(allowed["sender"]) & at_work:
            cause = "nothing upstream"
        else:
            cause = "never chosen"
        rows.append(
            {
                "node": node["node"],
                "machine": node["machine"],
                "cause": cause,
                "flow_tokens_per_s": node["flow_tokens_per_s"],
                "potential_tokens_per_s": node["potential_tokens_per_s"],
                "inbound": len(inbound),
                "share": float(share.max()) if len(share) else 0.0,
                **masked,
            }
        )
    columns = ["node", "machine", "cause", "flow_tokens_per_s", "potential_tokens_per_s", "inbound", "share"]
    table = pd.DataFrame(rows, columns=[*columns, *MASKS])
    table.attrs["origin"] = result.origin
    return table


def _on_a_path(links: pd.DataFrame) -> set[Any]:
    """Ends that are reached from the source and from which the sink is reached."""
    pairs = list(zip(links["sender"], links["receiver"], strict=True))
    return _reached("source", pairs) & _reached("sink", [(receiver, sender) for sender, receiver in pairs])


def _reached(start: Any, pairs: list[tuple[Any, Any]]) -> set[Any]:
    onward: dict[Any, list[Any]] = {}
    for sender, receiver in pairs:
        onward.setdefault(sender, []).append(receiver)
    seen, frontier = {start}, [start]
    while frontier:
        for receiver in onward.get(frontier.pop(), []):
            if receiver not in seen:
                seen.add(receiver)
                frontier.append(receiver)
    return seen
