"""What ran: names, content hashes, settings, versions."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from importlib.metadata import version
from typing import Any

import pandas as pd

from helixlab.cluster import Cluster
from helixlab.execution import Execution
from helixlab.model import Model
from helixlab.model.files import model_to_dict
from helixlab.placement import Placement
from helixlab.placement.files import placement_to_dict
from helixlab.scheduling import Scheduler
from helixlab.workload import Workload

__all__ = ["content_hash", "provenance"]


def content_hash(content: Any) -> str:
    """A short hash of plain data that does not depend on the order of keys.

    Examples
    --------
    >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _requests_hash(requests: pd.DataFrame | None) -> str | None:
    return None if requests is None else content_hash(requests.to_dict("list"))


_RULES = ("plans_ahead", "picks_free_links", "follows_flow", "feeds_by_kv")


def provenance(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    scheduler: Scheduler,
    execution: Execution,
    workload: Workload,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Everything needed to run it again, with hashes of the contents that stand behind the names."""
    plain = placement_to_dict(placement)
    layout = {key: plain[key] for key in ("layers", "links", "kv_capacity_token_layers")}
    return {
        "cluster": {"name": cluster.name, "hash": cluster.content_hash},
        "model": {"name": model.name, "hash": content_hash(model_to_dict(model))},
        "placement": {
            "name": placement.name,
            "method": placement.method,
            "hash": content_hash(layout),
            **layout,
        },
        "scheduler": {
            "name": scheduler.name,
            "parameters": list(scheduler.parameters),
            **{rule: getattr(scheduler, rule) for rule in _RULES},
        },
        "execution": {"name": execution.name, "parameters": execution.parameters},
        "workload": {
            "mode": workload.mode,
            "warmup_s": workload.warmup_s,
            "duration_s": workload.duration_s,
            "seed": workload.seed,
            "trace": workload.trace,
            "initial_queries": workload.initial_queries,
            "rate_tokens_per_s": workload.rate_tokens_per_s if workload.rate_tokens_per_s > 0 else None,
            "arrivals": workload.arrivals,
            "requests_hash": _requests_hash(workload.requests),
        },
        "settings": settings,
        "versions": {
            "helixlab": version("helixlab"),
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "numba": version("numba"),
            "networkx": version("networkx"),
        },
        "platform": sys.platform,
    }
