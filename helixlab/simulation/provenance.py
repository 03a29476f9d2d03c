"""What ran: names, content hashes, settings, versions."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pandas as pd

from helixlab.cluster import Cluster
from helixlab.contents import library_digest
from helixlab.execution import Execution
from helixlab.files import content_hash
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.scheduling import Scheduler
from helixlab.simulation.names import hash_of, shown_name
from helixlab.workload import Workload

__all__ = ["library_in_words", "provenance"]


def _requests_hash(requests: pd.DataFrame | None) -> str | None:
    return None if requests is None else content_hash(requests.to_dict("list"))


def library_in_words(versions: Mapping[str, Any]) -> str:
    """Which helixlab ran: its version, and its code, as two of one version can differ in that.

    Examples
    --------
    >>> library_in_words({"helixlab": "0.1.0", "helixlab_code": "0123456789abcdef"})
    '0.1.0 (01234567)'
    """
    return f"{versions.get('helixlab')} ({str(versions.get('helixlab_code'))[:8]})"


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
            "initial_queries": workload.initial_queries,
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
