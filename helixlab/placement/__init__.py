"""Placements of layers on nodes: the object, its checks and its files."""

from helixlab.placement.checks import check_placement
from helixlab.placement.files import load_placement, placement_names, save_placement
from helixlab.placement.ini import read_placement_ini
from helixlab.placement.placement import End, NodeLayers, Placement, PlanReport
from helixlab.placement.reach import held_by, usable_links

__all__ = [
    "End",
    "NodeLayers",
    "Placement",
    "PlanReport",
    "check_placement",
    "held_by",
    "load_placement",
    "placement_names",
    "read_placement_ini",
    "save_placement",
    "usable_links",
]
