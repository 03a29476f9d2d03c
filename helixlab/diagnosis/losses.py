"""From the upper bound down to what was served: the tokens/s lost on the way, by cause."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from helixlab.diagnosis.idle import NO_FLOW, idle_nodes
from helixlab.diagnosis.measures import SATURATED_ABOVE, Facts, facts_of
from helixlab.simulation import Result

__all__ = ["losses"]

KNOCK_ON: Final = ("no way through", "nothing upstream", "nothing sent")
"""Idle for reasons whose loss is counted elsewhere."""
OUTSIDE_THE_FLOW: Final = ("no layers", "no way through", "no flow")
"""Causes of idle nodes that the maximum flow does without: between the bound and the flow, not below it."""
NEGLIGIBLE: Final = 1e-9


def losses(result: Result) -> pd.DataFrame:
    """Where the tokens/s between the upper bound and what was served are lost.

    Parameters
    ----------
    result : Result
        Of `simulate`, best with ``keep_breakdown=True``.

    Returns
    -------
    DataFrame
        One row a cause: cause, tokens_per_s, share (of all losses). The tokens/s add up to the upper bound
        less what was served; a negative amount is a gain beyond the bound. Served are the decode tokens of
        the measured window and the prompts that belong to them (or that ended, if these are fewer).

    Notes
    -----
    The steps, each with what it rests on:

    1. *little asked for*: online, what arrived is below the maximum flow, and requests do not pile up: the
       distance from it to the bound. *requests ran
       out*: the bound for the part of the window after the last of the given requests; what follows
       is of the part before.
    2. *no layers*, *no way through*, *no flow*: what the nodes concerned could add, up to the distance
       between the bound and the maximum flow, or what was served, if that is more (the flow stands for
       batches of typical size, and larger ones cost less by the token); the rest of that is *placement*.
    3. *filling up*: prompts that ended beyond those that belong to the decodes, as while a system fills up.
    4. *rejected*: online, what arrived and was turned away; offline, where another request is fed in place of
       one that is turned away, only if this befell each of them.
    5. *below the share* (links that carry too little are not used), *KV cache masked*, *batch too small*,
       *never chosen*: the flow through idle nodes, counted once a layer.
    6. At what binds the flow (its minimum cut), the time in which it worked but got through less than its
       capacity is *costly batches*, and *overhead* for the part of the work that is. Tokens that went
       through more often than they ended are *preemption*: computed again.
       Where nothing ended in the window at all, all of this is *nothing ended*.
    7. The time in which it did not work is put down to where the requests were meanwhile, in proportion to
       the time they spent there: *full KV caches* (held, or waiting for room), *preemption*, *busy links*,
       *sending*, *link latency*, *imbalance* (waiting at nodes that were busy all the time), *bubbles*
       (waiting at nodes that were not). Time in which they were computed elsewhere is *few requests*, as
       far as there were fewer than nodes, else *bubbles* too: they travel in lumps. Few requests while others
       are held, or fed no more, for want of room are *full KV caches*.

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
    facts = facts_of(result)
    idle = idle_nodes(result)
    amounts: dict[str, float] = {}
    asked = facts.asked_fraction
    amounts["requests ran out"] = (1 - asked) * facts.bound_tokens_per_s
    bound, flow, offered = (
        asked * facts.bound_tokens_per_s,
        asked * facts.flow_tokens_per_s,
        facts.offered_tokens_per_s,
    )
    if facts.saturated or facts.only_turned_away or offered >= flow:
        offered = float("inf")  # it was asked for as much as there could be, and more
    amounts["little asked for"] = max(bound - offered, 0.0)
    left = min(bound, offered) - min(flow, offered)
    # Prompts alone cost less than the mix that the flow stands for, so some of those ahead cost nothing.
    rest = min(flow, offered) - facts.processed_tokens_per_s
    ahead = facts.processed_tokens_per_s - facts.served_tokens_per_s
    free = min(ahead, max(-rest, 0.0))
    amounts["filling up"] = ahead - free
    rest += free
    beyond = min(max(-rest, 0.0), left)  # what was served where the flow is no limit is not lost
    rest += beyond
    _add(amounts, _placement(result, idle, left - beyond))
    rejected = _rejected(facts, max(rest, 0.0))
    amounts["rejected"] = rejected
    unused = _unused(result, idle, max(rest - rejected, 0.0))
    _add(amounts, unused)
    rest -= rejected + sum(unused.values())
    _add(amounts, _at_the_cut(result, facts, set(idle["node"]), rest))
    rows = [
        (cause, amount)
        for cause, amount in amounts.items()
        if abs(amount) > NEGLIGIBLE * facts.bound_tokens_per_s
    ]
    table = pd.DataFrame(rows, columns=["cause", "tokens_per_s"]).astype({"tokens_per_s": float})
    lost = float(table["tokens_per_s"].clip(lower=0).sum())
    table["share"] = table["tokens_per_s"] / lost if lost > 0 else 0.0
    table.attrs["origin"] = result.origin
    return table.sort_values("tokens_per_s", ascending=False, kind="stable", ignore_index=True)


