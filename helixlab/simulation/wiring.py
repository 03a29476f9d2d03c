"""How nodes are joined at the start of a run: the tables of links and queues."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.scheduling.state import LINK, NONE, QUEUE

__all__ = ["End", "link_table", "longest_pipeline", "queue_table"]

End = int | str

FIRST_PRIORITY = 0.05
"""Start value of the swarm scheduler's priorities and moving averages."""


def longest_pipeline(placement: Placement) -> int:
    """The most links that a query can take from the source to the sink; every link leads on by a layer."""
    reached: dict[End, int] = {held.node: held.end_layer for held in placement.layers}
    longest: dict[End, int] = {SOURCE: 0}
    for sender, receiver in sorted(placement.links, key=lambda link: reached.get(link[0], 0)):
        if sender in longest:
            longest[receiver] = max(longest.get(receiver, 0), longest[sender] + 1)
    return longest[SINK]


def link_table(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    nodes: NDArray[np.void],
    flow: Mapping[tuple[End, End], float] | None,
    left_out: Set[tuple[End, End]],
) -> NDArray[np.void]:
    """The links by sender, in the order of the placement; the nodes learn which are theirs."""
    coordinator = len(nodes) - 1
    row_of: dict[End, End] = {SOURCE: coordinator, SINK: coordinator}
    ordered = sorted(placement.links, key=lambda link: row_of.get(link[0], link[0]))
    links = np.zeros(len(ordered), LINK)
    links["waiting_head"] = links["waiting_tail"] = NONE
    for row, (sender, receiver) in zip(links, ordered, strict=True):
        link = cluster.link(sender, receiver)
        row["sender"], row["receiver"] = row_of.get(sender, sender), row_of.get(receiver, receiver)
        row["latency_s"], row["bandwidth_bytes_per_s"] = link.latency_s, link.bandwidth_bytes_per_s
        at_coordinator = sender == SOURCE or receiver == SINK
        row["bytes_per_token"] = model.token_bytes + (0 if at_coordinator else model.activation_bytes)
        row["priority"] = row["service_s"] = FIRST_PRIORITY
        if flow is not None:
            row["flow_tokens_per_s"] = flow[sender, receiver]
            row["left_out"] = flow[sender, receiver] <= 0 or (sender, receiver) in left_out
    for node in range(len(nodes)):
        own = np.flatnonzero(links["sender"] == node)
        nodes[node]["first_link"], nodes[node]["links"] = (own[0], len(own)) if len(own) else (0, 0)
    if flow is not None:
        _fix_rates(nodes, links)
    return links


def _fix_rates(nodes: NDArray[np.void], links: NDArray[np.void]) -> None:
    """Each link gets its share, by the bytes of the flow, of both network cards, up to its bandwidth."""
    tokens_per_s = links["flow_tokens_per_s"]
    nodes["outbound_flow_tokens_per_s"] = np.bincount(
        links["sender"], weights=tokens_per_s, minlength=len(nodes)
    )
    carried = tokens_per_s * links["bytes_per_token"]
    sent = np.bincount(links["sender"], weights=carried, minlength=len(nodes))
    received = np.bincount(links["receiver"], weights=carried, minlength=len(nodes))
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.minimum.reduce(
            [
                links["bandwidth_bytes_per_s"],
                nodes["nic_out_bytes_per_s"][links["sender"]] * carried / sent[links["sender"]],
                nodes["nic_in_bytes_per_s"][links["receiver"]] * carried / received[links["receiver"]],
            ]
        )
    links["rate_bytes_per_s"] = np.where(carried > 0, np.where(rate >= 1, np.floor(rate), rate), 0)


def queue_table(placement: Placement, nodes: NDArray[np.void], links: NDArray[np.void]) -> NDArray[np.void]:
    """One queue for every layer where requests may enter a node; nodes and links learn which are theirs."""
    coordinator = len(nodes) - 1
    rows: list[tuple[int, int, int, bool, bool]] = []
    for held in placement.layers:
        inbound = links[links["receiver"] == held.node]
        ends = {
            0 if sender == coordinator else int(nodes[sender]["first_layer"] + nodes[sender]["layers"])
            for sender in inbound["sender"].tolist()
        }
        entries = sorted(ends)
        nodes[held.node]["first_queue"] = nodes[held.node]["current_queue"] = len(rows)
        nodes[held.node]["queues"] = len(entries)
        for layer, following in zip(entries, [*entries, held.end_layer][1:], strict=True):
            rows.append(
                (held.node, layer, following - layer, layer == held.first_layer, layer == entries[-1])
            )
    queues = np.zeros(len(rows), QUEUE)
    queues["head"] = queues["tail"] = NONE
    for name, column in zip(
        ("node", "layer", "layers", "is_first_layer", "is_last"), zip(*rows, strict=True), strict=True
    ):
        queues[name] = column
    row_of = {(node, layer): row for row, (node, layer, *_) in enumerate(rows)}
    for link in links:
        if link["receiver"] == coordinator:
            link["queue"] = NONE
            continue
        sender = nodes[link["sender"]]
        layer = 0 if link["sender"] == coordinator else int(sender["first_layer"] + sender["layers"])
        receiver = nodes[link["receiver"]]
        link["queue"] = row_of[int(link["receiver"]), layer]
        link["layers"] = receiver["first_layer"] + receiver["layers"] - layer
    return queues
