"""Flow graph of a placement, its maximum flow and bottlenecks, routes, and the upper bound of a cluster."""

from helixlab.flow.bounds import upper_bound
from helixlab.flow.graph import flow_graph, node_capacities
from helixlab.flow.maxflow import Flow, max_flow
from helixlab.flow.routes import decompose
from helixlab.flow.small_links import links_left_out

__all__ = ["Flow", "decompose", "flow_graph", "links_left_out", "max_flow", "node_capacities", "upper_bound"]
