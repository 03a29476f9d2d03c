"""The flow through a placement as a picture: nodes by the layers they hold, links as wide as their flow."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from helixlab.cluster import SINK, SOURCE
from helixlab.flow import Flow
from helixlab.plotting.placement import UTILISATION_COLOURS
from helixlab.plotting.style import BOUND_COLOUR, PAGE_WIDTH_IN, axes_or_new, ink_on, styled

__all__ = ["plot_flow"]

_WIDEST_POINTS: Final = 7.0
_HALF_HEIGHT: Final = 0.24
_LEAST_SHARE: Final = 1e-6
_BETWEEN_POINTS: Final = 0.8
_LINK_COLOUR: Final = "#84abd5"
_WITHOUT_FLOW: Final[dict[str, Any]] = {"edgecolor": "#777777", "linewidth": 0.5, "linestyle": (0, (1, 2))}
_PULL: Final = 0.55
"""Weight of a lane away from the middle, against one away from the node before."""


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
def plot_flow(flow: Flow, *, key: bool = True, ax: Axes | None = None) -> Axes:
    """Nodes as boxes over their layers, coloured by utilisation, and links as wide as their flow.

    Nodes that bind the flow have a thick red frame. Links leave and enter a box side by side. A link that
    ends inside a box enters that node behind its first layer. Links without flow are dotted.

    Parameters
    ----------
    flow : Flow
        From `helixlab.flow.max_flow`.
    key : bool, default True
        Draw the scale of the utilisation.
    ax : Axes, optional
        Axes to draw on; those of a new figure of the width of a page by default.

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
    >>> plot_flow(flow).get_xlabel()
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
    ax.set_xlim(-edge - 0.03 * last_layer, last_layer + edge + 0.04 * last_layer)
    ax.set_ylim(highest + 0.7, lowest - 0.7)
    widths = {pair: _width_points(amount / flow.value_tokens_per_s) for pair, amount in flow.on_link.items()}
    lanes_per_point = (highest - lowest + 1.4) * ax.figure.dpi / (72 * ax.get_window_extent().height)
    height_of: dict[Any, float] = {**lane_of, SOURCE: first, SINK: last}
    leaving, entering = _beside_each_other(widths, height_of, lanes_per_point)
    places = {}
    for sender, receiver in widths:
        start_x = -edge if sender == SOURCE else ends[sender] - margin
        end_x = last_layer + edge if receiver == SINK else (0 if sender == SOURCE else ends[sender]) + margin
        places[sender, receiver] = (start_x, leaving[sender, receiver]), (end_x, entering[sender, receiver])
    turns = _turns(places)
    for pair, (start, end) in places.items():
        _draw_link(ax, start, end, turns[pair], widths[pair])
    binding = {row.sender for row in flow.bottlenecks.itertuples() if row.kind == "compute"}
    scale = ScalarMappable(Normalize(0, 1), matplotlib.colormaps[UTILISATION_COLOURS])
    for node in nodes:
        colour = scale.to_rgba(node["utilisation"])
        _draw_node(ax, node, lane_of[node["node"]], margin, colour, binds=node["node"] in binding)
    for word, x, y, align in (("in", -edge, first, "right"), ("out", last_layer + edge, last, "left")):
        ax.text(x, y, f" {word} ", ha=align, va="center", fontsize=6.5, fontweight="bold")
    ax.set_yticks([])
    sns.despine(ax=ax, left=True)
    ax.spines["bottom"].set_bounds(0, last_layer)
    ax.set_xticks(range(0, last_layer + 1, 10))
    ax.set_xlabel("layer")
    ax.set_title(f"max flow {flow.value_tokens_per_s:.0f} tokens/s")
    _draw_legend(ax, frame=bool(binding), dots=min(widths.values()) == 0)
    if key:
        bar = ax.figure.colorbar(scale, ax=ax, pad=0.01, aspect=20)
        bar.set_label("flow / throughput")
        bar.outline.set_linewidth(0.4)
    return ax


def _width_points(share: float) -> float:
    """Width of a link with that share of the flow, 0 for a link without flow."""
    return max(0.6, _WIDEST_POINTS * share) if share > _LEAST_SHARE else 0.0


def _beside_each_other(
    widths: dict[Any, float], height_of: dict[Any, float], lanes_per_point: float
) -> tuple[dict[Any, float], dict[Any, float]]:
    """Place the ends of each link at its sender and receiver, in the order of the other ends."""
    found: list[dict[Any, float]] = []
    for end, other in ((0, 1), (1, 0)):
        at: dict[Any, float] = {}
        for node in dict.fromkeys(pair[end] for pair in widths):
            links = sorted((p for p in widths if p[end] == node), key=lambda pair: height_of[pair[other]])
            heights = [(widths[pair] + _BETWEEN_POINTS) * lanes_per_point for pair in links]
            height = height_of[node] - sum(heights) / 2
            for pair, taken in zip(links, heights, strict=True):
                at[pair] = height + taken / 2
                height += taken
        found.append(at)
    return found[0], found[1]


def _turns(places: dict[Any, tuple[tuple[float, float], tuple[float, float]]]) -> dict[Any, float]:
    """The layer at which each link goes up or down, so that no two of them lie on each other there."""
    gaps = defaultdict(list)
    for pair, ((x0, _), (x1, _)) in places.items():
        gaps[x0, x1].append(pair)
    turns = {}
    for (x0, x1), pairs in gaps.items():
        tracks: list[list[tuple[float, float]]] = []
        track_of = {}
        for pair in sorted(pairs, key=lambda pair: abs(places[pair][0][1] - places[pair][1][1])):
            low, high = sorted(height for _, height in places[pair])
            free = (k for k, spans in enumerate(tracks) if all(high <= a or b <= low for a, b in spans))
            track_of[pair] = next(free, len(tracks))
            if track_of[pair] == len(tracks):
                tracks.append([])
            tracks[track_of[pair]].append((low, high))
        for pair, track in track_of.items():
            turns[pair] = x0 + (x1 - x0) * (track + 0.5) / len(tracks)
    return turns


def _draw_link(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], turn: float, width_points: float
) -> None:
    (x0, y0), (x1, y1) = start, end
    codes = [Path.MOVETO, *3 * [Path.CURVE4], *3 * [Path.CURVE4]]
    half = (turn, (y0 + y1) / 2)
    curve = Path([(x0, y0), (turn, y0), (turn, y0), half, (turn, y1), (turn, y1), (x1, y1)], codes)
    line: dict[str, Any] = {"edgecolor": _LINK_COLOUR, "linewidth": width_points, "capstyle": "butt"}
    if width_points:
        # A white rim keeps links apart where they cross.
        line["path_effects"] = [withStroke(linewidth=width_points + 1, foreground="white")]
    else:
        line |= _WITHOUT_FLOW
    ax.add_patch(PathPatch(curve, facecolor="none", zorder=1 if width_points else 1.5, **line))


def _draw_legend(ax: Axes, *, frame: bool, dots: bool) -> None:
    """Explain the red frame and the dotted link, above the picture on the right."""
    handles: list[Any] = []
    if frame:
        handles.append(Patch(facecolor="white", edgecolor=BOUND_COLOUR, linewidth=1.6, label="bottleneck"))
    if dots:
        style: dict[str, Any] = {
            "color": _WITHOUT_FLOW["edgecolor"],
            "linewidth": 0.8,
            "linestyle": (0, (1, 2)),
        }
        handles.append(Line2D([], [], label="link without flow", **style))
    if handles:
        ax.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


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
