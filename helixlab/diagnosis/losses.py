"""Losses of a run: the tokens/s between the upper bound and what was served, by cause, and its idle nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import networkx as nx
import numpy as np
import pandas as pd

from helixlab.cluster import SINK, SOURCE
from helixlab.diagnosis.causes import Cause
from helixlab.diagnosis.measures import SATURATED_ABOVE, Facts, facts_of, follows_flow, left_out_links
from helixlab.simulation import Result

__all__ = ["idle_nodes", "losses", "split_losses"]

KNOCK_ON: Final = (Cause.NO_PATH, Cause.NOTHING_UPSTREAM, Cause.NOTHING_SENT)
"""Causes of idle nodes whose loss is counted elsewhere."""
OUTSIDE_THE_FLOW: Final = (Cause.NO_LAYERS, Cause.NO_PATH, Cause.NO_FLOW)
"""Causes of idle nodes that the maximum flow does without: between the bound and the flow, not below it."""
NEGLIGIBLE: Final = 1e-9
"""Fraction of the upper bound up to which a loss is a rounding error."""
NO_FLOW: Final = 1e-6
"""Fraction of the maximum flow up to which a flow counts as none: flows are computed in floating point."""
MASKS: Final = ("considered", "kv_masked", "batch_masked")
"""Columns of links that are summed over those to a node."""
IDLE_COLUMNS: Final = (
    "node",
    "machine",
    "cause",
    "flow_tokens_per_s",
    "potential_tokens_per_s",
    "inbound",
    "share",
    *MASKS,
)


def losses(result: Result) -> pd.DataFrame:
    """Split the tokens/s between the upper bound and what was served by the cause of their loss.

    Parameters
    ----------
    result : Result
        Result of `simulate`, best with ``keep_breakdown=True``.

    Returns
    -------
    DataFrame
        One row per cause: cause, tokens_per_s, share (of all losses). The tokens/s add up to the upper bound
        less what was served; a negative amount is a gain beyond the bound. Served are the decode tokens of
        the measured window and the prompts that belong to them (or that ended, if these are fewer).

    Notes
    -----
    The steps, each with its basis:

    1. *little asked for*: online, what arrived is below the maximum flow, and requests do not pile up: the
       distance from it to the bound. *requests ran out*: the bound for the part of the window after the last
       of the given requests; what follows is of the part before.
    2. *no layers*, *no path*, *no flow*: what the nodes concerned could add, up to the distance
       between the bound and the maximum flow, or what was served, if that is more (the flow stands for
       batches of typical size, and larger ones cost less by the token); the rest of that is *placement*.
    3. *filling up*: prompts that ended beyond those that belong to the decodes, as while a system fills up.
    4. *rejected*: online, what arrived and was turned away; offline, where another request is fed in place of
       one that is turned away, only if this befell each of them.
    5. *below the share* (links that carry too little are not used), *KV cache masked*, *batch too small*,
       *never chosen*: the flow through idle nodes, counted once per layer.
    6. At what binds the flow (its minimum cut), the time in which it worked but got through less than its
       capacity is *costly batches*, and *overhead* for the part of the work that is. Tokens that went
       through more often than they ended are *preemption*: computed again.
       Where nothing ended in the window at all, all of this is *nothing ended*.
    7. The time in which it did not work is put down to where the requests were meanwhile, in proportion to
       the time they spent there: *full KV caches* (queued, or waiting for space), *preemption*, *busy links*,
       *sending*, *link latency*, *imbalance* (waiting at nodes that were busy all the time), *bubbles*
       (waiting at nodes that were not). Time in which they were computed elsewhere is *few requests*, as
       far as there were fewer than nodes, else *bubbles* too: they travel in groups. Few requests while
       others are queued, or fed no more, as KV caches are full, are *full KV caches*.

    Steps 6 and 7 are an attribution, not an experiment: removing a cause need not bring back all of it.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> workload = hx.offline(duration_s=20, rng=0)
    >>> result = hx.simulate(cluster, model, placement, workload=workload, keep_breakdown=True)
    >>> losses(result)["cause"].tolist()[:2]
    ['bubbles', 'placement']
    """
    return split_losses(facts_of(result), idle_nodes(result))


def split_losses(facts: Facts, idle: pd.DataFrame) -> pd.DataFrame:
    """Split the losses of a run that is measured already, see `losses`.

    Parameters
    ----------
    facts : Facts
        Measures of the run.
    idle : DataFrame
        Idle nodes of the run, from `idle_nodes`.
    """
    demand = facts.demand_fraction
    bound, flow = demand * facts.upper_bound_tokens_per_s, demand * facts.max_flow_tokens_per_s
    offered = facts.offered_tokens_per_s
    if facts.queue_grows or facts.all_rejected or offered >= flow:
        offered = float("inf")  # as much was asked for as there could be, and more
    amounts: dict[str, float] = {
        Cause.RAN_OUT: (1 - demand) * facts.upper_bound_tokens_per_s,
        Cause.LITTLE_ASKED_FOR: max(bound - offered, 0.0),
    }
    left = min(bound, offered) - min(flow, offered)
    # Prompts alone cost less than the mix that the flow stands for, so some of those ahead cost nothing.
    rest = min(flow, offered) - facts.processed_tokens_per_s
    ahead = facts.processed_tokens_per_s - facts.served_tokens_per_s
    free = min(ahead, max(-rest, 0.0))
    amounts[Cause.FILLING_UP] = ahead - free
    rest += free
    beyond = min(max(-rest, 0.0), left)  # what was served where the flow is no limit is not lost
    rest += beyond
    _add(amounts, _below_the_bound(facts, idle, left - beyond))
    rejected = _rejected(facts, max(rest, 0.0))
    amounts[Cause.REJECTED] = rejected
    unused = _through_idle_nodes(facts, idle, max(rest - rejected, 0.0))
    _add(amounts, unused)
    rest -= rejected + sum(unused.values())
    _add(amounts, _at_the_cut(facts, set(idle["node"]), rest))
    rows = [
        (str(cause), amount)
        for cause, amount in amounts.items()
        if abs(amount) > NEGLIGIBLE * facts.upper_bound_tokens_per_s
    ]
    table = pd.DataFrame(rows, columns=["cause", "tokens_per_s"]).astype({"tokens_per_s": float})
    lost = float(table["tokens_per_s"].clip(lower=0).sum())
    table["share"] = table["tokens_per_s"] / lost if lost > 0 else 0.0
    table.attrs["origin"] = facts.result.origin
    return table.sort_values("tokens_per_s", ascending=False, kind="stable", ignore_index=True)


def _add(amounts: dict[str, float], more: Mapping[str, float]) -> None:
    """Add amounts to those of the same cause, none of which may get lost."""
    for cause, amount in more.items():
        amounts[cause] = amounts.get(cause, 0.0) + amount


def _below_the_bound(facts: Facts, idle: pd.DataFrame, left: float) -> dict[str, float]:
    """Split the distance from bound to flow: nodes that take no part first, at what they could add."""
    whole = float(facts.result.nodes["potential_tokens_per_s"].sum())
    scale = facts.upper_bound_tokens_per_s / whole if whole > 0 else 0.0
    amounts: dict[str, float] = {}
    for cause in OUTSIDE_THE_FLOW:
        worth = scale * float(idle.loc[idle["cause"] == cause.value, "potential_tokens_per_s"].sum())
        amounts[cause] = min(worth, left)
        left -= amounts[cause]
    return amounts | {Cause.PLACEMENT: left}


def _rejected(facts: Facts, most: float) -> float:
    """Return the tokens/s that were turned away, of what the flow could have served."""
    if facts.all_rejected:
        return most
    return min(facts.rejected_tokens_per_s, most) if np.isfinite(facts.offered_tokens_per_s) else 0.0


def _through_idle_nodes(facts: Facts, idle: pd.DataFrame, most: float) -> dict[str, float]:
    """Return the flow through idle nodes: the sum over the nodes of a layer, at the layer with the most."""
    spans = facts.result.nodes.set_index("node")[["first_layer", "end_layer"]]
    counted = idle["cause"].isin([cause.value for cause in (*KNOCK_ON, *OUTSIDE_THE_FLOW)])
    with_flow = idle[~counted & (idle["flow_tokens_per_s"] > NO_FLOW * facts.max_flow_tokens_per_s)]
    amounts: dict[str, float] = {}
    for cause, group in with_flow.groupby("cause", sort=False):
        by_layer = np.zeros(int(spans["end_layer"].max()))
        for row in group.to_dict("records"):
            first, end = spans.loc[row["node"]]
            by_layer[first:end] += row["flow_tokens_per_s"]
        amounts[str(cause)] = float(by_layer.max())
    total = sum(amounts.values())
    return {cause: amount * min(1.0, most / total) for cause, amount in amounts.items()} if total else {}


def _at_the_cut(facts: Facts, idle: set[int], rest: float) -> dict[str, float]:
    """Split what is left below the flow by how its cut was used, and by where requests were meanwhile."""
    cut = facts.flow_cut[~facts.flow_cut["sender"].isin(idle)]
    capacity, busy = cut["capacity_tokens_per_s"], cut["busy_fraction"]
    worked = float((capacity * busy - cut["used_tokens_per_s"]).sum())
    stood = float((capacity * (facts.demand_fraction - busy)).sum())
    if rest <= 0:
        return {Cause.COSTLY_BATCHES: rest}  # served more than any plan: batches cost less
    if facts.nothing_ended:
        return {Cause.NOTHING_ENDED: rest}
    again = min(facts.recomputed_tokens_per_s, rest)
    rest -= again
    # Both are measured at the cut, where a little more or less may pass than ends in the window.
    costly = min(max(worked, rest - max(stood, 0.0)), rest) if worked > 0 else 0.0
    waiting = rest - costly
    part_s = facts.part_s
    working = part_s.get("compute_s", 0.0) + part_s.get("overhead_s", 0.0)
    overhead = costly * part_s["overhead_s"] / working if working > 0 else 0.0
    amounts: dict[str, float] = {
        Cause.COSTLY_BATCHES: costly - overhead,
        Cause.OVERHEAD: overhead,
        Cause.PREEMPTION: again,
    }
    _add(amounts, {cause: waiting * weight for cause, weight in _whereabouts(facts).items()})
    return amounts


def _whereabouts(facts: Facts) -> dict[str, float]:
    """Return where requests were, as fractions of their time."""
    part_s = facts.part_s
    whole_s = sum(part_s.values())
    if whole_s <= 0:
        saturated = bool((facts.result.nodes["busy_fraction"] >= SATURATED_ABOVE).any())
        return {Cause.IMBALANCE if saturated else Cause.WAITING: 1.0}
    working = (part_s["compute_s"] + part_s["overhead_s"]) / whole_s
    waiting = part_s["batch_wait_s"] / whole_s
    few = min(1.0, facts.active_nodes / facts.requests_in_service) if facts.requests_in_service > 0 else 1.0
    return {
        Cause.FULL_KV_CACHES: (part_s["queued_s"] + part_s["kv_wait_s"]) / whole_s
        + working * few * facts.queued_fraction,
        Cause.PREEMPTION: part_s["lost_s"] / whole_s,
        Cause.BUSY_LINKS: part_s["link_wait_s"] / whole_s,
        Cause.SENDING: part_s["sending_s"] / whole_s,
        Cause.LINK_LATENCY: part_s["link_latency_s"] / whole_s,
        Cause.IMBALANCE: waiting * facts.saturated_wait_fraction,
        Cause.BUBBLES: waiting * (1 - facts.saturated_wait_fraction) + working * (1 - few),
        Cause.FEW_REQUESTS: working * few * (1 - facts.queued_fraction),
    }


# Idle nodes


def idle_nodes(result: Result) -> pd.DataFrame:
    """Find the nodes that did nothing in the window, neither ended a batch nor worked on one, and say why.

    Parameters
    ----------
    result : Result
        Result of `simulate`.

    Returns
    -------
    DataFrame
        One row per idle node: node, machine, cause, flow_tokens_per_s (of the maximum flow through it),
        potential_tokens_per_s, inbound (number of links to it), share (the largest fraction of its sender's
        flow among them), considered (number of times that prompts could have come), kv_masked and
        batch_masked (number of times that they were kept away by that). The causes:

        no layers
            The placement gives it nothing to do.
        no path
            No path of links leads from the source through it to the sink.
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
    links = result.links
    outbound = links.groupby("sender")["flow_tokens_per_s"].sum()
    on_a_path, sending = _on_a_path(links), set(links.loc[links["tokens_per_s"] > 0, "sender"])
    least_flow = NO_FLOW * float(result.metrics["max_flow_tokens_per_s"])
    left_out: dict[Any, set[Any]] = {}
    for sender, receiver in left_out_links(result):
        left_out.setdefault(receiver, set()).add(sender)
    rows: list[dict[str, Any]] = []
    for node in _without_work(result).to_dict("records"):
        inbound = links[links["receiver"] == node["node"]]
        sent = inbound["sender"].map(outbound)
        share = (inbound["flow_tokens_per_s"] / sent.where(sent > 0)).fillna(0.0)
        allowed = inbound[~inbound["sender"].isin(left_out.get(node["node"], set()))]
        masked = {name: int(allowed[name].sum()) for name in MASKS}
        mostly_masked = 2 * (masked["kv_masked"] + masked["batch_masked"]) > masked["considered"]
        if node["end_layer"] <= node["first_layer"]:
            cause = Cause.NO_LAYERS
        elif node["node"] not in on_a_path:
            cause = Cause.NO_PATH
        elif follows_flow(result) and not (inbound["flow_tokens_per_s"] > least_flow).any():
            cause = Cause.NO_FLOW
        elif allowed.empty:
            cause = Cause.BELOW_THE_SHARE
        elif mostly_masked and masked["kv_masked"] >= masked["batch_masked"]:
            cause = Cause.KV_CACHE_MASKED
        elif mostly_masked:
            cause = Cause.BATCH_TOO_SMALL
        elif SOURCE not in sending:
            cause = Cause.NOTHING_SENT
        elif not set(allowed["sender"]) & sending:
            cause = Cause.NOTHING_UPSTREAM
        else:
            cause = Cause.NEVER_CHOSEN
        rows.append(
            {
                "node": node["node"],
                "machine": node["machine"],
                "cause": cause.value,
                "flow_tokens_per_s": node["flow_tokens_per_s"],
                "potential_tokens_per_s": node["potential_tokens_per_s"],
                "inbound": len(inbound),
                "share": float(share.max()) if len(share) else 0.0,
                **masked,
            }
        )
    table = pd.DataFrame(rows, columns=[*IDLE_COLUMNS])
    table.attrs["origin"] = result.origin
    return table


def _without_work(result: Result) -> pd.DataFrame:
    """Return the nodes that did nothing in the window; one that was sent something was at its first batch."""
    nodes, links = result.nodes, result.links
    received = links.loc[links["tokens_per_s"] > 0, "receiver"]
    return nodes[~((nodes["tokens"] > 0) | (nodes["busy_fraction"] > 0) | nodes["node"].isin(received))]


def _on_a_path(links: pd.DataFrame) -> set[Any]:
    """Return the nodes on a path of links from the source to the sink."""
    graph = nx.DiGraph(zip(links["sender"], links["receiver"], strict=True))
    graph.add_nodes_from((SOURCE, SINK))
    return set(nx.descendants(graph, SOURCE)) & set(nx.ancestors(graph, SINK))
