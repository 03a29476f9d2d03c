# Names of helixlab.reproduce: loaded from these modules when they are first used.
from .comparison import (
    beside_published as beside_published,
)
from .comparison import (
    flows_beside_published as flows_beside_published,
)
from .comparison import (
    rankings as rankings,
)
from .comparison import (
    reference_error as reference_error,
)
from .evaluation import (
    Evaluation as Evaluation,
)
from .evaluation import (
    evaluate as evaluate,
)
from .evaluation import (
    published_evaluation as published_evaluation,
)
from .notebooks import (
    numbered_notebooks as numbered_notebooks,
)
from .own_plans import (
    OwnPlans as OwnPlans,
)
from .own_plans import (
    largest_stable_rates as largest_stable_rates,
)
from .own_plans import (
    load_plans as load_plans,
)
from .own_plans import (
    offline_means as offline_means,
)
from .own_plans import (
    plan_factors as plan_factors,
)
from .own_plans import (
    plan_findings as plan_findings,
)
from .own_plans import (
    run_offline as run_offline,
)
from .own_plans import (
    run_online as run_online,
)
from .own_plans import (
    throughput_bars as throughput_bars,
)
from .parameters import (
    check_parameters as check_parameters,
)
from .parameters import (
    output_folder as output_folder,
)
from .published import (
    figure_names as figure_names,
)
from .published import (
    published_results as published_results,
)
from .published import (
    published_sizes as published_sizes,
)
from .published import (
    published_traces as published_traces,
)
from .published import (
    published_wide as published_wide,
)
from .published import (
    scenarios as scenarios,
)
from .study import (
    reproduce as reproduce,
)
