"""Figures of a run, from its logs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["PERCENTILES", "latency_metrics", "percentile"]

PERCENTILES = (5, 25, 50, 75, 95)


def percentile(ordered: NDArray[np.float64], percent: float) -> float:
    """The value behind `percent` of the sorted values, without interpolation; NaN of none.

    The definition of the reference simulator: ``ordered[int(n * percent / 100)]``.

    Examples
    --------
    >>> percentile(np.array([1.0, 2.0, 3.0, 4.0]), 50)
    3.0
    """
    if len(ordered) == 0:
        return float("nan")
    return float(ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)])


def latency_metrics(latency_s: NDArray[np.float64], what: str) -> dict[str, float]:
    """Mean and percentiles as ``{what}_latency_mean_s``, ``{what}_latency_p5_s`` ...

    Examples
    --------
    >>> latency_metrics(np.array([0.2, 0.4]), "decode")["decode_latency_p95_s"]
    0.4
    """
    ordered = np.sort(latency_s)
    figures = {f"{what}_latency_mean_s": float(ordered.mean()) if len(ordered) else float("nan")}
    return figures | {f"{what}_latency_p{p}_s": percentile(ordered, p) for p in PERCENTILES}
