"""Which node holds which layers: the planners, each a function of cluster and model."""

from helixlab.planning.common import planning_throughput
from helixlab.planning.homogeneous import plan_homogeneous
from helixlab.planning.petals import plan_petals
from helixlab.planning.plan import METHODS, plan
from helixlab.planning.separate import extrapolated_kv_capacity, plan_separate
from helixlab.planning.swarm import plan_swarm

__all__ = [
    "METHODS",
    "extrapolated_kv_capacity",
    "plan",
    "plan_homogeneous",
    "plan_petals",
    "plan_separate",
    "plan_swarm",
    "planning_throughput",
]
