"""Whether there were more queries than the system took in."""

from __future__ import annotations

from typing import Final

import pandas as pd

from helixlab.diagnosis.steadiness import load_of
from helixlab.diagnosis.times import has_breakdown, in_window
from helixlab.simulation import Result

__all__ = ["held_fraction", "load_label", "node_samples", "samples"]

FEED_STOPS_AT: Final = 0.7
"""Expected KV use of the bottleneck layer near the one at which the helix scheduler's feeding stops."""


def samples(result: Result, table: pd.DataFrame) -> pd.DataFrame:
    """Those of the timeline, or of that of nodes, that are of the measured window."""
    first_s, last_s = (result.summary[f"window_{end}_s"].item() for end in ("start", "end"))
    return table[table["time_s"].between(first_s, last_s)]


def node_samples(result: Result) -> pd.DataFrame:
    """Those of the measured window of the nodes that hold layers."""
    nodes = result.nodes
    holding = nodes.loc[nodes["end_layer"] > nodes["first_layer"], "node"]
    inside = samples(result, result.node_timeline)
    return inside[inside["node"].isin(holding)]


def held_fraction(result: Result) -> float:
    """Part of the window in which queries were held at the coordinator, or fed no more, for want of room."""
    if _feeding_stopped(result):
        return 1.0
    row, inside = result.summary.iloc[0], samples(result, result.timeline)
    if len(inside):
        return float((inside["held"] > 0).mean())
    if has_breakdown(result):
        held_s = float(in_window(result)["held_s"].sum())
        return min(held_s / float(row["window_end_s"] - row["window_start_s"]), 1.0)
    return float(row["queries_waited"] / row["queries_fed"]) if row["queries_fed"] else 0.0


def _feeding_stopped(result: Result) -> bool:
    """Whether the helix scheduler fed no more because KV caches were expected to be full."""
    if result.summary["mode"].item() != "offline" or not result.provenance["scheduler"].get("feeds_by_kv"):
        return False
    inside = samples(result, result.timeline)
    return bool(len(inside) and inside["bottleneck_kv_expected_fraction"].mean() >= FEED_STOPS_AT)


def load_label(result: Result) -> str:
    """What the queue of an online run does, see `load_of`; empty for one that was stopped."""
    row = result.summary.iloc[0]
    if row["mode"] != "online" or row["partial"] or result.queries.empty:
        return ""
    return load_of(result).label if row["window_end_s"] > row["window_start_s"] else ""
