"""Nodes that did nothing in the window, and why: each cause told apart."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from helixlab.cluster import SOURCE
from helixlab.diagnosis.unused_links import unused_links
from helixlab.simulation import Result

__all__ = ["IDLE_CAUSES", "NO_FLOW", "idle_nodes"]

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
            Its KV cache was expected to be too full for most queries that could have come.
        batch too small
            Most prompts that could have come do not fit in one batch there.
        never chosen
            The scheduler could have chosen it and did not.
        nothing upstream
            No node that could send to it sent anything on in the window: they were idle too, or still at
            their first batch.
        nothing sent
            The coordinator sent no query on in the window, so that there was nothing to choose.

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
