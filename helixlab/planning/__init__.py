"""Planners, which decide which node holds which layers; each is a function of cluster and model.

Planners that need a solver or the compiler are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helixlab._interrupts import loaded
from helixlab.planning.baselines import (
    extrapolated_kv_capacity,
    plan_homogeneous,
    plan_petals,
    plan_separate,
    plan_swarm,
)
from helixlab.planning.layout import planning_throughput
from helixlab.planning.plan import METHODS, plan

if TYPE_CHECKING:
    from helixlab.planning.helix import helix_candidates, plan_helix
    from helixlab.planning.paper_milp import plan_paper_milp
    from helixlab.planning.paper_program import PaperProgram, keep_fastest_links, problem_size
    from helixlab.planning.prediction import Prediction, predict

_HOME_OF = {
    "PaperProgram": "paper_program",
    "Prediction": "prediction",
    "helix_candidates": "helix",
    "keep_fastest_links": "paper_program",
    "plan_helix": "helix",
    "plan_paper_milp": "paper_milp",
    "predict": "prediction",
    "problem_size": "paper_program",
}

__all__ = [
    "METHODS",
    "PaperProgram",
    "Prediction",
    "extrapolated_kv_capacity",
    "helix_candidates",
    "keep_fastest_links",
    "plan",
    "plan_helix",
    "plan_homogeneous",
    "plan_paper_milp",
    "plan_petals",
    "plan_separate",
    "plan_swarm",
    "planning_throughput",
    "predict",
    "problem_size",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'helixlab.planning' has no attribute {name!r}")
    globals()[name] = getattr(loaded(f"helixlab.planning.{_HOME_OF[name]}"), name)
    return globals()[name]
