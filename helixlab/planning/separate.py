"""One pipeline for each machine type: serving with every type on its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.errors import PlacementError
from helixlab.model import MachineProfile, Model, typical_decode_tokens
from helixlab.placement.checks import memory_misfit
from helixlab.placement.placement import End, NodeLayers, Placement
from helixlab.planning.common import even_shares, nodes_by_machine, placed, planning_throughput, require_room

__all__ = ["extrapolated_kv_capacity", "plan_separate"]

LEAST_KV_TOKENS: Final = 2048 + 1024
"""Tokens that an overfilled node must have room for in each layer: the longest request of the workloads.

With less, a request could wait for room that will never be there.
"""


def plan_separate(
    cluster: Cluster,
    model: Model,
    *,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    overfill: bool = False,
    plus: bool = False,
) -> Placement:
    """Build one pipeline of all nodes of each machine type that can hold the model alone.

    The nodes of a pipeline come in the order of the cluster and hold as equal numbers of layers as they
    can; the links are those within the pipelines. Nodes of the other types stay idle.

    Parameters
    ----------
    cluster, model
        What to place on what.
    rng : numpy.random.Generator or int, default 0
        Not needed: nothing is drawn.
    time_limit_s : float, optional
        Not needed: it is done at once.
    overfill : bool, default False
        Let nodes hold more layers than were measured, as the published study does. Their KV capacity is
        extrapolated, see `extrapolated_kv_capacity`, and stated in the placement. Refused are layers that
        do not fit into the GPU memory, or that leave less KV cache than the longest request of the
        workloads needs (3072 tokens a layer) or than half a typical query on the node at a time, below
        which there is no estimate of its throughput.
    plus : bool, default False
        Build one mixed pipeline of the types that are left ("separate-plus").

    Raises
    ------
    PlacementError
        No pipeline can hold the model, or a pipeline lacks a link between two of its nodes.

    Notes
    -----
    The baselines "separate pipelines" and "separate pipelines plus" of Mei et al., ASPLOS 2025, section 6.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> placement = plan_separate(load_cluster("small10"), load_model("llama-1-30b"), plus=True)
    >>> [(held.node, held.count) for held in placement.layers]
    [(0, 6), (1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 6), (7, 6), (8, 6), (9, 6)]
    """
    method = "separate-plus" if plus else "separate"
    table = planning_throughput(cluster, model)
    most_layers = {machine: len(values) - 1 for machine, values in table.items()}
    if overfill:
        most_layers = {m: _overfilled(cluster, model, m, most) for m, most in most_layers.items()}
    require_room(cluster, model, most_layers)
    pipelines: list[list[int]] = []
    left: list[int] = []
    for machine, nodes in nodes_by_machine(cluster).items():
        if len(nodes) * most_layers[machine] >= model.layers:
            pipelines.append(nodes)
        else:
            left += nodes
    most_of = [most_layers[node.machine] for node in cluster.nodes]
    if plus and sum(most_of[node] for node in left) >= model.layers:
        pipelines.append(left)
    if not pipelines:
        options = [f"{name}=True" for name, given in (("overfill", overfill), ("plus", plus)) if not given]
        raise PlacementError(
            f"no machine type of cluster {cluster.name!r} holds the {model.layers} layers of {model.name}:"
            f" {_room(cluster, most_layers)}; {' or '.join(['add nodes of one type', *options])}"
        )
    layers: list[NodeLayers] = []
    links: list[tuple[End, End]] = []
    for nodes in pipelines:
        counts = even_shares(model.layers, [most_of[node] for node in nodes])
        ends = np.cumsum(counts).tolist()
        used = [
            NodeLayers(node, end - count, end)
            for node, count, end in zip(nodes, counts, ends, strict=True)
            if count
        ]
        layers += used
        links += pairwise([SOURCE, *(held.node for held in used), SINK])
    _require_links(cluster, links)
    stated = {
        held.node: extrapolated_kv_capacity(model.profile(cluster.nodes[held.node].machine), held.count)
        for held in layers
        if held.count > len(table[cluster.nodes[held.node].machine]) - 1
    }
    return placed(cluster, model, method, layers, links, stated)


def extrapolated_kv_capacity(profile: MachineProfile, layers: int) -> int:
    """KV capacity in token-layers of a node with more layers than were measured; may be negative.

    What a layer takes from the KV cache is taken to be the difference between the two largest measured
    numbers of layers. Published placements that hold more layers than were measured state capacities that
    agree with this within 0.2 percent (A100 and T4, some of them) or differ by up to a factor of 14. They
    differ as much among themselves: 35168 and 491900 token-layers for 20 layers of LLaMA-2-70B on an A100.

    Parameters
    ----------
    profile : MachineProfile
        Of the machine type.
    layers : int
        Layers on the node.

    Examples
    --------
    >>> from helixlab.model import load_model
    >>> a100 = load_model("llama-2-70b").profile("A100")
    >>> extrapolated_kv_capacity(a100, 20)  # published: 35168 and 35200
    35136
    """
    most = profile.max_layers
    if layers <= most:
        return profile.kv_capacity_token_layers(layers)
    last = profile.kv_capacity_token_layers(most)
    # A single measured number of layers says nothing of the next: no room is taken to be left.
    before = profile.kv_capacity_token_layers(most - 1) if most > 1 else 2 * last
    return last + (layers - most) * (last - before)


def _overfilled(cluster: Cluster, model: Model, machine: str, most: int) -> int:
    """The most layers a node of this type may hold when it may hold more than was measured."""
    profile, counts = model.profile(machine), cluster.machine_counts()
    if most < profile.max_layers:  # it has no throughput with what was measured
        return most
    (kind,) = (kind for kind in cluster.machines if kind.name == machine)
    while most < model.layers and (most + 1) * model.layer_bytes < kind.vram_bytes:
        capacity = extrapolated_kv_capacity(profile, most + 1)
        if memory_misfit(machine, kind, model, most + 1, capacity):
            break
        if capacity < LEAST_KV_TOKENS * (most + 1):
            break
        if typical_decode_tokens(model, counts, machine, most + 1, capacity) == 0:
            break
        most += 1
    return most


def _room(cluster: Cluster, most_layers: dict[str, int]) -> str:
    counts = cluster.machine_counts()
    return ", ".join(f"{n} {m} hold {n} x {most_layers[m]} = {n * most_layers[m]}" for m, n in counts.items())


def _require_links(cluster: Cluster, links: Sequence[tuple[End, End]]) -> None:
    there = {(link.sender, link.receiver) for link in cluster.links}
    for sender, receiver in links:
        if (sender, receiver) not in there:
            raise PlacementError(
                f"cluster {cluster.name!r} has no link {sender} -> {receiver}, which a pipeline"
                " needs; add it, or plan with 'petals' or 'swarm', which can go round it"
            )
