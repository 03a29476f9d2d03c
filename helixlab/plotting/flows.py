"""The flow through a placement as a picture: nodes by the layers they hold, links as wide as their flow."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from helixlab.cluster import SINK, SOURCE
from helixlab.flow import Flow
from helixlab.plotting.placements import UTILISATION_COLOURS
from helixlab.plotting.style import BOUND_COLOUR, PAGE_WIDTH_IN, axes_or_new, ink_on, styled

__all__ = ["link_flow_picture"]

_WIDEST_POINTS: Final = 7.0
_HALF_HEIGHT: Final = 0.24
_LEAST_SHARE: Final = 1e-6
_PULL: Final = 0.55
"""How much a lane away from the middle counts against one away from the node before."""


def _lanes(nodes: list[dict[str, Any]], before: dict[Any, list[Any]]) -> dict[Any, int]:
    """A lane for each node, so that nodes with common layers have different ones, near those before them."""
    taken: dict[int, int] = {}
    lane_of: dict[Any, int] = {}
    for node in sorted(nodes, key=lambda node: (node["first_layer"], -node["end_layer"], node["node"])):
        wanted = [lane_of[sender] for sender in before[node["node"]] if sender in lane_of]
        middle = sum(wanted) / len(wanted) if wanted else 0.0
        reach = range(-len(nodes), len(nodes) + 1)
        free = [lane for lane in reach if taken.get(lane, 0) <= node["first_layer"]]
        lane = min(free, key=lambda lane: (abs(lane - middle) + _PULL * abs(lane), lane))
        lane_of[node["node"]] = lane
        taken[lane] = node["end_layer"]
    return lane_of


@styled
def link_flow_picture(flow: Flow, *, key: bool = True, ax: Axes | None = None) -> Axes:
    """Nodes as boxes over their layers, coloured by utilisation, and links as wide as their flow.

    Nodes that bind the flow have a thick frame. A link that ends inside a box enters that node behind its
    first layer. Links without flow are dotted.

    Parameters
    ----------
    flow : Flow
        From `helixlab.flow.max_flow`.
    key : bool, default True
        Draw the scale of the utilisation.
    ax : Axes, optional
        Where to draw; a new figure of the width of a page by default.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.flow import max_flow
    >>> from helixlab.model import load_model
    >>> from helixlab.placement import load_placement
    >>> placement = load_placement("small10/llama-1-30b/helix")
    >>> flow = max_flow(load_cluster("small10"), load_model("llama-1-30b"), placement)
    >>> link_flow_picture(flow).get_xlabel()
    'layer'
    """
    nodes = [{str(key): value for key, value in row.items()} for row in flow.nodes.to_dict("records")]
    before = defaultdict(list)
    for sender, receiver in flow.on_link:
        before[receiver].append(sender)
    lane_of = _lanes(nodes, before)
    lowest, highest = min(lane_of.values()), max(lane_of.values())
    ax = axes_or_new(ax, width_in=PAGE_WIDTH_IN, height_in=0.8 + 0.38 * (highest - lowest + 1))
    last_layer = max(node["end_layer"] for node in nodes)
    margin, edge = 0.008 * last_layer, 0.05 * last_layer
    entries = [lane_of[receiver] for sender, receiver in flow.on_link if sender == SOURCE]
    exits = [lane_of[sender] for sender, receiver in flow.on_link if receiver == SINK]
    first, last = sum(entries) / len(entries), sum(exits) / len(exits)
    ends = {node["node"]: node["end_layer"] for node in nodes}
    for (sender, receiver), amount in flow.on_link.items():
        start = (-edge, first) if sender == SOURCE else (ends[sender] - margin, lane_of[sender])
        reached = (0 if sender == SOURCE else ends[sender]) + margin
        end = (last_layer + edge, last) if receiver == SINK else (reached, lane_of[receiver])
        _draw_link(ax, start, end, amount / flow.value_tokens_per_s, 2.2 * margin)
    binding = {row.sender for row in flow.bottlenecks.itertuples() if row.kind == "compute"}
    scale = ScalarMappable(Normalize(0, 1), matplotlib.colormaps[UTILISATION_COLOURS])
    for node in nodes:
        colour = scale.to_rgba(node["utilisation"])
        _draw_node(ax, node, lane_of[node["node"]], margin, colour, binds=node["node"] in binding)
    for word, x, y, align in (("in", -edge, first, "right"), ("out", last_layer + edge, last, "left")):
        ax.text(x, y, f" {word} ", ha=align, va="center", fontsize=6.5, fontweight="bold")
    ax.set_xlim(-edge - 0.03 * last_layer, last_layer + edge + 0.04 * last_layer)
    ax.set_ylim(highest + 0.7, lowest - 0.7)
    ax.set_yticks([])
    sns.despine(ax=ax, left=True)
    ax.spines["bottom"].set_bounds(0, last_layer)
    ax.set_xticks(range(0, last_layer + 1, 10))
    ax.set_xlabel("layer")
    ax.set_title(f"max flow {flow.value_tokens_per_s:.0f} tokens/s")
    if key:
        bar = ax.figure.colorbar(scale, ax=ax, pad=0.01, aspect=20)
        bar.set_label("flow / throughput")
        bar.outline.set_linewidth(0.4)
    return ax


def _draw_link(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], share: float, least_bend: float
) -> None:
    (x0, y0), (x1, y1) = start, end
    bend = max(least_bend, 0.4 * (x1 - x0))
    codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    curve = Path([(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)], codes)
    if share > _LEAST_SHARE:
        line: dict[str, Any] = {"edgecolor": "#5b8fc7", "linewidth": max(0.6, _WIDEST_POINTS * share)}
    else:
        line = {"edgecolor": "#999999", "linewidth": 0.5, "linestyle": (0, (1, 2))}
    ax.add_patch(PathPatch(curve, facecolor="none", alpha=0.75, capstyle="butt", zorder=1, **line))


def _draw_node(ax: Axes, node: dict[str, Any], lane: int, margin: float, colour: Any, *, binds: bool) -> None:
    """A box with the node's number, above it where it is too narrow, and its machine type below."""
    left, right = node["first_layer"] + margin, node["end_layer"] - margin
    if right - left < 2 * margin:
        left, right = left - margin / 2, right + margin / 2
    frame = (
        {"edgecolor": BOUND_COLOUR, "linewidth": 1.6} if binds else {"edgecolor": "black", "linewidth": 0.5}
    )
    corner = (left, lane - _HALF_HEIGHT)
    ax.add_patch(Rectangle(corner, right - left, 2 * _HALF_HEIGHT, facecolor=colour, zorder=3, **frame))  # type: ignore[arg-type]
    middle = (left + right) / 2
    wide = right - left >= (0.4 + 1.1 * len(str(node["node"]))) * margin
    below: dict[str, Any] = {"ha": "center", "zorder": 4}
    if wide:
        ax.text(
            middle, lane, str(node["node"]), va="center_baseline", fontsize=5.5, color=ink_on(colour), **below
        )
    else:
        ax.text(middle, lane - _HALF_HEIGHT - 0.05, str(node["node"]), va="bottom", fontsize=5.5, **below)
    ax.text(
        middle, lane + _HALF_HEIGHT + 0.04, node["machine"], va="top", fontsize=4.2, color="#444444", **below
    )
