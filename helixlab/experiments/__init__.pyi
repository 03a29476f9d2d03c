# Names of helixlab.experiments: loaded from these modules when they are first used.
from .goodput import (
    Goodput as Goodput,
    rate_sweep as rate_sweep,
)
from .objectives import (
    Objective as Objective,
    objective_metrics as objective_metrics,
    request_latencies as request_latencies,
)
from .plans import (
    PUBLISHED_PROGRAMS as PUBLISHED_PROGRAMS,
    NamedPlan as NamedPlan,
    compare_flows as compare_flows,
    coverage as coverage,
    distinct_plans as distinct_plans,
    flow_nodes as flow_nodes,
    layers_of_nodes as layers_of_nodes,
    plan_reports as plan_reports,
    plans_beside_published as plans_beside_published,
    prices_of_layers as prices_of_layers,
    program_sizes as program_sizes,
    relaxed_bounds as relaxed_bounds,
    search_progress as search_progress,
    seconds_to_published as seconds_to_published,
    split_estimates as split_estimates,
    throughput_plans as throughput_plans,
)
from .policies import (
    batch_kinds as batch_kinds,
    compare_executions as compare_executions,
    compare_goodput as compare_goodput,
    compare_rates as compare_rates,
    convoys as convoys,
    gains_over as gains_over,
    over_baseline as over_baseline,
    paired_ratios as paired_ratios,
    placement_orders as placement_orders,
    planned_and_served as planned_and_served,
    ratio_ranges as ratio_ranges,
    sweep_policies as sweep_policies,
    sweep_systems as sweep_systems,
    window_batches as window_batches,
)
from .pooling import (
    pooled_metrics as pooled_metrics,
    pooled_runs as pooled_runs,
    waits_and_runs as waits_and_runs,
)
from .served_plans import (
    plan_gains as plan_gains,
    plan_metrics as plan_metrics,
    prediction_errors as prediction_errors,
    split_served as split_served,
    window_effects as window_effects,
)
from .statistics import (
    load_metrics as load_metrics,
    mean_interval as mean_interval,
    means_table as means_table,
    trend_metrics as trend_metrics,
    trends as trends,
    worst_load as worst_load,
    worst_loads as worst_loads,
)
from .tuning import (
    Tuning as Tuning,
    tune_execution as tune_execution,
)
