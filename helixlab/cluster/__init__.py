"""Clusters of machine types, nodes and links: made by hand, generated, bundled or read from files."""

from helixlab.cluster.cluster import SINK, SOURCE, Cluster, Coordinator, Link, Machine, Node
from helixlab.cluster.generators import geo_distributed, random_sparse, single_region
from helixlab.cluster.io import cluster_names, load_cluster, save_cluster
from helixlab.cluster.machines import bundled_coordinator, bundled_machines
from helixlab.cluster.reference_ini import (
    read_complete_cluster,
    read_layers_ini,
    read_machine_profiles,
    read_simulator_cluster,
)

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
