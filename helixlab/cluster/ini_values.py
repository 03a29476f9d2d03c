"""Values of the reference simulator's .ini files: a small grammar, and nothing that is ever evaluated.

A value is a product of numbers and units (``1250.0 * mbps``), a list of integers and quoted names
(``['source', 1, 2]``), or a name (``A100``, ``"A100"``).
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from helixlab._validation import shown
from helixlab.errors import FileFormatError
from helixlab.files import read_text

__all__ = ["RATES", "SECONDS", "SIZES", "Section", "read_sections"]

RATES: Final = {"kbps": "1e3", "mbps": "1e6", "gbps": "1e9"}
"""Bytes per second: in these files a "bit" of a rate is a byte."""
SIZES: Final = {"Byte": "1", "KB": "1e3", "MB": "1e6", "GB": "1e9"}
SECONDS: Final = {"Sec": "1", "MilliSec": "1e-3"}

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,2})?")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,15}")
_NAME: Final = re.compile(r"\w[\w .+/-]{0,63}")
_MOST_FACTORS: Final = 4
_MOST_ITEMS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a file, with the readers of its values.

    Examples
    --------
    >>> link = Section("my.ini", "Link-0-1", {"bandwidth": "12.5 * mbps", "latency": "59 * MilliSec"})
    >>> link.number("bandwidth", RATES), link.number("latency", SECONDS)
    (12500000.0, 0.059)
    """

    file: str
    name: str
    values: Mapping[str, str]

    def only(self, required: Collection[str], optional: Collection[str] = ()) -> Section:
        """This section, if it has all `required` keys and none but those and the `optional` ones."""
        for key in required:
            if key not in self.values:
                raise FileFormatError(f"{self.file}: section [{self.name}] has no key {key!r}; add it")
        for key in self.values:
            if key not in required and key not in optional:
                raise self.fault(key, "leave this key out: it means nothing here")
        return self

    def fault(self, key: str, mend: str) -> FileFormatError:
        """The error for a value, which says how to mend it."""
        value = shown(self.values[key])
        return FileFormatError(f"{self.file}: section [{self.name}], key {shown(key)}, value {value}: {mend}")

    def number(self, key: str, units: Mapping[str, str]) -> float:
        """A product of numbers and at most one unit, in the base unit (bytes, bytes per second, seconds)."""
        mend = f"write a number and a unit ({', '.join(units)}), such as 2.5 * {list(units)[-1]}"
        factors = [factor.strip() for factor in self.values[key].split("*", _MOST_FACTORS)]
        if len(factors) > _MOST_FACTORS or sum(factor in units for factor in factors) > 1:
            raise self.fault(key, mend)
        product = Decimal(1)  # decimal, so that 59 * 1e-3 is 0.059 and not 0.059000000000000004
        for factor in factors:
            if factor not in units and not _NUMBER.fullmatch(factor):
                raise self.fault(key, mend)
            product *= Decimal(units.get(factor, factor))
        return float(product)

    def integer(self, key: str) -> int:
        """A whole number, 0 or more."""
        value = self.values[key].strip()
        if not _INTEGER.fullmatch(value) or int(value) < 0:
            raise self.fault(key, "write a whole number, 0 or more")
        return int(value)

    def text(self, key: str) -> str:
        """A name, in quotes or not."""
        name = _unquoted(self.values[key]) or self.values[key].strip()
        if not _NAME.fullmatch(name):
            raise self.fault(key, "write a name of letters, digits, blanks and . + - / _")
        return name

    def items(self, key: str) -> list[int | str]:
        """A list of whole numbers and quoted names."""
        value = self.values[key].strip()
        if value[:1] != "[" or value[-1:] != "]":
            raise self.fault(key, "write a list, such as ['source', 0, 1]")
        if value.count(",") >= _MOST_ITEMS:
            raise self.fault(key, f"write a list of at most {_MOST_ITEMS} items")
        found: list[int | str] = []
        for item in value[1:-1].split(",") if value[1:-1].strip() else []:
            name = _unquoted(item)
            if name is not None and _NAME.fullmatch(name):
                found.append(name)
            elif _INTEGER.fullmatch(item.strip()):
                found.append(int(item))
            else:
                raise self.fault(key, f"write item {shown(item.strip())} as a whole number or a quoted name")
        return found


def _unquoted(value: str) -> str | None:
    """What stands between quotes; None without quotes."""
    value = value.strip()
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"" else None


def read_sections(path: str | os.PathLike[str]) -> dict[str, Section]:
    """The sections of an .ini file in their order, nothing in them interpreted.

    Raises
    ------
    FileFormatError
        The file cannot be read, or is not made of sections with ``key = value`` lines, each once.
    """
    parser = configparser.RawConfigParser(default_section="", delimiters=("=",), comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    try:
        parser.read_string(read_text(path), os.fspath(path))
    except configparser.Error as error:
        reason = " ".join(str(error).split())[:200]
        raise FileFormatError(f"{path} is not a readable .ini file: {reason}; mend that line") from None
    return {name: Section(os.fspath(path), name, dict(parser.items(name))) for name in parser.sections()}
