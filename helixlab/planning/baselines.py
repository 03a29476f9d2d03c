"""Baseline planners: Petals, SWARM, separate pipelines by machine type, and homogeneous pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab._validation import as_generator, as_items, as_whole
from helixlab.cluster import SINK, SOURCE, Cluster
from helixlab.errors import PlacementError
from helixlab.model import MachineProfile, Model, typical_decode_tokens
from helixlab.placement.placement import End, NodeLayers, Placement, memory_misfit, usable_links
from helixlab.planning.layout import (
    even_shares,
    most_layers_by_machine,
    nodes_by_machine,
    placed,
    planning_throughput,
    require_capacity,
)

__all__ = ["extrapolated_kv_capacity", "plan_homogeneous", "plan_petals", "plan_separate", "plan_swarm"]


LEAST_KV_TOKENS: Final = 2048 + 1024
"""Number of tokens for which an overfilled node must have KV cache in each layer: the longest request of the
workloads. With less, a request could wait forever."""


def plan_petals(
    cluster: Cluster,
    model: Model,
    *,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    order: Sequence[int] | None = None,
) -> Placement:
    """Let nodes join one after another, each with all layers it can hold where throughput is least.

    A joining node compares all runs of layers of its length. For each run, it sorts the throughputs that the
    layers have so far in ascending order, and takes the run with the smallest such list (the first of ties).

    Parameters
    ----------
    cluster, model
        Cluster to plan for, and model to place on it.
    rng : numpy.random.Generator or int, default 0
        Source or seed of the order in which the nodes join.
    time_limit_s : float, optional
        Ignored: the planner takes no time. `plan` passes it to every planner.
    order : sequence of int, optional
        Order in which all nodes join, in place of a random one.

    Raises
    ------
    PlacementError
        The model does not fit, or `order` does not name every node once.

    Notes
    -----
    Borzunov et al., "Petals: Collaborative Inference and Fine-tuning of Large Models", 2023, appendix D.
    Its clients enter a node at any of its layers, so the links include those for partial inference.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> cluster, model = load_cluster("small10"), load_model("llama-1-30b")
    >>> plan_petals(cluster, model, order=range(10)).layers[:3]
    (NodeLayers(node=0, first_layer=0, end_layer=7),
     NodeLayers(node=1, first_layer=7, end_layer=18),
     NodeLayers(node=2, first_layer=18, end_layer=25))
    """
    table = planning_throughput(cluster, model)
    require_capacity(cluster, model, most_layers_by_machine(table))
    if order is None:
        order = as_generator(rng, error=PlacementError).permutation(len(cluster.nodes)).tolist()
    else:
        named = as_items(order, "order", of="nodes", error=PlacementError)
        order = [as_whole(node, "a node of order", error=PlacementError) for node in named]
        if sorted(order) != list(range(len(cluster.nodes))):
            raise PlacementError(f"order must name the nodes 0 to {len(cluster.nodes) - 1}, each once")
    reached = np.zeros(model.layers)
    layers = []
    for node in order:
        own = table[cluster.nodes[node].machine]
        if count := len(own) - 1:
            first = _neediest(reached, count)
            reached[first : first + count] += own[count]
            layers.append(NodeLayers(node, first, first + count))
    return placed(cluster, model, "petals", layers, usable_links(cluster, layers, model.layers))


def _neediest(reached: NDArray[np.float64], count: int) -> int:
    """Return the start of the run of `count` layers that is smallest when sorted, the first of ties."""
    runs = np.sort(np.lib.stride_tricks.sliding_window_view(reached, count), axis=1)
    # lexsort compares by its last key first, and keeps the order of ties.
    return int(np.lexsort(runs.T[::-1])[0])


def plan_swarm(
    cluster: Cluster,
    model: Model,
    *,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
) -> Placement:
    """Cut the model into the fewest equal stages that every node can hold, and fill them evenly.

    Nodes join from the fastest to the slowest (of ties, the last one of the cluster first). Each joins the
    stage with the least throughput so far (of ties, the first).

    Parameters
    ----------
    cluster, model
        Cluster to plan for, and model to place on it.
    rng, time_limit_s
        Ignored: the planner is deterministic and takes no time. `plan` passes them to every planner.

    Raises
    ------
    PlacementError
        The model does not fit, or there are fewer nodes than stages.

    Notes
    -----
    Ryabinin et al., "SWARM Parallelism: Training Large Models Can Be Surprisingly Communication-Efficient",
    2023, as compared with by Mei et al., ASPLOS 2025, section 6.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> plan_swarm(load_cluster("small10"), load_model("llama-1-30b")).layers[:2]
    (NodeLayers(node=0, first_layer=30, end_layer=36), NodeLayers(node=1, first_layer=54, end_layer=60))
    """
    table = planning_throughput(cluster, model)
    most_layers = most_layers_by_machine(table)
    require_capacity(cluster, model, most_layers)
    able = [node for node in cluster.nodes if most_layers[node.machine]]
    smallest = min(most_layers[node.machine] for node in able)
    size = max(k for k in range(1, smallest + 1) if model.layers % k == 0)
    stages = model.layers // size
    if len(able) < stages:
        raise PlacementError(
            f"swarm cuts {model.name} into {stages} stages of {size} layers, as many as the smallest node can"
            f" hold, but cluster {cluster.name!r} has {len(able)} nodes; add nodes, remove the smallest, or"
            " plan with 'petals'"
        )
    speed = {machine: float(table[machine][size]) for machine, most in most_layers.items() if most}
    reached = [0.0] * stages
    layers = []
    for node in sorted(able, key=lambda node: (speed[node.machine], node.index), reverse=True):
        stage = reached.index(min(reached))
        reached[stage] += speed[node.machine]
        layers.append(NodeLayers(node.index, stage * size, (stage + 1) * size))
    links = usable_links(cluster, layers, model.layers, partial_inference=False)
    return placed(cluster, model, "swarm", layers, links)


def plan_separate(
    cluster: Cluster,
    model: Model,
    *,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
    overfill: bool = False,
    plus: bool = False,
) -> Placement:
    """Build one pipeline of all nodes of each machine type that can hold the model by itself.

    The nodes of a pipeline are in the order of the cluster, and hold numbers of layers as equal as possible.
    Only the links within the pipelines are used. Nodes of other types stay idle.

    Parameters
    ----------
    cluster, model
        Cluster to plan for, and model to place on it.
    rng, time_limit_s
        Ignored: the planner is deterministic and takes no time. `plan` passes them to every planner.
    overfill : bool, default False
        Let nodes hold more layers than were measured, as the published study does. Their KV capacity is
        extrapolated (see `extrapolated_kv_capacity`) and stated in the placement. A node never holds so many
        layers that they exceed the GPU memory, or that the KV cache is too small for the longest request of
        the workloads (3072 tokens a layer) or for half a typical request on the node at a time, below which
        its throughput cannot be estimated.
    plus : bool, default False
        Also build one mixed pipeline of the remaining types ("separate-plus").

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
    most_layers = most_layers_by_machine(table)
    if overfill:
        most_layers = {m: _overfilled(cluster, model, m, most) for m, most in most_layers.items()}
    require_capacity(cluster, model, most_layers)
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
            f" {_capacities(cluster, most_layers)}; {' or '.join(['add nodes of one type', *options])}"
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
    """Extrapolate the KV capacity, in token-layers, of a node with more layers than were measured.

    Every further layer is assumed to reduce the capacity by the difference between the two largest measured
    numbers of layers; the result may be negative. Published placements with more layers than were measured
    state capacities that agree with this within 0.2 percent (some for A100 and T4) or differ by up to a
    factor of 14. They differ as much from each other: 35168 and 491900 token-layers for 20 layers of
    LLaMA-2-70B on an A100.

    Parameters
    ----------
    profile : MachineProfile
        Profile of the machine type.
    layers : int
        Number of layers on the node.

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
    # A single measured number of layers says nothing about the next one: no capacity is assumed to be left.
    before = profile.kv_capacity_token_layers(most - 1) if most > 1 else 2 * last
    return last + (layers - most) * (last - before)


def _overfilled(cluster: Cluster, model: Model, machine: str, most: int) -> int:
    """Return the largest number of layers of a node of this type if it may hold more than was measured."""
    profile, counts = model.profile(machine), cluster.machine_counts()
    if most < profile.max_layers:  # no throughput with more layers, although they were measured
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


def _capacities(cluster: Cluster, most_layers: dict[str, int]) -> str:
    """State the number of layers that the nodes of each machine type hold, for a message."""
    counts = cluster.machine_counts()
    return ", ".join(f"{n} {m} hold {n} x {most_layers[m]} = {n * most_layers[m]}" for m, n in counts.items())


def _require_links(cluster: Cluster, links: Sequence[tuple[End, End]]) -> None:
    """Raise if the cluster lacks a link of a pipeline."""
    there = {(link.sender, link.receiver) for link in cluster.links}
    for sender, receiver in links:
        if (sender, receiver) not in there:
            raise PlacementError(
                f"cluster {cluster.name!r} has no link {sender} -> {receiver}, which a pipeline needs;"
                " add it, or plan with 'petals' or 'swarm', which can do without it"
            )


def plan_homogeneous(
    cluster: Cluster,
    model: Model,
    *,
    rng: np.random.Generator | int = 0,
    time_limit_s: float | None = None,
) -> Placement:
    """Fill one pipeline after another, starting with the fastest machine type.

    Each node takes all layers it can hold; the last node of a pipeline takes the rest. A pipeline that the
    nodes of one type do not complete continues with the next type. If the last pipeline stays incomplete, its
    nodes are idle. The fastest type is the one whose full nodes compute the most layers per second.

    Parameters
    ----------
    cluster, model
        Cluster to plan for, and model to place on it.
    rng, time_limit_s
        Ignored: the planner is deterministic and takes no time. `plan` passes them to every planner.

    Raises
    ------
    PlacementError
        The model does not fit.

    Notes
    -----
    Like the placement for Orca (Yu et al., OSDI 2022) in the tutorial of the Helix artifact.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> placement = plan_homogeneous(load_cluster("single24"), load_model("llama-2-70b"))
    >>> sorted((held.count for held in placement.layers), reverse=True)
    [12, 12, 12, 12, 7, 7, 7, 7, 4]
    """
    table = planning_throughput(cluster, model)
    most_layers = most_layers_by_machine(table)
    require_capacity(cluster, model, most_layers)
    nodes = nodes_by_machine(cluster)
    fastest_first = sorted(nodes, key=lambda machine: -most_layers[machine] * table[machine][-1])
    layers: list[NodeLayers] = []
    pipeline: list[NodeLayers] = []
    reached = 0
    for machine in fastest_first:
        for node in nodes[machine] if most_layers[machine] else ():
            end = min(reached + most_layers[machine], model.layers)
            pipeline.append(NodeLayers(node, reached, end))
            reached = end
            if reached == model.layers:
                layers += pipeline
                pipeline, reached = [], 0
    links = usable_links(cluster, layers, model.layers, partial_inference=False)
    return placed(cluster, model, "homogeneous", layers, links)
