"""Ways through a cluster with few links, for when nothing that knows less of the links finds one."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from helixlab.planning.common import even_shares
from helixlab.planning.layouts import Layout
from helixlab.planning.network import LEAST, Network

__all__ = ["Chain", "chain_along_links"]

STEPS: Final = 100_000
"""After so many nodes that were gone on to, the search gives up."""


class Chain(NamedTuple):
    """What the search for a chain came to."""

    layout: Layout | None
    """Layers as even as they can be; None if no chain was found."""
    exhausted: bool
    """Whether the search tried every way, so that there is no chain if it found none."""


def chain_along_links(network: Network, model_layers: int) -> Chain:
    """One chain from source to sink, over links that there are, of nodes with room for the model.

    A placement serves anything only if it has such a chain. The search goes on to the nodes with the fewest
    ways on first, and turns back where there is none; on clusters of some ten nodes it misses no chain.

    Examples
    --------
    >>> from helixlab.cluster import single_region
    >>> from helixlab.model import load_model
    >>> from helixlab.planning.network import network_of
    >>> model = load_model("llama-1-30b")
    >>> chain = chain_along_links(network_of(single_region({"A100": 4}), model), model.layers)
    >>> chain.layout.start, chain.layout.end
    ((0, 15, 30, 45), (15, 30, 45, 60))
    """
    size, most = len(network.most), network.most.tolist()
    joined = (network.link > LEAST) & (network.most > 0)
    ways_on = joined.sum(axis=1) + size * (network.to_sink > LEAST)
    onward = [sorted(np.flatnonzero(row).tolist(), key=lambda j: (ways_on[j], j)) for row in joined]
    begins = np.flatnonzero((network.from_source > LEAST) & (network.most > 0)).tolist()
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
                return Chain(None, True)
            room -= most[chain.pop()]
            continue
        chain.append(node)
        room += most[node]
        if room >= model_layers and network.to_sink[node] > LEAST:
            return Chain(_laid_out(chain, network, model_layers), False)
        following.append(iter(onward[node]))
    return Chain(None, False)


def _laid_out(chain: list[int], network: Network, model_layers: int) -> Layout:
    start, end = np.zeros((2, len(network.most)), dtype=np.int64)
    reached = 0
    shares = even_shares(model_layers, [int(network.most[node]) for node in chain])
    for node, share in zip(chain, shares, strict=True):
        start[node], end[node] = reached, reached + share
        reached += share
    return Layout.of(start, end)
