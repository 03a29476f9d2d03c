"""Planning for what is really served: foretold for many placements, simulated for the best.

The maximum flow leaves out how long queries are under way and how many find room. Here placements are annealed
on the throughput that is foretold (`helixlab.planning.prediction`). That errs by some percent, and a search
finds where it errs upwards, so what is foretold only proposes: the simulator decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.cluster import Cluster
from helixlab.execution import Execution
from helixlab.model import Model
from helixlab.placement import NodeLayers, Placement, usable_links
from helixlab.planning.annealing import anneal_throughput, walk_from
from helixlab.planning.common import placed
from helixlab.planning.network import flow_room, network_of, serve
from helixlab.planning.prediction import serving_of
from helixlab.planning.queueing import foretell, stations_of
from helixlab.simulation import simulate
from helixlab.workload import offline

__all__ = ["Trials", "refine"]

ANNEALED: Final = 12
"""How many placements are annealed on what is foretold."""
STEPS_A_NODE: Final = 500
WARM, COLD = 0.03, 0.002
"""Temperatures of the annealing as parts of what is foretold."""
SIMULATED: Final = 16
"""Placements that are simulated before the best are varied."""
VARIED: Final = 150
"""Variations of the best placements that are simulated."""
STEPS_A_VARIATION: Final = 40
PARENTS: Final = 4
"""Placements that are varied: the best so far."""
FINALISTS: Final = 5
"""Simulated once more, for longer, and with other queries."""
SHORT, LONG = (300.0, 300.0), (600.0, 600.0)
"""Warm-up and measured seconds."""

Spans = tuple[tuple[int, ...], tuple[int, ...]]


class Trials:
    """Placements of a model on a cluster by what is foretold and simulated of them.

    Parameters
    ----------
    cluster, model, execution
        What is planned for.
    rng : numpy.random.Generator
        Of the steps of the annealing, and the seed of the queries.
    over : callable
        Whether to end.
    on_progress : callable
        Called with the seconds so far, the most decode tokens/s simulated and NaN, as there is no bound.
    """

    def __init__(
        self,
        cluster: Cluster,
        model: Model,
        execution: str | Execution,
        rng: np.random.Generator,
        over: Callable[[], bool],
        on_progress: Callable[[float, float, float], None],
    ) -> None:
        self.cluster, self.model, self.execution = cluster, model, execution
        self.network, self.serving = network_of(cluster, model), serving_of(cluster, model, execution)
        size = len(cluster.nodes)
        self.rooms = flow_room(size), flow_room(size), stations_of(size), np.zeros(4)
        self.rng, self.over = rng, over
        self.seed = int(rng.integers(1, 2**31))
        self.foretold: dict[Spans, float] = {}
        self.simulated: dict[Spans, float] = {}
        self.trace: list[tuple[float, float, float]] = []
        self._began, self._on_progress = time.perf_counter(), on_progress

    def foretell(self, spans: Spans) -> float:
        """Decode tokens/s that are foretold."""
        if spans not in self.foretold:
            start, end = np.array(spans)
            room, cache_room, stations, foretold = self.rooms
            serve(self.network, start, end, self.model.layers, room)
            self.foretold[spans] = foretell(
                self.network, self.serving, start, end, self.model.layers, room, cache_room, stations, foretold
            )
        return self.foretold[spans]

    def anneal(self, spans: Spans, warm: float, cold: float, steps: int) -> list[Spans]:
        """The best placement met on a walk from this one, and the last."""
        start, end = np.array(spans)
        walk = walk_from(start, end, self.model.layers, int(self.rng.integers(2**31)))
        worth = self.foretell(spans)
        anneal_throughput(
            self.network, self.serving, *self.rooms, walk, self.model.layers, warm * worth, cold * worth, steps
        )  # fmt: skip
        return [
            spans_of(walk.best_start, walk.best_end),
            spans_of(walk.start, walk.end),
        ]

    def simulate(self, spans: Spans) -> float:
        """Decode tokens/s that are simulated, briefly."""
        if spans not in self.simulated:
            self.simulated[spans] = self.measure(self.placement(spans), SHORT, self.seed)
            best = max(self.simulated.values())
            if not self.trace or best > self.trace[-1][1]:
                self.trace.append((time.perf_counter() - self._began, best, float("nan")))
            self._on_progress(time.perf_counter() - self._began, best, float("nan"))
        return self.simulated[spans]

    def measure(self, placement: Placement, window_s: tuple[float, float], seed: int) -> float:
        """Decode tokens/s with the Helix scheduler."""
        warmup_s, duration_s = window_s
        result = simulate(
            self.cluster,
            self.model,
            placement,
            execution=self.execution,
            workload=offline(warmup_s=warmup_s, duration_s=duration_s, rng=seed),
            sample_step_s=0,
            keep_iterations=False,
        )
        return float(result.summary["decode_tokens_per_s"].item())

    def placement(self, spans: Spans) -> Placement:
        """With all links that can be used."""
        layers = [
            NodeLayers(node, start, end)
            for node, (start, end) in enumerate(zip(*spans, strict=True))
            if end > start
        ]
        return placed(
            self.cluster, self.model, "helix", layers, usable_links(self.cluster, layers, self.model.layers)
        )

    def best(self, count: int) -> list[Spans]:
        """Of those simulated."""
        return sorted(self.simulated, key=lambda spans: -self.simulated[spans])[:count]


def spans_of(start: NDArray[np.int64], end: NDArray[np.int64]) -> Spans:
    """As plain numbers."""
    return tuple(start.tolist()), tuple(end.tolist())


def refine(trials: Trials, starts: Iterable[Spans]) -> tuple[Spans, float]:
    """Search from some placements for the one that serves most; which, and its decode tokens/s.

    Three stages: anneal the best starts on what is foretold; simulate the best of all; vary those that serve
    most in the simulation by a few steps, and simulate what is foretold to be better.
    """
    starts = [spans for spans in dict.fromkeys(starts) if trials.foretell(spans) > 0]
    size = len(trials.cluster.nodes)
    ranked = sorted(starts, key=trials.foretell, reverse=True)
    met: list[Spans] = []
    for spans in ranked[:ANNEALED]:
        met += trials.anneal(spans, WARM, COLD, STEPS_A_NODE * size)[:1]
        if trials.over():
            break
    met.sort(key=trials.foretell, reverse=True)
    # Half of those as they are, half of those annealed.
    for pair in zip(ranked[: SIMULATED // 2], [*met, *ranked[SIMULATED // 2 :]], strict=False):
        for spans in pair:
            trials.simulate(spans)
        if trials.over():
            break
    for number in range(VARIED):
        if trials.over():
            break
        parents = trials.best(PARENTS)
        parent = parents[number % len(parents)]
        warm = WARM if number % 2 else WARM / 4
        children = trials.anneal(parent, warm, COLD, STEPS_A_VARIATION)
        fresh = [child for child in children if child not in trials.simulated]
        if fresh:
            trials.simulate(fresh[0])
    finalists = trials.best(FINALISTS)
    figures = {
        spans: np.mean([trials.measure(trials.placement(spans), LONG, trials.seed + k) for k in (1, 2)])
        for spans in (finalists if not trials.over() else finalists[:1])
    }
    best = max(figures, key=lambda spans: figures[spans])
    return best, float(figures[best])
