"""Decomposition of a flow into routes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from heapq import heappop, heappush
from itertools import count
from typing import Final

import pandas as pd

from helixlab.cluster import SINK, SOURCE
from helixlab.flow.maxflow import Flow
from helixlab.placement.placement import End

__all__ = ["decompose"]

LEAST_SHARE: Final = 1e-6
"""Share of the whole flow below which routes are rounding errors of the maximum flow."""


def decompose(flow: Flow) -> pd.DataFrame:
    """Split a flow into routes from source to sink, the widest first.

    A flow has several decompositions; this one repeatedly takes the route that carries most of the remaining
    flow. There are at most as many routes as links.

    Parameters
    ----------
    flow : Flow
        Flow that `max_flow` found.

    Returns
    -------
    DataFrame
        One row for each route: ``path`` (nodes in their order, a tuple), ``flow_tokens_per_s``, ``share`` (of
        the whole flow; they add up to 1). Empty where the flow is 0.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.flow import max_flow
    >>> from helixlab.model import load_model
    >>> from helixlab.placement import load_placement
    >>> names = "small10", "llama-1-30b"
    >>> placement = load_placement("/".join([*names, "helix"]))
    >>> decompose(max_flow(load_cluster(names[0]), load_model(names[1]), placement))
                                 path  flow_tokens_per_s  share
    0  (7, 2, 5, 3, 8, 6, 1, 0, 9, 4)          286.58741    1.0
    """
    left = dict(flow.on_link)
    least = LEAST_SHARE * flow.value_tokens_per_s
    routes: list[tuple[tuple[End, ...], float]] = []
    while True:
        links, width = _widest(left)
        if width <= least:
            break
        for link in links:
            left[link] -= width
        routes.append((tuple(receiver for _, receiver in links[:-1]), width))
    total = sum(width for _, width in routes)
    return pd.DataFrame(
        {
            "path": pd.Series([path for path, _ in routes], dtype=object),
            "flow_tokens_per_s": pd.Series([width for _, width in routes], dtype=float),
            "share": pd.Series([width / total for _, width in routes], dtype=float),
        }
    )


def _widest(left: Mapping[tuple[End, End], float]) -> tuple[list[tuple[End, End]], float]:
    """Find the links of the route with the widest narrowest link, and its width; 0 where there is no route.

    This is Dijkstra's algorithm with the narrowest link in place of the distance.
    """
    onward: dict[End, list[tuple[End, float]]] = {}
    for (sender, receiver), rest in left.items():
        onward.setdefault(sender, []).append((receiver, rest))
    width: dict[End, float] = {SOURCE: math.inf}
    before: dict[End, End] = {}
    queue: list[tuple[float, int, End]] = [
        (-math.inf, 0, SOURCE)
    ]  # the number keeps ends from being compared
    numbers = count(1)
    while queue:
        reached, _, sender = heappop(queue)
        if sender == SINK:
            break
        for receiver, rest in onward.get(sender, []):
            if (narrowest := min(-reached, rest)) > width.get(receiver, 0.0):
                width[receiver], before[receiver] = narrowest, sender
                heappush(queue, (-narrowest, next(numbers), receiver))
    links: list[tuple[End, End]] = []
    end: End = SINK
    while end in before:
        links.append((before[end], end))
        end = before[end]
    return links[::-1], width.get(SINK, 0.0)
