"""Planning for throughput: predict it for many placements, and simulate the best ones.

The maximum flow ignores how long a request is in flight and how many requests fit into the KV caches. Here,
placements are annealed on the predicted throughput (`helixlab.planning.prediction`). A prediction is off by
some percent, and a search favours placements that it overestimates. So predictions propose, and simulations
decide.

Candidates include divisions of the cluster: groups of nodes that each serve the whole model, with no links
between them. A pipeline of fast nodes alone answers sooner than one in which fast and slow nodes alternate,
and a request admitted to it never reaches a slow node whose KV cache is full.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import chain, zip_longest
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import Cluster
from helixlab.errors import PlacementError
from helixlab.execution import Execution
from helixlab.model import Model
from helixlab.placement import PlanReport
from helixlab.planning.annealing import anneal_throughput, walk_from
from helixlab.planning.flow_kernel import FlowWorkspace, Network, flow_workspace, maximum_flow, network_of
from helixlab.planning.layout import Layout, SearchStatus, even_shares, placement_of, planning_throughput
from helixlab.planning.prediction import serving_of
from helixlab.planning.queueing import Serving, Stations, stations_of, steady_state_throughput
from helixlab.planning.record import SearchClock
from helixlab.simulation import simulate
from helixlab.workload import offline

__all__ = ["FINALISTS", "Trials", "chain_layout", "divisions", "refine"]

MOST_CLASSES: Final = 7
"""Largest number of classes of nodes whose unions are tried: seven can be divided in 877 ways."""
MOST_PARTS: Final = 8
"""Largest number of equal groups into which a cluster is divided."""

ANNEALED: Final = 12
"""Number of starts that are annealed on the predicted throughput."""
STEPS_A_NODE: Final = 500
"""Steps of such an annealing for each node."""
WARM: Final = 0.03
COLD: Final = 0.002
"""Temperature at the start and at the end of an annealing, as a fraction of the predicted throughput."""
ROUNDS: Final = 40
"""Number of rounds of variation."""
VARIED: Final = 4
"""Number of placements that a round varies: the best so far."""
STEPS_A_VARIATION: Final = 40
"""Steps of the annealing that varies a placement."""
FOR_ANNEALING: Final = 0.2
FOR_SEARCH: Final = 0.85
"""Fractions of the time limit after which annealing and variation end; the rest is for the finalists."""

SHORT_S: Final = (600.0, 600.0)
LONG_S: Final = (900.0, 900.0)
"""Warm-up and measured time of short and of long simulations."""
FINALISTS: Final = 4
"""Number of best placements that are simulated again, for longer and with other requests, so that the choice
does not depend on chance."""
SEEDS: Final = 2
"""Number of long simulations of each finalist."""
PILOT: Final = 0.05
"""Fraction of a short simulation that is run to measure its wall time; no simulation is made shorter."""
FOR_ONE: Final = 0.3
"""Fraction of the time limit that one short simulation may take."""


def divisions(cluster: Cluster, model: Model) -> list[tuple[int, ...]]:
    """List ways to divide a cluster into two or more groups that can each hold the model.

    The classes of nodes are machine types, regions, or machine types within regions. A division is a union
    of whole classes for each group, for all unions; or groups that are as alike as possible.

    Returns
    -------
    list of tuple of int
        Group of every node, for each division.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.model import load_model
    >>> cluster, model = load_cluster("single24"), load_model("llama-1-30b")
    >>> len(divisions(cluster, model)), len(divisions(cluster, load_model("llama-2-70b")))
    (7, 0)
    """
    most = _most_layers(cluster, model)
    classifications = [
        [node.machine for node in cluster.nodes],
        [node.region for node in cluster.nodes],
        [f"{node.machine} {node.region}" for node in cluster.nodes],
    ]
    found: dict[tuple[int, ...], None] = {}
    for class_of in classifications:
        classes = list(dict.fromkeys(class_of))
        if len(classes) > MOST_CLASSES:
            continue
        capacity = [sum(k for k, own in zip(most, class_of, strict=True) if own == each) for each in classes]
        for groups in _partitions(len(classes)):
            if max(groups) and min(np.bincount(groups, capacity)) >= model.layers:
                found[tuple(groups[classes.index(own)] for own in class_of)] = None
    by_machine, by_region, _ = classifications
    in_turn = sorted(range(len(most)), key=lambda node: (by_machine[node], by_region[node]))
    for parts in range(2, MOST_PARTS + 1):
        group = [0] * len(most)
        for number, node in enumerate(in_turn):
            group[node] = number % parts
        if min(np.bincount(group, most, parts)) >= model.layers:
            found[tuple(group)] = None
    return list(found)


def chain_layout(cluster: Cluster, model: Model, group: Sequence[int]) -> Layout:
    """Lay out every group as one chain of all its nodes, with layers as even as possible.

    The nodes of a region follow each other. Within a region, the nodes whose KV caches hold the fewest
    requests come first, so that no request is admitted that later finds a full cache.
    """
    most = _most_layers(cluster, model)
    start, end = np.zeros((2, len(most)), dtype=np.int64)
    for number in range(max(group) + 1):
        nodes = [node for node, own in enumerate(group) if own == number and most[node]]
        shares = dict(zip(nodes, even_shares(model.layers, [most[node] for node in nodes]), strict=True))

        def place(node: int, shares: dict[int, int] = shares) -> tuple[int, float]:
            profile = model.profile(cluster.nodes[node].machine)
            cache_tokens = profile.kv_capacity_token_layers(shares[node]) / shares[node]
            return cluster.regions.index(cluster.nodes[node].region), cache_tokens

        reached = 0
        for node in sorted((node for node in nodes if shares[node]), key=place):
            start[node], end[node] = reached, reached + shares[node]
            reached += shares[node]
    return Layout.of(start, end, tuple(group))


def _most_layers(cluster: Cluster, model: Model) -> list[int]:
    """Return the largest number of layers that each node can hold."""
    table = planning_throughput(cluster, model)
    return [len(table[node.machine]) - 1 for node in cluster.nodes]


def _partitions(size: int) -> Iterator[list[int]]:
    """Generate all partitions of `size` items: the group of each item, numbered in order of appearance.

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


