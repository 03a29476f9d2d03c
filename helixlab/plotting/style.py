"""The look of all figures: style file and fonts, panels, and the colours, order and names of methods."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final, Never, ParamSpec, TypeVar, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import colors, font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from helixlab.errors import memory_for

__all__ = [
    "BOUND_COLOUR",
    "COLUMN_WIDTH_IN",
    "LINES",
    "MACHINE_COLOURS",
    "METHOD_COLOURS",
    "METHOD_LABELS",
    "OTHER_COLOURS",
    "PAGE_WIDTH_IN",
    "PHASE_COLOURS",
    "axes_or_new",
    "families",
    "in_order",
    "ink_on",
    "legible",
    "machine_colours",
    "mark_partial",
    "method_colours",
    "method_label",
    "method_ticks",
    "name_lines",
    "name_panels",
    "panels",
    "plain",
    "style",
    "styled",
]


STYLE: Final = "helixlab.plotting.helixlab"
"""Style file, as matplotlib names it."""
_FIRST_FAMILY: Final = "DejaVu Sans"
"""Family of fonts that comes with matplotlib."""
_OTHER_FAMILIES: Final = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Arial Unicode MS",
)
"""Families for Chinese, Japanese and Korean, on the usual systems."""
_BOLD: Final = 600
"""Least weight of a bold font."""

COLUMN_WIDTH_IN: Final = 3.3
"""Width of a column of a two-column paper, in inches."""
PAGE_WIDTH_IN: Final = 7.0
"""Width of both columns, in inches."""

METHOD_COLOURS: Final[dict[str, str]] = {
    "helix": "#004488",
    "helix-without-pruning": "#5b8fc7",
    "petals": "#b5485d",
    "swarm": "#ddaa33",
    "separate": "#4b9a8b",
    "separate-plus": "#b9dcc9",
    "homogeneous": "#7a5230",
    "random": "#a6a6a6",
    "shortest-queue": "#6f4c9b",
    "greedy": "#6e6e6e",
    "decode-first": "#88ccee",
    "prompt-first": "#44729d",
    "one-phase": "#999933",
    "micro-batches": "#2b4a3a",
    "chunks": "#e8b490",
    "chunked": "#d9622b",
    "published": "#d0d0d0",
    "published-greedy": "#8c8c8c",
    "published-chunked": "#a8431c",
    "for-flow": "#2f6fab",
    "for-greedy": "#5f5f5f",
    "for-chunked": "#e3895f",
}
"""Colour of each method, scheduler, execution policy or aim of a plan, in the order in which they are shown.

Neighbours differ in lightness as well as in hue, so that they can be distinguished without colours.
"""
METHOD_LABELS: Final[dict[str, str]] = {
    "helix": "Helix",
    "helix-without-pruning": "Helix,\nnot pruned",
    "petals": "Petals",
    "swarm": "Swarm",
    "separate": "Separate",
    "separate-plus": "Separate+",
    "homogeneous": "Homogen.",
    "random": "Random",
    "shortest-queue": "Shortest\nqueue",
    "greedy": "Greedy",
    "decode-first": "Decode\nfirst",
    "prompt-first": "Prompt\nfirst",
    "one-phase": "One\nphase",
    "micro-batches": "Micro-batches",
    "chunks": "Chunks",
    "chunked": "Chunked",
    "published": "Published",
    "published-greedy": "Published,\ngreedy",
    "published-chunked": "Published,\nchunked",
    "for-flow": "For\nflow",
    "for-greedy": "For\ngreedy",
    "for-chunked": "For\nchunked",
}
MACHINE_COLOURS: Final[dict[str, str]] = {
    "A100": "#46136b",
    "V100": "#9a4ea0",
    "L4x2": "#15616d",
    "L4": "#2a9d8f",
    "T4x4": "#a8760a",
    "T4x2": "#d19f2a",
    "T4": "#f0cf65",
}
"""Colour of each machine type, the strongest first."""
BOUND_COLOUR: Final = "#b5172f"
"""Colour of what cannot be exceeded."""
PHASE_COLOURS: Final[dict[str, str]] = {"prompt": "#cc6677", "both": "#e6d6ae", "decode": "#3b2f80"}
"""Colours of prompts, of decodes, and of batches that have both."""
OTHER_COLOURS: Final = ("#222222", "#cc6677", "#117733", "#f2a6c4", "#661100", "#dddddd")
"""Colours of names without one of their own, in the order in which they come; no method has one of these."""

LINES: Final = ("-", (0, (4, 1.2)), (0, (1.2, 1)), (0, (5, 1, 1, 1)))
"""Dashes that tell the lines of a panel apart without colours, in their order."""

_LIGHTEST_TEXT: Final = 0.42
"""Largest luminance at which text is legible on white."""
_LABEL_POINTS: Final = 33.0
"""Least width of a label below an axis that is not set aslant."""
_LINE_HEIGHT_POINTS: Final = 7.5
_LETTER_WIDTH_POINTS: Final = 5.0

_SHARED_PARAMETERS: Final = {
    "{ax}": "ax : Axes, optional\n        Axes to draw on; those of a new figure by default.",
    "{result_with_timeline}": "result : Result\n        Run with a timeline.",
}
"""Texts of parameters of several plot functions, by their mark in the docstrings; `styled` puts them in."""

_Arguments = ParamSpec("_Arguments")
_Returned = TypeVar("_Returned")


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of helixlab's figures inside a context; outside of it nothing changes.

    A figure is drawn again when it is displayed or saved. Figures of `panels`, and of every function that
    draws, are in the style then too.

    Examples
    --------
    >>> with style():
    ...     plt.rcParams["font.size"]
    7.0
    """
    _load_backend()
    with plt.style.context([STYLE, {"font.family": families()}]):
        yield


