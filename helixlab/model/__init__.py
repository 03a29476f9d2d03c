"""Models and machine profiles: how long a layer takes, what a node can hold, what it can serve."""

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