class Trials:
    """Predicted and simulated throughput of placements of a model on a cluster.

    Parameters
    ----------
    cluster, model, execution
        Cluster, model and execution policy to plan for.
    rng : numpy.random.Generator
        Source of the steps of the annealing and of the seeds of the requests.
    clock : SearchClock
        Clock of the search, on which the greatest simulated throughput is recorded.
    """

    def __init__(
        self,
        cluster: Cluster,
        model: Model,
        execution: str | Execution,
        rng: np.random.Generator,
        clock: SearchClock,
    ) -> None:
        self.cluster, self.model, self.execution, self.rng = cluster, model, execution, rng
        self.clock = clock
        self.simulated: dict[Layout, float] = {}
        self._workspaces = _workspaces(len(cluster.nodes))
        self._whole = network_of(cluster, model), serving_of(cluster, model, execution)
        self._within: dict[tuple[int, ...], tuple[Network, Serving]] = {(): self._whole}
        self._predicted: dict[Layout, float] = {}
        self._seed = int(rng.integers(1, 2**31))
        self._spent_s = 0.0  # on short simulations
        self._scale = 1.0  # factor on the duration of simulations

    def predicted(self, layout: Layout) -> float:
        """Return the predicted decode tokens/s of a layout."""
        if layout not in self._predicted:
            (network, serving), (start, end) = self._arrays(layout.group), layout.arrays
            layers = self.model.layers
            maximum_flow(network, start, end, layers, self._workspaces[0])
            self._predicted[layout] = steady_state_throughput(serving, start, end, layers, *self._workspaces)
        return self._predicted[layout]

    def anneal(
        self, layouts: Sequence[Layout], warm: Sequence[float], steps: int, executor: Executor
    ) -> list[tuple[Layout, Layout]]:
        """Walk from each layout by annealing; return the best and the last layout of each walk.

        The walks run side by side. Each begins at its own temperature, which `warm` gives as a fraction of
        the predicted throughput. Nodes stay in their groups.
        """
        predicted = [self.predicted(layout) for layout in layouts]
        within = [self._arrays(layout.group) for layout in layouts]
        seeds = self.rng.integers(2**31, size=len(layouts)).tolist()
        walk = partial(self._walk, steps=steps)
        return list(executor.map(walk, layouts, within, predicted, warm, seeds))

    def _walk(
        self,
        layout: Layout,
        within: tuple[Network, Serving],
        predicted: float,
        warm: float,
        seed: int,
        *,
        steps: int,
    ) -> tuple[Layout, Layout]:
        layers, group = self.model.layers, layout.group
        walk = walk_from(*layout.arrays, layers, seed)
        workspaces = _workspaces(len(layout.start))  # of its own: other walks run at the same time
        anneal_throughput(*within, *workspaces, walk, layers, warm * predicted, COLD * predicted, steps)
        return Layout.of(walk.best_start, walk.best_end, group), Layout.of(walk.start, walk.end, group)

    def _arrays(self, group: tuple[int, ...]) -> tuple[Network, Serving]:
        """Return the arrays of the cluster, with only the links within groups."""
        if group not in self._within:
            network, serving = self._whole
            together = np.equal.outer(group, group)
            caches = serving.cache_network
            self._within[group] = (
                network._replace(link=network.link * together),
                serving._replace(cache_network=caches._replace(link=caches.link * together)),
            )
        return self._within[group]

    def fit_in(self, layout: Layout) -> None:
        """Shorten all simulations if those of such a layout would take too much of the time limit.

        The wall time of a simulation grows with the tokens served. Without a time limit nothing changes.
        """
        if not math.isinf(self.clock.limit_s):
            began = time.perf_counter()
            self._simulated_rate(layout, SHORT_S, self._seed, PILOT)
            short_s = (time.perf_counter() - began) / PILOT
            self._scale = min(1.0, max(PILOT, FOR_ONE * self.clock.limit_s / short_s))

    def simulate(self, layouts: Sequence[Layout], executor: Executor) -> None:
        """Run short simulations of layouts side by side; skip those that were simulated before."""
        fresh = [layout for layout in dict.fromkeys(layouts) if layout not in self.simulated]
        outcomes = executor.map(self.short_run, fresh)
        for layout, (rate, seconds) in zip(fresh, outcomes, strict=True):
            self.simulated[layout] = rate
            self._spent_s += seconds
        best = max(self.simulated.values(), default=0.0)
        if not self.clock.trace or best > self.clock.trace[-1][1]:
            self.clock.record(best)
        self.clock.show(best)

    def short_run(self, layout: Layout) -> tuple[float, float]:
        """Return the decode tokens/s of a short simulation, and its wall time in seconds."""
        began = time.perf_counter()
        rate = self._simulated_rate(layout, SHORT_S, self._seed, self._scale)
        return rate, time.perf_counter() - began

    def long_runs(self, layouts: Sequence[Layout], executor: Executor) -> NDArray[np.float64]:
        """Return the mean decode tokens/s of layouts in long simulations.

        Their requests are other than those of the short simulations.
        """
        seeds = [self._seed + number for number in range(1, SEEDS + 1)]
        runs = [(layout, LONG_S, seed, self._scale) for layout in layouts for seed in seeds]
        rates = np.fromiter(executor.map(lambda run: self._simulated_rate(*run), runs), float)
        means: NDArray[np.float64] = rates.reshape(len(layouts), SEEDS).mean(axis=1)
        return means

    def affordable(self, n_jobs: int) -> int:
        """Return the number of finalists whose long simulations fit into the time that is left."""
        if math.isinf(self.clock.limit_s):
            return FINALISTS
        long_s = self._spent_s / len(self.simulated) * sum(LONG_S) / sum(SHORT_S)
        left_s = max(0.0, self.clock.limit_s - self.clock.seconds)
        return min(FINALISTS, int(left_s / (long_s * SEEDS / n_jobs)))

    def best(self, count: int) -> list[Layout]:
        """Return the layouts with the greatest simulated throughput."""
        return sorted(self.simulated, key=lambda layout: -self.simulated[layout])[:count]

    def _simulated_rate(
        self, layout: Layout, window_s: tuple[float, float], seed: int, scale: float
    ) -> float:
        """Return the decode tokens/s of a simulation with the Helix scheduler."""
        result = simulate(
            self.cluster,
            self.model,
            placement_of(layout, self.cluster, self.model),
            execution=self.execution,
            workload=offline(warmup_s=scale * window_s[0], duration_s=scale * window_s[1], rng=seed),
            sample_step_s=0,
            keep_iterations=False,
            progress=False,
            partial=False,
        )
        return float(result.metrics["decode_tokens_per_s"])


