"""Checks of numbers, flags and names as users give them, which become plain Python values.

A number may be an int, a float, a Fraction, a Decimal, a numpy scalar, an array without dimensions or an
element of a pandas object. Bools, text, NaN and missing values are no numbers. A whole number must be of a
whole type: 3.0 is refused, as 3.5 is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Final

import numpy as np

from helixlab.errors import HelixlabError

__all__ = [
    "LARGEST",
    "LARGEST_SEED",
    "as_flag",
    "as_generator",
    "as_items",
    "as_jobs",
    "as_number",
    "as_seed",
    "as_whole",
    "plain",
    "plain_amount",
    "shown",
]

LARGEST: Final = 1e18
"""Largest amount of bytes, bytes per second or seconds that is accepted."""
LARGEST_SEED: Final = 2**63 - 1


def shown(value: object) -> str:
    """Format a value for an error message, on one short line."""
    try:
        text = " ".join(repr(plain(value)).split())
    except ValueError:  # Python refuses to print integers of thousands of digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def plain(value: Any) -> Any:
    """Convert a number, flag or text to a plain Python value; leave everything else as it is.

    Examples
    --------
    >>> import numpy as np
    >>> plain(np.int64(3)), plain(np.array(0.5)), plain(np.str_("L4")), plain(np.bool_(True)), plain([1])
    (3, 0.5, 'L4', True, [1])
    """
    if type(value) in (int, float, bool, str) or value is None:
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, np.timedelta64):  # numpy regards it as a whole number
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        try:
            return float(value)
        except (OverflowError, ValueError):  # larger than any float, or a signalling NaN
            return value
    return str(value) if isinstance(value, str) else value


def plain_amount(value: Any) -> Any:
    """Convert as `plain` does, and an int to a float, so that 1 and 1.0 are the same content.

    Examples
    --------
    >>> plain_amount(3), plain_amount("3")
    (3.0, '3')
    """
    value = plain(value)
    try:
        return float(value) + 0.0 if type(value) in (int, float) else value  # + 0.0: no negative zero
    except OverflowError:
        return value


def as_whole(
    value: Any,
    name: str,
    *,
    error: type[HelixlabError],
    least: int | None = None,
    most: int | None = None,
    mend: str | None = None,
) -> int:
    """Check a whole number; return it as an int.

    Parameters
    ----------
    value
        Value that was given.
    name : str
        Name of the value in the message.
    error : type
        Type of the error if the value is no whole number from `least` to `most`.
    least, most : int, optional
        Smallest and largest value that are accepted.
    mend : str, optional
        Description of accepted values; by default a whole number within the limits.

    Examples
    --------
    >>> import numpy as np
    >>> as_whole(np.int64(3), "n_jobs", least=1, error=HelixlabError)
    3
    >>> as_whole(0, "n_jobs", least=1, error=HelixlabError)
    Traceback (most recent call last):
    helixlab.errors.HelixlabError: n_jobs is 0; give a whole number of at least 1
    """
    number = plain(value)
    if type(number) is int and (least is None or number >= least) and (most is None or number <= most):
        return number
    raise error(
        f"{name} is {shown(value)}; give {mend or 'a whole number' + _limits(least, most)}{_as_int(number)}"
    )


def as_number(
    value: Any,
    name: str,
    *,
    error: type[HelixlabError],
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    mend: str | None = None,
) -> float:
    """Check a number; return it as a float.

    Parameters
    ----------
    value
        Value that was given.
    name : str
        Name of the value in the message.
    error : type
        Type of the error if the value is no number within the limits.
    least, above, most, below : float, optional
        Limits that the value may reach (`least`, `most`) or not (`above`, `below`). Without an upper limit it
        must be finite.
    mend : str, optional
        Description of accepted values; by default a number within the limits.

    Examples
    --------
    >>> import numpy as np
    >>> as_number(np.float32(0.5), "warmup_s", least=0, error=HelixlabError)
    0.5
    >>> as_number(float("nan"), "warmup_s", least=0, error=HelixlabError)
    Traceback (most recent call last):
    helixlab.errors.HelixlabError: warmup_s is nan; give a number of at least 0
    """
    number = plain_amount(value)
    if (
        type(number) is float
        and not math.isnan(number)
        and (least is None or number >= least)
        and (above is None or number > above)
        and (number <= most if most is not None else below is not None or number < math.inf)
        and (below is None or number < below)
    ):
        return number
    raise error(f"{name} is {shown(value)}; give {mend or 'a number' + _limits(least, most, above, below)}")


def as_flag(value: Any, name: str, *, error: type[HelixlabError]) -> bool:
    """Check a flag, of Python or numpy; return it as a bool.

    Examples
    --------
    >>> import numpy as np
    >>> as_flag(np.bool_(True), "progress", error=HelixlabError)
    True
    """
    flag = plain(value)
    if type(flag) is not bool:
        raise error(f"{name} is {shown(value)}; give True or False")
    return flag


def as_items(values: Any, name: str, *, error: type[HelixlabError], of: str = "numbers") -> tuple[Any, ...]:
    """Check a sequence (list, tuple, array of one dimension, Series ...); return its items as plain values.

    Examples
    --------
    >>> import numpy as np
    >>> as_items(np.array([1, 2]), "kv_blocks", error=HelixlabError)
    (1, 2)
    """
    unordered = isinstance(values, str | bytes | Mapping | Set) or getattr(values, "ndim", 1) != 1
    if unordered or not isinstance(values, Iterable):
        raise error(f"{name} is {shown(values)}; give a sequence of {of}")
    return tuple(map(plain, values))


def as_jobs(n_jobs: Any, name: str = "n_jobs", *, error: type[HelixlabError]) -> int:
    """Check a number of runs at a time as joblib counts them: -1 is one for each core, -2 one less.

    Examples
    --------
    >>> import numpy as np
    >>> as_jobs(np.int64(2), error=HelixlabError)
    2
    """
    mend = "the number of runs at a time, or -1 for one a core"
    jobs = as_whole(n_jobs, name, mend=mend, error=error)
    return jobs or as_whole(jobs, name, least=1, mend=mend, error=error)


def as_seed(rng: Any, name: str = "rng", *, error: type[HelixlabError]) -> int:
    """Check a seed; draw one if `rng` is a numpy Generator.

    Examples
    --------
    >>> import numpy as np
    >>> as_seed(np.uint8(7), error=HelixlabError)
    7
    """
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**62))
    mend = f"a seed from 0 to {LARGEST_SEED}, or a numpy Generator"
    return as_whole(rng, name, least=0, most=LARGEST_SEED, mend=mend, error=error)


def as_generator(rng: Any, name: str = "rng", *, error: type[HelixlabError]) -> np.random.Generator:
    """Return a numpy Generator: `rng` itself, or one with this seed.

    Examples
    --------
    >>> int(as_generator(3, error=HelixlabError).integers(10))
    8
    """
    return (
        rng
        if isinstance(rng, np.random.Generator)
        else np.random.default_rng(as_seed(rng, name, error=error))
    )


def _as_int(number: object) -> str:
    """Return the hint ", as an int" for a float with an integral value, else an empty string."""
    return ", as an int" if type(number) is float and number.is_integer() else ""


def _limits(
    least: float | None, most: float | None, above: float | None = None, below: float | None = None
) -> str:
    """Describe the limits, to follow "a number"."""
    if least is not None and most is not None and most < math.inf:
        return f" from {_in_words(least)} to {_in_words(most)}"
    lower = [f"of at least {_in_words(least)}"] if least is not None else []
    lower += [f"above {_in_words(above)}"] if above is not None else []
    upper = [f"at most {_in_words(most)}"] if most is not None and most < math.inf else []
    upper += [f"below {_in_words(below)}"] if below is not None and below < math.inf else []
    limits = " and ".join(lower + upper)
    return f" {limits}" if limits else ""


def _in_words(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"
