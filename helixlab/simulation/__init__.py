"""Simulation of a placement that serves a workload: the run, its Result, and an estimate of its cost."""

from helixlab.simulation.estimate import Estimate, estimate
from helixlab.simulation.io import load_result
from helixlab.simulation.result import Result
from helixlab.simulation.simulate import simulate

__all__ = ["Estimate", "Result", "estimate", "load_result", "simulate"]
