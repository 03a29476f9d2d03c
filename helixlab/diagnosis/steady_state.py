"""Steadiness of a run: its drift over the window, and the trend of the queue that its load leaves.

Both are computed from the requests in flight and the tokens decoded in blocks of equal length, so that runs
side by side, such as separate pipelines, are judged by their sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from helixlab._equality import ByContent
from helixlab.errors import SimulationError
from helixlab.simulation import Result

__all__ = [
    "BLOCKS",
    "GROWS",
    "LABELS",
    "TOLERATED",
    "TRENDS",
    "Drift",
    "Load",
    "arrival_span",
    "drift",
    "load",
    "load_of",
    "window_blocks",
]

BLOCKS: Final = 12
"""Number of blocks that a window is cut into."""
POINTS: Final = 20
"""Number of times in each block at which the requests in flight are looked up."""
TOLERATED: Final = 0.05
"""Fraction of its mean by which a settled value may differ between the halves of a window."""
VAGUE: Final = 0.10
"""Largest margin of a drift with which a value can be called settled."""
TRENDS: Final = ("settled", "undecided", "moving")
"""Trends of a window, from best to worst."""
STUDENT_T: Final = 2.23
"""The 97.5th percentile of Student's t with `BLOCKS` - 2 degrees of freedom."""
FILLING: Final = 1 / 3
"""Fraction of an online run that is left out, as the system fills up during it."""
LIVES: Final = 3.0
"""Mean request times that are left out as well, where the requests in flight still grow after that."""
FEWEST: Final = 4
"""Number of blocks that must be left then, to judge the run by its requests in flight."""
GROWING: Final = 0.02
"""Fraction of the arriving requests that stays in the queue, from which on the queue grows."""
OVERLOADED: Final = 0.10
"""Fraction of the arriving requests that stays in the queue, from which on the run is overloaded."""
CHANCE: Final = 3.0
"""Standard deviations by which the requests in flight may have grown by chance."""
STANDING: Final = 0.25
"""Fraction of the requests in flight that wait for their first token, from which on there is a queue."""
NEARLY: Final = 0.01
"""Fraction of the time between arrivals by which the ends of a window may miss the first and the last."""
LABELS: Final = ("stable", "filling", "backlogged", "overloaded")
"""Labels of the load of a run, from best to worst."""
GROWS: Final = LABELS[2:]
"""Labels of runs whose queue grows."""


@dataclass(frozen=True, eq=False)
class Drift(ByContent):
    """Drift of a value from the first half of a window to the second.

    Parameters
    ----------
    relative : float
        Difference of the two halves as a fraction of the mean; 0 where there is nothing.
    margin : float
        Half the width of the 95 % interval of `relative`; infinite where a single sample does not show it.

    Examples
    --------
    >>> Drift(0.02, 0.03).trend, Drift(0.02, 0.3).trend, Drift(0.2, 0.03).trend
    ('settled', 'undecided', 'moving')
    """

    relative: float
    margin: float

    @property
    def trend(self) -> str:
        """Trend of the value, one of `TRENDS`.

        ``"moving"`` for a drift of more than 5 % that exceeds chance; else ``"settled"`` where a drift of
        10 % would have shown; else ``"undecided"``.
        """
        if abs(self.relative) > max(TOLERATED, self.margin):
            return "moving"
        return "settled" if self.margin <= VAGUE else "undecided"


@dataclass(frozen=True, eq=False)
class Load(ByContent):
    """Load of an online run: the trend of its queue.

    Parameters
    ----------
    label : str
        One of `LABELS`. ``"stable"``: the queue does not grow. ``"filling"``: more and more requests are in
        flight, and the run is too short to say whether that would end, as they do not wait longer to begin,
        or chance may be the reason. ``"backlogged"``: the queue grows. ``"overloaded"``: one or more of ten
        requests that arrive stay in the queue, so that latencies show the length of the run rather than the
        system.
    growth_per_s : float
        Requests in flight gained per second, once the system has filled up.
    arrivals_per_s : float
        Requests that arrived per second.
    """

    label: str
    growth_per_s: float
    arrivals_per_s: float

    @property
    def grows(self) -> bool:
        """True where the queue grows for as long as requests arrive."""
        return self.label in GROWS


