"""Plans at work: predicted throughput against simulated throughput, and gains over published plans."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab.cluster import load_cluster
from helixlab.execution import Execution
from helixlab.experiments.plans import NamedPlan
from helixlab.experiments.pooling import pooled_runs
from helixlab.flow import max_flow
from helixlab.model import load_model
from helixlab.planning import predict
from helixlab.workload import Workload, trace_lengths

__all__ = ["plan_gains", "plan_metrics", "prediction_errors", "split_served", "window_effects"]

METRICS: Final = [
    "decode_tokens_per_s",
    "decode_latency_mean_s",
    "prompt_latency_mean_s",
    "requests_in_flight",
]
PREDICTIONS: Final = {"flow": "by_flow_tokens_per_s", "queueing": "by_queueing_tokens_per_s"}
"""Columns of the predictions, by what predicts."""
NEAR: Final = 0.2
"""Relative error of a prediction that is close."""


def plan_metrics(
    plans: Sequence[NamedPlan],
    policies: Mapping[str, str | Execution],
    workload: Workload,
    *,
    sample_step_s: float,
    seed: int = 0,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Predict and simulate plans under several execution policies.

    Parameters
    ----------
    plans : sequence of NamedPlan
        Plans of bundled clusters.
    policies : mapping of str to str or Execution
        Execution policies, by name.
    workload : Workload
        Offline requests.
    sample_step_s : float
        Seconds between two samples of the timeline.
    seed : int
        Seed of all runs.
    n_jobs : int
        Number of runs at a time.
    store : path, optional
        Folder that keeps every finished run.

    Returns
    -------
    DataFrame
        One row a plan and policy: cluster, model, placement, plan, policy, max_flow_tokens_per_s,
        by_flow_tokens_per_s (the share of decodes in it), by_queueing_tokens_per_s, placement_hash,
        decode_tokens_per_s, decode_latency_mean_s, prompt_latency_mean_s, requests_in_flight.

    Examples
    --------
    >>> import helixlab as hx
    >>> name = "small10/llama-1-30b/helix"
    >>> plans = [NamedPlan("published", name, hx.load_placement(name))]
    >>> workload = hx.offline(warmup_s=10, duration_s=60)
    >>> served = plan_metrics(plans, {"greedy": "greedy"}, workload, sample_step_s=2.0)
    >>> served[["placement", "policy"]].values.tolist()
    [['small10/llama-1-30b/helix', 'greedy']]
    """
    points = [
        {
            "placement": each.placement,
            "execution": execution,
            "workload": workload,
            "sample_step_s": sample_step_s,
        }
        for each in plans
        for execution in policies.values()
    ]
    groups = {str(at): [point] for at, point in enumerate(points)}
    runs = pooled_runs(groups, seeds=[seed], n_jobs=n_jobs, store=store)
    lengths = trace_lengths("azure-conv").mean()
    decode_share = lengths["output_tokens"] / (lengths["input_tokens"] + lengths["output_tokens"])
    rows = []
    for each in plans:
        cluster, model = load_cluster(each.cluster), load_model(each.placement.model)
        flow = max_flow(cluster, model, each.placement)
        for policy, execution in policies.items():
            prediction = predict(cluster, model, each.placement, execution=execution, flow=flow)
            rows.append(
                {
                    "cluster": each.cluster,
                    "model": each.placement.model,
                    "placement": each.name,
                    "plan": each.plan,
                    "policy": policy,
                    "max_flow_tokens_per_s": flow.value_tokens_per_s,
                    "by_flow_tokens_per_s": decode_share * flow.value_tokens_per_s,
                    "by_queueing_tokens_per_s": prediction.decode_tokens_per_s,
                }
            )
    return pd.concat([pd.DataFrame(rows), runs[["placement_hash", *METRICS]]], axis=1)


def prediction_errors(served: pd.DataFrame) -> pd.DataFrame:
    """Errors of both predictions against the simulation, by execution policy.

    Parameters
    ----------
    served : DataFrame
        Table of `plan_metrics`.

    Returns
    -------
    DataFrame
        One row a prediction and policy: prediction, policy, placements (their number), median_error,
        within_20_percent (share of placements), least_ratio, greatest_ratio, rank_correlation, worst.

    Examples
    --------
    >>> served = pd.DataFrame({"policy": "greedy", "placement": ["a", "b"],
    ...                        "by_flow_tokens_per_s": [9.0, 30.0], "by_queueing_tokens_per_s": [10.0, 22.0],
    ...                        "decode_tokens_per_s": [10.0, 20.0]})
    >>> prediction_errors(served)[["prediction", "greatest_ratio", "worst"]].values.tolist()
    [['flow', 1.5, 'b'], ['queueing', 1.1, 'b']]
    """
    rows = []
    for source, column in PREDICTIONS.items():
        for policy, seen in served.groupby("policy", sort=False):
            ratio = seen[column] / seen["decode_tokens_per_s"]
            rows.append(
                {
                    "prediction": source,
                    "policy": policy,
                    "placements": len(seen),
                    "median_error": (ratio - 1).abs().median(),
                    "within_20_percent": (ratio.sub(1).abs() <= NEAR).mean(),
                    "least_ratio": ratio.min(),
                    "greatest_ratio": ratio.max(),
                    "rank_correlation": seen[column].corr(seen["decode_tokens_per_s"], method="spearman"),
                    "worst": seen["placement"].iloc[int(np.argmax((ratio - 1).abs()))],
                }
            )
    return pd.DataFrame(rows)


