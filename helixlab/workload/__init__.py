"""Workloads: requests of bundled traces or of your own, fed offline or online."""

from helixlab.workload.requests import check_requests, read_requests
from helixlab.workload.traces import arrival_names, trace_lengths, trace_names
from helixlab.workload.workload import Workload, offline, online

__all__ = [
    "Workload",
    "arrival_names",
    "check_requests",
    "offline",
    "online",
    "read_requests",
    "trace_lengths",
    "trace_names",
]
