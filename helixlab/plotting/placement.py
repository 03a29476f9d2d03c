"""Pictures of clusters and placements: nodes by region, links, and the layers on each node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch

from helixlab.cluster import Cluster, Link
from helixlab.flow import Flow, max_flow
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.plotting.style import (
    PAGE_WIDTH_IN,
    axes_or_new,
    ink_on,
    machine_colours,
    mark_partial,
    name_panels,
    panels,
    plain,
    styled,
)

__all__ = ["UTILISATION_COLOURS", "plot_placement", "plot_placements", "plot_topology"]


UTILISATION_COLOURS: Final = "YlGnBu"
_RIM: Final = 0.15
"""Distance between a ring of nodes and the edge of its disc."""
_DOTS: Final = {12: (62, 4.6), 26: (50, 4.6), 10**9: (38, 3.8)}
"""Area and letter size of a node by the most nodes on a ring, in points."""
_WHITE: Final = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
_DOTTED: Final = (0, (2, 1.5))


@styled
def plot_placement(
    cluster: Cluster,
    placement: Placement,
    flow: Flow | None = None,
    *,
    key: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw one bar for each node over the layers that it holds; idle nodes are rows that say so.

    Parameters
    ----------
    cluster : Cluster
        The cluster of the placement, or the one it is part of.
    placement : Placement
        Placement to draw.
    flow : Flow, optional
        Its maximum flow: bars are then coloured by the part of their throughput that it uses, otherwise by
        machine type.
    key : bool, default True
        Draw the scale of the utilisation, or the legend of the machine types.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> from helixlab.placement import load_placement
    >>> ax = plot_placement(load_cluster("small10"), load_placement("small10/llama-1-30b/helix"))
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


@styled
def plot_placements(cluster: Cluster, model: Model, placements: Mapping[str, Placement]) -> np.ndarray:
    """Draw placements with their maximum flows in two columns of panels.

    Parameters
    ----------
    cluster : Cluster
        Cluster of the placements.
    model : Model
        Model of the placements.
    placements : mapping of str to Placement
        An even number of placements, by title; the flow is written behind it.

    Returns
    -------
    array of Axes
        Rows of two panels.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> axes = plot_placements(cluster, model, {"mine": placement, "again": placement})
    >>> axes[0, 0].get_title(loc="left")
    'mine: 287 tokens/s'
    """
    rows = -(-len(placements) // 2)
    _, axes = panels(rows, 2, width_in=PAGE_WIDTH_IN, height_in=2.8 * rows, squeeze=False)
    for ax, (title, placement) in zip(axes.flat, placements.items(), strict=True):
        flow = max_flow(cluster, model, placement)
        plot_placement(cluster, placement, flow, key=bool(ax.get_subplotspec().is_last_col()), ax=ax)
        name_panels([ax], [f"{title}: {flow.value_tokens_per_s:.0f} tokens/s"])
    return np.asarray(axes)


@dataclass(frozen=True)
class _Region:
    """Place of a region in the picture, and its links inside."""

    name: str
    nodes: list[int]
    x: float
    y: float
    ring: float
    links: list[Link]
    towards: float | None
    """Direction of the coordinator, where it is linked to the region in the picture and not to its nodes."""

    def places(self) -> dict[int, tuple[float, float]]:
        """Places of its nodes: clockwise from the top, turned so that no line points at one."""
        step = 2 * math.pi / len(self.nodes)
        turned = 0.0 if self.towards is None else (self.towards - math.pi / 2) / step - 0.5
        start = math.pi / 2 + step * (turned - round(turned))
        angles = [start - step * place for place in range(len(self.nodes))]
        ring = self.ring if len(self.nodes) > 1 else 0.0
        return {
            node: (self.x + ring * math.cos(angle), self.y + ring * math.sin(angle))
            for node, angle in zip(self.nodes, angles, strict=True)
        }

    def edge_towards(self, x: float, y: float) -> tuple[float, float]:
        """Find the point on the edge of its disc that is nearest to (x, y)."""
        distance = math.hypot(x - self.x, y - self.y)
        share = (self.ring + _RIM) / distance
        return self.x + share * (x - self.x), self.y + share * (y - self.y)


@styled
def plot_topology(cluster: Cluster, *, ax: Axes | None = None) -> Axes:
    """Nodes on a ring for each region, links inside a region one by one, links between regions as one.

    The square is the coordinator; with several regions one dotted line stands for its links to all nodes of
    a region. Labels say the bandwidth and latency of the links they stand for.

    Parameters
    ----------
    cluster : Cluster
        Cluster to draw.
    {ax}

    Returns
    -------
    Axes

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> ax = plot_topology(load_cluster("small10"))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['4 L4', '6 T4']
    """
    ax = axes_or_new(ax, height_in=1.25 if len(cluster.regions) == 2 else 2.9)
    between: dict[tuple[str, str], list[Link]] = {}
    for link in cluster.links:
        if isinstance(link.sender, int) and isinstance(link.receiver, int):
            one, other = sorted(cluster.nodes[end].region for end in (link.sender, link.receiver))
            between.setdefault((one, other), []).append(link)
    regions = _layout(cluster, between)
    at = {node: place for region in regions.values() for node, place in region.places().items()}
    for region in regions.values():
        _draw_region(ax, region, at, alone=len(regions) == 1)
    for (one, other), links in between.items():
        if one != other:
            _draw_between(ax, regions[one], regions[other], links)
    _draw_coordinator(ax, regions, at)
    types = machine_colours(node.machine for node in cluster.nodes)
    most = max(len(region.nodes) for region in regions.values())
    area, letters = next(dot for limit, dot in _DOTS.items() if most <= limit)
    for node in cluster.nodes:
        x, y = at[node.index]
        colour = types[node.machine]
        ax.scatter(x, y, s=area, color=colour, edgecolor="black", linewidth=0.4, zorder=3)
        name = ax.text(x, y, str(node.index), ha="center", va="center_baseline", fontsize=letters, zorder=4)
        name.set_color(ink_on(colour))
    counts = cluster.machine_counts()
    dot = {"marker": "o", "markeredgecolor": "black", "markeredgewidth": 0.4, "linestyle": "none"}
    handles = [
        Line2D([], [], color=colour, label=f"{counts[machine]} {plain(machine)}", **dot)  # type: ignore[arg-type]
        for machine, colour in types.items()
    ]
    if len(regions) > 1:
        words = "coordinator\nto all nodes"
        handles.append(Line2D([], [], color="#555555", linewidth=0.6, linestyle=_DOTTED, label=words))
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.0)
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.margins(0.06)
    if len(regions) > 1:  # space for the texts, which are no data
        low = min(region.y - region.ring for region in regions.values())
        high = max(region.y + region.ring for region in regions.values())
        if len(regions) == 2:  # all words are below the regions
            ax.set_ylim(_coordinator_place(2)[1] - 0.4, high + _RIM + 0.05)
        else:
            ax.set_ylim(low - _RIM - 0.45, high + _RIM + 0.45)
    return ax


def _layout(cluster: Cluster, between: dict[tuple[str, str], list[Link]]) -> dict[str, _Region]:
    """Place regions on a circle, clockwise from the top; two side by side, a single one in the middle."""
    nodes = {name: [n.index for n in cluster.nodes if n.region == name] for name in cluster.regions}
    number, most = len(nodes), max(map(len, nodes.values()))
    radius = 1.0 if number == 1 else min(0.5, 0.9 * math.sin(math.pi / number))
    start = math.pi if number == 2 else math.pi / 2
    regions = {}
    for place, (name, inside) in enumerate(nodes.items()):
        angle = start - 2 * math.pi * place / number
        away = {1: 0.0, 2: 1.65}.get(number, 1.4)  # space for the texts on the links
        ring = radius * math.sqrt(max(len(inside), 3) / most) if number > 1 else radius
        x, y = away * math.cos(angle), away * math.sin(angle)
        middle_x, middle_y = _coordinator_place(number)
        towards = math.atan2(middle_y - y, middle_x - x) if number > 1 else None
        regions[name] = _Region(name, inside, x, y, ring, between.get((name, name), []), towards)
    return regions


def _coordinator_place(regions: int) -> tuple[float, float]:
    """In the middle; below it between two regions, whose links run there."""
    return (0.0, -0.9) if regions == 2 else (0.0, 0.0)


def _draw_region(ax: Axes, region: _Region, at: dict[int, tuple[float, float]], *, alone: bool) -> None:
    if not alone:
        disc = Circle(
            (region.x, region.y),
            region.ring + _RIM,
            facecolor="#f2f4f7",
            edgecolor="#8899aa",
            linewidth=0.6,
            zorder=2,
        )
        ax.add_patch(disc)
    pairs = {frozenset((link.sender, link.receiver)) for link in region.links}
    lines = [[at[int(end)] for end in pair] for pair in sorted(sorted(pair, key=str) for pair in pairs)]
    ax.add_collection(LineCollection(lines, colors="#8899aa", linewidths=0.35, alpha=0.35, zorder=2.5))
    words = "\n".join(filter(None, (plain(region.name), _offer(region.links, ", "))))
    above = region.y > 0.2
    y = region.y + (1 if above else -1) * (region.ring + _RIM + 0.03)
    ax.text(region.x, y, words, ha="center", va="bottom" if above else "top", fontsize=6)


def _draw_between(ax: Axes, one: _Region, other: _Region, links: list[Link]) -> None:
    start, end = one.edge_towards(other.x, other.y), other.edge_towards(one.x, one.y)
    (x0, y0), (x1, y1) = start, end
    ax.plot([x0, x1], [y0, y1], color="#333333", linewidth=1.4, zorder=1)
    middle = 0.65 * (x0 + x1), (y0 + y1) / 2  # away from the coordinator and from the other links' words
    ax.text(*middle, _offer(links, "\n"), ha="center", va="center", fontsize=5.5, zorder=5, bbox=_WHITE)


def _draw_coordinator(ax: Axes, regions: dict[str, _Region], at: dict[int, tuple[float, float]]) -> None:
    """Draw the coordinator, with links to nodes or to regions."""
    x, y = _coordinator_place(len(regions))
    ends = (
        [region.edge_towards(x, y) for region in regions.values()] if len(regions) > 1 else list(at.values())
    )
    for end_x, end_y in ends:
        width = 0.6 if len(regions) > 1 else 0.3
        ax.plot([x, end_x], [y, end_y], color="#555555", linewidth=width, linestyle=_DOTTED, zorder=1)
    ax.plot(x, y, "s", color="white", markeredgecolor="black", markersize=6, zorder=3)
    ax.annotate(
        "coordinator", (x, y), xytext=(0, -6), textcoords="offset points", ha="center", va="top", fontsize=6,
        bbox=_WHITE, zorder=4,
    )  # fmt: skip


def _offer(links: list[Link], between: str) -> str:
    """Format the bandwidth and latency of links; an empty text where there are none."""
    if not links:
        return ""
    rates = np.array([link.bandwidth_bytes_per_s for link in links])
    unit, scale = ("GB/s", 1e9) if rates.max() >= 1e9 else ("MB/s", 1e6)
    latencies_ms = np.array([1e3 * link.latency_s for link in links])
    return f"{_span(rates / scale)} {unit}{between}{_span(latencies_ms)} ms"


def _span(values: np.ndarray) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
