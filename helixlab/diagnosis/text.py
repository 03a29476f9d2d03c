"""Numbers and lists as a diagnosis writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["factor", "joined", "node_numbers", "number", "percent", "share_of"]


def number(value: float) -> str:
    """Write a number with three significant digits and without an exponent.

    Examples
    --------
    >>> number(1289.557), number(64.23), number(0.04567)
    ('1290', '64.2', '0.0457')
    """
    if value == 0 or not abs(value) < 1e15:
        return f"{value:.0f}"
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
    if abs(value) < 1:
        return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.6f}".rstrip("0").rstrip(".") or "0"
    if abs(value) >= 1000:
        return str(round(value, -(len(str(int(abs(value)))) - 3))).removesuffix(".0")
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    """Write a share in percent; one too small for a digit as under 0.1 %.

    Examples
    --------
    >>> percent(0.183), percent(0.0042), percent(1.0), percent(0.0004), percent(0.0)
    ('18 %', '0.4 %', '100 %', 'under 0.1 %', '0 %')
    """
    value = 100 * share
    if 0 < abs(value) < 0.05:
        return "under 0.1 %"
    return f"{value:.0f} %" if abs(value) >= 0.95 or value == 0 else f"{value:.1f} %"


def share_of(some: int, whole: int) -> str:
    """Write a count beside the whole, and its share.

    Examples
    --------
    >>> share_of(12, 400)
    '12 of 400 (3 %)'
    """
    return f"{some} of {whole} ({percent(some / whole)})"


def factor(value: float) -> str:
    """Write a ratio with two significant digits, or more near 1.

    Examples
    --------
    >>> factor(2.04), factor(1.5), factor(1.012)
    ('2 times', '1.5 times', '1.01 times')
    """
    short = f"{float(f'{value:.2g}'):g}"
    return f"{value:.2f} times" if short == "1" else f"{short} times"


def joined(things: Sequence[Any]) -> str:
    """Join things with commas and an *and*.

    Examples
    --------
    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    words = [str(thing) for thing in things]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def node_numbers(nodes: Sequence[int], most: int = 6) -> str:
    """Name nodes by number, only some of them where there are many.

    Examples
    --------
    >>> node_numbers([3]), node_numbers([3, 7, 12])
    ('node 3', 'nodes 3, 7 and 12')
    >>> node_numbers(range(20))
    '20 nodes, among them 0, 1 and 2'
    """
    if len(nodes) == 1:
        return f"node {nodes[0]}"
    if len(nodes) <= most:
        return f"nodes {joined(list(nodes))}"
    return f"{len(nodes)} nodes, among them {joined(list(nodes)[:3])}"
