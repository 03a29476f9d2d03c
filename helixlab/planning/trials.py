"""Placements by what is foretold of them and by what is simulated: a quick opinion and a slow one."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import Cluster
from helixlab.execution import Execution
from helixlab.model import Model
from helixlab.planning.annealing import anneal_throughput, walk_from
from helixlab.planning.layouts import Layout, placement_of
from helixlab.planning.network import Network, flow_room, network_of, serve
from helixlab.planning.prediction import serving_of
from helixlab.planning.queueing import foretell
from helixlab.planning.stations import Serving, stations_of
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
        size = len(cluster.nodes)
        self._rooms = flow_room(size), flow_room(size), stations_of(size), np.zeros(4)
        self._whole = network_of(cluster, model), serving_of(cluster, model, execution)
        self._within: dict[tuple[int, ...], tuple[Network, Serving]] = {(): self._whole}
        self._foretold: dict[Layout, float] = {}
        self._seed = int(rng.integers(1, 2**31))
        self._spent_s = 0.0  # on short simulations

    def foretold(self, layout: Layout) -> float:
        """Decode tokens/s that are foretold."""
        if layout not in self._foretold:
            (network, serving), (start, end) = self._arrays(layout.group), layout.arrays
            layers = self.model.layers
            serve(network, start, end, layers, self._rooms[0])
            self._foretold[layout] = foretell(serving, start, end, layers, *self._rooms)
        return self._foretold[layout]

    def anneal(self, layout: Layout, warm: float, steps: int) -> tuple[Layout, Layout]:
        """The best placement met on a walk from this one, and the last.

        The temperature falls from `warm` as a part of what is foretold. Nodes stay in their groups.
        """
        worth, layers = self.foretold(layout), self.model.layers
        walk = walk_from(*layout.arrays, layers, int(self.rng.integers(2**31)))
        anneal_throughput(
            *self._arrays(layout.group), *self._rooms, walk, layers, warm * worth, COLD * worth, steps
        )
        group = layout.group
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
        result = simulate(
            self.cluster,
            self.model,
            placement_of(layout, self.cluster, self.model),
            execution=self.execution,
            workload=offline(warmup_s=window_s[0], duration_s=window_s[1], rng=seed),
            sample_step_s=0,
            keep_iterations=False,
            partial=False,
        )
        return float(result.summary["decode_tokens_per_s"].item())

    def best(self, count: int) -> list[Layout]:
        """The best of those simulated."""
        return sorted(self.simulated, key=lambda layout: -self.simulated[layout])[:count]
