"""Whether there were more queries than the system took in."""

from __future__ import annotations

from typing import Final

import numpy as np

from helixlab.diagnosis.sampled import mean_of, samples
from helixlab.diagnosis.steadiness import load_of
from helixlab.diagnosis.times import has_breakdown
from helixlab.simulation import Result

__all__ = ["held_fraction", "load_label"]

FEED_STOPS_AT: Final = 0.7
"""Expected KV use of the bottleneck layer near the one at which the helix scheduler's feeding stops."""


def held_fraction(result: Result) -> float:
    """Part of the window in which queries were held at the coordinator, or fed no more, for want of room."""
    if _feeding_stopped(result):
        return 1.0
    row, inside = result.summary.iloc[0], samples(result, result.timeline)
    if len(inside):
        return mean_of(inside, inside["held"] > 0)
    if "held_s" in result.iterations and (has_breakdown(result) or not row["queries_in_flight"]):
        return _held_part(result)
    return float(row["queries_waited"] / row["queries_fed"]) if row["queries_fed"] else 0.0


def _held_part(result: Result) -> float:
    """Part of the window in which one query or more was held, by the iterations.

    A query is held when it arrives. For one that is held again after a preemption the time is put too early.
    """
    first_s, last_s = (float(result.summary[f"window_{end}_s"].item()) for end in ("start", "end"))
    held = result.iterations[result.iterations["held_s"] > 0].sort_values("start_s")
    begin_s = np.clip(held["start_s"].to_numpy(float), first_s, last_s)
    end_s = np.clip((held["start_s"] + held["held_s"]).to_numpy(float), first_s, last_s)
    counted_to_s = np.maximum.accumulate(np.append(first_s, end_s))[:-1]
    return float(np.maximum(end_s - np.maximum(begin_s, counted_to_s), 0.0).sum() / (last_s - first_s))


def _feeding_stopped(result: Result) -> bool:
    """Whether the helix scheduler fed no more because KV caches were expected to be full."""
    if result.summary["mode"].item() != "offline" or not result.provenance["scheduler"].get("feeds_by_kv"):
        return False
    inside = samples(result, result.timeline)
    return bool(len(inside) and mean_of(inside, inside["bottleneck_kv_expected_fraction"]) >= FEED_STOPS_AT)


def load_label(result: Result) -> str:
    """What the queue of an online run does, see `load_of`; empty for one that was stopped."""
    row = result.summary.iloc[0]
    if row["mode"] != "online" or row["partial"] or result.queries.empty:
        return ""
    return load_of(result).label if row["window_end_s"] > row["window_start_s"] else ""
