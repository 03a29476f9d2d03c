"""Planning for what is really served: foretold for many placements, simulated for the best.

The maximum flow leaves out how long queries are under way and how many find room. Here placements are
annealed on the throughput that is foretold (`helixlab.planning.prediction`). That errs by some percent, and
a search finds where it errs upwards, so what is foretold only proposes: the simulator decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import chain, zip_longest
from typing import Final

from helixlab.errors import PlacementError
from helixlab.placement import PlanReport
from helixlab.planning.layouts import Layout
from helixlab.planning.trials import Trials

__all__ = ["refine"]

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
