"""Equality by content of objects whose fields hold tables, arrays or NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["ByContent", "same"]


class ByContent:
    """Base of dataclasses, made with ``eq=False``, that are equal if all their fields are.

    Tables are compared by `pandas.DataFrame.equals`; NaN equals NaN.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(same(getattr(self, name), getattr(other, name)) for name in _names(self))

    def __hash__(self) -> int:
        plain = [getattr(self, name) for name in _names(self)]
        # Equal objects have equal texts and numbers; tables and NaN can be left out.
        return hash((type(self), *(v for v in plain if isinstance(v, str | int | float) and v == v)))


def _names(thing: Any) -> list[str]:
    return [field.name for field in fields(thing) if field.compare]


def same(one: Any, other: Any) -> bool:
    """Tell whether two values have the same content.

    Examples
    --------
    >>> same({"a": [float("nan")]}, {"a": [float("nan")]}), same(pd.Series([1]), pd.Series([2]))
    (True, False)
    """
    if one is other:
        return True
    if isinstance(one, pd.DataFrame | pd.Series):
        return type(one) is type(other) and bool(one.equals(other))  # type: ignore[arg-type]
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        kinds = isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.dtype == other.dtype
        return kinds and one.shape == other.shape and same(one.tolist(), other.tolist())
    if isinstance(one, Mapping):
        alike = isinstance(other, Mapping) and one.keys() == other.keys()
        return alike and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, Sequence) and not isinstance(one, str | bytes):
        alike = type(one) is type(other) and len(one) == len(other)
        return alike and all(map(same, one, other))
    if isinstance(one, float) and one != one:
        return isinstance(other, float) and other != other
    return bool(one == other)
