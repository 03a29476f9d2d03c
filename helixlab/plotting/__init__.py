"""Figures from tidy tables and from helixlab's objects.

Every function that draws takes ``ax=None``, returns the Axes, and never shows or saves. The style applies
inside these functions and inside ``with style():`` only.
"""

from helixlab.plotting.evaluation import (
    mark_loads,
    plot_batches,
    plot_evaluation,
    plot_evaluation_latencies,
    plot_evaluation_throughputs,
    plot_rate_sweep,
    plot_saturation,
    plot_throughput_latency,
)
from helixlab.plotting.flows import plot_flow
from helixlab.plotting.latency import plot_latency_boxes, plot_latency_cdf
from helixlab.plotting.placement import plot_placement, plot_topology
from helixlab.plotting.planning import (
    plot_congestion,
    plot_prediction,
    plot_search_progress,
    plot_search_quality,
)
from helixlab.plotting.profiles import plot_kv_capacity, plot_layer_times, plot_node_throughput
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
from helixlab.plotting.throughput import legend_above, plot_throughput
from helixlab.plotting.timeline import plot_node_use, plot_timeline, plot_tokens, resampled

__all__ = [
    "COLUMN_WIDTH_IN",
    "MACHINE_COLOURS",
    "METHOD_COLOURS",
    "METHOD_LABELS",
    "PAGE_WIDTH_IN",
    "comparison_table",
    "latency_quantiles",
    "legend_above",
    "mark_loads",
    "method_label",
    "name_panels",
    "panels",
    "plot_batches",
    "plot_congestion",
    "plot_evaluation",
    "plot_evaluation_latencies",
    "plot_evaluation_throughputs",
    "plot_flow",
    "plot_kv_capacity",
    "plot_latency_boxes",
    "plot_latency_cdf",
    "plot_layer_times",
    "plot_node_throughput",
    "plot_node_use",
    "plot_placement",
    "plot_prediction",
    "plot_rate_sweep",
    "plot_saturation",
    "plot_search_progress",
    "plot_search_quality",
    "plot_throughput",
    "plot_throughput_latency",
    "plot_timeline",
    "plot_tokens",
    "plot_topology",
    "resampled",
    "save_figure",
    "save_table",
    "style",
    "window_latencies",
]
