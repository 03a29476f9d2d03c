"""Clusters: machine types, nodes, links; made by hand, generated, bundled or read from files."""

from helixlab.cluster.bundled import bundled_coordinator, bundled_machines
from helixlab.cluster.cluster import Cluster
from helixlab.cluster.files import cluster_names, load_cluster, save_cluster
from helixlab.cluster.generators import geo_distributed, random_sparse, single_region
from helixlab.cluster.ini import (
    read_complete_cluster,
    read_layers_ini,
    read_machine_profiles,
    read_simulator_cluster,
)
from helixlab.cluster.parts import SINK, SOURCE, Coordinator, Link, Machine, Node

__all__ = [
    "SINK",
    "SOURCE",
    "Cluster",
    "Coordinator",
    "Link",
    "Machine",
    "Node",
    "bundled_coordinator",
    "bundled_machines",
    "cluster_names",
    "geo_distributed",
    "load_cluster",
    "random_sparse",
    "read_complete_cluster",
    "read_layers_ini",
    "read_machine_profiles",
    "read_simulator_cluster",
    "save_cluster",
    "single_region",
]
