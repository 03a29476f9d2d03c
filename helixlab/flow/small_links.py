"""Links with little flow, which the Helix scheduler does not use.

A link sends at its share of the network cards. The less flow a link has, the longer a prompt takes over it,
and a link whose flow is a rounding error never gets a prompt across. The paper therefore leaves out links
with less than 5 % of the flow of their sender. Where more than 20 equal links leave a sender,
that rule leaves out all of them.
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
"""Names of the rules: the default one, and that of the paper."""
PAPER_SHARE: Final = 0.05
"""Share of the flow of the sender below which the rule of the paper leaves out a link."""
MEAN_SHARE: Final = 0.1
"""Fraction of the mean flow of the links of a sender below which the relative rule may leave out a link."""
MOST_LEFT_OUT: Final = 0.05
"""Share of the flow of a sender that the links left out by the relative rule stay below in total."""
ROUNDING: Final = 1e-9
"""Relative difference that rounding may cause between equal flows."""


def check_rule(rule: Any) -> str:
    """Check the name of a rule.

    Raises
    ------
    UnknownNameError
        There is no such rule.

    Examples
    --------
    >>> check_rule("paper")
    'paper'
    """
    if rule not in RULES:
        raise UnknownNameError("rule small_links", rule, RULES)
    return str(rule)


def rule_in_words(rule: str) -> str:
    """Describe the links that a rule leaves out, to follow "links with".

    Examples
    --------
    >>> rule_in_words("paper")
    'less than 5 % of the flow of their sender'
    """
    if rule == RELATIVE:
        return f"less than {100 * MEAN_SHARE:g} % of the mean flow of the links of their sender"
    return f"less than {100 * PAPER_SHARE:g} % of the flow of their sender"


def links_left_out(on_link: Mapping[tuple[End, End], float], rule: str = RELATIVE) -> set[tuple[End, End]]:
    """Find the links that are not used, though some of them may carry flow.

    Parameters
    ----------
    on_link : mapping of (sender, receiver) to float
        Flow in tokens/s, as in `Flow.on_link`.
    rule : str
        Rule ``"relative"``: links of a sender are left out in rising order of flow, as long as the next one
        carries less than 10 % of the mean of the remaining ones, itself included, and all that are left out
        carry less than 5 % of the flow of the sender. Links with equal flow are left out together or not at
        all. For a sender with two links this is the rule of the paper. The largest link of a sender always
        remains. Rule ``"paper"``: links with less than 5 % of the flow of their sender are left out, which
        may be all of them.

    Returns
    -------
    set of (sender, receiver)
        Links that are left out. By either rule these include links without flow, and links to nodes from
        which no remaining path leads to the sink: a request could not leave such a node.

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
    # The sum is taken in the order of the links: where a share is exactly 5 %, the last digit decides.
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
    """Tabulate the links that carry more than a rounding error, with flow_tokens_per_s and share.

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
