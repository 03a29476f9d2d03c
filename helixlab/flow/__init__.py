"""Flow graph of a placement, its maximum flow and what binds it; routes, and an upper bound."""

from helixlab.flow.bounds import upper_bound
from helixlab.flow.graph import flow_graph, node_capacities
from helixlab.flow.maxflow import Flow, max_flow
from helixlab.flow.routes import decompose

__all__ = ["Flow", "decompose", "flow_graph", "max_flow", "node_capacities", "upper_bound"]
