"""Simulation: the event engine, what it records, and the Result."""

from helixlab.simulation.estimate import Estimate, estimate
from helixlab.simulation.result import Result
from helixlab.simulation.run import simulate
from helixlab.simulation.saved import load_result

__all__ = ["Estimate", "Result", "estimate", "load_result", "simulate"]
