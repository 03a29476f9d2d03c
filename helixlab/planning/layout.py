"""Common ground of the planners: layouts of layers on nodes, throughput by layers, limits and statuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from helixlab._progress import bar
from helixlab._validation import as_number
from helixlab.cluster import Cluster
from helixlab.errors import PlacementError
from helixlab.model import Model, machine_throughput
from helixlab.placement import usable_links
from helixlab.placement.placement import End, NodeLayers, Placement, memory_misfit

__all__ = [
    "Layout",
    "SearchStatus",
    "even_shares",
    "layout_of",
    "most_layers_by_machine",
    "nodes_by_machine",
    "placed",
    "placement_of",
    "planning_throughput",
    "progress_bar",
    "require_capacity",
    "time_limit",
]


class SearchStatus(StrEnum):
    """Reason why a search ended, with the text that reports and messages show.

    The status does not say whether a solution was found.
    """

    OPTIMAL = "optimal"
    """Proof that the solution is the best, up to the requested gap."""
    TARGET_REACHED = "target reached"
    """Solution as good as requested."""
    STALLED = "stalled"
    """No better solution for the requested time."""
    TIME_LIMIT = "time limit"
    """End of the time limit."""
    INTERRUPTED = "interrupted"
    """Ctrl-C by the user."""
    INFEASIBLE = "infeasible"
    """Proof that there is no solution."""
    UNBOUNDED = "unbounded"
    """Proof that the objective has no bound."""
    INFEASIBLE_OR_UNBOUNDED = "infeasible or unbounded"
    """Proof that there is no best solution, for either of these reasons."""
    SOLVER_LIMIT = "solver limit"
    """Limit of the solver itself, for instance of memory."""
    SOLVER_ERROR = "solver error"
    """Failure of the solver."""
    FEASIBLE = "feasible"
    """Complete search whose bound is above its best solution."""
    HEURISTIC = "heuristic"
    """Complete search, or rule, that proves nothing."""


class Layout(NamedTuple):
    """Layers of every node, and the groups of nodes that work together."""

    start: tuple[int, ...]
    """First layer of each node."""
    end: tuple[int, ...]
    """Layer after the last one of each node; equal to `start` where the node is idle."""
    group: tuple[int, ...] = ()
    """Group of each node. Nodes send only to nodes of their own group; without groups, to all."""

    @classmethod
    def of(cls, start: NDArray[np.int64], end: NDArray[np.int64], group: tuple[int, ...] = ()) -> Layout:
        """Make a layout from arrays."""
        return cls(tuple(start.tolist()), tuple(end.tolist()), group)

    @property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Arrays of first layers and of ends."""
        return np.array(self.start, dtype=np.int64), np.array(self.end, dtype=np.int64)


def layout_of(placement: Placement, nodes: int) -> Layout:
    """Extract the layout of a placement on a cluster of `nodes` nodes; its links are dropped.

    Examples
    --------
    >>> from helixlab.placement import load_placement
    >>> layout_of(load_placement("small10/llama-1-30b/helix"), 10).start
    (42, 36, 6, 18, 54, 12, 30, 0, 24, 48)
    """
    start, end = np.zeros((2, nodes), dtype=np.int64)
    for held in placement.layers:
        start[held.node], end[held.node] = held.first_layer, held.end_layer
    return Layout.of(start, end)


def placement_of(layout: Layout, cluster: Cluster, model: Model) -> Placement:
    """Make the placement of the helix planner, with all links that can be used within each group."""
    ends = enumerate(zip(layout.start, layout.end, strict=True))
    layers = [NodeLayers(node, start, end) for node, (start, end) in ends if end > start]
    links = usable_links(cluster, layers, model.layers)
    group = dict(enumerate(layout.group))
    within = (
        (a, b) for a, b in links if isinstance(a, str) or isinstance(b, str) or group.get(a) == group.get(b)
    )
    return placed(cluster, model, "helix", layers, within)


def planning_throughput(cluster: Cluster, model: Model) -> dict[str, NDArray[np.float64]]:
    """Tabulate the tokens/s of a node of each machine type by the number of layers it holds.

    This is the estimate of `helixlab.model.machine_throughput`, capped by the network card in the best
    position for the node: the first node of a pipeline receives no activations, the last one sends none, and
    a node that holds the whole model does neither.

    Returns
    -------
    dict of str to array
        ``[machine][k]`` for k = 0 to the largest number of layers with which the machine has throughput.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> table = planning_throughput(load_cluster("single24"), load_model("llama-2-70b"))
    >>> {machine: len(values) - 1 for machine, values in table.items()}
    {'A100': 12, 'L4': 7, 'T4': 4}
    """
    estimate = machine_throughput(model, cluster.machine_counts())
    table = {}
    for machine in cluster.machines:
        if machine.name in estimate:
            card_in, card_out = machine.nic_in_bytes_per_s, machine.nic_out_bytes_per_s
            as_first = min(card_in / model.token_bytes, card_out / model.activation_bytes)
            as_last = min(card_in / model.activation_bytes, card_out / model.token_bytes)
            values = np.minimum(estimate[machine.name], max(as_first, as_last))
            values[model.layers :] = estimate[machine.name][model.layers :]
            useless = np.flatnonzero(values[1:] <= 0)
            table[machine.name] = values[: useless[0] + 1] if useless.size else values
    return table