def _load_backend() -> None:
    """Load the backend that pyplot is set to, as its first figure would.

    Loading Jupyter's turns interactive mode on and reads settings. Inside of the context, whose end undoes
    both, that would leave the notebook without any pictures.
    """
    if not plt.get_fignums():  # where there are figures it is loaded; where there are none, nothing is drawn
        with suppress(ImportError):  # a figure tells of it, and some need no backend of pyplot
            plt.draw_if_interactive()  # type: ignore[no-untyped-call]


def styled(function: Callable[_Arguments, _Returned]) -> Callable[_Arguments, _Returned]:
    """Make a function draw in the style, and put the shared parameter texts into its docstring."""

    @functools.wraps(function)
    def in_style(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Returned:
        with memory_for("drawing", "draw fewer runs, or shorter ones"), style():
            return function(*args, **kwargs)

    for mark, text in _SHARED_PARAMETERS.items():
        in_style.__doc__ = (in_style.__doc__ or "").replace(mark, text)
    return in_style


class StyledFigure(Figure):
    """Figure that is drawn in the style at any time, and that a cell of a notebook shows once."""

    def draw(self, renderer: Any) -> None:
        """Draw it in the style: ticks are made while a figure is drawn."""
        with style():
            super().draw(renderer)

    def _ipython_display_(self) -> Never:
        """Leave the display to Jupyter, which does not show it again at the end of the cell."""
        inline = sys.modules.get("matplotlib_inline.config")
        if inline and "inline" in mpl.get_backend() and inline.InlineBackend.instance().close_figures:
            plt.close(self)  # which the end of the cell does too
        raise NotImplementedError  # which asks IPython to display it as it displays any figure


@cache
def families() -> list[str]:
    """List the families of fonts to draw with: the first that has a character draws it.

    Only families with bold letters count, since titles are bold: matplotlib would warn of the others
    wherever a title is drawn.

    Examples
    --------
    >>> families()[0]
    'DejaVu Sans'
    """
    bold = {font.name for font in font_manager.fontManager.ttflist if _weight(font.weight) >= _BOLD}
    return [_FIRST_FAMILY, *(name for name in _OTHER_FAMILIES if name in bold)]


def _weight(weight: int | str) -> int:
    return font_manager.weight_dict.get(weight, 400) if isinstance(weight, str) else weight


@styled
def panels(
    rows: int = 1,
    columns: int = 1,
    *,
    width_in: float = COLUMN_WIDTH_IN,
    height_in: float = 2.4,
    **options: Any,
) -> tuple[Figure, Any]:
    """Make a figure of several panels, in the style.

    Parameters
    ----------
    rows, columns : int
        Number of panels.
    width_in, height_in : float
        Size of the figure in inches.
    **options
        Further arguments of `matplotlib.pyplot.subplots`, such as ``sharey=True`` or ``width_ratios=(2, 1)``.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : Axes or array of Axes

    Examples
    --------
    >>> figure, (left, right) = panels(1, 2)
    >>> figure.get_size_inches().tolist()
    [3.3, 2.4]
    >>> plt.close(figure)
    """
    options = {"FigureClass": StyledFigure} | options
    figure, axes = plt.subplots(rows, columns, figsize=(width_in, height_in), **options)
    return figure, axes


@styled
def name_panels(axes: Iterable[Axes], names: Iterable[str], *, above_legend: bool = False) -> None:
    """Write a name above each panel.

    Parameters
    ----------
    axes : iterable of Axes
        The panels, as many as names.
    names : iterable of str
        Names to write.
    above_legend : bool, default False
        Leave space for a legend of one line between name and panel.

    Examples
    --------
    >>> figure, axes = panels(1, 2)
    >>> name_panels(axes, ["(a)", "(b)"])
    >>> [ax.get_title(loc="left") for ax in axes]
    ['(a)', '(b)']
    >>> plt.close(figure)
    """
    for ax, name in zip(axes, names, strict=True):
        ax.set_title(name, pad=14 if above_legend else None)


def axes_or_new(ax: Axes | None, *, width_in: float = COLUMN_WIDTH_IN, height_in: float = 2.4) -> Axes:
    """Return the given axes, without the frame of other styles, or those of a new figure of that size."""
    if ax is None:
        return cast(Axes, panels(width_in=width_in, height_in=height_in)[1])
    sns.despine(ax=ax)
    return ax


def in_order(methods: Iterable[str]) -> list[str]:
    """Sort methods into the order in which they are always shown; unknown names come last, as they come.

    Examples
    --------
    >>> in_order(["swarm", "mine", "helix"])
    ['helix', 'swarm', 'mine']
    """
    found = list(dict.fromkeys(methods))
    known = list(METHOD_COLOURS)
    return sorted(found, key=lambda method: known.index(method) if method in known else len(known))


def _with_others(names: Iterable[str], known: dict[str, str]) -> dict[str, str]:
    found = list(dict.fromkeys(names))
    others = [name for name in found if name not in known]
    extra = {name: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, name in enumerate(others)}
    return {name: known.get(name) or extra[name] for name in found}


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """Map each method to its colour, methods without a fixed one included.

    Examples
    --------
    >>> method_colours(["helix", "mine"])
    {'helix': '#004488', 'mine': '#222222'}
    """
    return _with_others(in_order(methods), METHOD_COLOURS)


def machine_colours(machines: Iterable[str]) -> dict[str, str]:
    """Map each machine type to its colour in the fixed order, types without a fixed one last.

    Examples
    --------
    >>> list(machine_colours(["T4", "H100", "A100"]))
    ['A100', 'T4', 'H100']
    """
    known = list(MACHINE_COLOURS)
    found = list(dict.fromkeys(machines))
    found.sort(key=lambda machine: known.index(machine) if machine in known else len(known))
    return _with_others(found, MACHINE_COLOURS)


def method_label(method: str) -> str:
    """Return the name of a method in a figure.

    Examples
    --------
    >>> method_label("helix"), method_label("mine")
    ('Helix', 'mine')
    """
    return METHOD_LABELS.get(method, plain(method))


def plain(name: str) -> str:
    r"""Escape a name for a figure, so that dollar signs make no formula of it.

    Examples
    --------
    >>> print(plain("$cheap$"))
    \$cheap\$
    """
    return name.replace("$", r"\$")


def method_ticks(ax: Axes, methods: Sequence[str], partial: Collection[str] = ()) -> None:
    """Name the methods below an axis, one at each of 0, 1, ...; aslant where there is little space."""
    labels = [method_label(method) + "\n(partial)" * (method in partial) for method in methods]
    width_points = 72 * ax.get_window_extent().width / ax.figure.dpi / len(methods)
    if width_points < _LABEL_POINTS:
        labels = [label.replace("\n", " ") for label in labels]
        ax.set_xticks(range(len(methods)), labels, rotation=30, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticks(range(len(methods)), labels)
    ax.tick_params(axis="x", length=0)


def ink_on(colour: Any) -> str:
    """Choose black or white, whichever is legible on that colour.

    Examples
    --------
    >>> ink_on("#004488"), ink_on("#f0cf65")
    ('white', 'black')
    """
    red, green, blue = colors.to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def legible(colour: Any) -> Any:
    """Return that colour, or a darker one if it is too light for text on white.

    Examples
    --------
    >>> legible("#004488"), legible("#f0cf65")
    ('#004488', '#7e6c35')
    """
    red, green, blue = colors.to_rgb(colour)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    if luminance <= _LIGHTEST_TEXT:
        return colour
    share = _LIGHTEST_TEXT / luminance
    return colors.to_hex((share * red, share * green, share * blue))


def name_lines(ax: Axes, lines: Sequence[Line2D], *, below: bool = False) -> None:
    """Write the label of each line beside its end, or below it; the limits of the axes have to be set.

    Parameters
    ----------
    ax : Axes
        Axes of the lines.
    lines : sequence of Line2D
        Lines, whose labels are written in their colours.
    below : bool, default False
        Write below the ends instead of to their right.
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
