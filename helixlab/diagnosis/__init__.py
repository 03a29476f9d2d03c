"""Diagnosis: what a result means, in plain words with the numbers behind them."""

from helixlab.diagnosis.compare import Comparison, compare
from helixlab.diagnosis.diagnose import CAUSES, diagnose
from helixlab.diagnosis.finding import Finding
from helixlab.diagnosis.idle import idle_nodes
from helixlab.diagnosis.losses import losses
from helixlab.diagnosis.settings import differing_settings
from helixlab.diagnosis.tightest import binding_cut
from helixlab.diagnosis.times import time_breakdown

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
