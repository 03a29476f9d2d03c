"""Planning for what is really served: foretold for many placements, simulated for the best.

The maximum flow leaves out how long queries are under way and how many find room. Here placements are
annealed on the throughput that is foretold (`helixlab.planning.prediction`). That errs by some percent, and
a search finds where it errs upwards, so what is foretold only proposes: the simulator decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import Cluster
from helixlab.errors import PlacementError
from helixlab.execution import Execution
from helixlab.model import Model
from helixlab.placement import NodeLayers, Placement, PlanReport, usable_links
from helixlab.planning.annealing import anneal_throughput, walk_from
from helixlab.planning.common import placed
from helixlab.planning.network import flow_room, network_of, serve
from helixlab.planning.prediction import serving_of
from helixlab.planning.queueing import foretell, stations_of
from helixlab.planning.record import Spans
from helixlab.simulation import simulate
from helixlab.workload import offline

__all__ = ["Trials", "refine", "spans_of"]

ANNEALED: Final = 12
"""How many placements are annealed on what is foretold."""
STEPS_A_NODE: Final = 500
WARM: Final = 0.03
COLD: Final = 0.002
"""Temperatures of the annealing as parts of what is foretold."""
SIMULATED: Final = 16
"""Placements that are simulated before the best are varied."""
ROUNDS: Final = 40
"""Of variation."""
VARIED: Final = 4
"""Placements that are varied in a round: the best so far."""
STEPS_A_VARIATION: Final = 40
FINALISTS: Final = 4
"""Simulated once more, for longer and with other queries, so that luck does not decide."""
SEEDS: Final = 2
"""Of each."""
SHORT_S: Final = (300.0, 300.0)
LONG_S: Final = (600.0, 600.0)
"""Warm-up and measured time."""
FOR_SEARCH: Final = 0.85
"""Part of the time limit; the rest is for the finalists."""


class Trials:
    """Placements of a model on a cluster by what is foretold and simulated of them.

    Parameters
    ----------
    cluster, model, execution
        What is planned for.
    rng : numpy.random.Generator
        Of the steps of the annealing and the seeds of the queries.
    time_limit_s : float, optional
        After which the search is to end.
    on_progress : callable
        Called with the seconds so far, the most decode tokens/s simulated, and NaN, as there is no bound.
    """

    def __init__(
        self,
        cluster: Cluster,
        model: Model,
        execution: str | Execution,
        rng: np.random.Generator,
        time_limit_s: float | None,
        on_progress: Callable[[float, float, float], None],
    ) -> None:
        self.cluster, self.model, self.execution, self.rng = cluster, model, execution, rng
        self.network, self.serving = network_of(cluster, model), serving_of(cluster, model, execution)
        size = len(cluster.nodes)
        self.rooms = flow_room(size), flow_room(size), stations_of(size), np.zeros(4)
        self.seed = int(rng.integers(1, 2**31))
        self.simulated: dict[Spans, float] = {}
        self.trace: list[tuple[float, float, float]] = []
        self._foretold: dict[Spans, float] = {}
        self._began, self._on_progress = time.perf_counter(), on_progress
        self._spent_s = 0.0  # on short simulations
        self._limit_s = math.inf if time_limit_s is None else time_limit_s

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return time.perf_counter() - self._began

    def late(self, part: float = 1.0) -> bool:
        """Whether so much of the time is over."""
        return self.seconds > part * self._limit_s

    def foretold(self, spans: Spans) -> float:
        """Decode tokens/s that are foretold."""
        if spans not in self._foretold:
            start, end = np.array(spans)
            layers = self.model.layers
            serve(self.network, start, end, layers, self.rooms[0])
            self._foretold[spans] = foretell(self.network, self.serving, start, end, layers, *self.rooms)
        return self._foretold[spans]

    def anneal(self, spans: Spans, warm: float, steps: int) -> tuple[Spans, Spans]:
        """The best placement met on a walk from this one, and the last.

        The temperature falls from `warm` as a part of what is foretold.
        """
        worth, layers = self.foretold(spans), self.model.layers
        start, end = np.array(spans)
        walk = walk_from(start, end, layers, int(self.rng.integers(2**31)))
        anneal_throughput(
            self.network,
            self.serving,
            *self.rooms,
            walk,
            self.model.layers,
            warm * worth,
            COLD * worth,
            steps,
        )
        return spans_of(walk.best_start, walk.best_end), spans_of(walk.start, walk.end)

    def simulate(self, several: Sequence[Spans], executor: Executor) -> None:
        """Simulate placements, briefly and side by side; those that were simulated before are left out."""
        fresh = [spans for spans in dict.fromkeys(several) if spans not in self.simulated]
        figures = executor.map(self.timed, fresh)
        for spans, (figure, seconds) in zip(fresh, figures, strict=True):
            self.simulated[spans] = figure
            self._spent_s += seconds
        best = max(self.simulated.values(), default=0.0)
        if not self.trace or best > self.trace[-1][1]:
            self.trace.append((self.seconds, best, math.nan))
        self._on_progress(self.seconds, best, math.nan)

    def timed(self, spans: Spans) -> tuple[float, float]:
        """Decode tokens/s of a short simulation, and the seconds it took."""
        began = time.perf_counter()
        return self.measured(spans, SHORT_S, self.seed), time.perf_counter() - began

    def affordable(self, n_jobs: int) -> int:
        """How many placements can be simulated for long in the time that is left."""
        if math.isinf(self._limit_s):
            return FINALISTS
        long_s = self._spent_s / len(self.simulated) * sum(LONG_S) / sum(SHORT_S)
        return min(FINALISTS, int(max(0.0, self._limit_s - self.seconds) / (long_s * SEEDS / n_jobs)))

    def means(self, several: Sequence[Spans], executor: Executor) -> NDArray[np.float64]:
        """Decode tokens/s of placements in long simulations, with other queries than the short ones had."""
        seeds = [self.seed + number for number in range(1, SEEDS + 1)]
        runs = [(spans, LONG_S, seed) for spans in several for seed in seeds]
        figures = np.fromiter(executor.map(lambda run: self.measured(*run), runs), float)
        means: NDArray[np.float64] = figures.reshape(len(several), SEEDS).mean(axis=1)
        return means

    def measured(self, spans: Spans, window_s: tuple[float, float], seed: int) -> float:
        """Decode tokens/s of a simulation with the Helix scheduler."""
        result = simulate(
            self.cluster,
            self.model,
            self.placement(spans),
            execution=self.execution,
            workload=offline(warmup_s=window_s[0], duration_s=window_s[1], rng=seed),
            sample_step_s=0,
            keep_iterations=False,
        )
        return float(result.summary["decode_tokens_per_s"].item())

    def placement(self, spans: Spans) -> Placement:
        """The placement, with all links that can be used."""
        ends = enumerate(zip(*spans, strict=True))
        layers = [NodeLayers(node, start, end) for node, (start, end) in ends if end > start]
        links = usable_links(self.cluster, layers, self.model.layers)
        return placed(self.cluster, self.model, "helix", layers, links)

    def best(self, count: int) -> list[Spans]:
        """The best of those simulated."""
        return sorted(self.simulated, key=lambda spans: -self.simulated[spans])[:count]


def spans_of(start: NDArray[np.int64], end: NDArray[np.int64]) -> Spans:
    """First layers and ends of all nodes as plain numbers."""
    return tuple(start.tolist()), tuple(end.tolist())


def refine(trials: Trials, starts: Iterable[Spans], *, n_jobs: int) -> tuple[Spans, PlanReport]:
    """Search from some placements for the one that serves most, in three stages; Ctrl-C ends it early.

    The best starts are annealed on what is foretold. The best of all are simulated. Those that serve most are
    varied by a few steps and simulated again, and so on.
    """
    interrupted = False
    found: Spans | None = None
    figure = 0.0
    with ThreadPoolExecutor(n_jobs) as executor:
        try:
            _search(trials, starts, executor)
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
    status = "interrupted" if interrupted else "time limit" if trials.late(FOR_SEARCH) else "heuristic"
    return found, PlanReport(status, figure, None, trials.seconds, tuple(trials.trace))


def _search(trials: Trials, starts: Iterable[Spans], executor: Executor) -> None:
    size = len(trials.cluster.nodes)
    # A simple planner may have left no path from source to sink.
    ranked = sorted(dict.fromkeys(starts), key=trials.foretold, reverse=True)
    ranked = [spans for spans in ranked if trials.foretold(spans) > 0]
    if not ranked:
        raise PlacementError(
            f"no placement of {trials.model.name} that was found on cluster {trials.cluster.name!r} is"
            " foretold to serve anything; plan with objective='flow', or add nodes"
        )
    annealed = []
    for spans in ranked[:ANNEALED]:
        annealed.append(trials.anneal(spans, WARM, STEPS_A_NODE * size)[0])
        if trials.late(FOR_SEARCH / 4):
            break
    annealed.sort(key=trials.foretold, reverse=True)
    half = SIMULATED // 2
    for known, found in zip(ranked[:half], (annealed * half)[:half], strict=False):
        trials.simulate([known, found], executor)
        if trials.late(FOR_SEARCH):
            return
    for _ in range(ROUNDS):
        # The last of a walk is another placement nearby that is not foretold to be much worse.
        walks = [
            trials.anneal(spans, WARM / (4 if number % 2 else 1), STEPS_A_VARIATION)
            for number, spans in enumerate(trials.best(VARIED))
        ]
        fresh = [next((end for end in walk if end not in trials.simulated), walk[0]) for walk in walks]
        trials.simulate(fresh, executor)
        if trials.late(FOR_SEARCH):
            return
