"""Many runs: sweeps, goodput, tuning, and what can be said of them together.

Names load when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helixlab._interrupts import loaded

if TYPE_CHECKING:
    from helixlab.experiments.plans import (
        PUBLISHED_PROGRAMS,
        NamedPlan,
        compare_flows,
        coverage,
        distinct_plans,
        flow_nodes,
        layers_of_nodes,
        plan_gains,
        plan_metrics,
        plan_reports,
        plans_beside_published,
        prediction_errors,
        prices_of_layers,
        program_sizes,
        relaxed_bounds,
        search_progress,
        seconds_to_published,
        split_estimates,
        split_served,
        throughput_plans,
        window_effects,
    )
    from helixlab.experiments.policies import (
        batch_kinds,
        compare_executions,
        compare_goodput,
        compare_rates,
        convoys,
        gains_over,
        over_baseline,
        paired_ratios,
        placement_orders,
        planned_and_served,
        ratio_ranges,
        sweep_policies,
        sweep_systems,
        window_batches,
    )
    from helixlab.experiments.pooling import pooled_runs
    from helixlab.experiments.statistics import (
        means_table,
        trends,
        worst_loads,
    )

_HOMES = {
    "plans": (
        "PUBLISHED_PROGRAMS",
        "NamedPlan",
        "compare_flows",
        "coverage",
        "distinct_plans",
        "flow_nodes",
        "layers_of_nodes",
        "plan_gains",
        "plan_metrics",
        "plan_reports",
        "plans_beside_published",
        "prediction_errors",
        "prices_of_layers",
        "program_sizes",
        "relaxed_bounds",
        "search_progress",
        "seconds_to_published",
        "split_estimates",
        "split_served",
        "throughput_plans",
        "window_effects",
    ),
    "policies": (
        "batch_kinds",
        "compare_executions",
        "compare_goodput",
        "compare_rates",
        "convoys",
        "gains_over",
        "over_baseline",
        "paired_ratios",
        "placement_orders",
        "planned_and_served",
        "ratio_ranges",
        "sweep_policies",
        "sweep_systems",
        "window_batches",
    ),
    "pooling": ("pooled_runs",),
    "statistics": (
        "means_table",
        "trends",
        "worst_loads",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "PUBLISHED_PROGRAMS",
    "NamedPlan",
    "batch_kinds",
    "compare_executions",
    "compare_flows",
    "compare_goodput",
    "compare_rates",
    "convoys",
    "coverage",
    "distinct_plans",
    "flow_nodes",
    "gains_over",
    "layers_of_nodes",
    "means_table",
    "over_baseline",
    "paired_ratios",
    "placement_orders",
    "plan_gains",
    "plan_metrics",
    "plan_reports",
    "planned_and_served",
    "plans_beside_published",
    "pooled_runs",
    "prediction_errors",
    "prices_of_layers",
    "program_sizes",
    "ratio_ranges",
    "relaxed_bounds",
    "search_progress",
    "seconds_to_published",
    "split_estimates",
    "split_served",
    "sweep_policies",
    "sweep_systems",
    "throughput_plans",
    "trends",
    "window_batches",
    "window_effects",
    "worst_loads",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'helixlab.experiments' has no attribute {name!r}")
    globals()[name] = getattr(loaded(f"helixlab.experiments.{_HOME_OF[name]}"), name)
    return globals()[name]