def _workspaces(nodes: int) -> tuple[FlowWorkspace, FlowWorkspace, Stations, NDArray[np.float64]]:
    """Allocate the workspaces in which the throughput of a placement on `nodes` nodes is predicted."""
    return flow_workspace(nodes), flow_workspace(nodes), stations_of(nodes), np.zeros(4)


def refine(trials: Trials, families: Sequence[Iterable[Layout]], *, n_jobs: int) -> tuple[Layout, PlanReport]:
    """Search from given layouts for the one with the greatest throughput; Ctrl-C ends the search early.

    The starts with the best predictions are annealed on the predicted throughput. The starts and the results
    are simulated. The best of all are varied by a few steps of annealing and simulated again, for some
    rounds. Long simulations of the finalists decide.

    Parameters
    ----------
    trials : Trials
        Predictions and simulations.
    families : sequence of iterables of Layout
        Layouts to start from. Families take turns, as the error of the prediction differs between them.
    n_jobs : int
        Number of simulations that run side by side.
    """
    interrupted = False
    found: Layout | None = None
    rate = 0.0
    with ThreadPoolExecutor(n_jobs) as executor:
        try:
            _search(trials, families, executor, n_jobs)
            best = trials.best(trials.affordable(n_jobs))
            if best:
                means = trials.long_runs(best, executor)
                found, rate = best[int(means.argmax())], float(means.max())
        except KeyboardInterrupt:
            if not trials.simulated:
                raise
            interrupted = True
    if found is None:
        (found,) = trials.best(1)
        rate = trials.simulated[found]
    clock = trials.clock
    status = SearchStatus.TIME_LIMIT if clock.is_late(FOR_SEARCH) else SearchStatus.HEURISTIC
    if interrupted:
        status = SearchStatus.INTERRUPTED
    return found, PlanReport(status.value, rate, None, clock.seconds, tuple(clock.trace))