def plan_gains(served: pd.DataFrame, clusters: Sequence[str], plans: Sequence[str]) -> pd.DataFrame:
    """Compare the throughput and the latencies of plans with those of the first plan, by cluster and policy.

    Parameters
    ----------
    served : DataFrame
        Rows of `plan_metrics`, one for each cluster, plan and policy.
    clusters : sequence of str
        Clusters in their order.
    plans : sequence of str
        Plans in their order, the one to compare with first.

    Returns
    -------
    DataFrame
        One row a cluster and plan: cluster, plan, for each policy its decode tokens/s under its name, and
        ``{policy}_over_published``, then chunked_over_greedy, and the mean latencies by policy.

    Examples
    --------
    >>> served = pd.DataFrame({"cluster": "a", "plan": ["mine", "mine", "its", "its"],
    ...                        "policy": ["greedy", "chunked"] * 2, "decode_tokens_per_s": [4.0, 8, 2, 6],
    ...                        "decode_latency_mean_s": 1.0, "prompt_latency_mean_s": 2.0})
    >>> plan_gains(served, ["a"], ["its", "mine"])["greedy_over_published"].tolist()
    [1.0, 2.0]
    """
    policies, index = list(dict.fromkeys(served["policy"])), ["cluster", "plan"]
    gains = served.pivot(index=index, columns="policy", values="decode_tokens_per_s")
    gains = gains.reindex(pd.MultiIndex.from_product([clusters, plans], names=index))
    for policy in policies:
        gains[f"{policy}_over_published"] = gains[policy] / gains[policy].groupby("cluster").transform(
            "first"
        )
    gains["chunked_over_greedy"] = gains["chunked"] / gains["greedy"]
    values = ["decode_latency_mean_s", "prompt_latency_mean_s"]
    latencies = served.pivot(index=index, columns="policy", values=values)
    latencies.columns = latencies.columns.map("{0[1]}_{0[0]}".format)
    return gains.join(latencies).reset_index()


def split_served(served: pd.DataFrame) -> pd.DataFrame:
    """Add up the published pipelines of a split cluster, and compare the plans for the whole with them.

    Parameters
    ----------
    served : DataFrame
        Rows of `plan_metrics`; several published rows of a cluster and policy are pipelines side by side.

    Returns
    -------
    DataFrame
        One row a cluster, plan and policy: cluster, plan, policy, decode_tokens_per_s, requests_in_flight,
        decode_latency_mean_s (weighted by tokens), over_split.

    Examples
    --------
    >>> served = pd.DataFrame({"cluster": "mine", "plan": ["published", "published", "for-flow"],
    ...                        "policy": "greedy", "decode_tokens_per_s": [10.0, 30.0, 50.0],
    ...                        "decode_latency_mean_s": [1.0, 2.0, 1.0], "requests_in_flight": [10, 20, 40]})
    >>> split_served(served)[["plan", "decode_latency_mean_s", "over_split"]].values.tolist()
    [['published', 1.75, 1.0], ['for-flow', 1.0, 1.25]]
    """
    weighted = served["decode_tokens_per_s"] * served["decode_latency_mean_s"]
    splits = (
        served.assign(weighted_decode_s=weighted)
        .groupby(["cluster", "plan", "policy"], sort=False)
        .agg(
            decode_tokens_per_s=("decode_tokens_per_s", "sum"),
            weighted_decode_s=("weighted_decode_s", "sum"),
            requests_in_flight=("requests_in_flight", "sum"),
        )
    )
    splits["decode_latency_mean_s"] = splits.pop("weighted_decode_s") / splits["decode_tokens_per_s"]
    splits = splits.reset_index()
    base = splits[splits["plan"] == "published"].set_index(["cluster", "policy"])["decode_tokens_per_s"]
    keys: Iterable[Any] = zip(splits["cluster"], splits["policy"], strict=True)
    splits["over_split"] = splits["decode_tokens_per_s"] / [base[key] for key in keys]
    return splits


def window_effects(long: pd.DataFrame, short: pd.DataFrame) -> pd.DataFrame:
    """Compare what plans serve over a long window with what they serve over a short one.

    Parameters
    ----------
    long : DataFrame
        Rows of `plan_metrics` of one policy, the published plan of each cluster first.
    short : DataFrame
        Runs of the same plans in the same order, over the short window.

    Returns
    -------
    DataFrame
        Two rows a cluster and plan: cluster, plan, setting (``"long"`` or ``"short"``), the metrics, and
        over_published.
    """
    of_short = pd.concat([long[["cluster", "plan"]].reset_index(drop=True), short[METRICS]], axis=1)
    both = pd.concat([long.assign(setting="long"), of_short.assign(setting="short")])
    table = both[["cluster", "plan", "setting", *METRICS]]
    first = table.groupby(["cluster", "setting"])["decode_tokens_per_s"].transform("first")
    table = table.assign(over_published=table["decode_tokens_per_s"] / first)
    return table.sort_values(["cluster", "plan"], kind="stable", ignore_index=True)
