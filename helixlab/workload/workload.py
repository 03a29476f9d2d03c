"""Workloads: the requests that are served, and when they are fed.

Offline, the system is kept busy: requests are fed as fast as it takes them. Online, they arrive at times of
their own.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from helixlab._validation import as_number, as_seed, as_whole, plain, shown
from helixlab.errors import WorkloadError
from helixlab.workload.requests import check_requests, read_requests
from helixlab.workload.traces import INTERVAL_S, arrival_names, arrivals_per_interval, trace_lengths

__all__ = ["Workload", "offline", "online"]

BATCH_ROWS = 4096
LEAST_DURATION_S = 60.0
"""Shortest default duration for requests of the user's own, however soon the last one arrives."""
FAR_FROM_0_S = 3600.0
"""Arrivals are moved to begin at 0 if the first is later than this and than the time from first to last."""
LONGEST_S, MOST_REQUESTS, MOST_TOKENS = 1e9, 1_000_000, 1e11
"""Limits beyond which a workload is taken to be a mistake."""
MOST_INTERVALS = 10_000_000
"""Largest number of intervals for arrivals drawn like those of a trace; each takes time, even if empty."""
TRACE = "azure-conv"
"""Default trace of lengths and arrivals."""
DURATION_S = 1800.0
"""Default duration of drawn online requests, as in the paper."""
MILLISECONDS_FROM = 1e11
"""Arrivals from here on are hardly seconds: counted from 1970, they would be in the year 5138."""
Requests = pd.DataFrame | str | os.PathLike[str]


class _OwnRequests:
    """Field `Workload.requests`, which hands out tables that may be changed."""

    def __get__(self, workload: Workload | None, kind: type) -> pd.DataFrame | None:
        table = None if workload is None else vars(workload)["_requests"]
        # A shallow copy is enough, as pandas copies on write.
        return table.copy(deep=False) if isinstance(table, pd.DataFrame) else table

    def __set__(self, workload: Workload, table: pd.DataFrame | None) -> None:
        vars(workload)["_requests"] = table


