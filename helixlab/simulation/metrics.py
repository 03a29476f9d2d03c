"""Metrics of a run: means and percentiles of latencies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["PERCENTILES", "REQUEST_PERCENTILES", "distribution", "latency_metrics", "percentile"]

PERCENTILES = (5, 25, 50, 75, 95)
"""Percentiles of prompt and decode latency, those that the reference prints."""
REQUEST_PERCENTILES = (50, 90, 95, 99)
"""Percentiles of the latencies of whole requests: TTFT, TPOT and end-to-end latency."""


def percentile(ordered: NDArray[np.float64], percent: float) -> float:
    """Return the value at `percent` of the sorted values, without interpolation; NaN if there are none.

    The definition is that of the reference simulator: ``ordered[int(n * percent / 100)]``.

    Examples
    --------
    >>> percentile(np.array([1.0, 2.0, 3.0, 4.0]), 50)
    3.0
    """
    if len(ordered) == 0:
        return float("nan")
    return float(ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)])


def distribution(values_s: NDArray[np.float64], name: str, percents: tuple[int, ...]) -> dict[str, float]:
    """Return the mean and percentiles of seconds as ``{name}_mean_s``, ``{name}_p50_s`` ...

    Examples
    --------
    >>> distribution(np.array([0.5, 1.5]), "ttft", (50, 99))
    {'ttft_mean_s': 1.0, 'ttft_p50_s': 1.5, 'ttft_p99_s': 1.5}
    """
    ordered = np.sort(values_s)
    mean = {f"{name}_mean_s": float(ordered.mean()) if len(ordered) else float("nan")}
    return mean | {f"{name}_p{percent}_s": percentile(ordered, percent) for percent in percents}


def latency_metrics(latency_s: NDArray[np.float64], phase: str) -> dict[str, float]:
    """Return mean and percentiles of the latency of prompts or decodes, as the summary names them.

    Examples
    --------
    >>> latency_metrics(np.array([0.2, 0.4]), "decode")["decode_latency_p95_s"]
    0.4
    """
    return distribution(latency_s, f"{phase}_latency", PERCENTILES)
