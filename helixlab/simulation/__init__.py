"""Simulation: the event engine, what it records, and the Result."""

from helixlab.simulation.result import Result, load_result
from helixlab.simulation.run import simulate

__all__ = ["Result", "load_result", "simulate"]