_OWN_REQUESTS: Any = _OwnRequests()


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests for the system to serve. Make a workload with `offline` or `online`.

    Parameters
    ----------
    mode : str
        Mode of feeding, ``"offline"`` or ``"online"``.
    warmup_s, duration_s : float
        Length of the warm-up and of the measured window. Offline the window begins when the warm-up ends;
        online it lasts from the end of the warm-up to the duration.
    seed : int
        Seed of the lengths, the arrivals and the draws of schedulers. Requests are drawn as the simulator of
        the Helix paper draws them, so that a seed gives the same requests there and here.
    trace : str
        Trace that lengths are drawn from; empty with requests of your own.
    initial_requests : int
        Offline: number of requests that are fed at first. Schedulers that do not observe the KV cache keep
        as many in flight.
    rate_tokens_per_s : float
        Online: mean number of prompt and decode tokens that arrive per second.
    arrivals : str
        Online: trace of the arrivals, or ``"poisson"``.
    requests : DataFrame, optional
        Requests of your own, used in their order: input_tokens, output_tokens, and online arrival_s, with
        values as `helixlab.workload.check_requests` describes them. The workload keeps a copy and hands out
        copies.

    Notes
    -----
    Workloads are equal if their fields are; requests of your own are compared by their content.
    """

    mode: str
    warmup_s: float
    duration_s: float
    seed: int
    trace: str = ""
    initial_requests: int = 0
    rate_tokens_per_s: float = math.nan
    arrivals: str = ""
    requests: pd.DataFrame | None = _OWN_REQUESTS

    def __post_init__(self) -> None:
        for name in ("mode", "trace", "arrivals"):
            self._set(name, plain(getattr(self, name)))
        if self.mode not in ("offline", "online"):
            raise WorkloadError(f"mode must be 'offline' or 'online', got {shown(self.mode)}")
        self._set("duration_s", _number(self.duration_s, "duration_s", above=0, most=LONGEST_S))
        self._set("warmup_s", _number(self.warmup_s, "warmup_s", least=0, most=LONGEST_S))
        self._set("seed", as_seed(self.seed, "seed", error=WorkloadError))
        if self.online and self.warmup_s >= self.duration_s:
            raise WorkloadError(
                f"warmup_s {self.warmup_s} leaves nothing of duration_s {self.duration_s} to measure; make it"
                " shorter"
            )
        if not self.online:
            requests = as_whole(
                self.initial_requests, "initial_requests", least=1, most=MOST_REQUESTS, error=WorkloadError
            )
            self._set("initial_requests", requests)
        elif self.requests is None:
            self._set("rate_tokens_per_s", _number(self.rate_tokens_per_s, "rate_tokens_per_s", above=0))
            if self.rate_tokens_per_s * self.duration_s > MOST_TOKENS:
                raise WorkloadError(
                    f"{self.rate_tokens_per_s:g} tokens/s for {self.duration_s:g} s are more than the"
                    f" {MOST_TOKENS:g} tokens that one run takes; make either smaller"
                )
            if self.arrivals != "poisson" and self.duration_s > MOST_INTERVALS * INTERVAL_S:
                raise WorkloadError(
                    f"duration_s is {self.duration_s:g}; arrivals of a trace are drawn for at most"
                    f" {MOST_INTERVALS * INTERVAL_S:g} seconds: make it shorter, or take arrivals='poisson'"
                )
        if not self.online or self.requests is not None:
            self._set("rate_tokens_per_s", math.nan)
        if self.requests is not None:
            self._set("requests", _own(self.requests, self.online))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _content(self) -> tuple[Any, ...]:
        """Collect what determines the requests, in values that are equal if the content is."""
        values = [getattr(self, f.name) for f in fields(self) if f.name != "requests"]
        own = self.requests if self.requests is not None else pd.DataFrame()
        columns = [(name, hashlib.sha256(own[name].to_numpy().tobytes()).digest()) for name in own]
        return (*(None if value != value else value for value in values), *columns)

    def __eq__(self, other: object) -> bool:
        return self._content() == other._content() if isinstance(other, Workload) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._content())

    @property
    def online(self) -> bool:
        """True if requests arrive at times of their own."""
        return self.mode == "online"

    @property
    def source(self) -> str:
        """Origin of the requests: the trace that lengths are drawn from, or ``"own requests"``."""
        return self.trace or "own requests"

    def batches(self) -> Iterator[NDArray[np.float64]]:
        """Generate the requests in the order of feeding, as arrays ``[request, (arrival_s, input, output)]``.

        Offline the arrival is 0, and requests that are not given have no end.
        """
        if self.requests is not None:
            arrival = self.requests["arrival_s"] if self.online else np.zeros(len(self.requests))
            yield np.column_stack([arrival, self.requests["input_tokens"], self.requests["output_tokens"]])
            return
        draw = random.Random(self.seed)
        lengths = trace_lengths(self.trace).to_numpy(np.float64)
        if self.online:
            yield _online_requests(self, lengths, draw)
            return
        while True:
            drawn = lengths[[draw.randrange(len(lengths)) for _ in range(BATCH_ROWS)]]
            yield np.column_stack([np.zeros(BATCH_ROWS), drawn])


def _online_requests(
    workload: Workload, lengths: NDArray[np.float64], draw: random.Random
) -> NDArray[np.float64]:
    """Draw requests over time, in the order of the reference simulator, so that seeds mean the same."""
    mean_requests = workload.rate_tokens_per_s * INTERVAL_S / lengths.sum(axis=1).mean()
    times: list[float] = []
    rows: list[int] = []
    if workload.arrivals == "poisson":
        while (now_s := (times[-1] if times else 0.0) + draw.expovariate(mean_requests / INTERVAL_S)) < (
            workload.duration_s
        ):
            times.append(now_s)
            rows.append(draw.randrange(len(lengths)))
    else:
        seen = arrivals_per_interval(workload.arrivals)
        wanted = seen * (mean_requests / seen.mean())
        owed = 0.0
        for interval in range(math.ceil(workload.duration_s / INTERVAL_S)):
            owed += wanted[draw.randrange(len(wanted))]
            count = round(owed)
            owed -= count
            times += sorted((interval + draw.random()) * INTERVAL_S for _ in range(count))
            rows += [draw.randrange(len(lengths)) for _ in range(count)]
    inside = int(np.searchsorted(times, workload.duration_s))
    return np.column_stack([times[:inside], lengths[rows[:inside]].reshape(inside, 2)])


def offline(
    *,
    initial_requests: int = 20,
    warmup_s: float = 60.0,
    duration_s: float = 600.0,
    rng: int | np.random.Generator = 0,
    trace: str | None = None,
    requests: Requests | None = None,
) -> Workload:
    """Make an offline workload: serve as much as possible, as in the paper's offline experiments.

    Parameters
    ----------
    initial_requests : int
        Number of requests that are fed at first, 0.1 s apart. The helix scheduler then feeds more while the
        KV cache allows it; the other schedulers keep this many in flight.
    warmup_s, duration_s : float
        Length of the warm-up and of the measured window after it; nothing is fed after the window. If the
        last of your own requests ends before the window does, `diagnose` says so.
    rng : int or numpy Generator
        Seed or source of the lengths and of the draws of schedulers.
    trace : str, optional
        Trace that lengths are drawn from, see `helixlab.workload.trace_names`; by default azure-conv.
    requests : DataFrame or path, optional
        Requests of your own instead of a trace, used in their order: columns input_tokens and output_tokens.

    Raises
    ------
    WorkloadError, UnknownNameError, FileFormatError
        A value makes no sense; the message names it.

    Examples
    --------
    >>> workload = offline(duration_s=60, rng=7)
    >>> next(workload.batches()).shape
    (4096, 3)
    """
    own = _own(requests, with_arrivals=False)
    if own is not None:
        _refuse_with_requests(trace=trace)
    trace = "" if own is not None else TRACE if trace is None else trace
    if own is None:
        trace_lengths(trace)
    return Workload(
        "offline",
        warmup_s,
        duration_s,
        as_seed(rng, error=WorkloadError),
        trace=trace,
        initial_requests=initial_requests,
        requests=own,
    )


def online(
    *,
    rate_tokens_per_s: float | None = None,
    duration_s: float | None = None,
    warmup_s: float = 0.0,
    rng: int | np.random.Generator = 0,
    trace: str | None = None,
    arrivals: str | None = None,
    requests: Requests | None = None,
) -> Workload:
    """Make an online workload: requests arrive over time, as in the paper's online experiments.

    Parameters
    ----------
    rate_tokens_per_s : float
        Mean number of prompt and decode tokens of the arriving requests per second.
    duration_s : float, optional
        Time at which the measured window ends and drawn requests cease to arrive; the run goes on until all
        requests have ended. By default 1800 seconds for drawn requests. Requests of your own all arrive,
        whatever the duration; by default it ends when the last one arrives, but lasts at least 60 seconds.
    warmup_s : float
        Time at which the measured window begins.
    rng : int or numpy Generator
        Seed or source of the lengths, the arrivals and the draws of schedulers.
    trace : str, optional
        Trace that lengths are drawn from; by default azure-conv.
    arrivals : str, optional
        Trace of the arrivals, or ``"poisson"``; by default `trace` if it has arrivals, otherwise azure-conv.
    requests : DataFrame or path, optional
        Requests of your own instead of a rate, trace and arrivals: columns arrival_s, input_tokens and
        output_tokens. If the first arrives later than an hour, and later than the time from first to last,
        arrivals are taken to be counted from another origin, such as 1970, and are moved so that the first
        is at 0.

    Raises
    ------
    WorkloadError, UnknownNameError, FileFormatError
        A value makes no sense; the message names it.

    Warns
    -----
    UserWarning
        Arrivals were moved; the message says by how much.

    Examples
    --------
    >>> requests = next(online(rate_tokens_per_s=700, rng=0).batches())
    >>> bool(abs(requests[:, 1:].sum() / 1800 / 700 - 1) < 0.1)
    True
    """
    own = _own(requests, with_arrivals=True)
    if own is not None:
        _refuse_with_requests(rate_tokens_per_s=rate_tokens_per_s, trace=trace, arrivals=arrivals)
        own = _from_0(own)
        if duration_s is None:
            duration_s = _own_duration_s(own, warmup_s)
        return Workload("online", warmup_s, duration_s, as_seed(rng, error=WorkloadError), requests=own)
    duration_s = DURATION_S if duration_s is None else duration_s
    if rate_tokens_per_s is None:
        raise WorkloadError(
            "an online workload needs rate_tokens_per_s (tokens that arrive per second) or requests"
        )
    trace = TRACE if trace is None else trace
    if arrivals is None:
        arrivals = trace if trace in arrival_names() else TRACE
    if arrivals != "poisson":
        arrivals_per_interval(arrivals)
    trace_lengths(trace)
    return Workload(
        "online",
        warmup_s,
        duration_s,
        as_seed(rng, error=WorkloadError),
        trace=trace,
        rate_tokens_per_s=rate_tokens_per_s,
        arrivals=arrivals,
    )


def _own(requests: Requests | None, with_arrivals: bool) -> pd.DataFrame | None:
    if requests is None:
        return None
    if isinstance(requests, pd.DataFrame):
        return check_requests(requests, "requests", with_arrivals=with_arrivals)
    if not isinstance(requests, str | os.PathLike):
        mend = (
            ".to_pandas() makes one" if hasattr(requests, "to_pandas") else "pandas.DataFrame(...) makes one"
        )
        raise WorkloadError(
            "requests must be a DataFrame of pandas or the path of a CSV file, got"
            f" {type(requests).__name__}; {mend}"
        )
    return read_requests(Path(requests), with_arrivals=with_arrivals)


def _refuse_with_requests(**given: object) -> None:
    """Refuse arguments that have no effect on requests of the user's own."""
    for name, value in given.items():
        if value is not None:
            raise WorkloadError(
                f"{name} is {shown(value)} beside requests, which are used as they are; give either"
            )


