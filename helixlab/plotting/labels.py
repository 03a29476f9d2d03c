"""Words in a picture: names at the ends of lines, moved apart where ends are close, and a mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from helixlab.plotting.style import legible

__all__ = ["mark_partial", "name_lines"]

_LINE_HEIGHT_POINTS: Final = 7.5
_LETTER_WIDTH_POINTS: Final = 5.0


def name_lines(ax: Axes, lines: Sequence[Line2D], *, below: bool = False) -> None:
    """Write the label of each line beside its end, or below it; the limits of the axes have to be set.

    Parameters
    ----------
    ax : Axes
        That the lines are drawn on.
    lines : sequence of Line2D
        Their labels are written in their colours.
    below : bool, default False
        Below the ends instead of to their right.
    """
    points_per_pixel = 72 / ax.figure.dpi
    down = -1 if below else 1
    ends = [(line, np.asarray(line.get_xydata())[-1]) for line in lines]
    placed: list[tuple[float, float, int]] = []
    for line, end in sorted(ends, key=lambda of_line: down * of_line[1][1]):
        name = str(line.get_label())
        end_x, end_y = points_per_pixel * ax.transData.transform(end)
        x, y = (end_x, end_y - 6) if below else (end_x + 4, end_y)
        for other_x, other_y, letters in placed:
            width = _LETTER_WIDTH_POINTS * max(letters, len(name))
            if abs(other_x - x) < width and abs(other_y - y) < _LINE_HEIGHT_POINTS:
                y = other_y + down * _LINE_HEIGHT_POINTS
        placed.append((x, y, len(name)))
        text = ax.annotate(
            name, (end[0], end[1]), xytext=(x - end_x, y - end_y), textcoords="offset points",
            ha="center" if below else "left", va="center", fontsize=6.5, color=legible(line.get_color()),
            fontweight="bold", annotation_clip=False, zorder=6,
        )  # fmt: skip
        text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])


def mark_partial(ax: Axes, words: str = "partial run") -> None:
    """Say that a run was stopped, wherever it is drawn."""
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
    look: dict[str, Any] = {"fontsize": 6, "color": "#bb5566", "bbox": behind, "zorder": 9}
    ax.text(0.01, 0.97, words, transform=ax.transAxes, va="top", **look)
