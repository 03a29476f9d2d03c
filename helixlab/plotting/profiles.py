"""Profiles of machines: layer times, and throughput and KV cache by the number of layers on a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from helixlab.errors import ModelError
from helixlab.model import Model, machine_throughput
from helixlab.plotting.style import axes_or_new, machine_colours, name_lines, styled

__all__ = ["plot_kv_capacity", "plot_layer_times", "plot_node_throughput"]


@styled
def plot_layer_times(
    model: Model,
    phase: str = "decode",
    *,
    machines: Iterable[str] | None = None,
    max_tokens: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the measured time of one layer by the tokens in the batch, one line for each machine type.

    Parameters
    ----------
    model : Model
        Model with the profiles.
    phase : str, default "decode"
        ``"prompt"`` or ``"decode"``.
    machines : iterable of str, optional
        Machine types; all that the model was measured on by default.
    max_tokens : int, optional
        Show batches up to that size only.
    {ax}

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
    table = table[table["phase"] == phase].assign(layer_ms=1e3 * table["layer_s"])
    if max_tokens is not None:
        table = table[table["batch_tokens"] <= max_tokens]
    shown = [model.profile(machine).machine for machine in (model.profiles if machines is None else machines)]
    lines = _draw(ax, table[table["machine"].isin(shown)], "batch_tokens", "layer_ms", shown)
    ax.set_ylim(bottom=0)
    ax.set(xlabel=f"{phase} tokens in the batch", ylabel="time of one layer (ms)")
    name_lines(ax, lines)
    return ax


@styled
def plot_node_throughput(model: Model, machine_counts: Mapping[str, int], *, ax: Axes | None = None) -> Axes:
    """Draw T(k), the throughput of a node by the number of its layers, in a mix of machines; on a log scale.

    Parameters
    ----------
    model : Model
        Model with the profiles.
    machine_counts : mapping of str to int
        Nodes of each machine type in the cluster, ``cluster.machine_counts()``.
    {ax}

    Returns
    -------
    Axes
    """
    ax = axes_or_new(ax, height_in=2.0)
    rows = [
        (machine, layers, tokens_per_s)
        for machine, values in machine_throughput(model, machine_counts).items()
        for layers, tokens_per_s in enumerate(values)
        if layers
    ]
    _draw_by_layers(ax, pd.DataFrame(rows, columns=["machine", "layers", "tokens_per_s"]), "tokens_per_s")
    ax.set_ylabel("throughput T(k) (tokens/s)")
    return ax


@styled
def plot_kv_capacity(model: Model, *, machines: Iterable[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the tokens whose keys and values fit on a node, for each of its layers; on a log scale.

    Parameters
    ----------
    model : Model
        Model with the serving limits.
    machines : iterable of str, optional
        Machine types; all that the model was measured on by default.
    {ax}

    Returns
    -------
    Axes
    """
    ax = axes_or_new(ax, height_in=2.0)
    rows = [
        (profile.machine, layers, profile.kv_capacity_token_layers(layers) / layers / 1e3)
        for profile in map(model.profile, model.profiles if machines is None else machines)
        for layers in range(1, profile.max_layers + 1)
    ]
    _draw_by_layers(
        ax, pd.DataFrame(rows, columns=["machine", "layers", "thousand_tokens"]), "thousand_tokens"
    )
    ax.set_ylabel("KV cache\n(thousand tokens per layer)")
    return ax


def _draw(
    ax: Axes, table: pd.DataFrame, x: str, y: str, machines: Iterable[str], **options: Any
) -> list[Line2D]:
    """Draw one line for each machine type with rows, in its colour and with its name as the label."""
    colours = machine_colours(machines)
    drawn = len(ax.get_lines())
    sns.lineplot(
        table, x=x, y=y, estimator=None, hue="machine", hue_order=list(colours),
        palette=colours if len(table) else None, legend=False, ax=ax, **options,
    )  # fmt: skip
    lines = list(ax.get_lines())[drawn:]
    with_rows = set(table["machine"])
    for line, machine in zip(lines, filter(with_rows.__contains__, colours), strict=True):
        line.set_label(machine)
    ax.set_xlim(left=0)
    return lines


def _draw_by_layers(ax: Axes, table: pd.DataFrame, y: str) -> None:
    """Draw curves over the layers on a node, on a logarithmic scale in plain numbers, with names below."""
    lines = _draw(ax, table, "layers", y, table["machine"], marker="o", markersize=2.6, markeredgewidth=0)
    ax.set_xlabel("layers on the node, k")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.autoscale_view()
    low, high = ax.get_ylim()
    ax.set_ylim(low * (low / high) ** 0.1, high)  # space for the names
    ax.set_xlim(right=1.04 * ax.get_xlim()[1])
    name_lines(ax, lines, below=True)
