"""Requests of the user's own: reading them from a CSV file, and checking them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from helixlab.errors import FileFormatError, WorkloadError

__all__ = ["check_requests", "read_requests"]

MOST_TOKENS = 1_000_000
LATEST_S = 1e13
"""Milliseconds since 1970 are below, which are moved to begin at 0 as seconds are."""


def read_requests(path: Path, *, with_arrivals: bool) -> pd.DataFrame:
    """Read a CSV file (``.gz`` allowed) with a header line.

    Columns are ``input_tokens, output_tokens`` and, `with_arrivals`, ``arrival_s``.

    Raises
    ------
    FileFormatError
        The file cannot be read as such a table.
    WorkloadError
        A request makes no sense.
    """
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise FileFormatError(f"cannot read {path}: there is no such file; check the path") from None
    except (OSError, EOFError, ValueError, UnicodeDecodeError, zlib.error) as error:
        raise FileFormatError(
            f"cannot read {path} as a table ({str(error).splitlines()[0]}); give a CSV file with a"
            " header line"
        ) from None
    return check_requests(table, str(path), with_arrivals=with_arrivals)


def check_requests(table: pd.DataFrame, source: str, *, with_arrivals: bool) -> pd.DataFrame:
    """Check and tidy a table of requests: whole tokens of at least 1, arrivals that rise.

    Raises
    ------
    WorkloadError
        A column is missing or a value makes no sense; names the row.

    Examples
    --------
    >>> table = pd.DataFrame({"input_tokens": [10], "output_tokens": [0]})
    >>> check_requests(table, "mine", with_arrivals=False)
    Traceback (most recent call last):
    helixlab.errors.WorkloadError: mine, row 0: output_tokens is 0; give whole numbers from 1 to 1000000
    """
    columns = ["arrival_s"] * with_arrivals + ["input_tokens", "output_tokens"]
    for column in columns:
        if column not in table:
            raise WorkloadError(f"{source} has no column {column!r}; it needs {', '.join(columns)}")
    if table.empty:
        raise WorkloadError(f"{source} has no rows; give at least one request")
    values = table[columns].apply(pd.to_numeric, errors="coerce")
    for column in ("input_tokens", "output_tokens"):
        wrong = ~(values[column].between(1, MOST_TOKENS) & (values[column] % 1 == 0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise WorkloadError(
                f"{source}, row {row}: {column} is {table[column].iloc[row]}; give whole numbers from 1 to"
                f" {MOST_TOKENS}"
            )
    if with_arrivals:
        arrival = values["arrival_s"]
        wrong = ~(arrival.between(0, LATEST_S)) | (arrival.diff() < 0)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise WorkloadError(
                f"{source}, row {row}: arrival_s is {table['arrival_s'].iloc[row]}; give seconds from 0 on,"
                " in rising order"
            )
    types = {"input_tokens": np.int64, "output_tokens": np.int64}
    tidy: pd.DataFrame = values.astype(types).reset_index(drop=True)
    return tidy
