"""Links with little flow, which the Helix scheduler does not use.

A link sends at its share of the network cards, so that a prompt takes as much longer over a link as the link
has less flow than others, and a link whose flow is a rounding error never gets a prompt across. That is why
the paper leaves out links with less than 5 % of their sender's flow. Where more than 20 equal links leave a
sender, that leaves out all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import networkx as nx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from helixlab.cluster import SINK
from helixlab.errors import UnknownNameError
from helixlab.placement.placement import End

__all__ = [
    "MOST_LEFT_OUT",
    "PAPER_SHARE",
    "RELATIVE",
    "ROUNDING",
    "RULES",
    "check_rule",
    "links_left_out",
    "rule_in_words",
    "table_of_links",
]

RELATIVE: Final = "relative"
RULES: Final = (RELATIVE, "paper")
"""The usual rule, and that of the paper."""
PAPER_SHARE: Final = 0.05
"""Links with less of their sender's flow are left out by the paper's rule."""
MEAN_SHARE: Final = 0.1
"""Links with less of the mean flow of their sender's links may be left out by the relative rule."""
MOST_LEFT_OUT: Final = 0.05
"""All links of a sender that the relative rule leaves out carry less of its flow."""
ROUNDING: Final = 1e-9
"""Part by which rounding may let equal flows differ."""


def check_rule(rule: Any) -> str:
    """The rule, where there is one of this name.

    Raises
    ------
    UnknownNameError
        There is none.

    Examples
    --------
    >>> check_rule("paper")
    'paper'
    """
    if rule not in RULES:
        raise UnknownNameError("rule small_links", rule, RULES)
    return str(rule)


def rule_in_words(rule: str) -> str:
    """What a link that the rule leaves out has too little of, to follow "links with".

    Examples
    --------
    >>> rule_in_words("paper")
    'less than 5 % of the flow of their sender'
    """
    if rule == RELATIVE:
        return f"less than {100 * MEAN_SHARE:g} % of what links of their sender carry on the mean"
    return f"less than {100 * PAPER_SHARE:g} % of the flow of their sender"


def links_left_out(on_link: Mapping[tuple[End, End], float], rule: str = RELATIVE) -> set[tuple[End, End]]:
    """The links that are not used, though some of them may carry flow.

    Parameters
    ----------
    on_link : mapping of (sender, receiver) to float
        Flow in tokens/s, as `Flow.on_link` has it.
    rule : str
        ``"relative"``: links of a sender are left out in rising order of flow, as long as the next one
        carries less than 10 % of the mean of those that are left, itself included, and all that are left out
        carry less than 5 % of the sender's flow. Links with equal flow are left out together or not at all.
        For a sender with two links that is the paper's rule. The largest link of a sender always stays.
        ``"paper"``: those with less than 5 % of their sender's flow, which may be all of them.

    Returns
    -------
    set of (sender, receiver)
        By either rule also the links without flow, and those that lead to nodes from which no link that is
        left leads on to the sink: a request that got there could not go on.

    Examples
    --------
    >>> rows = {("source", node): 100.0 for node in range(21)} | {(node, "sink"): 100.0 for node in range(21)}
    >>> len(links_left_out(rows)), len(links_left_out(rows, "paper"))
    (0, 21)
    """
    check_rule(rule)
    links_of: dict[End, list[tuple[End, End]]] = {}
    for link in on_link:
        links_of.setdefault(link[0], []).append(link)
    left_out: set[tuple[End, End]] = set()
    for links in links_of.values():
        flow = np.fromiter((on_link[link] for link in links), float, len(links))
        small = _relatively_small(flow) if rule == RELATIVE else _below_paper_share(flow)
        left_out.update(link for link, is_small in zip(links, small.tolist(), strict=True) if is_small)
    graph: nx.DiGraph[End] = nx.DiGraph()
    graph.add_node(SINK)
    graph.add_edges_from(link for link in on_link if link not in left_out)
    leads_on = nx.ancestors(graph, SINK) | {SINK}
    return left_out | {link for link in on_link if link[1] not in leads_on}


def _below_paper_share(flow: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Added up one by one in the order of the links: where a share is exactly 5 %, the last digit decides.
    whole = float(np.bincount(np.zeros(len(flow), int), weights=flow)[0])
    small: NDArray[np.bool_] = (flow <= 0) | (flow < PAPER_SHARE * whole)
    return small


def _relatively_small(flow: NDArray[np.float64]) -> NDArray[np.bool_]:
    with_flow = flow > 0
    rising = np.argsort(flow[with_flow], kind="stable")
    amounts = flow[with_flow][rising]
    so_far = amounts.cumsum()
    mean_of_rest = amounts[::-1].cumsum()[::-1] / np.arange(len(amounts), 0, -1)
    with_equals = so_far[np.searchsorted(amounts, amounts * (1 + ROUNDING), side="right") - 1]
    small = amounts < (1 - ROUNDING) * MEAN_SHARE * mean_of_rest
    small &= with_equals < (1 - ROUNDING) * MOST_LEFT_OUT * so_far[-1:]
    left_out = ~with_flow
    left_out[np.flatnonzero(with_flow)[rising]] = np.logical_and.accumulate(small)
    return left_out


def table_of_links(on_link: Mapping[tuple[End, End], float], links: set[tuple[End, End]]) -> pd.DataFrame:
    """Those of the links that carry more than a rounding error, with flow_tokens_per_s and share.

    The share is that of the flow of the sender.
    """
    whole: dict[End, float] = {}
    for (sender, _), flow in on_link.items():
        whole[sender] = whole.get(sender, 0.0) + flow
    rows = [
        (sender, receiver, flow, flow / whole[sender])
        for (sender, receiver), flow in on_link.items()
        if (sender, receiver) in links and flow > ROUNDING * whole[sender]
    ]
    table = pd.DataFrame(rows, columns=["sender", "receiver", "flow_tokens_per_s", "share"])
    return table.astype({"sender": object, "receiver": object, "flow_tokens_per_s": float, "share": float})
