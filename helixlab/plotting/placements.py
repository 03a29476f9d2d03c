"""A placement as a picture: which node holds which layers."""

from __future__ import annotations

from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Patch

from helixlab.cluster import Cluster
from helixlab.flow import Flow
from helixlab.placement import Placement
from helixlab.plotting.labels import mark_partial
from helixlab.plotting.style import axes_or_new, ink_on, machine_colours, plain, styled

__all__ = ["UTILISATION_COLOURS", "placement_picture"]

UTILISATION_COLOURS: Final = "YlGnBu"


@styled
def placement_picture(
    cluster: Cluster,
    placement: Placement,
    flow: Flow | None = None,
    *,
    key: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """One bar a node over the layers that it holds; idle nodes are rows that say so.

    Parameters
    ----------
    cluster : Cluster
        The cluster of the placement, or the one it is part of.
    placement : Placement
        What to draw.
    flow : Flow, optional
        Its maximum flow: bars are then coloured by the part of their throughput that it uses, otherwise by
        machine type.
    key : bool, default True
        Draw the scale of the utilisation, or the legend of the machine types.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.placement import load_placement
    >>> ax = placement_picture(load_cluster("small10"), load_placement("small10/llama-1-30b/helix"))
    >>> ax.get_xlabel(), len(ax.get_yticks())
    ('layer', 10)
    """
    nodes = placement.to_frame(cluster)
    types = machine_colours(nodes["machine"])
    rank = {machine: place for place, machine in enumerate(types)}
    nodes = nodes.assign(rank=nodes["machine"].map(rank), idle=nodes["layers"] == 0)
    nodes = nodes.sort_values(["rank", "idle", "first_layer", "node"], ignore_index=True)
    last_layer = int(nodes["end_layer"].max())
    ax = axes_or_new(ax, height_in=0.6 + 0.1 * len(nodes))
    scale = ScalarMappable(Normalize(0, 1), matplotlib.colormaps[UTILISATION_COLOURS])
    used = {} if flow is None else dict(zip(flow.nodes["node"], flow.nodes["utilisation"], strict=True))
    for row, node in enumerate(nodes.to_dict("records")):
        if node["idle"]:
            ax.axhspan(row - 0.4, row + 0.4, facecolor="#f4f4f4", edgecolor="none", zorder=0)
            ax.text(last_layer / 2, row, "idle", ha="center", va="center", fontsize=5, color="#777777")
            continue
        colour: Any = types[node["machine"]] if flow is None else scale.to_rgba(used.get(node["node"], 0.0))
        ax.barh(
            row,
            node["layers"],
            left=node["first_layer"],
            height=0.8,
            color=colour,
            edgecolor="black",
            linewidth=0.4,
        )
        if node["layers"] >= 0.1 * last_layer:
            middle = (node["first_layer"] + node["end_layer"]) / 2
            words = f"{node['layers']}" if flow is None else f"{used.get(node['node'], 0.0):.0%}"
            ax.text(middle, row, words, ha="center", va="center_baseline", fontsize=4.5, color=ink_on(colour))
    ax.set_ylim(len(nodes) - 0.4, -0.6)
    ax.set_yticks(
        range(len(nodes)),
        [f"{plain(machine)} {node}" for machine, node in zip(nodes["machine"], nodes["node"], strict=True)],
        fontsize=5,
    )
    ax.tick_params(axis="y", length=0, pad=1)
    ax.set_xlim(0, last_layer)
    ax.set_xticks(range(0, last_layer + 1, 20 if last_layer > 40 else 10))
    ax.grid(visible=True, axis="x")
    ax.set_xlabel("layer")
    if placement.report is not None and placement.report.status == "interrupted":
        mark_partial(ax, "interrupted search")
    if key and flow is not None:
        bar = ax.figure.colorbar(scale, ax=ax, pad=0.02, aspect=30)
        bar.set_label("flow / throughput of the node")
        bar.outline.set_linewidth(0.4)
    elif key:
        handles = [
            Patch(facecolor=colour, edgecolor="black", linewidth=0.4, label=name)
            for name, colour in types.items()
        ]
        ax.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=1, columnspacing=1
        )
    return ax