def _add(amounts: dict[str, float], more: dict[str, float]) -> None:
    """Add amounts to those of the same cause, none of which may get lost."""
    for cause, amount in more.items():
        amounts[cause] = amounts.get(cause, 0.0) + amount


def _placement(result: Result, idle: pd.DataFrame, left: float) -> dict[str, float]:
    """The distance from bound to flow: nodes that take no part first, at what they could add."""
    nodes = result.nodes
    whole = float(nodes["potential_tokens_per_s"].sum())
    bound = float(result.summary["upper_bound_tokens_per_s"].item())
    scale = bound / whole if whole > 0 else 0.0
    amounts = {}
    for cause in OUTSIDE_THE_FLOW:
        worth = scale * float(idle.loc[idle["cause"] == cause, "potential_tokens_per_s"].sum())
        amounts[cause] = min(worth, left)
        left -= amounts[cause]
    return amounts | {"placement": left}


def _rejected(facts: Facts, most: float) -> float:
    """What was turned away, of what the flow could have served."""
    if facts.only_turned_away:
        return most
    return min(facts.rejected_tokens_per_s, most) if np.isfinite(facts.offered_tokens_per_s) else 0.0


def _unused(result: Result, idle: pd.DataFrame, most: float) -> dict[str, float]:
    """The flow through idle nodes: of each layer the sum over them, and of the layers the most."""
    spans = result.nodes.set_index("node")[["first_layer", "end_layer"]]
    none = NO_FLOW * float(result.summary["max_flow_tokens_per_s"].item())
    counted = idle["cause"].isin([*KNOCK_ON, *OUTSIDE_THE_FLOW])
    with_flow = idle[~counted & (idle["flow_tokens_per_s"] > none)]
    amounts: dict[str, float] = {}
    for cause, group in with_flow.groupby("cause", sort=False):
        by_layer = np.zeros(int(spans["end_layer"].max()))
        for row in group.to_dict("records"):
            first, end = spans.loc[row["node"]]
            by_layer[first:end] += row["flow_tokens_per_s"]
        amounts[str(cause)] = float(by_layer.max())
    total = sum(amounts.values())
    return {cause: amount * min(1.0, most / total) for cause, amount in amounts.items()} if total else {}


def _at_the_cut(result: Result, facts: Facts, idle: set[int], rest: float) -> dict[str, float]:
    """What the run is below the flow for other reasons: by how the cut was used, and where requests were."""
    cut = facts.cut[~facts.cut["sender"].isin(idle)]
    capacity, busy = cut["capacity_tokens_per_s"], cut["busy_fraction"]
    worked = float((capacity * busy - cut["used_tokens_per_s"]).sum())
    stood = float((capacity * (facts.asked_fraction - busy)).sum())
    if rest <= 0:
        return {"costly batches": rest}  # served more than any plan: batches cost less
    if facts.nothing_ended:
        return {"nothing ended": rest}
    again = min(facts.again_tokens_per_s, rest)
    rest -= again
    # Both are measured at the cut, where a little more or less may pass than ends in the window.
    costly = min(max(worked, rest - max(stood, 0.0)), rest) if worked > 0 else 0.0
    waiting = rest - costly
    time = facts.time
    working = time.get("compute_s", 0.0) + time.get("overhead_s", 0.0)
    overhead = costly * time["overhead_s"] / working if working > 0 else 0.0
    amounts = {"costly batches": costly - overhead, "overhead": overhead, "preemption": again}
    _add(amounts, {cause: waiting * weight for cause, weight in _whereabouts(result, facts).items()})
    return amounts


def _whereabouts(result: Result, facts: Facts) -> dict[str, float]:
    """Where requests were, as parts of their time."""
    time = facts.time
    whole = sum(time.values())
    if whole <= 0:
        saturated = bool((result.nodes["busy_fraction"] >= SATURATED_ABOVE).any())
        return {"imbalance" if saturated else "waiting": 1.0}
    working = (time["compute_s"] + time["overhead_s"]) / whole
    waiting = time["batch_wait_s"] / whole
    few = min(1.0, facts.active / facts.serving) if facts.serving > 0 else 1.0
    return {
        "full KV caches": (time["queued_s"] + time["kv_wait_s"]) / whole
        + working * few * facts.held_fraction,
        "preemption": time["lost_s"] / whole,
        "busy links": time["link_wait_s"] / whole,
        "sending": time["sending_s"] / whole,
        "link latency": time["link_latency_s"] / whole,
        "imbalance": waiting * facts.wait_at_saturated,
        "bubbles": waiting * (1 - facts.wait_at_saturated) + working * (1 - few),
        "few requests": working * few * (1 - facts.held_fraction),
    }
