"""Throughput of a node by its number of layers, T_m(k), in a given mix of machines.

A node with many layers has a small KV cache and serves few requests at a time, but works on each of them
for a larger part of its round trip. The size of that part depends on the speed of the other machines of the
cluster, so the estimate starts from typical speeds and is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from helixlab.errors import ModelError
from helixlab.model.model import Model
from helixlab.model.profile import MachineProfile

__all__ = ["machine_throughput", "node_throughput", "typical_decode_tokens"]

MEAN_INPUT_TOKENS: Final = 750
MEAN_OUTPUT_TOKENS: Final = 240
KV_FILL: Final = 0.3
"""Fraction of the KV cache that is taken to be full in a typical batch."""
ROUNDS: Final = 10
"""Number of repetitions of the estimate of relative speeds."""
TIGHT_BELOW: Final = 1.2
"""Ratio of typical layers to layers of the model below which a cluster counts as tight."""


def _typical_batch(
    k: int, kv_token_layers: int, layer_s: float, mean_layer_s: float, model_layers: int
) -> tuple[float, int, int]:
    """Estimate the prompts (a fraction below one prompt a batch), their tokens, and the decode tokens."""
    own_s = k * layer_s
    workload_ratio = own_s / ((model_layers - k) * mean_layer_s + own_s)
    entries = int(KV_FILL * kv_token_layers / k)
    requests = entries / (MEAN_INPUT_TOKENS + MEAN_OUTPUT_TOKENS) * workload_ratio
    prompts = requests / MEAN_OUTPUT_TOKENS
    if prompts > 1:
        return 1.0, MEAN_INPUT_TOKENS, MEAN_OUTPUT_TOKENS
    return prompts, round(MEAN_INPUT_TOKENS * prompts), round(requests)


def _throughput(
    profile: MachineProfile, k: int, kv_token_layers: int, layer_s: float, mean_layer_s: float, layers: int
) -> float:
    prompts, prompt_tokens, decode_tokens = _typical_batch(k, kv_token_layers, layer_s, mean_layer_s, layers)
    tokens = prompt_tokens + decode_tokens
    if tokens == 0:
        return 0.0
    if prompts >= 1:
        return tokens / (k * (profile.prompt_time_s(prompt_tokens) + profile.decode_time_s(decode_tokens)))
    # With less than one prompt a batch, consider as many batches as share one prompt.
    batches = 1 / prompts
    prompt_s = profile.prompt_time_s(int(prompt_tokens * batches))
    return batches * tokens / (k * (prompt_s + batches * profile.decode_time_s(decode_tokens)))


def _layer_times(model: Model, machine_counts: Mapping[str, int]) -> tuple[dict[str, float], float]:
    """Estimate the relative time of a layer on every machine type, and its mean over the mix."""
    counts = {machine: count for machine, count in machine_counts.items() if count}
    if not counts:
        raise ModelError("no machines to estimate the throughput of; give a count for at least one type")
    profiles = {machine: model.profile(machine) for machine in counts}
    ample = sum(n * profiles[m].typical_layers for m, n in counts.items()) >= TIGHT_BELOW * model.layers
    typical = {
        m: min(p.typical_layers if ample else p.typical_layers_when_tight, model.layers)
        for m, p in profiles.items()
    }
    capacity = {m: p.kv_capacity_token_layers(typical[m]) for m, p in profiles.items()}
    speed = {m: float(p.initial_relative_speed) for m, p in profiles.items()}

    def layer_times() -> tuple[dict[str, float], float]:
        placed = {m: n * typical[m] for m, n in counts.items() if speed[m] > 0}
        if not placed:
            raise ModelError(
                f"none of {', '.join(counts)} has KV cache for a batch of {model.name} beside its typical"
                " layers; give them fewer typical layers, or take larger machines"
            )
        mean_s = sum(layers / speed[m] for m, layers in placed.items()) / sum(placed.values())
        # A machine without throughput has no time of its own; the mean of the others stands in for it.
        return {m: 1 / value if value > 0 else mean_s for m, value in speed.items()}, mean_s

    for _ in range(ROUNDS):
        layer_s, mean_s = layer_times()
        speed = {
            m: typical[m] * _throughput(p, typical[m], capacity[m], layer_s[m], mean_s, model.layers)
            for m, p in profiles.items()
        }
    return layer_times()


def machine_throughput(model: Model, machine_counts: Mapping[str, int]) -> dict[str, NDArray[np.float64]]:
    """Estimate the tokens/s of a node of each machine type, by its number of layers.

    Parameters
    ----------
    model : Model
        The model, with a profile of every machine type.
    machine_counts : mapping of str to int
        Number of nodes of each machine type in the cluster, see `Cluster.machine_counts`.

    Returns
    -------
    dict of str to array
        ``[machine][k]``: T_m(k) in tokens/s for k = 0 (no layers) to the most layers that the type may hold.

    Raises
    ------
    ModelError
        The model has no profile for one of the machine types, or no machine has KV cache for a
        batch.

    Notes
    -----
    This is the estimate of the Helix artifact, over which the paper's placement program maximises. It leaves
    the network card aside (Mei et al., ASPLOS 2025, section 4).

    Examples
    --------
    >>> from helixlab.model import load_model
    >>> table = machine_throughput(load_model("llama-2-70b"), {"A100": 4, "L4": 8, "T4": 12})
    >>> round(table["A100"][12]), round(table["L4"][7]), round(table["T4"][4])
    (952, 532, 758)
    """
    layer_s, mean_s = _layer_times(model, machine_counts)
    table = {}
    for machine, own_s in layer_s.items():
        profile = model.profile(machine)
        values = [
            _throughput(profile, k, profile.kv_capacity_token_layers(k), own_s, mean_s, model.layers)
            for k in range(1, min(profile.max_layers, model.layers) + 1)
        ]
        table[machine] = np.array([0.0, *values])
    return table


def node_throughput(
    model: Model, machine_counts: Mapping[str, int], machine: str, layers: int, kv_capacity_token_layers: int
) -> float:
    """Estimate the tokens/s of one node whose layers or KV capacity are not in the measured table.

    The estimate is that of `machine_throughput`. It serves placements that put more layers on a node than
    were measured and state the remaining KV capacity. Where the KV cache is too small for half a request at a
    time, the estimate is meaningless, see `typical_decode_tokens`.

    Raises
    ------
    ModelError
        No node holds that many layers, the model has no profile for one of the machine types, or
        `machine_counts` does not count `machine`.

    Examples
    --------
    >>> from helixlab.model import load_model
    >>> round(node_throughput(load_model("llama-2-70b"), {"A100": 4}, "A100", 20, 491900))
    278
    """
    own_s, mean_s = _node_layer_times(model, machine_counts, machine, layers)
    profile = model.profile(machine)
    return _throughput(profile, layers, kv_capacity_token_layers, own_s, mean_s, model.layers)


def typical_decode_tokens(
    model: Model, machine_counts: Mapping[str, int], machine: str, layers: int, kv_capacity_token_layers: int
) -> int:
    """Estimate the decode tokens in a typical batch, as `node_throughput` does.

    Where the answer is 0, the node serves less than half a request at a time. The estimate of its throughput
    then counts prompts only and is meaningless.

    Examples
    --------
    >>> from helixlab.model import load_model
    >>> typical_decode_tokens(load_model("llama-2-70b"), {"A100": 4}, "A100", 20, 35136)
    0
    """
    own_s, mean_s = _node_layer_times(model, machine_counts, machine, layers)
    return _typical_batch(layers, kv_capacity_token_layers, own_s, mean_s, model.layers)[2]


def _node_layer_times(
    model: Model, machine_counts: Mapping[str, int], machine: str, layers: int
) -> tuple[float, float]:
    if not 1 <= layers <= model.layers:
        raise ModelError(f"a node holds 1 to {model.layers} layers of {model.name}, not {layers}")
    layer_s, mean_s = _layer_times(model, machine_counts)
    if machine not in layer_s:
        raise ModelError(f"machine_counts names no {machine}; count the node itself")
    return layer_s[machine], mean_s
