"""What users are promised, and what a run kept of it."""

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

__all__ = ["Objective", "check_objective", "latency_metrics", "request_latencies"]


@dataclass(frozen=True, slots=True)
class Objective:
    """What users are promised, and how many of them must get it.

    Parameters
    ----------
    ttft_s : float
        Most seconds from arrival to the first token (time to first token).
    tpot_s : float
        Most seconds per token after it, on the mean over a request (time per output token).
    attainment : float
        Part of the requests for which both must hold.

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
    """Refuse what is no Objective.

    Raises
    ------
    WorkloadError
        It is not.
    """
    if not isinstance(objective, Objective):
        raise WorkloadError(f"objective must be an Objective(ttft_s=..., tpot_s=...), got {objective!r}")


def request_latencies(result: Result) -> pd.DataFrame:
    """What the requests that arrived in the measured window had to wait for their tokens.

    Returns
    -------
    DataFrame
        Columns request, arrival_s, ttft_s, tpot_s; infinite for requests that were not served to their end.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> result = hx.simulate(*system, workload=hx.online(rate_tokens_per_s=100, duration_s=30))
    >>> bool((request_latencies(result)["ttft_s"] > 0).all())
    True
    """
    summary = result.summary.iloc[0]
    requests = result.requests[
        result.requests["arrival_s"].between(summary["window_start_s"], summary["window_end_s"])
    ].sort_values("request")
    finished = requests["outcome"] == "finished"
    return pd.DataFrame(
        {
            "request": requests["request"],
            "arrival_s": requests["arrival_s"],
            "ttft_s": requests["ttft_s"].where(finished, np.inf),
            "tpot_s": requests["tpot_s"].where(finished, np.inf),
        }
    ).reset_index(drop=True)


def latency_metrics(result: Result, objective: Objective) -> dict[str, Any]:
    """How a run with arrivals did by an objective, the columns of `helixlab.rate_sweep`.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> result = hx.simulate(*system, workload=hx.online(rate_tokens_per_s=100, duration_s=30))
    >>> latency_metrics(result, Objective(ttft_s=20, tpot_s=2))["meets_objective"]
    True
    """
    summary = result.summary.iloc[0]
    window_s = float(summary["window_end_s"] - summary["window_start_s"])
    latencies = request_latencies(result)
    served = np.isfinite(latencies["ttft_s"])  # infinity is within an infinite limit
    in_time = served & (latencies["ttft_s"] <= objective.ttft_s) & (latencies["tpot_s"] <= objective.tpot_s)
    attainment = float(in_time.mean()) if len(latencies) else math.nan
    arriving_s = float(summary["window_end_s"] - summary["start_s"])
    asked = result.requests["output_tokens"].sum() / arriving_s
    figures: dict[str, Any] = {
        "requests": len(latencies),
        "requests_in_time": int(in_time.sum()),
        "requests_per_s": len(latencies) / window_s,
        "attainment": attainment,
        "goodput_requests_per_s": float(in_time.sum()) / window_s,
        "decode_tokens_per_s": float(summary["decode_tokens_per_s"]),
        "asked_decode_tokens_per_s": float(asked),
        "saturated": load_of(result).grows,
    }
    for what in ("ttft_s", "tpot_s"):
        values = latencies[what].to_numpy()
        name = what.removesuffix("_s")
        figures[f"{name}_mean_s"] = float(values.mean()) if len(values) else math.nan
        figures[f"{name}_p95_s"] = (
            float(np.quantile(values, 0.95, method="higher")) if len(values) else math.nan
        )
    return figures | {"meets_objective": bool(attainment >= objective.attainment)}
