"""A run while it goes on: a line every so many simulated seconds."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from textwrap import fill
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from helixlab.engine.state import State

__all__ = ["COLUMNS", "EXPLAINED", "ProgressTable", "table_row"]

EXPLAINED: Final = (
    "Every {step:.10g} s: simulated seconds since the start; requests in flight (those held are among them),"
    " held at the coordinator, finished; tokens/s of prompts and of decodes; KV cache used (fullest node,"
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
"""Names, whose words stand one above the other, and how values are written."""
LEAST_WIDTH: Final = 6
"""Of the columns that are not parts of something, which take four characters."""
LINE: Final = 80
MOST_DIGITS: Final = 12
MOST_IDLE_ROWS: Final = 10
"""Where nothing happens for longer than so many rows, only the last of them is printed."""


@dataclass
class ProgressTable:
    """Prints a row of `table_row` every `step_s` simulated seconds, and one for what is left at the end.

    Where nothing happens for long, one row stands for all of it.

    Parameters
    ----------
    step_s : float
        Simulated seconds between rows.
    to : text stream, optional
        Standard output by default.
    """

    step_s: float
    to: TextIO | None = None
    _before: tuple[Any, ...] | None = field(default=None, init=False)
    _start_s: float = field(default=0.0, init=False)
    _digits: int = field(default=0, init=False)
    _widths: dict[str, int] = field(default_factory=dict, init=False)

    def start(self, state: State, start_s: float, span_s: float, open_ended: bool) -> None:
        """Print what the columns are, for a run of `span_s`, or until all that came in it has ended."""
        self._before = _counters(state, start_s)
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
        self._print(fill(EXPLAINED.format(step=self.step_s), LINE))
        names = {key: name.rpartition(" ") for key, (name, _) in COLUMNS.items()}
        self._print_row({key: above for key, (above, _, _) in names.items()})
        self._print_row({key: below for key, (_, _, below) in names.items()})

    def next_row_s(self, now_s: float, next_event_s: float = -math.inf) -> float:
        """The time of the first row after `now_s`, or of the last before the next event, if that is far."""
        steps = math.floor((now_s - self._start_s) / self.step_s * (1 + 1e-12)) + 1
        if next_event_s > self._start_s + (steps + MOST_IDLE_ROWS) * self.step_s:
            steps = math.floor((next_event_s - self._start_s) / self.step_s)
        return self._start_s + steps * self.step_s

    def show(self, state: State, now_s: float) -> None:
        """Print a row, unless one of this time has been printed."""
        assert self._before is not None, "started before"
        if now_s <= self._before[0]:
            return
        counters = _counters(state, now_s)
        row = table_row(state, self._before, counters, self._start_s)
        # The end may follow so soon on the last row that only further digits tell them apart.
        digits = self._digits
        while f"{row['time_s']:.{digits}f}" == f"{self._before[0] - self._start_s:.{digits}f}":
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
    """Digits behind the point that a time has, no more than three further ones than tell steps apart."""
    exponent = Decimal(repr(round(float(time_s), MOST_DIGITS))).normalize().as_tuple().exponent
    assert isinstance(exponent, int), "it is finite"
    enough = max(0, -math.floor(math.log10(step_s))) + 3
    return min(max(0, -exponent), enough, MOST_DIGITS)


def _counters(state: State, now_s: float) -> tuple[float, int, int, NDArray[np.float64]]:
    run, nodes = state.run[0], state.nodes[:-1]
    busy_s = nodes["busy_s"] + np.where(nodes["busy"] == 1, now_s - nodes["busy_since_s"], 0.0)
    return now_s, int(run["prompt_tokens"]), int(run["decode_tokens"]), busy_s


def table_row(
    state: State, before: tuple[Any, ...], counters: tuple[Any, ...], start_s: float
) -> dict[str, float]:
    """The figures of one row, by the keys of `COLUMNS`."""
    run, holding = state.run[0], state.nodes[:-1]["layers"] > 0
    span_s = counters[0] - before[0]
    nodes = state.nodes[:-1][holding]
    used = nodes["kv_used_token_layers"] / nodes["kv_capacity_token_layers"]
    busy = (counters[3] - before[3])[holding] / span_s
    return {
        "time_s": counters[0] - start_s,
        "in_flight": int(run["in_flight"]),
        "queued": int(run["queued"]),
        "finished": int(run["finished"]),
        "prompt_tokens_per_s": (counters[1] - before[1]) / span_s,
        "decode_tokens_per_s": (counters[2] - before[2]) / span_s,
        "kv_used_max_fraction": float(used.max()),
        "kv_used_mean_fraction": float(used.mean()),
        "kv_expected_fraction": _kv_expected(nodes, len(state.layer_kv)),
        "busy_max_fraction": float(busy.max()),
        "busy_mean_fraction": float(busy.mean()),
    }


def _kv_expected(nodes: NDArray[np.void], layers: int) -> float:
    """Expected KV use of the fullest layer, every node's cache spread evenly over its layers."""
    totals = np.zeros((2, layers))
    for node in nodes:
        held = slice(int(node["first_layer"]), int(node["first_layer"] + node["layers"]))
        for total, column in zip(
            totals, ("kv_expected_token_layers", "kv_capacity_token_layers"), strict=True
        ):
            total[held] += node[column] / node["layers"]
    return float((totals[0] / totals[1]).max())