def drift(blocks: ArrayLike) -> Drift:
    """Compute the drift of a value over a window that is cut into blocks of equal length.

    Parameters
    ----------
    blocks : array, shape (blocks,)
        Mean of each block; four blocks or more.

    Raises
    ------
    SimulationError
        There are too few blocks.

    Examples
    --------
    >>> drift([5, 5, 5, 5]).trend
    'settled'
    >>> drift(np.linspace(50, 100, 12)).trend
    'moving'
    >>> round(drift(np.linspace(50, 100, 12)).relative, 2)
    0.36
    """
    means = np.asarray(blocks, dtype=float)
    if means.ndim != 1 or len(means) < 4 or not np.isfinite(means).all():
        raise SimulationError(f"blocks must be four or more numbers, got {blocks!r:.80}")
    first, second = means[: len(means) // 2], means[len(means) // 2 :]
    scale = abs(float(means.mean()))
    if scale == 0:
        return Drift(0.0, 0.0)
    error = np.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    return Drift(float(second.mean() - first.mean()) / scale, STUDENT_T * float(error) / scale)


def load(
    in_flight: ArrayLike,
    waiting: ArrayLike,
    *,
    span_s: float,
    arrivals_per_s: float,
    life_s: float = 0.0,
    dispersion: float = 1.0,
) -> Load:
    """Label a run by the trend of its requests in flight.

    The first third is left out, as the system fills up during it. The rest grows if a straight line through
    it gains more than 2 % of the arriving requests, and more than chance explains: in a stable system that
    requests enter at random, their number varies like a Poisson count, by the square root of its mean.

    A system fills up for as long as a few requests take. So where the queue seems to grow, the time of three
    requests is left out. If little remains, the requests that wait for their first token decide: they pile up
    at once where more arrive than can be served. Growth that chance may explain is still not stable where a
    quarter of the requests wait for their first token.

    Parameters
    ----------
    in_flight, waiting : array, shape (blocks,)
        Mean requests in flight, and those of them without a first token, in blocks of equal length, from the
        first arrival to the last; six or more.
    span_s : float
        Length of all blocks together.
    arrivals_per_s : float
        Requests that arrived per second.
    life_s : float
        Mean time from the arrival of a request to its end.
    dispersion : float
        Variance of the arrivals in a block over their mean; 1 for a Poisson process.

    Raises
    ------
    SimulationError
        There are too few blocks, not as many of both, or no time, or a number is below 0.

    Examples
    --------
    >>> none = [0] * 12
    >>> load([20] * 12, none, span_s=1800, arrivals_per_s=1).label
    'stable'
    >>> load(np.arange(12) * 15, none, span_s=1800, arrivals_per_s=1).label
    'backlogged'
    >>> load(np.arange(12) * 75, none, span_s=1800, arrivals_per_s=1).label
    'overloaded'
    >>> load(np.arange(12) * 75, none, span_s=1800, arrivals_per_s=1, life_s=900).label
    'filling'
    >>> load(200 + np.arange(12) * 4, [150] * 12, span_s=1800, arrivals_per_s=1).label
    'filling'
    """
    flying, queued = np.asarray(in_flight, dtype=float), np.asarray(waiting, dtype=float)
    numbers = {"arrivals_per_s": arrivals_per_s, "life_s": life_s, "dispersion": dispersion}
    for name, value in numbers.items():
        if not 0 <= value < np.inf:
            raise SimulationError(f"{name} is {value!r}; give a number of at least 0")
    if flying.shape != queued.shape:
        raise SimulationError(
            f"in_flight has {flying.size} blocks and waiting {queued.size}; give as many of both"
        )
    for means in (flying, queued):
        if means.ndim != 1 or len(means) < 6 or not np.isfinite(means).all() or not span_s > 0:
            raise SimulationError(
                f"in_flight and waiting must be six or more numbers over some time, got {means!r:.80}"
            )
    block_s, filled = span_s / len(flying), round(FILLING * len(flying))
    growth_per_s, grows = _growth(flying[filled:], block_s, arrivals_per_s, dispersion)
    stands = queued[filled:].mean() > STANDING * flying[filled:].mean()
    label = "filling" if stands and growth_per_s > GROWING * arrivals_per_s else "stable"
    if grows:
        lived = max(filled, int(np.ceil(LIVES * life_s / block_s)))
        short = len(flying) - lived < FEWEST
        judged = queued[filled:] if short else flying[lived:]
        growth_per_s, grows = _growth(judged, block_s, arrivals_per_s, dispersion)
        if grows:
            label = "overloaded" if growth_per_s > OVERLOADED * arrivals_per_s else "backlogged"
        elif short:
            label = "filling"
        elif not stands:
            label = "stable"
    return Load(label, growth_per_s, float(arrivals_per_s))


def _growth(
    means: NDArray[np.float64], block_s: float, arrivals_per_s: float, dispersion: float
) -> tuple[float, bool]:
    """Return the requests gained per second, and True if that is much and more than chance explains."""
    slope, _ = np.polyfit(np.arange(len(means)) * block_s, means, 1)
    gained = slope * block_s * (len(means) - 1)
    by_chance = CHANCE * np.sqrt(dispersion * max(float(means[: len(means) // 2].mean()), 1.0))
    return float(slope), bool(gained > by_chance and slope > GROWING * arrivals_per_s)


def arrival_span(result: Result) -> tuple[float, float]:
    """Return the span in which requests arrived, online, by which a queue is judged whatever is measured.

    Drawn requests arrive from the start of a run to the end of its window, given requests from the first of
    them to the last. Where these nearly are the start and the end, the span is that of drawn requests.
    """
    start_s, (_, end_s) = float(result.metrics["start_s"]), result.window_s
    came = result.requests["arrival_s"]
    if came.empty or not result.provenance["workload"]["requests_hash"]:
        return start_s, end_s
    first_s, last_s = float(came.min()), float(came.max())
    near_s = NEARLY * (last_s - first_s)
    if abs(first_s - start_s) <= near_s and abs(end_s - last_s) <= near_s:
        return start_s, end_s
    return first_s, last_s


def load_of(result: Result) -> Load:
    """Label an online run, see `load`, by the time in which requests arrived, whatever was measured of it.

    Where several requests arrived, all at one instant, that time is too short to say anything:
    ``"filling"``.

    Raises
    ------
    SimulationError
        The run is not online, or was stopped: what was in flight then is not in its table of requests.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> load_of(hx.simulate(*system, workload=hx.online(rate_tokens_per_s=50, duration_s=300))).label
    'stable'
    >>> load_of(hx.simulate(*system, workload=hx.online(rate_tokens_per_s=900, duration_s=300))).label
    'overloaded'
    """
    summary, requests = result.metrics, result.requests
    if summary["mode"] != "online":
        raise SimulationError(f"{result!r} is not online: its queue is what it was set to be")
    if summary["partial"]:
        raise SimulationError(f"{result!r} was stopped; run it to its end to see what its queue does")
    start_s, end_s = arrival_span(result)
    span_s, points = end_s - start_s, _points(start_s, end_s)
    if span_s <= 0:
        return Load("stable" if len(requests) == 1 else "filling", 0.0, 0.0)
    end = requests["end_s"]
    begun = requests["prompt_done_s"].fillna(end)  # some are refused
    came, first, last = (np.sort(times.to_numpy(float)) for times in (requests["arrival_s"], begun, end))
    arrived, answered, gone = (np.searchsorted(times, points, side="right") for times in (came, first, last))
    in_flight, waiting = ((arrived - less).reshape(BLOCKS, POINTS).mean(axis=1) for less in (gone, answered))
    counts, _ = np.histogram(came, np.linspace(start_s, end_s, BLOCKS + 1))
    return load(
        in_flight,
        waiting,
        span_s=span_s,
        arrivals_per_s=float(counts.sum()) / span_s,
        life_s=float((end - requests["arrival_s"]).mean()) if len(requests) else 0.0,
        dispersion=max(1.0, float(counts.var(ddof=1) / counts.mean())) if counts.any() else 1.0,
    )


def window_blocks(result: Result) -> pd.DataFrame:
    """Cut the measured window of a run into blocks of equal length.

    Returns
    -------
    DataFrame
        One row per block: in_flight (mean number of requests), decode_tokens_per_s.

    Raises
    ------
    SimulationError
        The run has no timeline, or one with fewer samples than blocks.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> blocks = window_blocks(hx.simulate(*system, workload=hx.offline(warmup_s=900, duration_s=3600)))
    >>> len(blocks), drift(blocks["decode_tokens_per_s"]).trend
    (12, 'settled')
    """
    start_s, end_s = result.window_s
    timeline, block_s = result.timeline, (end_s - start_s) / BLOCKS
    time_s = timeline["time_s"].to_numpy(float)
    step_s = float(result.provenance["settings"]["sample_step_s"])
    if not 0 < step_s <= block_s:
        raise SimulationError(
            f"{result!r} has no samples, or fewer than {BLOCKS} in its window; simulate with a smaller"
            " sample_step_s, above 0"
        )
    points, edges = _points(start_s, end_s), np.linspace(start_s, end_s, BLOCKS + 1)
    last_before = np.maximum(np.searchsorted(time_s, points, side="right") - 1, 0)
    flying = timeline["in_flight"].to_numpy(float)
    in_flight = flying[last_before].reshape(BLOCKS, POINTS).mean(axis=1)
    if np.diff(time_s).max(initial=0.0) > 1.5 * step_s:
        # Where samples were left out requests come and go in moments that the points may miss.
        until_s = np.append(time_s, max(end_s, time_s[-1]))
        in_flight = np.diff(np.interp(edges, until_s, _summed(flying * np.diff(until_s)))) / block_s
    decoded = np.interp(edges, time_s, timeline["decode_tokens"].to_numpy(float))
    return pd.DataFrame(
        {
            "in_flight": in_flight,
            "decode_tokens_per_s": np.diff(decoded) / block_s,
        }
    )


def _summed(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums up to each amount, from 0 on."""
    return np.append(0.0, np.cumsum(amounts))


def _points(start_s: float, end_s: float) -> NDArray[np.float64]:
    """Return times, evenly spread, at which the requests in flight are looked up."""
    return start_s + (end_s - start_s) * (np.arange(BLOCKS * POINTS) + 0.5) / (BLOCKS * POINTS)
