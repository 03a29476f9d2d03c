"""Bundled models, and model files."""

from __future__ import annotations

import os
import warnings
from dataclasses import fields, replace
from functools import cache
from typing import Any, Final

import pandas as pd

from helixlab._data import read_table
from helixlab._io import check_format, check_keys, parse_json, read_text, write_json
from helixlab._naming import describe_misnaming, find_namesake
from helixlab._validation import shown
from helixlab.errors import FileFormatError, ModelError, UnknownNameError, name_source
from helixlab.model.model import Model
from helixlab.model.profile import MachineProfile

__all__ = ["is_misnamed", "load_model", "model_names", "model_to_dict", "save_model"]

FORMAT: Final = "helixlab-model"
VERSION: Final = 1
_PLAIN: Final = tuple(f.name for f in fields(Model) if f.name != "profiles")
AMOUNTS: Final = ("layer_bytes", "token_bytes", "activation_bytes", "kv_bytes_per_token_layer")
_PROFILE: Final = tuple(f.name for f in fields(MachineProfile))


def model_names() -> list[str]:
    """List the names of the bundled models.

    Examples
    --------
    >>> model_names()
    ['llama-1-30b', 'llama-2-70b']
    """
    return sorted(read_table("models.csv")["model"])


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Load a bundled model by name, or one of your own from a JSON file written by `save_model`.

    Raises
    ------
    UnknownNameError
        There is no bundled model of this name.
    FileFormatError, ModelError
        The file cannot be read, or states something impossible.

    Warns
    -----
    UserWarning
        The model in the file has the name of a bundled model, but another content.

    Examples
    --------
    >>> load_model("llama-1-30b").layers
    60
    """
    name = str(name_or_path)
    known = model_names()
    if name in known:
        return _bundled(name)
    if not (name.endswith(".json") or os.path.isfile(name)):
        raise UnknownNameError("model", name, known)
    model = _from_dict(parse_json(read_text(name), name), name)
    if is_misnamed(model):
        warnings.warn(describe_misnaming(name, "model", model.name), stacklevel=2)
    return model


def is_misnamed(model: Model) -> bool:
    """Tell whether a model has the name of a bundled one but another content.

    Examples
    --------
    >>> model = load_model("llama-1-30b")
    >>> is_misnamed(model), is_misnamed(replace(model, layers=61)), is_misnamed(replace(model, name="mine"))
    (False, True, False)
    """
    name = find_namesake(model.name, model_names())
    return name is not None and replace(model, name=name) != _bundled(name)


def save_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model with its profiles to a JSON file, as a whole or not at all.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "mine.json")
    >>> save_model(load_model("llama-1-30b"), path)
    >>> load_model(path) == load_model("llama-1-30b")
    True
    """
    write_json(path, model_to_dict(model))


def model_to_dict(model: Model) -> dict[str, Any]:
    """Convert a model to plain data, as `save_model` writes it.

    Examples
    --------
    >>> sorted(model_to_dict(load_model("llama-1-30b")))
    ['activation_bytes', 'format', 'kv_bytes_per_token_layer', 'layer_bytes', 'layers', 'name', 'profiles', \
'token_bytes', 'version']
    """
    profiles = [{key: getattr(profile, key) for key in _PROFILE} for profile in model.profiles.values()]
    plain = {key: getattr(model, key) for key in _PLAIN}
    return {"format": FORMAT, "version": VERSION, **plain, "profiles": profiles}


@cache
def _bundled(name: str) -> Model:
    (row,) = read_table("models.csv").query("model == @name").to_dict("records")
    amounts = {key: float(row[key]) for key in AMOUNTS}
    return Model(name, int(row["layers"]), **amounts, profiles=_bundled_profiles(name))


def _bundled_profiles(model: str) -> dict[str, MachineProfile]:
    tables = ("profiles/layer_times.csv", "profiles/serving_limits.csv", "profiles/typical_layers.csv")
    times, limits, typical = (
        table[table["model"] == model].drop(columns="model") for table in map(read_table, tables)
    )
    times["layer_s"] = times["layer_ms"] / 1000
    profiles = {}
    for row in typical.to_dict("records"):
        machine = str(row["machine"])
        curve = {str(phase): rows for phase, rows in times[times["machine"] == machine].groupby("phase")}
        limit = limits[limits["machine"] == machine].sort_values("layers_on_node")
        profiles[machine] = MachineProfile(
            machine=machine,
            prompt_batch_tokens=_column(curve["prompt"], "batch_tokens"),
            prompt_layer_s=_column(curve["prompt"], "layer_s"),
            decode_batch_tokens=_column(curve["decode"], "batch_tokens"),
            decode_layer_s=_column(curve["decode"], "layer_s"),
            kv_blocks=_column(limit, "kv_blocks_of_16_tokens"),
            max_prompt_requests=_column(limit, "max_prompt_requests_per_batch"),
            max_decode_tokens=_column(limit, "max_decode_tokens_per_batch"),
            typical_layers=row["typical_layers"],
            typical_layers_when_tight=row["typical_layers_when_tight"],
            initial_relative_speed=row["initial_relative_speed"],
        )
    return profiles


def _column(table: pd.DataFrame, name: str) -> tuple[Any, ...]:
    return tuple(table[name].tolist())


def _from_dict(content: Any, source: str) -> Model:
    check_format(content, source, "model", FORMAT, VERSION)
    check_keys(content, source, ("format", "version", *_PLAIN, "profiles"))
    if not isinstance(content["profiles"], list):
        raise FileFormatError(f"profiles of {source} are {shown(content['profiles'])}; give a list")
    profiles: dict[str, MachineProfile] = {}
    with name_source(source, ModelError):
        for position, entry in enumerate(content["profiles"]):
            profile = MachineProfile(**check_keys(entry, f"profile {position} of {source}", _PROFILE))
            if profile.machine in profiles:
                raise ModelError(f"machine {profile.machine!r} has two profiles; keep one")
            profiles[profile.machine] = profile
        return Model(**{key: content[key] for key in _PLAIN}, profiles=profiles)
