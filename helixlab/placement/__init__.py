"""Placements of layers on nodes: objects, checks and files."""

from helixlab.placement.io import load_placement, placement_names, save_placement
from helixlab.placement.placement import (
    End,
    NodeLayers,
    Placement,
    PlanReport,
    check_placement,
    held_by,
    usable_links,
)
from helixlab.placement.reference_ini import read_placement_ini

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
