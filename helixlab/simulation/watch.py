"""A run while it goes on: a line every so many simulated seconds."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from helixlab.scheduling.state import State

__all__ = ["COLUMNS", "EXPLAINED", "Watch", "watch_row"]

EXPLAINED = (
    "Every {step:g} s: queries in flight, held, finished; tokens/s; KV cache used (fullest node, mean) and"
    " expected (fullest layer); part of the time busy (busiest node, mean)."
)
COLUMNS = {
    "time_s": ("time", "{:.10g} s"),
    "in_flight": ("in flight", "{:d}"),
    "held": ("held", "{:d}"),
    "finished": ("finished", "{:d}"),
    "prompt_tokens_per_s": ("prompt/s", "{:.1f}"),
    "decode_tokens_per_s": ("decode/s", "{:.1f}"),
    "kv_used_max_fraction": ("KV max", "{:.0%}"),
    "kv_used_mean_fraction": ("KV mean", "{:.0%}"),
    "kv_expected_fraction": ("KV exp.", "{:.0%}"),
    "busy_max_fraction": ("busy max", "{:.0%}"),
    "busy_mean_fraction": ("busy mean", "{:.0%}"),
}
WIDTH = 9


@dataclass
class Watch:
    """Prints a row of `watch_row` every `step_s` simulated seconds.

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

    def start(self, state: State, start_s: float) -> None:
        """Print what the columns are."""
        self._print(EXPLAINED.format(step=self.step_s))
        self._print(" ".join(name.rjust(WIDTH) for name, _ in COLUMNS.values()))
        self._before = _counters(state, start_s)
        self._start_s = start_s

    def next_row_s(self, now_s: float) -> float:
        """The time of the first row after `now_s`."""
        steps = math.floor((now_s - self._start_s) / self.step_s * (1 + 1e-12)) + 1
        return self._start_s + steps * self.step_s

    def show(self, state: State, now_s: float) -> None:
        """Print a row."""
        assert self._before is not None, "started before"
        counters = _counters(state, now_s)
        row = watch_row(state, self._before, counters, self._start_s)
        self._before = counters
        self._print(" ".join(form.format(row[key]).rjust(WIDTH) for key, (_, form) in COLUMNS.items()))

    def _print(self, text: str) -> None:
        print(text, file=self.to if self.to is not None else sys.stdout, flush=True)


def _counters(state: State, now_s: float) -> tuple[float, int, int, NDArray[np.float64]]:
    run, nodes = state.run[0], state.nodes[:-1]
    busy_s = nodes["busy_s"] + np.where(nodes["busy"] == 1, now_s - nodes["busy_since_s"], 0.0)
    return now_s, int(run["prompt_tokens"]), int(run["decode_tokens"]), busy_s


def watch_row(
    state: State, before: tuple[Any, ...], counters: tuple[Any, ...], start_s: float
) -> dict[str, float]:
    """The figures of one row, by the keys of `COLUMNS`."""
    run, holding = state.run[0], state.nodes[:-1]["layers"] > 0
    span_s = counters[0] - before[0]
    nodes = state.nodes[:-1][holding]
    used = nodes["kv_used_token_layers"] / nodes["kv_capacity_token_layers"]
    busy = (counters[3] - before[3])[holding] / span_s
    return {
        "time_s": round(counters[0] - start_s, 3),
        "in_flight": int(run["in_flight"]),
        "held": int(run["held"]),
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
