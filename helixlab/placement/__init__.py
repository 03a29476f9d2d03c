"""Placements of layers on nodes: the object, its checks, its files, and the planners."""

from helixlab.placement.checks import check_placement
from helixlab.placement.files import load_placement, placement_names, save_placement
from helixlab.placement.homogeneous import plan_homogeneous
from helixlab.placement.ini import read_placement_ini
from helixlab.placement.petals import plan_petals
from helixlab.placement.placement import NodeLayers, Placement, PlanReport, held_by, usable_links
from helixlab.placement.plan import METHODS, plan
from helixlab.placement.planning import planning_throughput
from helixlab.placement.separate import extrapolated_kv_capacity, plan_separate
from helixlab.placement.swarm import plan_swarm

__all__ = [
    "METHODS",
    "NodeLayers",
    "Placement",
    "PlanReport",
    "check_placement",
    "extrapolated_kv_capacity",
    "held_by",
    "load_placement",
    "placement_names",
    "plan",
    "plan_homogeneous",
    "plan_petals",
    "plan_separate",
    "plan_swarm",
    "planning_throughput",
    "read_placement_ini",
    "save_placement",
    "usable_links",
]
