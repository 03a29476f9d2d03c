# Names of helixlab.reproduce: loaded from these modules when they are first used.
from .comparison import (
    beside_published as beside_published,
    flows_beside_published as flows_beside_published,
    rankings as rankings,
    reference_error as reference_error,
)
from .evaluation import (
    Evaluation as Evaluation,
    evaluate as evaluate,
    published_evaluation as published_evaluation,
)
from .notebooks import (
    numbered_notebooks as numbered_notebooks,
)
from .own_plans import (
    OwnPlans as OwnPlans,
    largest_stable_rates as largest_stable_rates,
    load_plans as load_plans,
    offline_means as offline_means,
    plan_factors as plan_factors,
    plan_findings as plan_findings,
    run_offline as run_offline,
    run_online as run_online,
    throughput_bars as throughput_bars,
)
from .parameters import (
    check_parameters as check_parameters,
    output_folder as output_folder,
)
from .published import (
    figure_names as figure_names,
    published_results as published_results,
    published_sizes as published_sizes,
    published_traces as published_traces,
    published_wide as published_wide,
    scenarios as scenarios,
)
from .study import (
    reproduce as reproduce,
)
