"""Many runs: sweeps, rates up to saturation, tuning, and their statistics.

Modules load when one of their names is first used. `sweep` and `goodput` are modules here; the
functions of these names are in `helixlab`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helixlab._interrupts import loaded

if TYPE_CHECKING:
    from helixlab.experiments.goodput import Goodput, rate_sweep
    from helixlab.experiments.objectives import Objective, objective_metrics, request_latencies
    from helixlab.experiments.pooling import pooled_metrics, pooled_runs, waits_and_runs
    from helixlab.experiments.statistics import (
        load_metrics,
        mean_interval,
        trend_metrics,
        trends,
        worst_load,
    )
    from helixlab.experiments.tuning import Tuning, tune_execution

__all__ = [
    "Goodput",
    "Objective",
    "Tuning",
    "load_metrics",
    "mean_interval",
    "objective_metrics",
    "pooled_metrics",
    "pooled_runs",
    "rate_sweep",
    "request_latencies",
    "trend_metrics",
    "trends",
    "tune_execution",
    "waits_and_runs",
    "worst_load",
]

_HOMES = {
    "goodput": ("Goodput", "rate_sweep"),
    "objectives": ("Objective", "objective_metrics", "request_latencies"),
    "pooling": ("pooled_metrics", "pooled_runs", "waits_and_runs"),
    "statistics": ("load_metrics", "mean_interval", "trend_metrics", "trends", "worst_load"),
    "tuning": ("Tuning", "tune_execution"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'helixlab.experiments' has no attribute {name!r}")
    return getattr(loaded(f"helixlab.experiments.{_HOME_OF[name]}"), name)
