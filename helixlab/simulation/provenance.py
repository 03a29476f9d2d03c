"""The provenance of a result: names, content hashes, settings, versions."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

import pandas as pd

from helixlab._hashing import digest, library_digest
from helixlab._io import content_hash
from helixlab._naming import find_namesake, mark_name
from helixlab.cluster import Cluster
from helixlab.cluster.io import is_misnamed as is_misnamed_cluster
from helixlab.errors import ContentError
from helixlab.execution import EXECUTIONS, Execution, chunked
from helixlab.flow.small_links import RELATIVE
from helixlab.model import Model
from helixlab.model.io import is_misnamed as is_misnamed_model, model_to_dict
from helixlab.placement import Placement
from helixlab.placement.io import shown_name as shown_placement
from helixlab.scheduling import SCHEDULERS, Scheduler
from helixlab.workload import Workload

__all__ = ["KV_RULES", "hash_of", "library_in_words", "provenance", "shown_name", "unusual_in_words"]

KV_RULES: Final = {"offline": (0.85, 1.0), "online": (0.9, 0.6)}
"""The paper's high-water mark of a KV cache, and expected part of the mean output, by mode."""
_RULES: Final = ("plans_ahead", "picks_free_links", "follows_flow", "feeds_by_kv")
"""Fields of a scheduler by which the engine treats it."""


def unusual_in_words(workload: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """List the settings that change results and are not the usual ones, each in a few words.

    Parameters
    ----------
    workload, settings : mapping
        Parts of these names of the provenance of a result.

    Examples
    --------
    >>> workload = {"mode": "online", "trace": "sharegpt", "arrivals": "poisson"}
    >>> settings = {"on_full": "drop", "kv_high_water_mark": 0.9, "expected_output_ratio": 1.0}
    >>> unusual_in_words(workload, settings)
    ['arrivals poisson', 'requests dropped on full', 'expected_output_ratio 1']
    """
    words = []
    if workload.get("arrivals") and workload["arrivals"] != workload["trace"]:
        words.append(f"arrivals {workload['arrivals']}")
    if settings.get("on_full") == "drop":
        words.append("requests dropped on full")
    rules = ("kv_high_water_mark", "expected_output_ratio")
    for name, usual in zip(rules, KV_RULES[workload["mode"]], strict=True):
        if settings.get(name, usual) != usual:
            words.append(f"{name} {settings[name]:g}")
    if settings.get("small_links", RELATIVE) != RELATIVE:
        words.append(f"small_links {settings['small_links']}")
    return words


def hash_of(thing: Cluster | Model | Placement | Scheduler | Execution) -> str | None:
    """Return a hash of all that decides the behaviour; None if a function uses something that has no hash.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> hash_of(load_cluster("small10")) == load_cluster("small10").content_hash
    True
    """
    if isinstance(thing, Cluster | Placement):
        return thing.content_hash
    if isinstance(thing, Model):
        content = model_to_dict(thing)
        # Models are equal whatever the order of their profiles.
        content["profiles"] = sorted(content["profiles"], key=lambda profile: profile["machine"])
        return content_hash(content)
    try:
        return digest(thing)[:16]
    except ContentError:
        return None


def shown_name(thing: Cluster | Model | Placement | Scheduler | Execution) -> str:
    """Return the name, followed by a hash if the content is not the one bundled under that name.

    Examples
    --------
    >>> from helixlab.cluster import load_cluster
    >>> cluster = load_cluster("small10")
    >>> slow = tuple(replace(link, latency_s=0.1) for link in cluster.links)
    >>> shown_name(cluster), shown_name(replace(cluster, links=slow))
    ('small10', 'small10@6735f5bc')
    >>> shown_name(replace(cluster, links=slow, name="far apart"))
    'far apart'
    """
    if isinstance(thing, Placement):
        return shown_placement(thing)
    if isinstance(thing, Cluster):
        misnamed = is_misnamed_cluster(thing)
    elif isinstance(thing, Model):
        misnamed = is_misnamed_model(thing)
    elif isinstance(thing, Scheduler):
        bundled = find_namesake(thing.name, SCHEDULERS)
        misnamed = bundled is not None and replace(thing, name=bundled) != SCHEDULERS[bundled]
    else:
        misnamed = _is_misnamed_execution(thing)
    return mark_name(thing.name, hash_of(thing)) if misnamed else thing.name


def _is_misnamed_execution(execution: Execution) -> bool:
    bundled = find_namesake(execution.name, EXECUTIONS)
    if bundled is None:
        return False
    expected = EXECUTIONS[bundled]
    if bundled == chunked().name and execution.chunk_tokens is not None:
        expected = chunked(**execution.parameters)  # its limits are the caller's choice
    return replace(execution, name=bundled) != expected


def _requests_hash(requests: pd.DataFrame | None) -> str | None:
    return None if requests is None else content_hash(requests.to_dict("list"))


def library_in_words(versions: Mapping[str, Any]) -> str:
    """Return the version of helixlab that ran, with a hash of its code, which may differ within a version.

    Examples
    --------
    >>> library_in_words({"helixlab": "0.1.0", "helixlab_code": "0123456789abcdef"})
    '0.1.0 (01234567)'
    """
    return f"{versions.get('helixlab')} ({str(versions.get('helixlab_code'))[:8]})"


def provenance(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    scheduler: Scheduler,
    execution: Execution,
    workload: Workload,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return everything needed to repeat a run, with hashes of the contents behind the names."""
    return {
        "cluster": {"name": shown_name(cluster), "hash": hash_of(cluster)},
        "model": {"name": shown_name(model), "hash": hash_of(model)},
        "placement": {
            "name": shown_name(placement),
            "method": placement.method,
            "source": placement.source,
            "hash": placement.content_hash,
            **placement.layout(),
        },
        "scheduler": {
            "name": shown_name(scheduler),
            "parameters": list(scheduler.parameters),
            **{rule: getattr(scheduler, rule) for rule in _RULES},
            "hash": hash_of(scheduler),
        },
        "execution": {
            "name": shown_name(execution),
            "parameters": execution.parameters,
            "hash": hash_of(execution),
        },
        "workload": {
            "mode": workload.mode,
            "warmup_s": workload.warmup_s,
            "duration_s": workload.duration_s,
            "seed": workload.seed,
            "trace": workload.trace,
            "initial_requests": workload.initial_requests,
            "rate_tokens_per_s": workload.rate_tokens_per_s if workload.rate_tokens_per_s > 0 else None,
            "arrivals": workload.arrivals,
            "requests_hash": _requests_hash(workload.requests),
        },
        "settings": settings,
        "versions": {
            "helixlab": version("helixlab"),
            "helixlab_code": library_digest()[:16],
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "numba": version("numba"),
            "networkx": version("networkx"),
        },
        "platform": sys.platform,
    }
