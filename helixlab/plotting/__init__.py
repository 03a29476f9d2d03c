"""Figures from tidy tables and from helixlab's objects.

Every function that draws takes ``ax=None``, returns the Axes, and never shows or saves. The style applies
inside these functions and inside ``with style():`` only.
"""

from helixlab.plotting.evaluation import (
    batch_strip,
    evaluation_bars,
    mark_loads,
    rate_curves,
    saturation_curves,
    throughput_latency_frontier,
)
from helixlab.plotting.flows import link_flow_picture
from helixlab.plotting.latency import latency_boxes, latency_cdf
from helixlab.plotting.placement import placement_picture, topology_picture
from helixlab.plotting.planning import (
    congestion_picture,
    predicted_against_simulated,
    search_progress,
    search_quality,
)
from helixlab.plotting.profiles import kv_capacity_curves, layer_time_curves, throughput_curves
from helixlab.plotting.saving import save_figure, save_table
from helixlab.plotting.style import (
    COLUMN_WIDTH_IN,
    MACHINE_COLOURS,
    METHOD_COLOURS,
    METHOD_LABELS,
    PAGE_WIDTH_IN,
    method_label,
    name_panels,
    panels,
    style,
)
from helixlab.plotting.tables import comparison_table, latency_quantiles, window_latencies
from helixlab.plotting.throughput import legend_above, throughput_bars
from helixlab.plotting.timeline import node_use_picture, resampled, timeline_picture, tokens_over_time

__all__ = [
    "COLUMN_WIDTH_IN",
    "MACHINE_COLOURS",
    "METHOD_COLOURS",
    "METHOD_LABELS",
    "PAGE_WIDTH_IN",
    "batch_strip",
    "comparison_table",
    "congestion_picture",
    "evaluation_bars",
    "kv_capacity_curves",
    "latency_boxes",
    "latency_cdf",
    "latency_quantiles",
    "layer_time_curves",
    "legend_above",
    "link_flow_picture",
    "mark_loads",
    "method_label",
    "name_panels",
    "node_use_picture",
    "panels",
    "placement_picture",
    "predicted_against_simulated",
    "rate_curves",
    "resampled",
    "saturation_curves",
    "save_figure",
    "save_table",
    "search_progress",
    "search_quality",
    "style",
    "throughput_bars",
    "throughput_curves",
    "throughput_latency_frontier",
    "timeline_picture",
    "tokens_over_time",
    "topology_picture",
    "window_latencies",
]
