# Names of helixlab.experiments: loaded from these modules when they are first used.
from .goodput import (
    Goodput as Goodput,
)
from .goodput import (
    rate_sweep as rate_sweep,
)
from .objectives import (
    Objective as Objective,
)
from .objectives import (
    objective_metrics as objective_metrics,
)
from .objectives import (
    request_latencies as request_latencies,
)
from .plans import (
    PUBLISHED_PROGRAMS as PUBLISHED_PROGRAMS,
)
from .plans import (
    NamedPlan as NamedPlan,
)
from .plans import (
    compare_flows as compare_flows,
)
from .plans import (
    coverage as coverage,
)
from .plans import (
    distinct_plans as distinct_plans,
)
from .plans import (
    flow_nodes as flow_nodes,
)
from .plans import (
    layers_of_nodes as layers_of_nodes,
)
from .plans import (
    plan_gains as plan_gains,
)
from .plans import (
    plan_metrics as plan_metrics,
)
from .plans import (
    plan_reports as plan_reports,
)
from .plans import (
    plans_beside_published as plans_beside_published,
)
from .plans import (
    prediction_errors as prediction_errors,
)
from .plans import (
    prices_of_layers as prices_of_layers,
)
from .plans import (
    program_sizes as program_sizes,
)
from .plans import (
    relaxed_bounds as relaxed_bounds,
)
from .plans import (
    search_progress as search_progress,
)
from .plans import (
    seconds_to_published as seconds_to_published,
)
from .plans import (
    split_estimates as split_estimates,
)
from .plans import (
    split_served as split_served,
)
from .plans import (
    throughput_plans as throughput_plans,
)
from .plans import (
    window_effects as window_effects,
)
from .policies import (
    batch_kinds as batch_kinds,
)
from .policies import (
    compare_executions as compare_executions,
)
from .policies import (
    compare_goodput as compare_goodput,
)
from .policies import (
    compare_rates as compare_rates,
)
from .policies import (
    convoys as convoys,
)
from .policies import (
    gains_over as gains_over,
)
from .policies import (
    over_baseline as over_baseline,
)
from .policies import (
    paired_ratios as paired_ratios,
)
from .policies import (
    placement_orders as placement_orders,
)
from .policies import (
    planned_and_served as planned_and_served,
)
from .policies import (
    ratio_ranges as ratio_ranges,
)
from .policies import (
    sweep_policies as sweep_policies,
)
from .policies import (
    sweep_systems as sweep_systems,
)
from .policies import (
    window_batches as window_batches,
)
from .pooling import (
    pooled_metrics as pooled_metrics,
)
from .pooling import (
    pooled_runs as pooled_runs,
)
from .pooling import (
    waits_and_runs as waits_and_runs,
)
from .statistics import (
    load_metrics as load_metrics,
)
from .statistics import (
    mean_interval as mean_interval,
)
from .statistics import (
    means_table as means_table,
)
from .statistics import (
    trend_metrics as trend_metrics,
)
from .statistics import (
    trends as trends,
)
from .statistics import (
    worst_load as worst_load,
)
from .statistics import (
    worst_loads as worst_loads,
)
from .tuning import (
    Tuning as Tuning,
)
from .tuning import (
    tune_execution as tune_execution,
)
