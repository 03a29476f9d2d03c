"""Objects as notebooks show them: a heading, a few figures, a table; everything escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final

import pandas as pd

__all__ = ["card"]

NO_FORMULAS: Final = "tex2jax_ignore mathjax_ignore"
"""Classes that keep notebooks from reading dollars in names as formulas."""
MOST_ROWS: Final = 60
"""As many as the clusters of the paper have nodes, and some."""
SCROLLS: Final = '<div style="max-height: 24em; overflow-y: auto">'


def card(
    heading: str, figures: Mapping[str, Any] | None = None, table: pd.DataFrame | None = None, note: str = ""
) -> str:
    """HTML of an object.

    Parameters
    ----------
    heading : str
        What it is.
    figures : mapping, optional
        Names, with units, to values.
    table : DataFrame, optional
        Its first rows are shown; the index is left out.
    note : str
        A line below.

    Examples
    --------
    >>> "<strong>A &lt;b&gt;</strong><table><tr><th>latency_s</th>" in card("A <b>", {"latency_s": 0.25})
    True
    """
    parts = [f"<strong>{escape(heading)}</strong>"]
    if figures:
        rows = (
            f"<tr><th>{escape(name)}</th><td>{_shown(value)}</td></tr>" for name, value in figures.items()
        )
        parts.append(f"<table>{''.join(rows)}</table>")
    if table is not None:
        head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_shown(value)}</td>" for value in row) + "</tr>"
            for row in table.head(MOST_ROWS).itertuples(index=False, name=None)
        )
        parts.append(f"{SCROLLS}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
        if len(table) > MOST_ROWS:
            parts.append(f"<em>and {len(table) - MOST_ROWS} more rows</em>")
    if note:
        parts.append(f"<p>{escape(note)}</p>")
    return f'<div class="{NO_FORMULAS}">{"".join(parts)}</div>'


def _shown(value: Any) -> str:
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
