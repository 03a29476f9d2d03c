"""Clusters divided into groups of nodes that each serve the whole model, with nothing passed between them.

A pipeline of quick nodes answers sooner than one in which quick and slow ones take turns, and a query that
has begun in it never comes to a slow node whose KV cache is full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from helixlab.cluster import Cluster
from helixlab.model import Model
from helixlab.planning.common import even_shares, planning_throughput
from helixlab.planning.layouts import Layout

__all__ = ["chains", "divisions"]

MOST_CLASSES: Final = 7
"""Of nodes, whose unions are tried: there are 877 ways to divide so many."""
MOST_PARTS: Final = 8
"""Into which a cluster is divided evenly."""


def divisions(cluster: Cluster, model: Model) -> list[tuple[int, ...]]:
    """Ways to divide a cluster into two groups or more that each have room for the model.

    Machine types stay together, or regions, or what is of one type in one region, in every union of them; or
    the groups are as alike as they can be.

    Returns
    -------
    list of tuple of int
        For each way the group of every node.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> cluster, model = load_cluster("single24"), load_model("llama-1-30b")
    >>> len(divisions(cluster, model)), len(divisions(cluster, load_model("llama-2-70b")))
    (7, 0)
    """
    most = _most_layers(cluster, model)
    kinds = [
        [node.machine for node in cluster.nodes],
        [node.region for node in cluster.nodes],
        [f"{node.machine} {node.region}" for node in cluster.nodes],
    ]
    found: dict[tuple[int, ...], None] = {}
    for kind in kinds:
        classes = list(dict.fromkeys(kind))
        if len(classes) > MOST_CLASSES:
            continue
        room = [sum(k for k, of in zip(most, kind, strict=True) if of == each) for each in classes]
        for groups in _partitions(len(classes)):
            if max(groups) and min(np.bincount(groups, room)) >= model.layers:
                found[tuple(groups[classes.index(of)] for of in kind)] = None
    in_turn = sorted(range(len(most)), key=lambda node: (kinds[0][node], kinds[1][node]))
    for parts in range(2, MOST_PARTS + 1):
        group = [0] * len(most)
        for number, node in enumerate(in_turn):
            group[node] = number % parts
        if min(np.bincount(group, most, parts)) >= model.layers:
            found[tuple(group)] = None
    return list(found)


def chains(cluster: Cluster, model: Model, group: Sequence[int]) -> Layout:
    """Every group as one chain of all its nodes, with layers as even as they can be.

    Region follows region. Within each, the nodes with the least room for queries in their KV caches come
    first, so that none is let in that finds no room further on.
    """
    most = _most_layers(cluster, model)
    start, end = np.zeros((2, len(most)), dtype=np.int64)
    for number in range(max(group) + 1):
        nodes = [node for node, of in enumerate(group) if of == number and most[node]]
        shares = dict(zip(nodes, even_shares(model.layers, [most[node] for node in nodes]), strict=True))

        def place(node: int, shares: dict[int, int] = shares) -> tuple[int, float]:
            profile = model.profile(cluster.nodes[node].machine)
            room = profile.kv_capacity_token_layers(shares[node]) / shares[node]
            return cluster.regions.index(cluster.nodes[node].region), room

        reached = 0
        for node in sorted((node for node in nodes if shares[node]), key=place):
            start[node], end[node] = reached, reached + shares[node]
            reached += shares[node]
    return Layout.of(start, end, tuple(group))


def _most_layers(cluster: Cluster, model: Model) -> list[int]:
    table = planning_throughput(cluster, model)
    return [len(table[node.machine]) - 1 for node in cluster.nodes]


def _partitions(size: int) -> Iterator[list[int]]:
    """All ways to divide so many things: the group of each, numbered as they are met.

    Examples
    --------
    >>> list(_partitions(3))
    [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 1, 2]]
    """
    if size == 0:
        yield []
        return
    for before in _partitions(size - 1):
        for number in range(max(before, default=-1) + 2):
            yield [*before, number]
