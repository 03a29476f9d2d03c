"""The served model: number and size of its layers, and its profiles on machine types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from helixlab._validation import plain, shown
from helixlab.cluster import SINK, SOURCE
from helixlab.errors import ModelError, UnknownNameError
from helixlab.model.profile import MachineProfile, check_number, check_whole

__all__ = ["MOST_LAYERS", "Model"]

MOST_LAYERS: Final = 100_000
"""Largest number of layers that is accepted."""


@dataclass(frozen=True)
class Model:
    """A language model of equal layers, with measured profiles of machines that run it.

    Parameters
    ----------
    name : str
        Name of the model, for instance ``"llama-2-70b"``.
    layers : int
        Number of transformer layers.
    layer_bytes : float
        Bytes of the parameters of one layer.
    token_bytes : float
        Bytes of one token id on a link.
    activation_bytes : float
        Bytes of the activation of one token between two layers.
    profiles : mapping of str to MachineProfile
        Profiles of the machine types that this model was measured on, by name.
    kv_bytes_per_token_layer : float, optional
        Bytes of the KV cache of one token in one layer; by default two activations (keys and values
        of every attention head), which grouped-query attention makes smaller.

    Examples
    --------
    >>> from helixlab.model import load_model
    >>> load_model("llama-2-70b")
    Model('llama-2-70b': 80 layers of 1.53 GB, profiles of A100, L4, L4x2, T4, T4x2, T4x4, V100)
    """

    name: str
    layers: int
    layer_bytes: float
    token_bytes: float
    activation_bytes: float
    profiles: Mapping[str, MachineProfile] = field(hash=False)
    kv_bytes_per_token_layer: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", plain(self.name))
        if not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable():
            raise ModelError("a model needs a printable, non-empty name")
        layers = check_whole(self.layers, f"layers of model {self.name!r}", MOST_LAYERS)
        object.__setattr__(self, "layers", layers)
        for amount in ("layer_bytes", "token_bytes", "activation_bytes", "kv_bytes_per_token_layer"):
            value = getattr(self, amount)
            if value is None and amount == "kv_bytes_per_token_layer":
                value = 2 * self.activation_bytes
            object.__setattr__(self, amount, check_number(value, f"{amount} of model {self.name!r}"))
        if not isinstance(self.profiles, Mapping):
            raise ModelError(
                f"profiles of model {self.name!r} are {shown(self.profiles)}; give a mapping of names of"
                " machine types to MachineProfile"
            )
        profiles = {plain(machine): profile for machine, profile in self.profiles.items()}
        for machine, profile in profiles.items():
            if not isinstance(profile, MachineProfile):
                raise ModelError(
                    f"the profile of machine {shown(machine)} is {shown(profile)}; give a MachineProfile"
                )
            if machine != profile.machine:
                raise ModelError(
                    f"the profile under {machine!r} is of machine {profile.machine!r}; use one name for both"
                )
        object.__setattr__(self, "profiles", MappingProxyType(profiles))

    def __repr__(self) -> str:
        machines = ", ".join(sorted(self.profiles))
        size = f"{self.layers} layers of {self.layer_bytes / 1e9:g} GB"
        return f"Model({self.name!r}: {size}, profiles of {machines})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(
            dict(self.profiles) if f.name == "profiles" else getattr(self, f.name) for f in fields(self)
        )

    @property
    def inner_link_bytes_per_token(self) -> float:
        """Bytes of one token on a link between two nodes: its id and its activation."""
        return self.token_bytes + self.activation_bytes

    def link_bytes_per_token(self, sender: int | str, receiver: int | str) -> float:
        """Return the bytes of one token on a link.

        Links of the coordinator carry token ids alone, links between two nodes activations as well.

        Examples
        --------
        >>> from helixlab.model import load_model
        >>> model = load_model("llama-2-70b")
        >>> model.link_bytes_per_token("source", 3), model.link_bytes_per_token(3, 7)
        (2.0, 16386.0)
        """
        at_coordinator = sender == SOURCE or receiver == SINK
        return self.token_bytes if at_coordinator else self.inner_link_bytes_per_token

    def profile(self, machine: str) -> MachineProfile:
        """Return the profile of a machine type.

        Raises
        ------
        UnknownNameError
            The model was not measured on that machine type.
        """
        try:
            return self.profiles[machine]
        except KeyError:
            raise UnknownNameError(f"machine profile for {self.name}", machine, self.profiles) from None

    def with_profile(self, profile: MachineProfile) -> Model:
        """Return a copy of this model with a further (or another) machine profile, for instance of a new GPU.

        Examples
        --------
        >>> from dataclasses import replace
        >>> from helixlab.model import load_model
        >>> model = load_model("llama-2-70b")
        >>> h100 = replace(model.profile("A100"), machine="H100")
        >>> "H100" in model.with_profile(h100).profiles
        True
        """
        return replace(self, profiles={**self.profiles, profile.machine: profile})

    def layer_times(self) -> pd.DataFrame:
        """Tabulate measured layer times, one row for each point: machine, phase, batch_tokens, layer_s."""
        rows = [
            (profile.machine, phase, tokens, seconds)
            for profile in self.profiles.values()
            for phase, points, times in (
                ("prompt", profile.prompt_batch_tokens, profile.prompt_layer_s),
                ("decode", profile.decode_batch_tokens, profile.decode_layer_s),
            )
            for tokens, seconds in zip(points, times, strict=True)
        ]
        return pd.DataFrame(rows, columns=["machine", "phase", "batch_tokens", "layer_s"])

    def serving_limits(self) -> pd.DataFrame:
        """Tabulate KV capacity and batch limits, one row for each machine type and number of layers on it."""
        rows = []
        for profile in self.profiles.values():
            for k in range(1, profile.max_layers + 1):
                limits = profile.batch_limits(k)
                rows.append(
                    {
                        "machine": profile.machine,
                        "layers_on_node": k,
                        "kv_capacity_token_layers": profile.kv_capacity_token_layers(k),
                        **{f"max_{f.name}": getattr(limits, f.name) for f in fields(limits)},
                    }
                )
        return pd.DataFrame(rows)
