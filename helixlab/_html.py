"""HTML of objects as notebooks show them: a heading, a few metrics, a table; everything escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

import pandas as pd

__all__ = ["card"]

NO_FORMULAS: Final = "tex2jax_ignore mathjax_ignore"
"""Classes that keep notebooks from reading dollar signs in names as formulas."""
MOST_ROWS: Final = 60
"""Most rows shown of a table: more than the clusters of the paper have nodes."""
SCROLLS: Final = '<div style="max-height: 24em; overflow-y: auto">'


def card(
    heading: str,
    metrics: Mapping[str, object] | None = None,
    table: pd.DataFrame | None = None,
    note: str = "",
) -> str:
    """Return the HTML of an object.

    Parameters
    ----------
    heading : str
        Kind or name of the object.
    metrics : mapping, optional
        Values by name, units included in the names.
    table : DataFrame, optional
        Table of which the first rows are shown, without the index.
    note : str
        Line below the table.

    Examples
    --------
    >>> "<strong>A &lt;b&gt;</strong><table><tr><th>latency_s</th>" in card("A <b>", {"latency_s": 0.25})
    True
    """
    parts = [f"<strong>{escape(heading)}</strong>"]
    if metrics:
        rows = (f"<tr><th>{escape(name)}</th><td>{_cell(value)}</td></tr>" for name, value in metrics.items())
        parts.append(f"<table>{''.join(rows)}</table>")
    if table is not None:
        head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>"
            for row in table.head(MOST_ROWS).itertuples(index=False, name=None)
        )
        parts.append(f"{SCROLLS}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
        if len(table) > MOST_ROWS:
            parts.append(f"<em>and {len(table) - MOST_ROWS} more rows</em>")
    if note:
        parts.append(f"<p>{escape(note)}</p>")
    return f'<div class="{NO_FORMULAS}">{"".join(parts)}</div>'


def _cell(value: object) -> str:
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
