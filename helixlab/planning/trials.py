"""Placements by what is foretold of them and by what is simulated: a quick opinion and a slow one."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import Cluster
from helixlab.execution import Execution
from helixlab.model import Model
from helixlab.planning.annealing import anneal_throughput, walk_from
from helixlab.planning.layouts import Layout, placement_of
from helixlab.planning.network import Network, Room, flow_room, network_of, serve
from helixlab.planning.prediction import serving_of
from helixlab.planning.queueing import foretell
from helixlab.planning.stations import Serving, Stations, stations_of
from helixlab.planning.watch import Watch
from helixlab.simulation import simulate
from helixlab.workload import offline

__all__ = ["FINALISTS", "Trials"]

COLD: Final = 0.002
"""Temperature at the end of an annealing as a part of what is foretold."""
FINALISTS: Final = 4
"""Simulated once more, for longer and with other queries, so that luck does not decide."""
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
        Of the steps of the annealing and the seeds of the queries.
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
        """Decode tokens/s of placements in long simulations, with other queries than the short ones had."""
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
