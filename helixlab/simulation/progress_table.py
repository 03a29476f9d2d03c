"""The table printed while a run goes on: a row every few simulated seconds."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from textwrap import fill
from typing import Final, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from helixlab.engine.state import State

__all__ = ["COLUMNS", "EXPLANATION", "ProgressTable"]

EXPLANATION: Final = (
    "Every {step:.10g} s: simulated seconds since the start; requests in flight (queued ones included),"
    " queued at the coordinator, finished; tokens/s of prompts and of decodes; KV cache used (fullest node,"
    " mean) and expected (fullest layer); part of the time busy (busiest node, mean)."
)
COLUMNS: Final = {
    "time_s": ("time", "{:.{digits}f}"),
    "in_flight": ("in flight", "{:d}"),
    "queued": ("queued", "{:d}"),
    "finished": ("finished", "{:d}"),
    "prompt_tokens_per_s": ("prompt/s", "{:.1f}"),
    "decode_tokens_per_s": ("decode/s", "{:.1f}"),
    "kv_used_max_fraction": ("KV max", "{:.0%}"),
    "kv_used_mean_fraction": ("KV mean", "{:.0%}"),
    "kv_expected_fraction": ("KV exp.", "{:.0%}"),
    "busy_max_fraction": ("busy max", "{:.0%}"),
    "busy_mean_fraction": ("busy mean", "{:.0%}"),
}
"""Heading and format of each column; the words of a heading stand one above the other."""
LEAST_WIDTH: Final = 6
"""Least width of columns; those of percentages are 4 characters wide."""
LINE: Final = 80
"""Longest line of the explanation, in characters."""
MOST_DIGITS: Final = 12
"""Most digits after the decimal point of a time."""
MOST_IDLE_ROWS: Final = 10
"""Where nothing happens for more rows than this, only the last of them is printed."""


class _Counters(NamedTuple):
    """Counters of a run at one time; their differences are the rates of a row."""

    now_s: float
    prompt_tokens: int
    decode_tokens: int
    busy_s: NDArray[np.float64]

    @classmethod
    def of(cls, state: State, now_s: float) -> _Counters:
        """Read the counters of a run."""
        run, nodes = state.run[0], state.nodes[:-1]
        busy_s = nodes["busy_s"] + np.where(nodes["busy"] == 1, now_s - nodes["busy_since_s"], 0.0)
        return cls(now_s, int(run["prompt_tokens"]), int(run["decode_tokens"]), busy_s)


@dataclass
class ProgressTable:
    """A table printed row by row, one every `step_s` simulated seconds and one for what is left at the end.

    Where nothing happens for long, one row stands for all of it.

    Parameters
    ----------
    step_s : float
        Simulated seconds between rows.
    to : text stream, optional
        Stream to print to; standard output by default.
    """

    step_s: float
    to: TextIO | None = None
    _before: _Counters | None = field(default=None, init=False)
    _start_s: float = field(default=0.0, init=False)
    _digits: int = field(default=0, init=False)
    _widths: dict[str, int] = field(default_factory=dict, init=False)

    def start(self, state: State, start_s: float, span_s: float, open_ended: bool) -> None:
        """Print the explanation and the heading.

        Parameters
        ----------
        state : State
            State at the start of the run.
        start_s : float
            Time of the start.
        span_s : float
            Length of the run, or of the time in which requests arrive if it is open-ended.
        open_ended : bool
            True if the run goes on until all requests have ended.
        """
        self._before = _Counters.of(state, start_s)
        self._start_s = start_s
        self._digits = _digits(self.step_s, self.step_s)
        if not open_ended:
            self._digits = max(self._digits, _digits(span_s, self.step_s))
        longest_s = span_s * (10 if open_ended else 1)
        self._widths = {
            key: max(len(name.split(" ")[-1]), 4 if form.endswith("%}") else LEAST_WIDTH)
            for key, (name, form) in COLUMNS.items()
        }
        self._widths["time_s"] = max(LEAST_WIDTH, len(f"{longest_s:.{self._digits}f}"))
        self._print(fill(EXPLANATION.format(step=self.step_s), LINE))
        names = {key: name.rpartition(" ") for key, (name, _) in COLUMNS.items()}
        self._print_row({key: above for key, (above, _, _) in names.items()})
        self._print_row({key: below for key, (_, _, below) in names.items()})

    def next_row_s(self, now_s: float, next_event_s: float = -math.inf) -> float:
        """Return the time of the next row, or of the last row before the next event if that is far."""
        steps = math.floor((now_s - self._start_s) / self.step_s * (1 + 1e-12)) + 1
        if next_event_s > self._start_s + (steps + MOST_IDLE_ROWS) * self.step_s:
            steps = math.floor((next_event_s - self._start_s) / self.step_s)
        return self._start_s + steps * self.step_s

    def show(self, state: State, now_s: float) -> None:
        """Print a row, unless one of this time has been printed."""
        assert self._before is not None, "started before"
        if now_s <= self._before.now_s:
            return
        counters = _Counters.of(state, now_s)
        row = _row(state, self._before, counters, self._start_s)
        # The end may follow so soon on the last row that only further digits tell them apart.
        digits = self._digits
        while f"{row['time_s']:.{digits}f}" == f"{self._before.now_s - self._start_s:.{digits}f}":
            if digits >= MOST_DIGITS:
                break
            digits += 1
        self._before = counters
        self._print_row({key: form.format(row[key], digits=digits) for key, (_, form) in COLUMNS.items()})

    def _print_row(self, texts: dict[str, str]) -> None:
        self._print(" ".join(text.rjust(self._widths[key]) for key, text in texts.items()))

    def _print(self, text: str) -> None:
        print(text, file=self.to if self.to is not None else sys.stdout, flush=True)


def _digits(time_s: float, step_s: float) -> int:
    """Return the decimal places of a time, but at most three more than it takes to tell steps apart."""
    exponent = Decimal(repr(round(float(time_s), MOST_DIGITS))).normalize().as_tuple().exponent
    assert isinstance(exponent, int), "it is finite"
    enough = max(0, -math.floor(math.log10(step_s))) + 3
    return min(max(0, -exponent), enough, MOST_DIGITS)


def _row(state: State, before: _Counters, now: _Counters, start_s: float) -> dict[str, float]:
    """Return the values of one row, by the keys of `COLUMNS`."""
    run, serving = state.run[0], state.nodes[:-1]["layers"] > 0
    span_s = now.now_s - before.now_s
    nodes = state.nodes[:-1][serving]
    used = nodes["kv_used_token_layers"] / nodes["kv_capacity_token_layers"]
    busy = (now.busy_s - before.busy_s)[serving] / span_s
    return {
        "time_s": now.now_s - start_s,
        "in_flight": int(run["in_flight"]),
        "queued": int(run["queued"]),
        "finished": int(run["finished"]),
        "prompt_tokens_per_s": (now.prompt_tokens - before.prompt_tokens) / span_s,
        "decode_tokens_per_s": (now.decode_tokens - before.decode_tokens) / span_s,
        "kv_used_max_fraction": float(used.max()),
        "kv_used_mean_fraction": float(used.mean()),
        "kv_expected_fraction": _kv_expected(nodes, len(state.layer_kv)),
        "busy_max_fraction": float(busy.max()),
        "busy_mean_fraction": float(busy.mean()),
    }


def _kv_expected(nodes: NDArray[np.void], layers: int) -> float:
    """Return the expected KV use of the fullest layer; a node spreads its cache evenly over its layers.

    The engine computes the same in compiled code, see `helixlab.engine.kv_cache`.
    """
    totals = np.zeros((2, layers))
    for node in nodes:
        own = slice(int(node["first_layer"]), int(node["first_layer"] + node["layers"]))
        for total, column in zip(
            totals, ("kv_expected_token_layers", "kv_capacity_token_layers"), strict=True
        ):
            total[own] += node[column] / node["layers"]
    return float((totals[0] / totals[1]).max())
