"""Simulation: the event engine, what it records, and the Result."""

from helixlab.simulation.estimate import Estimate, estimate
from helixlab.simulation.io import load_result
from helixlab.simulation.result import Result
from helixlab.simulation.simulate import simulate

__all__ = ["Estimate", "Result", "estimate", "load_result", "simulate"]