def _own_duration_s(requests: pd.DataFrame, warmup_s: float) -> float:
    """Return the time until the last request arrives, or the least time that can be measured."""
    duration_s = max(float(requests["arrival_s"].iloc[-1]), LEAST_DURATION_S)
    if _number(warmup_s, "warmup_s", least=0, most=LONGEST_S) >= duration_s:
        raise WorkloadError(
            f"warmup_s {warmup_s} leaves nothing to measure of the {duration_s:g} seconds in which requests"
            " arrive; make it shorter, or give duration_s"
        )
    return duration_s


def _from_0(requests: pd.DataFrame) -> pd.DataFrame:
    """Move arrivals to begin at 0 if they are counted from long before the first."""
    first_s, last_s = (float(requests["arrival_s"].iloc[at]) for at in (0, -1))
    if first_s > max(FAR_FROM_0_S, last_s - first_s):
        requests = requests.assign(arrival_s=requests["arrival_s"].astype(float) - first_s)
        last_s -= first_s
        unit = "; divide by 1000 first, if they are in milliseconds" if first_s >= MILLISECONDS_FROM else ""
        warnings.warn(
            f"the first request arrives at {first_s:.15g} seconds and the last {last_s:.10g} seconds later;"
            f" arrivals are moved by {first_s:.15g} seconds, so that the first is at 0{unit}",
            stacklevel=3,
        )
    if last_s > LONGEST_S:
        raise WorkloadError(
            f"requests arrive over {last_s:g} seconds, and one run takes at most {LONGEST_S:g};"
            " give arrival_s in seconds, or fewer requests"
        )
    return requests


def _number(value: Any, name: str, **limits: Any) -> float:
    return as_number(value, name, error=WorkloadError, **limits)
