"""Numbers and lists as they are read aloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["counted", "listed", "node_names", "number", "part_of", "percent", "sentence", "times"]


def number(value: float) -> str:
    """Three digits that count, without exponents.

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
    """A share in percent, or in words where no digit of it would be left.

    Examples
    --------
    >>> percent(0.183), percent(0.0042), percent(1.0), percent(0.0004)
    ('18 percent', '0.4 percent', '100 percent', 'hardly any')
    """
    value = 100 * share
    if abs(value) < 0.05:
        return "hardly any"
    return f"{value:.0f} percent" if abs(value) >= 0.95 else f"{value:.1f} percent"


def counted(value: float, thing: str, several: str) -> str:
    """So many things.

    Examples
    --------
    >>> counted(1, "query was", "queries were"), counted(16.3, "query was", "queries were")
    ('1 query was', '16.3 queries were')
    """
    told = number(value)
    return f"{told} {thing if told == '1' else several}"


def part_of(some: int, whole: int) -> str:
    """Some of the queries, and the verb in the past.

    Examples
    --------
    >>> part_of(1, 47), part_of(3, 47), part_of(47, 47), part_of(1, 1)
    ('1 of 47 queries was', '3 of 47 queries were', 'all 47 queries were', 'the only query was')
    """
    if some == whole:
        return "the only query was" if whole == 1 else f"all {whole} queries were"
    return f"{some} of {whole} queries {'was' if some == 1 else 'were'}"


def times(factor: float) -> str:
    """How many times as much.

    Examples
    --------
    >>> times(2.04), times(1.5), times(1.012)
    ('twice', '1.5 times', '1.01 times')
    """
    if 1.95 <= factor <= 2.05:
        return "twice"
    told = f"{float(f'{factor:.2g}'):g}"
    return f"{factor:.2f} times" if told == "1" else f"{told} times"


def listed(things: Sequence[Any]) -> str:
    """Things with commas and an *and*.

    Examples
    --------
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    words = [str(thing) for thing in things]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def node_names(nodes: Sequence[int], most: int = 6) -> str:
    """Nodes by number, only some of them where there are many.

    Examples
    --------
    >>> node_names([3]), node_names([3, 7, 12])
    ('node 3', 'nodes 3, 7 and 12')
    >>> node_names(range(20))
    '20 nodes, among them 0, 1 and 2'
    """
    if len(nodes) == 1:
        return f"node {nodes[0]}"
    if len(nodes) <= most:
        return f"nodes {listed(list(nodes))}"
    return f"{len(nodes)} nodes, among them {listed(list(nodes)[:3])}"


def sentence(text: str) -> str:
    """With a capital letter in front.

    Examples
    --------
    >>> sentence("node 3 is idle.")
    'Node 3 is idle.'
    """
    return text[:1].upper() + text[1:]
