"""helixlab: plan, simulate and compare LLM serving over mixed GPUs and networks with max flow.

Heavy parts (numba, networkx, pandas' parquet, plotting) load when they are first used.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from helixlab._interrupts import loaded

if TYPE_CHECKING:
    from helixlab import errors, plotting, units
    from helixlab.cluster import (
        Cluster,
        Coordinator,
        Link,
        Machine,
        Node,
        cluster_names,
        geo_distributed,
        load_cluster,
        random_sparse,
        save_cluster,
        single_region,
    )
    from helixlab.diagnosis import Comparison, Finding, compare, diagnose
    from helixlab.execution import Execution, chunked
    from helixlab.experiments.goodput import Goodput, goodput, rate_sweep
    from helixlab.experiments.objectives import Objective, request_latencies
    from helixlab.experiments.statistics import mean_interval
    from helixlab.experiments.sweep import sweep
    from helixlab.experiments.tuning import Tuning, tune_execution
    from helixlab.flow import Flow, max_flow, upper_bound
    from helixlab.model import MachineProfile, Model, load_model, model_names, save_model
    from helixlab.placement import (
        NodeLayers,
        Placement,
        check_placement,
        load_placement,
        placement_names,
        save_placement,
    )
    from helixlab.planning import Prediction, plan, predict
    from helixlab.scheduling import Scheduler
    from helixlab.simulation import Estimate, Result, estimate, load_result, simulate
    from helixlab.workload import Workload, offline, online, trace_names

_HOMES = {
    "cluster": (
        "Cluster",
        "Coordinator",
        "Link",
        "Machine",
        "Node",
        "cluster_names",
        "geo_distributed",
        "load_cluster",
        "random_sparse",
        "save_cluster",
        "single_region",
    ),
    "model": ("MachineProfile", "Model", "load_model", "model_names", "save_model"),
    "placement": (
        "NodeLayers",
        "Placement",
        "check_placement",
        "load_placement",
        "placement_names",
        "save_placement",
    ),
    "flow": ("Flow", "max_flow", "upper_bound"),
    "scheduling": ("Scheduler",),
    "execution": ("Execution", "chunked"),
    "workload": ("Workload", "offline", "online", "trace_names"),
    "simulation": ("Estimate", "Result", "estimate", "load_result", "simulate"),
    "diagnosis": ("Comparison", "Finding", "compare", "diagnose"),
    "planning": ("Prediction", "plan", "predict"),
    "experiments.sweep": ("sweep",),
    "experiments.objectives": ("Objective", "request_latencies"),
    "experiments.goodput": ("Goodput", "goodput", "rate_sweep"),
    "experiments.statistics": ("mean_interval",),
    "experiments.tuning": ("Tuning", "tune_execution"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = ("errors", "plotting", "units")

__version__ = version("helixlab")

__all__ = [
    "Cluster",
    "Comparison",
    "Coordinator",
    "Estimate",
    "Execution",
    "Finding",
    "Flow",
    "Goodput",
    "Link",
    "Machine",
    "MachineProfile",
    "Model",
    "Node",
    "NodeLayers",
    "Objective",
    "Placement",
    "Prediction",
    "Result",
    "Scheduler",
    "Tuning",
    "Workload",
    "__version__",
    "check_placement",
    "chunked",
    "cluster_names",
    "compare",
    "diagnose",
    "errors",
    "estimate",
    "geo_distributed",
    "goodput",
    "load_cluster",
    "load_model",
    "load_placement",
    "load_result",
    "max_flow",
    "mean_interval",
    "model_names",
    "offline",
    "online",
    "placement_names",
    "plan",
    "plotting",
    "predict",
    "random_sparse",
    "rate_sweep",
    "request_latencies",
    "save_cluster",
    "save_model",
    "save_placement",
    "simulate",
    "single_region",
    "sweep",
    "trace_names",
    "tune_execution",
    "units",
    "upper_bound",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(loaded(f"helixlab.{_HOME_OF[name]}"), name)
    elif name in _MODULES:
        value = loaded(f"helixlab.{name}")
    else:
        raise AttributeError(f"module 'helixlab' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
