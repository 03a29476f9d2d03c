"""Diagnosis of results: findings in words, with the numbers behind them."""

from helixlab.diagnosis.compare import Comparison, compare, differing_settings
from helixlab.diagnosis.diagnose import CAUSES, Finding, diagnose
from helixlab.diagnosis.losses import idle_nodes, losses
from helixlab.diagnosis.measures import binding_cut, time_breakdown

__all__ = [
    "CAUSES",
    "Comparison",
    "Finding",
    "binding_cut",
    "compare",
    "diagnose",
    "differing_settings",
    "idle_nodes",
    "losses",
    "time_breakdown",
]
