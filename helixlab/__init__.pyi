# The public names of helixlab: loaded from these modules when they are first used.
# ruff: noqa: I001 (in the order of the rooms)
from . import errors as errors
from . import plotting as plotting
from . import units as units
from .cluster import (
    Cluster as Cluster,
    Coordinator as Coordinator,
    Link as Link,
    Machine as Machine,
    Node as Node,
    cluster_names as cluster_names,
    geo_distributed as geo_distributed,
    load_cluster as load_cluster,
    random_sparse as random_sparse,
    save_cluster as save_cluster,
    single_region as single_region,
)
from .model import (
    MachineProfile as MachineProfile,
    Model as Model,
    load_model as load_model,
    model_names as model_names,
    save_model as save_model,
)
from .workload import (
    Workload as Workload,
    offline as offline,
    online as online,
    trace_names as trace_names,
)
from .placement import (
    NodeLayers as NodeLayers,
    Placement as Placement,
    check_placement as check_placement,
    load_placement as load_placement,
    placement_names as placement_names,
    save_placement as save_placement,
)
from .flow import (
    Flow as Flow,
    max_flow as max_flow,
    upper_bound as upper_bound,
)
from .scheduling import (
    Scheduler as Scheduler,
)
from .execution import (
    Execution as Execution,
    chunked as chunked,
)
from .simulation import (
    Estimate as Estimate,
    Result as Result,
    estimate as estimate,
    load_result as load_result,
    simulate as simulate,
)
from .planning import (
    Prediction as Prediction,
    plan as plan,
    predict as predict,
)
from .diagnosis import (
    Comparison as Comparison,
    Finding as Finding,
    compare as compare,
    diagnose as diagnose,
)
from .experiments.goodput import (
    Goodput as Goodput,
    goodput as goodput,
    rate_sweep as rate_sweep,
)
from .experiments.objectives import (
    Objective as Objective,
    request_latencies as request_latencies,
)
from .experiments.statistics import (
    mean_interval as mean_interval,
)
from .experiments.sweep import (
    sweep as sweep,
)
from .experiments.tuning import (
    Tuning as Tuning,
    tune_execution as tune_execution,
)

__version__: str
