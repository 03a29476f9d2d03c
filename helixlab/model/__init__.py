"""Models and machine profiles: layer times, KV capacity and throughput of a node."""

from helixlab.model.io import load_model, model_names, save_model
from helixlab.model.model import Model
from helixlab.model.profile import BatchLimits, MachineProfile
from helixlab.model.throughput import machine_throughput, node_throughput, typical_decode_tokens

__all__ = [
    "BatchLimits",
    "MachineProfile",
    "Model",
    "load_model",
    "machine_throughput",
    "model_names",
    "node_throughput",
    "save_model",
    "typical_decode_tokens",
]
