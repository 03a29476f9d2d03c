"""How evenly something is spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["gini", "max_over_mean"]


def gini(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The Gini coefficient: 0 where all are equal, near 1 where one has everything; 0 of nothing.

    Examples
    --------
    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 1])
    (0.0, 0.75)
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    total, count = float(ordered.sum()), len(ordered)
    if total <= 0:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float(2 * (ranks * ordered).sum() / (count * total) - (count + 1) / count)


def max_over_mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The largest over the mean: 1 where all are equal; 1 of nothing.

    Examples
    --------
    >>> max_over_mean([1, 2, 3])
    1.5
    """
    known = np.asarray(values, dtype=float)
    mean = float(known.mean()) if len(known) else 0.0
    return float(known.max()) / mean if mean > 0 else 1.0
