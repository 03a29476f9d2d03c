"""Requests of the user's own: tables and files, read strictly and checked."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from difflib import get_close_matches
from functools import partial
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from helixlab._io import foreign_kind
from helixlab._validation import plain, shown
from helixlab.errors import FileFormatError, WorkloadError

__all__ = ["Arrivals", "check_requests", "numbers", "read_requests", "value_in_words"]


MOST_TOKENS: Final = 1_000_000
MOST_REQUESTS: Final = 20_000_000
"""Limit beyond which reading stops, so that a small compressed file cannot fill the memory."""
LATEST_S: Final = 1e13
"""Latest arrival; above milliseconds since 1970, which are moved to begin at 0 as seconds are."""
CHUNK_ROWS: Final = 4096
LONGEST_LINE: Final = 1 << 20
MOST_LISTED: Final = 12
"""Largest number of column names in a message."""
A_TIME: Final = "2024-03-04 09:00:10.25"

_OPENERS: Final[dict[str, Callable[[Any], Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BROKEN: Final = (OSError, EOFError, UnicodeDecodeError, ValueError, csv.Error, zlib.error, lzma.LZMAError)
_SEPARATORS: Final = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_ALSO_CALLED: Final = {
    "arrival_s": ("timestamp", "arrivedat", "arrivaltime", "arrival", "time"),
    "input_tokens": ("contexttokens", "requesttokens", "numprefilltokens", "inputlength", "prompttokens"),
    "output_tokens": ("generatedtokens", "responsetokens", "numdecodetokens", "outputlength"),
}
"""Names of the columns in published traces, in the form of `_folded`."""
_NO_NAME: Final = re.compile(r"[-+.\d][-+.,:\s\deETZ]*")
_NUMBER: Final = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_DIGITS: Final = set("0123456789.+-eE")
_DATE_AND_TIME: Final = re.compile(
    r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?(?P<zone>Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?\s*",
    re.ASCII,
)
_SECOND: Final = np.timedelta64(1, "s")
LONGEST: Final = 60
"""Largest number of characters of a value in a message."""


def read_requests(path: Path, *, with_arrivals: bool) -> pd.DataFrame:
    """Read a CSV file (``.gz``, ``.bz2`` and ``.xz`` allowed) with a header line.

    The columns are ``input_tokens, output_tokens`` and, `with_arrivals`, ``arrival_s``; others are ignored.
    Fields are separated by commas, blanks around them are ignored, and lines before the header that start
    with ``#`` are comments. Every row has as many fields as the header. The values of the columns are those
    of `check_requests`.

    Raises
    ------
    FileFormatError
        The file cannot be read as such a table.
    WorkloadError
        A column is missing or a request makes no sense; the message names the line, counted from 1, and the
        row of requests, counted from 0.
    """
    needed = _needed(with_arrivals)
    with _opened(path, needed) as text:
        skipped, first = 0, ""
        for first in _lines(text):
            if first.strip() and not first.startswith("#"):
                break
            skipped, first = skipped + 1, ""
        _refuse_json(first, path, needed)
        reader = csv.reader(chain([first], _lines(text)), skipinitialspace=True, strict=True)
        names = [name.strip() for name in next(reader, [])]
        if not set(needed) <= set(names):
            _refuse_separator(first, path)
        places = _places(names, needed, str(path), "separated by ','")

        def rows() -> Iterator[tuple[int, list[str]]]:
            for number, row in enumerate(_records(reader, path, skipped)):
                line = skipped + reader.line_num
                if len(row) != len(names):
                    fields = f"{len(row)} field{'s' if len(row) > 1 else ''}"
                    raise FileFormatError(
                        f"{path}, line {line}, row {number}: {fields} where the header has {len(names)}; give"
                        " as many, and put a field that holds a comma in quotes"
                    )
                yield line, [row[place].strip() for place in places]

        return _tidied(_chunks(rows(), needed), str(path), needed)


def check_requests(table: pd.DataFrame, source: str, *, with_arrivals: bool) -> pd.DataFrame:
    """Check and tidy a table of requests: token counts of at least 1, arrivals in rising order.

    Numbers are read from a column of any dtype, also from text. Arrivals may also be durations, or dates and
    times (as text in the form of ISO 8601), which count from the first of them.

    Raises
    ------
    WorkloadError
        A column is missing or a value makes no sense; the message names the row, counted from 0 whatever the
        index.

    Examples
    --------
    >>> table = pd.DataFrame({"input_tokens": [10], "output_tokens": [0]})
    >>> check_requests(table, "mine", with_arrivals=False)
    Traceback (most recent call last):
    helixlab.errors.WorkloadError: mine, row 0: output_tokens is 0; give whole numbers from 1 to 1000000
    """
    needed = _needed(with_arrivals)
    places = _places(list(table.columns), needed, source)
    columns = {name: table.iloc[:, place] for name, place in zip(needed, places, strict=True)}
    return _tidied([(columns, None)], source, needed)


def _needed(with_arrivals: bool) -> list[str]:
    return ["arrival_s"] * with_arrivals + ["input_tokens", "output_tokens"]


# Files


@contextmanager
def _opened(path: Path, needed: Sequence[str]) -> Iterator[TextIO]:
    """Open a file, unpacked according to its ending; errors while it is read become one line."""
    mend = f"give a CSV file with a header line and the columns {', '.join(needed)}, or a DataFrame"
    opener = _OPENERS.get(path.suffix.lower())
    try:
        with path.open("rb") as raw, opener(raw) if opener else raw as unpacked:
            kind = foreign_kind(unpacked.peek(16))
            if kind is not None:
                raise FileFormatError(f"cannot read {path} as a table, it is {kind}; {mend}")
            yield TextIOWrapper(unpacked, encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileFormatError(f"cannot read {path}: there is no such file; check the path") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"cannot read {path} as a table, it is not UTF-8 text ({error.reason}); save it as UTF-8, or"
            f" {mend}"
        ) from None
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise FileFormatError(f"cannot read {path} as a table ({reason}); {mend}") from None


def _lines(text: TextIO) -> Iterator[str]:
    for line in iter(partial(text.readline, LONGEST_LINE), ""):
        if len(line) == LONGEST_LINE:
            raise ValueError(f"a line of {LONGEST_LINE} characters or more")
        yield line


def _records(reader: Any, path: Path, skipped: int) -> Iterator[list[str]]:
    """Generate the rows of a file, without blank lines."""
    try:
        yield from (row for row in reader if row not in ([], [""]))
    except csv.Error as error:
        raise FileFormatError(
            f"{path}, line {skipped + reader.line_num}: {error}; end every field that begins with a quote by"
            f" one, and give no field of more than {csv.field_size_limit()} characters"
        ) from None


def _chunks(
    rows: Iterator[tuple[int, list[str]]], needed: Sequence[str]
) -> Iterator[tuple[dict[str, pd.Series], list[int]]]:
    """Split a file into parts, as text takes much more memory than the numbers it stands for."""
    while chunk := list(islice(rows, CHUNK_ROWS)):
        cells = zip(*(cells for _, cells in chunk), strict=True)
        columns = {
            name: pd.Series([cell or None for cell in column], dtype=object)
            for name, column in zip(needed, cells, strict=True)
        }
        yield columns, [line for line, _ in chunk]


def _refuse_json(line: str, path: Path, needed: Sequence[str]) -> None:
    if line.lstrip()[:1] not in ("{", "["):
        return
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    keys = f" lines with the keys {_listed(list(content))}" if isinstance(content, dict) else ""
    raise FileFormatError(
        f"{path} holds JSON{keys}, which is not read as a table; give a CSV file with a header line"
        f" and the columns {', '.join(needed)}, or a DataFrame"
    )


def _refuse_separator(header: str, path: Path) -> None:
    """Refuse a header line whose names are most likely separated by something other than commas."""
    likely = max(_SEPARATORS, key=header.count)
    if likely not in header and " " in header.strip():
        likely = " "
    if likely != "," and likely in header:
        names = [name.strip() for name in next(csv.reader([header], delimiter=likely))]
        raise WorkloadError(
            f"{path} has the columns {_listed(names)}, separated by {_SEPARATORS.get(likely, 'blanks')};"
            " separate them by ',', and write decimals with '.'"
        )


# Columns


def _places(names: Sequence[Any], needed: Sequence[str], source: str, separated: str = "") -> list[int]:
    """Find the positions of the needed columns."""
    found = {
        column: [place for place, name in enumerate(names) if isinstance(name, str) and name == column]
        for column in needed
    }
    for column, places in found.items():
        if len(places) > 1:
            raise WorkloadError(f"{source} has {len(places)} columns {column!r}; keep one of them")
    missing = [column for column, places in found.items() if not places]
    if missing:
        has = f"has the columns {_listed(names)}" if len(names) else "has no columns at all"
        if separated and len(names) > 1:
            has += f", {separated}"
        raise WorkloadError(
            f"{source} has no column {missing[0]!r}; it needs {', '.join(needed)}, and {has}"
            f"{_mend(missing, names)}"
        )
    return [places[0] for places in found.values()]


def _mend(missing: Sequence[str], names: Sequence[Any]) -> str:
    """Suggest how to correct missing columns, where that is clear."""
    if names and all(isinstance(name, tuple) for name in names):
        return "; give columns of one level"
    if names and all(_NO_NAME.fullmatch(str(name)) for name in names):
        return "; these are no names, name the columns (in a file, by a header line)"
    others = [name for name in names if not isinstance(name, str) or name not in _ALSO_CALLED]
    meant = {column: near for column in missing if (near := _nearest(column, others)) is not None}
    if not meant:
        return ""
    pairs = " and ".join(f"{shown(near)} by {column!r}" for column, near in meant.items())
    unit = " (arrival_s is in seconds)" if "arrival_s" in meant else ""
    return f"; did you mean {pairs}? Rename what is meant{unit}"


def _folded(name: object) -> str:
    return "".join(filter(str.isalnum, str(name).lower()))


def _nearest(column: str, names: Sequence[Any]) -> Any:
    """Find the name that most likely stands for a column; None if there is none."""
    known = {_folded(name): name for name in reversed(names)}
    for spelling in (_folded(column), *_ALSO_CALLED[column]):
        if spelling in known:
            return known[spelling]
    close = get_close_matches(_folded(column), known, n=1, cutoff=0.75)
    return known[close[0]] if close else None


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(shown, names[:MOST_LISTED])) + (", ..." if len(names) > MOST_LISTED else "")


# Values


def _tidied(
    chunks: Iterable[tuple[dict[str, pd.Series], Sequence[int] | None]], source: str, needed: Sequence[str]
) -> pd.DataFrame:
    """Check and join the chunks of a table, each with the lines of its rows if it comes from a file."""
    parts: dict[str, list[NDArray]] = {column: [] for column in needed}
    arrivals, latest, done = Arrivals(), np.zeros(1), 0
    for columns, lines in chunks:
        for column, given in columns.items():
            if column == "arrival_s":
                values = arrivals.seconds(given)
                right = (values >= np.append(latest, values[:-1])[: len(values)]) & (values <= LATEST_S)
                latest = values[-1:]
                mend = f"give seconds from 0 on, in rising order, or times such as {A_TIME}"
            else:
                values = numbers(given)
                right = (values >= 1) & (values <= MOST_TOKENS) & (values == np.floor(values))
                mend = f"give whole numbers from 1 to {MOST_TOKENS}"
            if not right.all():
                row = int(np.flatnonzero(~right)[0])
                line = "" if lines is None else f", line {lines[row]}"
                value = value_in_words(given.iloc[row])
                raise WorkloadError(f"{source}{line}, row {done + row}: {column} is {value}; {mend}")
            parts[column].append(values if column == "arrival_s" else values.astype(np.int64))
        done += len(values)
        if done > MOST_REQUESTS:
            raise WorkloadError(
                f"{source} has more than {MOST_REQUESTS} requests, more than one run takes; give part of them"
            )
    if not done:
        raise WorkloadError(f"{source} has no rows; give at least one request")
    return pd.DataFrame({column: np.concatenate(values) for column, values in parts.items()})


def numbers(column: pd.Series) -> NDArray[np.float64]:
    """Read the numbers in a column; NaN for all else: truth values, times, text that is no number.

    Examples
    --------
    >>> numbers(pd.Series([1, "2.5", True, None, "3 tokens"], dtype=object)).tolist()
    [1.0, 2.5, nan, nan, nan]
    """
    values = _plain(column)
    if values.dtype.kind in "iuf":
        with np.errstate(over="ignore"):  # longer floats may overflow
            return values.astype(np.float64)
    if values.dtype.kind in "mM":  # as objects, times may become plain integers
        return np.full(len(values), math.nan)
    with suppress(ValueError, TypeError):  # a million texts are common
        if not set("".join(values)) - _DIGITS:
            return values.astype(np.float64)
    return np.array([_number(value) for value in values], np.float64)


class Arrivals:
    """Converter of arrivals to seconds, for one part of a column after the other.

    Numbers are seconds, and durations of any unit become seconds. Dates and times, also as text in the form
    of ISO 8601, count from the first of them. All parts must hold the same kind of values as the first; times
    with a zone do not mix with times without one.

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
        """Convert each row to seconds; NaN for values that are no time."""
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
        """Subtract the first date; NaT for values that are no date."""
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
    """Find the kind of arrivals, ``"numbers"``, ``"dates"`` or ``"durations"``, by the first there is."""
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
    """Tell whether a date has a zone; None for a value that is no date."""
    if isinstance(value, str):
        found = _DATE_AND_TIME.fullmatch(value)
        return None if found is None else found["zone"] is not None
    if not isinstance(value, date | np.datetime64) or _is_missing(value):
        return None
    return getattr(value, "tzinfo", None) is not None


def value_in_words(value: object) -> str:
    """Format a value of a table for a message, on one short line."""
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
    """Convert a column to a plain array, times with a zone to UTC."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert(None)
    return np.asarray(column)


def _number(value: Any) -> float:
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else math.nan
    number = plain(value)  # numpy regards durations as whole numbers, `plain` does not
    if type(number) not in (int, float):
        return math.nan
    try:
        return float(number)
    except OverflowError:
        return math.inf
