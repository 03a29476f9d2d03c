"""Latency objectives of users, and how well a run met them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helixlab._validation import as_number
from helixlab.diagnosis.steady_state import load_of
from helixlab.errors import WorkloadError
from helixlab.simulation import Result

__all__ = ["Objective", "check_objective", "objective_metrics", "request_latencies"]


@dataclass(frozen=True, slots=True)
class Objective:
    """Latency objective: limits for single requests, and the part of the requests that must keep to them.

    Parameters
    ----------
    ttft_s : float
        Largest time to first token, in seconds from arrival.
    tpot_s : float
        Largest time per output token after the first, in seconds, as a mean over the request.
    attainment : float
        Part of the requests that must keep to both limits.

    Raises
    ------
    WorkloadError
        A value makes no sense.

    Examples
    --------
    >>> Objective(ttft_s=5, tpot_s=1.5)
    Objective(ttft_s=5.0, tpot_s=1.5, attainment=0.9)
    """

    ttft_s: float
    tpot_s: float
    attainment: float = 0.9

    def __post_init__(self) -> None:
        for name, most in (("ttft_s", math.inf), ("tpot_s", math.inf), ("attainment", 1.0)):
            number = as_number(getattr(self, name), name, above=0, most=most, error=WorkloadError)
            object.__setattr__(self, name, number)


def check_objective(objective: object) -> None:
    """Refuse anything but an Objective.

    Raises
    ------
    WorkloadError
        `objective` is something else.
    """
    if not isinstance(objective, Objective):
        raise WorkloadError(f"objective must be an Objective(ttft_s=..., tpot_s=...), got {objective!r}")


def request_latencies(result: Result) -> pd.DataFrame:
    """Measure how long the requests that arrived in the measured window waited for their tokens.

    Returns
    -------
    DataFrame
        Columns request, arrival_s, ttft_s, tpot_s; infinite for requests that did not finish.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> result = hx.simulate(*system, workload=hx.online(rate_tokens_per_s=100, duration_s=30))
    >>> bool((request_latencies(result)["ttft_s"] > 0).all())
    True
    """
    requests = result.in_window(result.requests, by="arrival_s").sort_values("request")
    finished = requests["outcome"] == "finished"
    ttft_s = requests["prompt_done_s"] - requests["arrival_s"]
    tpot_s = (requests["end_s"] - requests["prompt_done_s"]) / requests["output_tokens"]
    return pd.DataFrame(
        {
            "request": requests["request"],
            "arrival_s": requests["arrival_s"],
            "ttft_s": ttft_s.where(finished, np.inf),
            "tpot_s": tpot_s.where(finished, np.inf),
        }
    ).reset_index(drop=True)


def objective_metrics(result: Result, objective: Objective) -> dict[str, Any]:
    """Measure an online run by an objective: columns of `helixlab.rate_sweep`.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> result = hx.simulate(*system, workload=hx.online(rate_tokens_per_s=100, duration_s=30))
    >>> objective_metrics(result, Objective(ttft_s=20, tpot_s=2))["meets_objective"]
    True
    """
    start_s, end_s = result.window_s
    latencies = request_latencies(result)
    served = np.isfinite(latencies["ttft_s"])  # infinity is within an infinite limit
    in_time = served & (latencies["ttft_s"] <= objective.ttft_s) & (latencies["tpot_s"] <= objective.tpot_s)
    attainment = float(in_time.mean()) if len(latencies) else math.nan
    asked = result.requests["output_tokens"].sum() / (end_s - float(result.metrics["start_s"]))
    metrics: dict[str, Any] = {
        "requests": len(latencies),
        "requests_in_time": int(in_time.sum()),
        "requests_per_s": len(latencies) / (end_s - start_s),
        "attainment": attainment,
        "goodput_requests_per_s": float(in_time.sum()) / (end_s - start_s),
        "decode_tokens_per_s": float(result.metrics["decode_tokens_per_s"]),
        "asked_decode_tokens_per_s": float(asked),
        "saturated": load_of(result).grows,
    }
    for name in ("ttft", "tpot"):
        values = latencies[f"{name}_s"].to_numpy()
        metrics[f"{name}_mean_s"] = float(values.mean()) if len(values) else math.nan
        metrics[f"{name}_p95_s"] = (
            float(np.quantile(values, 0.95, method="higher")) if len(values) else math.nan
        )
    return metrics | {"meets_objective": bool(attainment >= objective.attainment)}
