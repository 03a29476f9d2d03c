"""Planning for throughput: predicted for many placements, simulated for the best.

The maximum flow leaves out how long requests are under way and how many fit into the KV caches. Here
placements are annealed on the predicted throughput (`helixlab.planning.prediction`). That errs by some
percent, and a search finds where it errs upwards, so a prediction only proposes: the simulator decides.
Candidates also divide the cluster into groups of nodes that each serve the whole model, with nothing passed
between them: a pipeline of quick nodes answers sooner than one in which quick and slow ones take turns, and
a request that has begun in it never comes to a slow node whose KV cache is full.
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
from helixlab.planning.flow_kernel import Network, Room, flow_room, network_of, serve
from helixlab.planning.layout import Layout, even_shares, placement_of, planning_throughput
from helixlab.planning.prediction import serving_of
from helixlab.planning.queueing import Serving, Stations, foretell, stations_of
from helixlab.planning.record import Watch
from helixlab.simulation import simulate
from helixlab.workload import offline

__all__ = ["FINALISTS", "Trials", "chains", "divisions", "refine"]


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

    Region follows region. Within each, the nodes with the least room for requests in their KV caches come
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


COLD: Final = 0.002
"""Temperature at the end of an annealing as a part of what is foretold."""
FINALISTS: Final = 4
"""Simulated once more, for longer and with other requests, so that luck does not decide."""
SEEDS: Final = 2
"""Of each."""
SHORT_S: Final = (600.0, 600.0)
LONG_S: Final = (900.0, 900.0)
"""Warm-up and measured time."""
PILOT: Final = 0.05
"""Part of a short simulation that is tried to see how long one takes; no simulation is made shorter."""
FOR_ONE: Final = 0.3
"""Part of the time limit that one short simulation may take."""


class Trials:
    """Placements of a model on a cluster by what is foretold and simulated of them.

    Parameters
    ----------
    cluster, model, execution
        What is planned for.
    rng : numpy.random.Generator
        Of the steps of the annealing and the seeds of the requests.
    watch : Watch
        When the search is to end; it is told of the most decode tokens/s simulated.
    """

    def __init__(
        self,
        cluster: Cluster,
        model: Model,
        execution: str | Execution,
        rng: np.random.Generator,
        watch: Watch,
    ) -> None:
        self.cluster, self.model, self.execution, self.rng = cluster, model, execution, rng
        self.watch = watch
        self.simulated: dict[Layout, float] = {}
        self._rooms = _rooms(len(cluster.nodes))
        self._whole = network_of(cluster, model), serving_of(cluster, model, execution)
        self._within: dict[tuple[int, ...], tuple[Network, Serving]] = {(): self._whole}
        self._foretold: dict[Layout, float] = {}
        self._seed = int(rng.integers(1, 2**31))
        self._spent_s = 0.0  # on short simulations
        self._scale = 1.0  # of the length of simulations

    def foretold(self, layout: Layout) -> float:
        """Decode tokens/s that are foretold."""
        if layout not in self._foretold:
            (network, serving), (start, end) = self._arrays(layout.group), layout.arrays
            layers = self.model.layers
            serve(network, start, end, layers, self._rooms[0])
            self._foretold[layout] = foretell(serving, start, end, layers, *self._rooms)
        return self._foretold[layout]

    def anneal(
        self, several: Sequence[Layout], warm: Sequence[float], steps: int, executor: Executor
    ) -> list[tuple[Layout, Layout]]:
        """The best placement met on a walk from each of these, and the last; the walks go side by side.

        The temperature falls from `warm`, one for each, as a part of what is foretold. Nodes stay in their
        groups.
        """
        foretold = [self.foretold(layout) for layout in several]
        within = [self._arrays(layout.group) for layout in several]
        seeds = self.rng.integers(2**31, size=len(several)).tolist()
        walked = partial(self._walked, steps=steps)
        return list(executor.map(walked, several, within, foretold, warm, seeds))

    def _walked(
        self,
        layout: Layout,
        within: tuple[Network, Serving],
        worth: float,
        warm: float,
        seed: int,
        *,
        steps: int,
    ) -> tuple[Layout, Layout]:
        layers, group = self.model.layers, layout.group
        walk = walk_from(*layout.arrays, layers, seed)
        rooms = _rooms(len(layout.start))  # of its own: others walk meanwhile
        anneal_throughput(*within, *rooms, walk, layers, warm * worth, COLD * worth, steps)
        return Layout.of(walk.best_start, walk.best_end, group), Layout.of(walk.start, walk.end, group)

    def _arrays(self, group: tuple[int, ...]) -> tuple[Network, Serving]:
        """What there is, with the links inside of groups alone."""
        if group not in self._within:
            network, serving = self._whole
            together = np.equal.outer(group, group)
            ways = serving.cache_network
            self._within[group] = (
                network._replace(link=network.link * together),
                serving._replace(cache_network=ways._replace(link=ways.link * together)),
            )
        return self._within[group]

    def simulate(self, several: Sequence[Layout], executor: Executor) -> None:
        """Simulate placements, briefly and side by side; those that were simulated before are left out."""
        fresh = [layout for layout in dict.fromkeys(several) if layout not in self.simulated]
        figures = executor.map(self.timed, fresh)
        for layout, (figure, seconds) in zip(fresh, figures, strict=True):
            self.simulated[layout] = figure
            self._spent_s += seconds
        best = max(self.simulated.values(), default=0.0)
        if not self.watch.trace or best > self.watch.trace[-1][1]:
            self.watch.note(best)
        self.watch.tell(best)

    def fit_in(self, layout: Layout) -> None:
        """Make simulations shorter, should those of such a placement be long for the time limit.

        How long one takes grows with the tokens that are served. Without a time limit nothing is changed.
        """
        if not math.isinf(self.watch.limit_s):
            began = time.perf_counter()
            self._measured(layout, SHORT_S, self._seed, PILOT)
            short_s = (time.perf_counter() - began) / PILOT
            self._scale = min(1.0, max(PILOT, FOR_ONE * self.watch.limit_s / short_s))

    def timed(self, layout: Layout) -> tuple[float, float]:
        """Decode tokens/s of a short simulation, and the seconds it took."""
        began = time.perf_counter()
        return self.measured(layout, SHORT_S, self._seed), time.perf_counter() - began

    def affordable(self, n_jobs: int) -> int:
        """How many placements can be simulated for long in the time that is left."""
        if math.isinf(self.watch.limit_s):
            return FINALISTS
        long_s = self._spent_s / len(self.simulated) * sum(LONG_S) / sum(SHORT_S)
        return min(
            FINALISTS, int(max(0.0, self.watch.limit_s - self.watch.seconds) / (long_s * SEEDS / n_jobs))
        )

    def means(self, several: Sequence[Layout], executor: Executor) -> NDArray[np.float64]:
        """Decode tokens/s of placements in long simulations, with other requests than the short ones had."""
        seeds = [self._seed + number for number in range(1, SEEDS + 1)]
        runs = [(layout, LONG_S, seed) for layout in several for seed in seeds]
        figures = np.fromiter(executor.map(lambda run: self.measured(*run), runs), float)
        means: NDArray[np.float64] = figures.reshape(len(several), SEEDS).mean(axis=1)
        return means

    def measured(self, layout: Layout, window_s: tuple[float, float], seed: int) -> float:
        """Decode tokens/s of a simulation with the Helix scheduler."""
        return self._measured(layout, window_s, seed, self._scale)

    def _measured(self, layout: Layout, window_s: tuple[float, float], seed: int, scale: float) -> float:
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
        return float(result.summary["decode_tokens_per_s"].item())

    def best(self, count: int) -> list[Layout]:
        """The best of those simulated."""
        return sorted(self.simulated, key=lambda layout: -self.simulated[layout])[:count]


def _rooms(nodes: int) -> tuple[Room, Room, Stations, NDArray[np.float64]]:
    """Room for what is calculated to foretell a placement of so many nodes."""
    return flow_room(nodes), flow_room(nodes), stations_of(nodes), np.zeros(4)


ANNEALED: Final = 12
"""How many placements are annealed on what is foretold."""
STEPS_A_NODE: Final = 500
WARM: Final = 0.03
"""Temperature at which an annealing begins, as a part of what is foretold."""
ROUNDS: Final = 40
"""Of variation."""
VARIED: Final = 4
"""Placements that are varied in a round: the best so far."""
STEPS_A_VARIATION: Final = 40
FOR_ANNEALING: Final = 0.2
FOR_SEARCH: Final = 0.85
"""Parts of the time limit after which the annealing and the variation end; the rest is for the finalists."""


def refine(trials: Trials, families: Sequence[Iterable[Layout]], *, n_jobs: int) -> tuple[Layout, PlanReport]:
    """Search from some placements for the one that serves most, in three stages; Ctrl-C ends it early.

    The best starts are annealed on what is foretold. They and what they become are simulated. Those that
    serve most are varied by a few steps and simulated again, and so on.

    Parameters
    ----------
    trials : Trials
        What placements are tried on.
    families : sequence of iterables of Layout
        Where to start. Families take turns, as what is foretold errs differently from one to the other.
    n_jobs : int
        Simulations side by side.
    """
    interrupted = False
    found: Layout | None = None
    figure = 0.0
    with ThreadPoolExecutor(n_jobs) as executor:
        try:
            _search(trials, families, executor, n_jobs)
            best = trials.best(trials.affordable(n_jobs))
            if best:
                means = trials.means(best, executor)
                found, figure = best[int(means.argmax())], float(means.max())
        except KeyboardInterrupt:
            if not trials.simulated:
                raise
            interrupted = True
    if found is None:
        (found,) = trials.best(1)
        figure = trials.simulated[found]
    watch = trials.watch
    status = "interrupted" if interrupted else "time limit" if watch.late(FOR_SEARCH) else "heuristic"
    return found, PlanReport(status, figure, None, watch.seconds, tuple(watch.trace))


def _search(trials: Trials, families: Sequence[Iterable[Layout]], executor: Executor, n_jobs: int) -> None:
    starts = _in_turn(trials, families)
    trials.fit_in(starts[0])
    annealed: list[Layout] = []
    while len(annealed) < len(starts) and not (annealed and trials.watch.late(FOR_ANNEALING)):
        several = starts[len(annealed) : len(annealed) + n_jobs]
        walks = trials.anneal(several, [WARM] * len(several), STEPS_A_NODE * len(several[0].start), executor)
        annealed += [best for best, _ in walks]
    for known, found in zip_longest(starts, annealed, fillvalue=annealed[0]):
        trials.simulate([known, found], executor)
        if trials.watch.late(FOR_SEARCH):
            return
    for _ in range(ROUNDS):
        # The last of a walk is another placement nearby that is not foretold to be much worse.
        best = trials.best(VARIED)
        warm = [WARM / (4 if number % 2 else 1) for number in range(len(best))]
        walks = trials.anneal(best, warm, STEPS_A_VARIATION, executor)
        fresh = [next((end for end in walk if end not in trials.simulated), walk[0]) for walk in walks]
        trials.simulate(fresh, executor)
        if trials.watch.late(FOR_SEARCH):
            return


def _in_turn(trials: Trials, families: Sequence[Iterable[Layout]]) -> list[Layout]:
    """The starts of which most is foretold, from all families."""
    ranked = []
    for family in families:
        best = sorted(dict.fromkeys(family), key=trials.foretold, reverse=True)
        # A simple planner may have left no path from source to sink.
        ranked.append([layout for layout in best if trials.foretold(layout) > 0])
    turns = chain.from_iterable(zip_longest(*ranked))
    starts = [layout for layout in turns if layout is not None][:ANNEALED]
    if not starts:
        raise PlacementError(
            f"no placement of {trials.model.name} that was found on cluster {trials.cluster.name!r} is"
            " foretold to serve anything; plan with objective='flow', or add nodes"
        )
    return starts
