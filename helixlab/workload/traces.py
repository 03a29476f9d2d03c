"""Traces of real requests that ship with helixlab: their lengths, and their arrivals over an hour."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from helixlab._data import names_in, read_table
from helixlab.errors import UnknownNameError

__all__ = ["arrival_names", "arrivals_per_interval", "trace_lengths", "trace_names"]

MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS, MIN_TOKENS = 2048, 1024, 4
"""Limits of the lengths; longer and shorter requests are left out, as in the Helix paper (section 6.1)."""
INTERVAL_S = 3.0
"""Length of the intervals in which arrivals were counted."""
_LENGTHS, _ARRIVALS = "-lengths.csv.gz", "-arrivals-per-3s.csv"


def trace_names() -> list[str]:
    """List the traces of request lengths.

    Examples
    --------
    >>> trace_names()
    ['alpaca', 'azure-code', 'azure-conv', 'sharegpt']
    """
    return names_in("workloads", ending=_LENGTHS)


def arrival_names() -> list[str]:
    """List the traces of arrivals over time.

    Examples
    --------
    >>> arrival_names()
    ['azure-code', 'azure-conv']
    """
    return names_in("workloads", ending=_ARRIVALS)


def trace_lengths(name: str) -> pd.DataFrame:
    """Read the input and output tokens of the requests of a trace that are within the limits of the paper.

    Raises
    ------
    UnknownNameError
        There is no trace of this name.

    Examples
    --------
    >>> lengths = trace_lengths("azure-conv")
    >>> len(lengths), round(lengths["input_tokens"].mean()), round(lengths["output_tokens"].mean())
    (16657, 763, 232)
    """
    if name not in trace_names():
        raise UnknownNameError("trace", name, trace_names())
    table = read_table(f"workloads/{name}{_LENGTHS}")
    usable = table["input_tokens"].between(MIN_TOKENS, MAX_INPUT_TOKENS) & table["output_tokens"].between(
        MIN_TOKENS, MAX_OUTPUT_TOKENS
    )
    return table[usable].reset_index(drop=True)


def arrivals_per_interval(name: str) -> NDArray[np.int64]:
    """Count the requests in each interval of 3 s of the hour of a trace.

    Raises
    ------
    UnknownNameError
        There is no trace of this name.

    Examples
    --------
    >>> int(arrivals_per_interval("azure-conv").sum())
    16657
    """
    if name not in arrival_names():
        raise UnknownNameError("arrivals", name, arrival_names())
    return read_table(f"workloads/{name}{_ARRIVALS}")["requests"].to_numpy(np.int64)
