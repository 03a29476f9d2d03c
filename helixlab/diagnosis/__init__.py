"""Diagnosis: what a result means, in plain words with the numbers behind them."""

from helixlab.diagnosis.compare import Comparison, compare, differing_settings
from helixlab.diagnosis.diagnose import CAUSES, Finding, diagnose
from helixlab.diagnosis.idle import idle_nodes
from helixlab.diagnosis.losses import losses
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
