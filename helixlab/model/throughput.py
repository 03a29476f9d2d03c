"""Throughput of a node by the layers it holds, T_m(k), in a given mix of machines.

A node with many layers serves few requests at a time, because the KV cache is small, but works on
each of them for a longer part of its round trip. How long that part is depends on how fast the
other machines of the cluster are, so the estimate starts from typical speeds and repeats.
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
"""Part of the KV cache taken as filled in a typical batch."""
ROUNDS: Final = 10
"""Repeats of the estimate of relative speeds."""
TIGHT_BELOW: Final = 1.2
"""A cluster whose typical layers are fewer than this times the model's is tight."""


def _typical_batch(
    k: int, kv_token_layers: int, layer_s: float, mean_layer_s: float, model_layers: int
) -> tuple[float, int, int]:
    """Prompts (a fraction where there are fewer than one a batch), their tokens, and decode tokens."""
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
    # Less than one prompt a batch: look at as many batches as share one prompt.
    batches = 1 / prompts
    prompt_s = profile.prompt_time_s(int(prompt_tokens * batches))
    return batches * tokens / (k * (prompt_s + batches * profile.decode_time_s(decode_tokens)))


def _layer_times(model: Model, machine_counts: Mapping[str, int]) -> tuple[dict[str, float], float]:
    """Relative time of a layer on every machine type and on average over the mix, after the repeats."""
    counts = {machine: count for machine, count in machine_counts.items() if count}
    if not counts:
        raise ModelError("no machines to estimate the throughput of; give a count for at least one type")
    profiles = {machine: model.profile(machine) for machine in counts}
    roomy = sum(n * profiles[m].typical_layers for m, n in counts.items()) >= TIGHT_BELOW * model.layers
    typical = {
        m: min(p.typical_layers if roomy else p.typical_layers_when_tight, model.layers)
        for m, p in profiles.items()
    }
    capacity = {m: p.kv_capacity_token_layers(typical[m]) for m, p in profiles.items()}
    speed = {m: float(p.initial_relative_speed) for m, p in profiles.items()}

    def layer_times() -> tuple[dict[str, float], float]:
        held = {m: n * typical[m] for m, n in counts.items() if speed[m] > 0}
        if not held:
            raise ModelError(
                f"none of {', '.join(counts)} has KV cache for a batch of {model.name} beside its typical"
                " layers; give them fewer typical layers, or take larger machines"
            )
        mean_s = sum(layers / speed[m] for m, layers in held.items()) / sum(held.values())
        # A machine without throughput has no time of its own: it is taken to be like the others.
        return {m: 1 / value if value > 0 else mean_s for m, value in speed.items()}, mean_s

    for _ in range(ROUNDS):
        layer_s, mean_s = layer_times()
        speed = {
            m: typical[m] * _throughput(p, typical[m], capacity[m], layer_s[m], mean_s, model.layers)
            for m, p in profiles.items()
        }
    return layer_times()


def machine_throughput(model: Model, machine_counts: Mapping[str, int]) -> dict[str, NDArray[np.float64]]:
    """Tokens/s of a node of each machine type, by the layers it holds.

    Parameters
    ----------
    model : Model
        Brings the profile of every machine type.
    machine_counts : mapping of str to int
        Nodes of each machine type in the cluster, ``cluster.machine_counts()``.

    Returns
    -------
    dict of str to array
        ``[machine][k]``: T_m(k) in tokens/s for k = 0 (nothing) to the most layers it may hold.

    Raises
    ------
    ModelError
        The model has no profile for one of the machine types, or no machine has room for a batch.

    Notes
    -----
    The estimate of the Helix artifact that the paper's placement program maximises over; the network
    card is not considered here (Mei et al., ASPLOS 2025, section 4).

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
    """Tokens/s of one node whose layers or KV capacity are not those of the measured table.

    The same estimate as `machine_throughput`; it serves placements that hold more layers on a node
    than was measured and state the KV capacity that is left. Where the KV cache is too small
    for half a request at a time it means nothing, see `typical_decode_tokens`.

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
    """Decode tokens in the batch that `node_throughput` takes for typical.

    Where it is 0 the node holds less than half a request at a time, and the estimate, which then counts
    prompts only, means nothing.

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
