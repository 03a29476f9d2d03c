"""Columns of a user's table as plain numbers, whatever their dtype: what is no number becomes NaN."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Arrivals", "numbers", "value_in_words"]

_NUMBER: Final = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_DIGITS: Final = set("0123456789.+-eE")
_DATE_AND_TIME: Final = re.compile(
    r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?(?P<zone>Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?\s*",
    re.ASCII,
)
_SECOND: Final = np.timedelta64(1, "s")
LONGEST: Final = 60
"""Characters of a value in a message."""


def numbers(column: pd.Series) -> NDArray[np.float64]:
    """The numbers in a column, NaN for everything else: truth values, times, texts that are no number.

    Examples
    --------
    >>> numbers(pd.Series([1, "2.5", True, None, "3 tokens"], dtype=object)).tolist()
    [1.0, 2.5, nan, nan, nan]
    """
    values = _plain(column)
    if values.dtype.kind in "iuf":
        with np.errstate(over="ignore"):  # of longer floats
            return values.astype(np.float64)
    if values.dtype.kind in "mM":  # as objects they may become plain integers
        return np.full(len(values), math.nan)
    with suppress(ValueError, TypeError):  # a million texts are common
        if not set("".join(values)) - _DIGITS:
            return values.astype(np.float64)
    return np.array([_number(value) for value in values], np.float64)


class Arrivals:
    """Arrivals in seconds, part by part of the column of one table.

    Numbers are seconds, and durations of any unit become seconds. Dates and times, as text in the form of
    ISO 8601 too, count from the first of them. What the first part holds, the others must hold as well;
    times that have a zone do not mix with times that have none.

    Examples
    --------
    >>> Arrivals().seconds(pd.Series(["2024-03-04 09:00:10", "2024-03-04T09:00:11.5"])).tolist()
    [0.0, 1.5]
    >>> Arrivals().seconds(pd.Series(pd.to_timedelta([2000, 2500], unit="ms"))).tolist()
    [2.0, 2.5]
    """

    def __init__(self) -> None:
        self._kind = ""
        self._zoned = False
        self._first: np.datetime64 | None = None

    def seconds(self, column: pd.Series) -> NDArray[np.float64]:
        """Seconds of each row; NaN for what is no time."""
        values = _plain(column)
        kind = _kind_of_times(values)
        if not self._kind:
            self._kind = kind
            if kind == "dates" and values.dtype.kind == "O":
                self._zoned = next(zone for zone in map(_zone, values) if zone is not None)
        elif kind != self._kind:
            return np.full(len(values), math.nan)
        if kind == "numbers":
            return numbers(column) + 0.0  # -0.0 is 0.0
        times = self._dates(values) if kind == "dates" else _durations(values)
        seconds: NDArray[np.float64] = times / _SECOND
        return seconds

    def _dates(self, values: NDArray) -> NDArray[np.timedelta64]:
        """The time since the first; NaT for what is no date."""
        if values.dtype.kind == "O":
            read = [value if _zone(value) == self._zoned else None for value in values]
            format = "ISO8601" if any(isinstance(value, str) for value in read) else None
            dates = pd.to_datetime(pd.Series(read, dtype=object), utc=True, errors="coerce", format=format)
            values = dates.dt.tz_convert(None).to_numpy()
        if self._first is None and not np.isnat(values).all():
            self._first = values[~np.isnat(values)][0]
        since: NDArray[np.timedelta64] = values - (values[:1] if self._first is None else self._first)
        return since


def _kind_of_times(values: NDArray) -> str:
    """What arrivals are, by the first that is there: ``"numbers"``, ``"dates"`` or ``"durations"``."""
    if values.dtype.kind in "mM":
        return "durations" if values.dtype.kind == "m" else "dates"
    there = (value for value in values if not _is_missing(value))
    first = next(there, None) if values.dtype.kind == "O" else None
    if isinstance(first, timedelta | np.timedelta64):
        return "durations"
    return "numbers" if _zone(first) is None else "dates"


def _durations(values: NDArray) -> NDArray[np.timedelta64]:
    if values.dtype.kind == "O":
        read = [value if isinstance(value, timedelta) or _has_unit(value) else None for value in values]
        values = pd.to_timedelta(pd.Series(read, dtype=object), errors="coerce").to_numpy()
    return values


def _has_unit(value: Any) -> bool:
    return isinstance(value, np.timedelta64) and np.datetime_data(value.dtype)[0] != "generic"


def _zone(value: Any) -> bool | None:
    """Whether a date has a zone; None for what is no date."""
    if isinstance(value, str):
        found = _DATE_AND_TIME.fullmatch(value)
        return None if found is None else found["zone"] is not None
    if not isinstance(value, date | np.datetime64) or _is_missing(value):
        return None
    return getattr(value, "tzinfo", None) is not None


def value_in_words(value: object) -> str:
    """A value of a table as a message shows it: on one line, and not longer than that."""
    if _is_missing(value):
        return "missing"
    try:
        text = str(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        text = "an integer of thousands of digits"
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _is_missing(value: Any) -> bool:
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _plain(column: pd.Series) -> NDArray:
    """The values as a plain array; of times with a zone, in UTC."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert(None)
    return np.asarray(column)


def _number(value: Any) -> float:
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else math.nan
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | Decimal | np.integer | np.floating
    ):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:  # a signalling NaN
        return math.nan
