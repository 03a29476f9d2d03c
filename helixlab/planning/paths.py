"""Ways through a cluster with few links, for when nothing that knows less of the links finds one."""

from __future__ import annotations

from typing import Final

import numpy as np

from helixlab.planning.common import even_shares
from helixlab.planning.layouts import Layout
from helixlab.planning.network import Network

__all__ = ["chain_along_links"]

STEPS: Final = 100_000
"""After so many nodes that were gone on to, the search gives up."""


def chain_along_links(network: Network, model_layers: int) -> Layout | None:
    """One chain from source to sink, over links that there are, of nodes with room for the model.

    A placement serves anything only if it has such a chain. The search goes on to the nodes with the fewest
    ways on first, and turns back where there is none; on clusters of some ten nodes it misses no chain.

    Returns
    -------
    Layout or None
        Layers as even as they can be; None if no chain was found.

    Examples
    --------
    >>> from helixlab.cluster import single_region
    >>> from helixlab.model import load_model
    >>> from helixlab.planning.network import network_of
    >>> model = load_model("llama-1-30b")
    >>> chain = chain_along_links(network_of(single_region({"A100": 4}), model), model.layers)
    >>> chain.start, chain.end
    ((0, 15, 30, 45), (15, 30, 45, 60))
    """
    size, most = len(network.most), network.most.tolist()
    joined = (network.link > 0) & (network.most > 0)
    ways_on = joined.sum(axis=1) + size * (network.to_sink > 0)
    onward = [sorted(np.flatnonzero(row).tolist(), key=lambda j: (ways_on[j], j)) for row in joined]
    begins = np.flatnonzero((network.from_source > 0) & (network.most > 0)).tolist()
    chain: list[int] = []
    room = 0
    following = [iter(sorted(begins, key=lambda j: (ways_on[j], j)))]
    for _ in range(STEPS):
        # A layer for each node at least.
        node = None
        if len(chain) < model_layers:
            node = next((j for j in following[-1] if j not in chain), None)
        if node is None:
            following.pop()
            if not following:
                return None
            room -= most[chain.pop()]
            continue
        chain.append(node)
        room += most[node]
        if room >= model_layers and network.to_sink[node] > 0:
            return _laid_out(chain, network, model_layers)
        following.append(iter(onward[node]))
    return None


def _laid_out(chain: list[int], network: Network, model_layers: int) -> Layout:
    start, end = np.zeros((2, len(network.most)), dtype=np.int64)
    reached = 0
    shares = even_shares(model_layers, [int(network.most[node]) for node in chain])
    for node, share in zip(chain, shares, strict=True):
        start[node], end[node] = reached, reached + share
        reached += share
    return Layout.of(start, end)