def _search(trials: Trials, families: Sequence[Iterable[Layout]], executor: Executor, n_jobs: int) -> None:
    starts = _starts(trials, families)
    trials.fit_in(starts[0])
    annealed: list[Layout] = []
    while len(annealed) < len(starts) and not (annealed and trials.clock.is_late(FOR_ANNEALING)):
        batch = starts[len(annealed) : len(annealed) + n_jobs]
        walks = trials.anneal(batch, [WARM] * len(batch), STEPS_A_NODE * len(batch[0].start), executor)
        annealed += [best for best, _ in walks]
    for start, result in zip_longest(starts, annealed, fillvalue=annealed[0]):
        trials.simulate([start, result], executor)
        if trials.clock.is_late(FOR_SEARCH):
            return
    for _ in range(ROUNDS):
        best = trials.best(VARIED)
        warm = [WARM / (4 if number % 2 else 1) for number in range(len(best))]
        walks = trials.anneal(best, warm, STEPS_A_VARIATION, executor)
        # The last layout of a walk is another one nearby, with a prediction that is not much worse.
        fresh = [next((each for each in walk if each not in trials.simulated), walk[0]) for walk in walks]
        trials.simulate(fresh, executor)
        if trials.clock.is_late(FOR_SEARCH):
            return


def _starts(trials: Trials, families: Sequence[Iterable[Layout]]) -> list[Layout]:
    """Choose the layouts with the best predictions, from all families in turn."""
    ranked = []
    for family in families:
        best = sorted(dict.fromkeys(family), key=trials.predicted, reverse=True)
        # The placement of a simple planner may have no path from source to sink.
        ranked.append([layout for layout in best if trials.predicted(layout) > 0])
    in_turn = chain.from_iterable(zip_longest(*ranked))
    starts = [layout for layout in in_turn if layout is not None][:ANNEALED]
    if not starts:
        raise PlacementError(
            f"every placement of {trials.model.name} that was found on cluster {trials.cluster.name!r} has a"
            " predicted throughput of zero; plan with objective='flow', or add nodes"
        )
    return starts
