"""The study: its notebooks, the published evaluation run again, and the report.

The command line needs the names of notebooks only; everything else loads when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helixlab._interrupts import loaded
from helixlab.reproduce.notebooks import NotebookError, numbered_notebooks

if TYPE_CHECKING:
    from helixlab.reproduce.comparison import (
        beside_published,
        flows_beside_published,
        rankings,
        reference_error,
    )
    from helixlab.reproduce.evaluation import Evaluation, evaluate, published_evaluation
    from helixlab.reproduce.own_plans import (
        OwnPlans,
        largest_stable_rates,
        load_plans,
        offline_means,
        plan_factors,
        plan_findings,
        run_offline,
        run_online,
        throughput_bars,
    )
    from helixlab.reproduce.parameters import check_parameters, output_folder
    from helixlab.reproduce.published import (
        figure_names,
        published_results,
        published_sizes,
        published_traces,
        published_wide,
        scenarios,
    )
    from helixlab.reproduce.study import reproduce

_HOMES = {
    "comparison": ("beside_published", "flows_beside_published", "rankings", "reference_error"),
    "evaluation": ("Evaluation", "evaluate", "published_evaluation"),
    "own_plans": (
        "OwnPlans",
        "largest_stable_rates",
        "load_plans",
        "offline_means",
        "plan_factors",
        "plan_findings",
        "run_offline",
        "run_online",
        "throughput_bars",
    ),
    "parameters": ("check_parameters", "output_folder"),
    "published": (
        "figure_names",
        "published_results",
        "published_sizes",
        "published_traces",
        "published_wide",
        "scenarios",
    ),
    "study": ("reproduce",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Evaluation",
    "NotebookError",
    "OwnPlans",
    "beside_published",
    "check_parameters",
    "evaluate",
    "figure_names",
    "flows_beside_published",
    "largest_stable_rates",
    "load_plans",
    "numbered_notebooks",
    "offline_means",
    "output_folder",
    "plan_factors",
    "plan_findings",
    "published_evaluation",
    "published_results",
    "published_sizes",
    "published_traces",
    "published_wide",
    "rankings",
    "reference_error",
    "reproduce",
    "run_offline",
    "run_online",
    "scenarios",
    "throughput_bars",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'helixlab.reproduce' has no attribute {name!r}")
    globals()[name] = getattr(loaded(f"helixlab.reproduce.{_HOME_OF[name]}"), name)
    return globals()[name]
