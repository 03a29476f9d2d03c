"""What bound the run: the cut through nodes and links where it had least room left."""

from __future__ import annotations

import networkx as nx
import pandas as pd

from helixlab.cluster import SINK, SOURCE
from helixlab.errors import SimulationError
from helixlab.simulation import Result

__all__ = ["binding_cut"]


def binding_cut(result: Result) -> pd.DataFrame:
    """The binding cut of a run: where on all ways through together least room was left.

    `Result.bottlenecks` is the same of the maximum flow, in which all of a cut is used up. In a run hardly
    anything is; its binding cut is the minimum cut where the capacity of each node and link is the part of
    it that was left, by the time in which it had nothing to do.

    Parameters
    ----------
    result : Result
        Of `simulate`.

    Returns
    -------
    DataFrame
        One row a node or link: kind (``"compute"`` or ``"link"``), sender, receiver, capacity_tokens_per_s,
        busy_fraction, room_tokens_per_s.

    Raises
    ------
    SimulationError
        `result` is not a Result.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=60, rng=0))
    >>> binding_cut(result)[["kind", "sender"]]
          kind sender
    0  compute      4
    """
    if not isinstance(result, Result):
        raise SimulationError(f"binding_cut needs a Result, got {result!r:.60}; load one with load_result")
    graph = nx.DiGraph()
    nodes = result.nodes[result.nodes["end_layer"] > result.nodes["first_layer"]]
    parts = [
        nodes.assign(kind="compute", sender=nodes["node"], receiver=nodes["node"]),
        result.links.assign(kind="link"),
    ]
    columns = ["kind", "sender", "receiver", "capacity_tokens_per_s", "busy_fraction"]
    table = pd.concat([part[columns] for part in parts], ignore_index=True)
    table["busy_fraction"] = table["busy_fraction"].clip(0.0, 1.0)
    table["room_tokens_per_s"] = table["capacity_tokens_per_s"] * (1 - table["busy_fraction"])
    for at, row in enumerate(table.to_dict("records")):
        sender, receiver = row["sender"], row["receiver"]
        into = (sender, "in") if row["kind"] == "compute" else (sender, "out")
        graph.add_edge(
            SOURCE if sender == SOURCE else into,
            SINK if receiver == SINK else (receiver, "out" if row["kind"] == "compute" else "in"),
            room=row["room_tokens_per_s"],
            at=at,
        )
    _, (before, after) = nx.minimum_cut(graph, SOURCE, SINK, capacity="room")
    crossing = [at for tail, head, at in graph.edges(data="at") if tail in before and head in after]
    return table.loc[sorted(crossing)].reset_index(drop=True)
