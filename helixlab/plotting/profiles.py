"""Measured profiles and what follows: layer times, throughput and KV cache by the layers on a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from helixlab.errors import ModelError
from helixlab.model import Model, machine_throughput
from helixlab.plotting.style import axes_or_new, legible, machine_colours, styled

__all__ = ["kv_capacity_curves", "layer_time_curves", "throughput_curves"]

_LINE_HEIGHT_POINTS: Final = 7.5
_LABEL_WIDTH_POINTS: Final = 22.0


@styled
def layer_time_curves(
    model: Model,
    phase: str = "decode",
    *,
    machines: Iterable[str] | None = None,
    max_tokens: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Measured time of one layer by the tokens in the batch, one line a machine type.

    Parameters
    ----------
    model : Model
        Brings the profiles.
    phase : str, default "decode"
        ``"prompt"`` or ``"decode"``.
    machines : iterable of str, optional
        Machine types; all that the model was measured on by default.
    max_tokens : int, optional
        Show batches up to that size only.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    ModelError
        The phase is unknown.
    """
    if phase not in ("prompt", "decode"):
        raise ModelError(f"phase must be 'prompt' or 'decode', got {phase!r}")
    ax = axes_or_new(ax, height_in=2.0)
    table = model.layer_times()
    table = table[table["phase"] == phase]
    if max_tokens is not None:
        table = table[table["batch_tokens"] <= max_tokens]
    types = machine_colours(model.profiles if machines is None else machines)
    for machine, colour in types.items():
        model.profile(machine)  # raises where there is none
        points = table[table["machine"] == machine]
        ax.plot(points["batch_tokens"], 1e3 * points["layer_s"], color=colour, label=machine)
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(f"{phase} tokens in the batch")
    ax.set_ylabel("time of one layer (ms)")
    _label_ends(ax)
    return ax


@styled
def throughput_curves(model: Model, machine_counts: Mapping[str, int], *, ax: Axes | None = None) -> Axes:
    """Tokens per second of a node by the layers it holds, T(k), in a mix of machines; on a log scale.

    Parameters
    ----------
    model : Model
        Brings the profiles.
    machine_counts : mapping of str to int
        Nodes of each machine type in the cluster, ``cluster.machine_counts()``.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    ax = axes_or_new(ax, height_in=2.0)
    table = machine_throughput(model, machine_counts)
    for machine, colour in machine_colours(table).items():
        layers = np.arange(1, len(table[machine]))
        ax.plot(layers, table[machine][1:], marker=".", color=colour, label=machine)
    ax.set_yscale("log")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("layers on the node, k")
    ax.set_ylabel("throughput T(k) (tokens/s)")
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label_ends(ax, below=True)
    return ax


@styled
def kv_capacity_curves(
    model: Model, *, machines: Iterable[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Tokens whose keys and values fit on a node, by the layers it holds; on a log scale.

    Parameters
    ----------
    model : Model
        Brings the serving limits.
    machines : iterable of str, optional
        Machine types; all that the model was measured on by default.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
    """
    ax = axes_or_new(ax, height_in=2.0)
    for machine, colour in machine_colours(model.profiles if machines is None else machines).items():
        profile = model.profile(machine)
        layers = np.arange(1, profile.max_layers + 1)
        tokens = [profile.kv_capacity_token_layers(int(k)) / k / 1e3 for k in layers]
        ax.plot(layers, tokens, marker=".", color=colour, label=machine)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layers on the node, k")
    ax.set_ylabel("KV cache (thousand tokens)")
    ax.yaxis.set_major_formatter("{x:g}")
    _label_ends(ax, below=True)
    return ax


def _label_ends(ax: Axes, *, below: bool = False) -> None:
    """Write the name of every line beside (or below) its end, moved apart where ends are close."""
    curves = [(line, np.asarray(line.get_xydata())) for line in ax.get_lines()]
    lines = [(line, points[-1]) for line, points in curves if len(points)]
    ax.autoscale_view()
    if below:
        low, high = ax.get_ylim()
        ax.set_ylim(low * (low / high) ** 0.1, high)  # room for the names; the scale is logarithmic
        ax.set_xlim(right=1.04 * ax.get_xlim()[1])
    points_per_pixel = 72 / ax.figure.dpi
    ends = [points_per_pixel * ax.transData.transform(end) for _, end in lines]
    down = -1 if below else 1
    placed: list[tuple[float, float]] = []
    for i in sorted(range(len(lines)), key=lambda i: down * ends[i][1]):
        x, y = (
            (float(ends[i][0]), float(ends[i][1]) - 6)
            if below
            else (float(ends[i][0]) + 4, float(ends[i][1]))
        )
        for other_x, other_y in placed:
            if abs(other_x - x) < _LABEL_WIDTH_POINTS and abs(other_y - y) < _LINE_HEIGHT_POINTS:
                y = other_y + down * _LINE_HEIGHT_POINTS
        placed.append((x, y))
        line, end = lines[i]
        name = ax.annotate(
            str(line.get_label()), (end[0], end[1]), xytext=(x - ends[i][0], y - ends[i][1]),
            textcoords="offset points", ha="center" if below else "left", va="center", fontsize=6.5,
            color=legible(line.get_color()), fontweight="bold", annotation_clip=False, zorder=6,
        )  # fmt: skip
        name.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