def most_layers_by_machine(table: Mapping[str, NDArray[np.float64]]) -> dict[str, int]:
    """Return the largest number of layers on a node of each machine type, by `planning_throughput`."""
    return {machine: len(values) - 1 for machine, values in table.items()}


def require_capacity(cluster: Cluster, model: Model, most_layers: Mapping[str, int]) -> None:
    """Raise unless the nodes together can hold every layer, and each what was measured for its type.

    Parameters
    ----------
    cluster, model
        Cluster to plan for, and model to place on it.
    most_layers : mapping of str to int
        Largest number of layers that a node of each machine type can hold.

    Raises
    ------
    PlacementError
        The model does not fit. The message says how many layers fit and how many are needed, or what does
        not fit into the GPU memory of a machine type.
    """
    counts = cluster.machine_counts()
    for machine in cluster.machines:
        # A planner may place any measured number of layers on a node.
        for layers in range(1, min(most_layers.get(machine.name, 0), model.layers) + 1):
            profile = model.profile(machine.name)
            if layers <= profile.max_layers:
                what, capacity = f"machine type {machine.name}", profile.kv_capacity_token_layers(layers)
                if misfit := memory_misfit(what, machine, model, layers, capacity):
                    raise PlacementError(f"cluster {cluster.name!r}: {misfit}")
    fits = sum(count * most_layers[machine] for machine, count in counts.items())
    if fits < model.layers:
        each = ", ".join(f"{count} {machine} of {most_layers[machine]}" for machine, count in counts.items())
        raise PlacementError(
            f"{model.name} needs {model.layers} layers, but at most {fits} fit into cluster {cluster.name!r}"
            f" ({each}); add nodes, or take a smaller model"
        )


def even_shares(layers: int, most: Sequence[int]) -> list[int]:
    """Divide layers among nodes as equally as the nodes can hold; the last nodes take the remainder.

    Parameters
    ----------
    layers : int
        Number of layers.
    most : sequence of int
        Largest number of layers that each node can hold.

    Examples
    --------
    >>> even_shares(10, [2, 5, 5]), even_shares(8, [9, 9, 9])
    ([2, 4, 4], [2, 3, 3])
    """
    counts = [0] * len(most)
    smallest_first = sorted(range(len(most)), key=most.__getitem__)
    for done, place in enumerate(smallest_first):
        counts[place] = min(most[place], layers // (len(most) - done))
        layers -= counts[place]
    return counts


def time_limit(time_limit_s: float | None) -> float | None:
    """Check the time limit of a search, in seconds; None is no limit.

    Raises
    ------
    PlacementError
        The limit is not a number above 0.
    """
    if time_limit_s is None:
        return None
    mend = "seconds above 0, or None for no limit"
    return as_number(time_limit_s, "time_limit_s", above=0, most=math.inf, mend=mend, error=PlacementError)


def nodes_by_machine(cluster: Cluster) -> dict[str, list[int]]:
    """List the indices of the nodes of each machine type, types in the order of the cluster."""
    nodes: dict[str, list[int]] = {machine: [] for machine in cluster.machine_counts()}
    for node in cluster.nodes:
        nodes[node.machine].append(node.index)
    return nodes


def placed(
    cluster: Cluster,
    model: Model,
    method: str,
    layers: Iterable[NodeLayers],
    links: Iterable[tuple[End, End]],
    kv_capacity_token_layers: Mapping[int, int] | None = None,
) -> Placement:
    """Make the placement ``cluster/model/method`` from what a planner found, nodes in order."""
    return Placement(
        name=f"{cluster.name}/{model.name}/{method}",
        cluster=cluster.name,
        model=model.name,
        method=method,
        layers=tuple(sorted(layers, key=lambda held: held.node)),
        links=tuple(links),
        kv_capacity_token_layers=kv_capacity_token_layers or {},
        source="planned by helixlab",
    )


@contextmanager
def progress_bar(label: str, *, shown: bool | None) -> Iterator[Callable[[float, float, float], None]]:
    """Show incumbent, bound and gap of a search on one line while it runs.

    The context is the function to call with the seconds so far, the incumbent and the bound, each NaN where
    there is none.
    """
    with bar(shown, desc=label, bar_format="{desc}: {elapsed}{postfix}", leave=False) as line:

        def show(seconds: float, incumbent: float, bound: float) -> None:
            numbers = {"incumbent": incumbent, "bound": bound}
            known = {name: f"{value:.1f}" for name, value in numbers.items() if not math.isnan(value)}
            if len(known) == 2 and incumbent > 0:
                known["gap"] = f"{bound / incumbent - 1:.1%}"
            line.set_postfix(known)

        yield show
