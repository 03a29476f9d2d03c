"""Execution policies side by side: throughput, batches, goodput, gains, and the order of placements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab.cluster import Cluster
from helixlab.errors import SimulationError, SweepError, UnknownNameError
from helixlab.execution import Execution
from helixlab.experiments.goodput import goodput, rate_sweep
from helixlab.experiments.statistics import mean_interval
from helixlab.experiments.sweep import seeds_of, sweep
from helixlab.flow import upper_bound
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.simulation import Result, simulate
from helixlab.workload import Workload

__all__ = [
    "batch_kinds",
    "compare_executions",
    "compare_goodput",
    "compare_rates",
    "convoys",
    "gains_over",
    "over_baseline",
    "paired_ratios",
    "placement_orders",
    "planned_and_served",
    "ratio_ranges",
    "sweep_policies",
    "sweep_systems",
    "window_batches",
]

WITH_A_PROMPT: Final = "with a prompt"
DECODES_ONLY: Final = "decodes only"
NAMES: Final = ("method", "placement", "placement_hash", "scheduler", "execution", "seed")
METRICS: Final = (
    "decode_tokens_per_s",
    "all_tokens_per_s",
    "decode_latency_mean_s",
    "decode_latency_p95_s",
    "prompt_latency_mean_s",
    "prompt_latency_p95_s",
    "busy_percent",
    "tokens_per_batch",
)
"""Columns of `compare_executions` that are measured, behind those of `NAMES`."""


def compare_executions(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    policies: Mapping[str, str | Execution],
    *,
    workload: Workload,
    seeds: int | Iterable[int] = 1,
) -> pd.DataFrame:
    """Simulate one placement under several execution policies, with the same requests seed by seed.

    Parameters
    ----------
    cluster : Cluster
        Cluster to simulate.
    model : Model
        Model to serve.
    placement : Placement
        Layers on each node.
    policies : mapping of str to str or Execution
        Execution policies, by the name of the method in the table.
    workload : Workload
        Requests. A seed takes the place of the workload's own.
    seeds : int or sequence of int
        Number of seeds (0, 1, ...), or the seeds themselves.

    Returns
    -------
    DataFrame
        One row a policy and seed: method, placement, placement_hash, scheduler, execution, seed,
        decode_tokens_per_s, all_tokens_per_s (prompt and decode tokens that enter the cluster), mean and
        95th percentile of both latencies, busy_percent (mean over nodes), and tokens_per_batch.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> policies = {"greedy": "greedy", "chunked": hx.chunked()}
    >>> workload = hx.offline(warmup_s=10, duration_s=60)
    >>> runs = compare_executions(cluster, model, placement, policies, workload=workload)
    >>> runs["method"].tolist()
    ['greedy', 'chunked']
    """
    rows = []
    for method, execution in policies.items():
        for seed in seeds_of(seeds):
            result = simulate(
                cluster, model, placement, execution=execution, workload=replace(workload, seed=seed),
                sample_step_s=0,
            )  # fmt: skip
            entering, nodes = result.links["sender"] == "source", result.nodes
            rows.append(
                {
                    **result.metrics,
                    "method": method,
                    "all_tokens_per_s": result.links.loc[entering, "tokens_per_s"].sum(),
                    "busy_percent": 100 * nodes["busy_fraction"].mean(),
                    "tokens_per_batch": nodes["tokens"].sum() / nodes["batches"].sum(),
                }
            )
    return pd.DataFrame(rows)[[*NAMES, *METRICS]]


def sweep_policies(
    point: Mapping[str, Any],
    policies: Mapping[str, str | Execution],
    *,
    known: pd.DataFrame | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Simulate one point of a grid under several execution policies.

    Parameters
    ----------
    point : mapping of str to object
        Point of a grid, as for `helixlab.sweep`, without the execution policy.
    policies : mapping of str to str or Execution
        Execution policies, by the name of the method in the table.
    known : DataFrame, optional
        Rows of runs that have been made already, put first.
    **options
        Further arguments of `helixlab.sweep`.

    Returns
    -------
    DataFrame
        Table of `helixlab.sweep`, with the method.

    Examples
    --------
    >>> import helixlab as hx
    >>> point = {"placement": "small10/llama-1-30b/helix", "workload": hx.offline(duration_s=60)}
    >>> runs = sweep_policies(point, {"mine": hx.chunked(), "theirs": "greedy"}, seeds=2)
    >>> runs[["method", "seed"]].values.tolist()
    [['mine', 0], ['mine', 1], ['theirs', 0], ['theirs', 1]]
    """
    runs = sweep([{**point, "execution": policy} for policy in policies.values()], **options)
    runs["method"] = [name for name in policies for _ in range(len(runs) // len(policies))]
    return runs if known is None else pd.concat([known, runs], ignore_index=True)


def sweep_systems(
    clusters: Iterable[str],
    systems: Iterable[tuple[str, str]],
    policies: Iterable[str | Execution],
    workload_of: Callable[[str, str], Workload],
    *,
    model: str = "llama-2-70b",
    sample_step_s: float = 0.0,
    **options: Any,
) -> pd.DataFrame:
    """Simulate bundled placements with their schedulers on several clusters, under several policies.

    Parameters
    ----------
    clusters : iterable of str
        Names of bundled clusters.
    systems : iterable of (str, str)
        Pairs of the method of a bundled placement and the name of a scheduler.
    policies : iterable of str or Execution
        Execution policies.
    workload_of : callable
        Function of the names of the cluster and of the scheduler that returns the workload.
    model : str
        Name of the model.
    sample_step_s : float, default 0
        Seconds between two samples of the timeline; without samples no trend is known.
    **options
        Further arguments of `helixlab.sweep`.

    Returns
    -------
    DataFrame
        Table of `helixlab.sweep`, the seed varying fastest, then the policy; with holder and method, both the
        method of the placement.

    Examples
    --------
    >>> import helixlab as hx
    >>> workload = hx.offline(warmup_s=10, duration_s=60)
    >>> systems = [("helix", "swarm")]
    >>> runs = sweep_systems(["small10"], systems, ["greedy"], lambda *_: workload, model="llama-1-30b")
    >>> runs[["cluster", "method", "scheduler"]].values.tolist()
    [['small10', 'helix', 'swarm']]
    """
    pairs, every = list(systems), list(policies)
    runs = sweep(
        [
            {
                "placement": f"{cluster}/{model}/{method}",
                "scheduler": scheduler,
                "execution": policy,
                "workload": workload_of(cluster, scheduler),
                "sample_step_s": sample_step_s,
            }
            for cluster in clusters
            for method, scheduler in pairs
            for policy in every
        ],
        **options,
    )
    method = runs["placement"].str.split("/").str[-1]
    return runs.assign(holder=method, method=method)


def compare_rates(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    policies: Mapping[str, str | Execution],
    **options: Any,
) -> pd.DataFrame:
    """Serve requests at several rates under several execution policies.

    Parameters
    ----------
    cluster : Cluster
        Cluster to simulate.
    model : Model
        Model to serve.
    placement : Placement
        Layers on each node.
    policies : mapping of str to str or Execution
        Execution policies, by the name of the method in the table.
    **options
        Further arguments of `helixlab.rate_sweep`.

    Returns
    -------
    DataFrame
        Tables of `helixlab.rate_sweep` below each other, with the method.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> runs = compare_rates(cluster, model, placement, {"greedy": "greedy"}, rates_tokens_per_s=[50, 100],
    ...                      objective=hx.Objective(ttft_s=5, tpot_s=1), warmup_s=10, duration_s=60)
    >>> runs["method"].tolist()
    ['greedy', 'greedy']
    """
    return pd.concat(
        [
            rate_sweep(cluster, model, placement, execution=execution, **options).assign(method=method)
            for method, execution in policies.items()
        ]
    )


def compare_goodput(
    cluster: Cluster,
    model: Model,
    placements: Mapping[str, Placement],
    policies: Mapping[str, str | Execution],
    **options: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the goodput of several placements under several execution policies.

    Parameters
    ----------
    cluster : Cluster
        Cluster to simulate.
    model : Model
        Model to serve.
    placements : mapping of str to Placement
        Placements, by the name of the method in the table.
    policies : mapping of str to str or Execution
        Execution policies, by name.
    **options
        Further arguments of `helixlab.goodput`.

    Returns
    -------
    goodputs : DataFrame
        One row a placement and policy: method, policy, goodput_requests_per_s, rate_tokens_per_s,
        rates_tried (the number of rates).
    runs : DataFrame
        All runs of the searches.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placements = {"helix": hx.load_placement("small10/llama-1-30b/helix")}
    >>> objective = hx.Objective(ttft_s=9, tpot_s=1)
    >>> goodputs, runs = compare_goodput(cluster, model, placements, {"greedy": "greedy"}, tolerance=0.5,
    ...                                  objective=objective, warmup_s=10, duration_s=60)
    >>> goodputs[["method", "policy"]].values.tolist(), len(runs) > 0
    ([['helix', 'greedy']], True)
    """
    found = {
        (method, policy): goodput(cluster, model, placement, execution=execution, **options)
        for method, placement in placements.items()
        for policy, execution in policies.items()
    }
    rows = [
        {
            "method": method,
            "policy": policy,
            "goodput_requests_per_s": best.goodput_requests_per_s,
            "rate_tokens_per_s": best.rate_tokens_per_s,
            "rates_tried": best.runs["rate_tokens_per_s"].nunique(),
        }
        for (method, policy), best in found.items()
    ]
    return pd.DataFrame(rows), pd.concat([best.runs for best in found.values()])


def planned_and_served(cluster: Cluster, model: Model, result: Result) -> pd.DataFrame:
    """Put the flow that was planned beside what a run served, and how busy its GPUs were.

    Parameters
    ----------
    cluster : Cluster
        Cluster of the run.
    model : Model
        Model of the run.
    result : Result
        A run with a timeline.

    Returns
    -------
    DataFrame
        Columns what (with its unit) and value.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(warmup_s=10, duration_s=60))
    >>> table = planned_and_served(cluster, model, result)
    >>> print(table.round(1).head(2).to_string(index=False, header=False))
      upper bound of any placement, tokens/s 340.7
    planned flow, prompt and decode tokens/s 286.6
    """
    metrics, busy = result.metrics, result.nodes["busy_fraction"]
    rates = result.in_window(result.timeline)[["prompt_tokens_per_s", "decode_tokens_per_s"]]
    values = {
        "upper bound of any placement, tokens/s": upper_bound(cluster, model),
        "planned flow, prompt and decode tokens/s": metrics["max_flow_tokens_per_s"],
        "served, prompt and decode tokens/s": rates.mean().sum(),
        "served, decode tokens/s": metrics["decode_tokens_per_s"],
        "GPUs busy, part of the time": busy.mean(),
        "the busiest GPU, part of the time": busy.max(),
        "mean decode latency, s": metrics["decode_latency_mean_s"],
        "mean prompt latency, s": metrics["prompt_latency_mean_s"],
        "requests in flight at the end": metrics["requests_in_flight"],
    }
    return pd.DataFrame(values.items(), columns=["what", "value"]).astype({"value": float})


def window_batches(result: Result, *, before_end_s: float = 2.0) -> pd.DataFrame:
    """Batches of the measured window, each with its length, its kind and the batch that follows it.

    Parameters
    ----------
    result : Result
        A run with its batches kept.
    before_end_s : float, default 2
        Seconds before the end of the window from which on batches are left out, since their successors may
        be missing.

    Returns
    -------
    DataFrame
        Rows of `Result.batches` by node and time, with length_s, kind (``"with a prompt"`` or ``"decodes
        only"``) and decodes_next, the number of decodes in the next batch of the node.

    Raises
    ------
    SimulationError
        The run has kept no batches, or has none in its window.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> result = hx.simulate(*system, workload=hx.offline(warmup_s=20, duration_s=60), keep_batches=True)
    >>> batches = window_batches(result)
    >>> sorted(batches["kind"].unique())
    ['decodes only', 'with a prompt']
    >>> batch_kinds(batches)["kind"].tolist()
    ['decodes only', 'with a prompt']
    """
    begin_s, end_s = result.window_s
    batches = result.batches.sort_values(["node", "start_s"])
    batches["length_s"] = batches["end_s"] - batches["start_s"]
    batches["kind"] = batches["prompts"].gt(0).map({True: WITH_A_PROMPT, False: DECODES_ONLY})
    batches["decodes_next"] = batches.groupby("node")["decodes"].shift(-1)
    batches = batches[batches["start_s"].between(begin_s, end_s - before_end_s)].dropna()
    if batches.empty:
        raise SimulationError(
            f"{result!r} has no batches in its window; simulate with keep_batches=True, and for longer than"
            f" {before_end_s:g} s"
        )
    return batches


def batch_kinds(batches: pd.DataFrame) -> pd.DataFrame:
    """Mean length and content of batches with a prompt and of batches of decodes alone.

    Parameters
    ----------
    batches : DataFrame
        Table of `window_batches`.

    Returns
    -------
    DataFrame
        One row a kind: kind, batches (their number), length_mean_s, length_max_s, prompt_tokens_mean,
        decodes_mean, and decodes_in_next_batch_mean.
    """
    kinds = batches.groupby("kind").agg(
        batches=("length_s", "size"),
        length_mean_s=("length_s", "mean"),
        length_max_s=("length_s", "max"),
        prompt_tokens_mean=("prompt_tokens", "mean"),
        decodes_mean=("decodes", "mean"),
        decodes_in_next_batch_mean=("decodes_next", "mean"),
    )
    return kinds.reset_index()


def convoys(batches: pd.DataFrame, *, from_s: float, span_s: float = 1.0) -> pd.DataFrame:
    """Compare the mean batch with the batch of a typical decode, and count the nodes at work in a short span.

    Parameters
    ----------
    batches : DataFrame
        Table of `window_batches`.
    from_s, span_s : float
        Start and length of the span, in simulated seconds.

    Returns
    -------
    DataFrame
        Columns what and value.

    Examples
    --------
    >>> batches = pd.DataFrame({"start_s": [0.0, 0.5], "end_s": [0.5, 0.7], "decodes": [8, 2]})
    >>> convoys(batches, from_s=0.0)["value"].tolist()
    [5.0, 8.0, 0.7]
    """
    shown = batches[(batches["end_s"] > from_s) & (batches["start_s"] < from_s + span_s)]
    working_s = shown["end_s"].clip(upper=from_s + span_s) - shown["start_s"].clip(lower=from_s)
    values = {
        "decodes in a batch, mean over batches": batches["decodes"].mean(),
        "decodes in a batch, median over decodes": float(
            np.median(np.repeat(batches["decodes"], batches["decodes"]))
        ),
        "nodes at work in the span, mean": working_s.sum() / span_s,
    }
    return pd.DataFrame(values.items(), columns=["what", "value"])


def over_baseline(
    runs: pd.DataFrame, values: str | Sequence[str], *, column: str, baseline: str, by: Sequence[str] = ()
) -> pd.DataFrame:
    """Divide the values of runs by those of the baseline run with the same seed.

    Parameters
    ----------
    runs : DataFrame
        A row for each run and seed.
    values : str or sequence of str
        Columns to divide.
    column : str
        Column that tells the runs apart, one of which is the baseline.
    baseline : str
        Value of that column in the rows of the baseline.
    by : sequence of str, optional
        Further columns in which a run and its baseline agree, beside the seed.

    Returns
    -------
    DataFrame
        The rows in their order: the columns of `by`, `column`, seed, and the ratios under the names of the
        values. A run without a baseline has NaN.

    Raises
    ------
    UnknownNameError
        A column is not there, or no run is the baseline.
    SweepError
        The baseline comes twice for one seed.

    Examples
    --------
    >>> runs = pd.DataFrame({"method": ["a", "b"], "seed": 0, "decode_tokens_per_s": [100.0, 150.0]})
    >>> over_baseline(runs, "decode_tokens_per_s", column="method", baseline="a")
      method  seed  decode_tokens_per_s
    0      a     0                  1.0
    1      b     0                  1.5
    """
    names, keys = [values] if isinstance(values, str) else list(values), [*by, "seed"]
    for name in (*keys, column, *names):
        if name not in runs:
            raise UnknownNameError("column", name, list(runs.columns))
    base = runs[runs[column] == baseline].set_index(keys)[names]
    if base.empty:
        raise UnknownNameError(column, baseline, list(dict.fromkeys(runs[column])))
    if base.index.has_duplicates:
        raise SweepError(
            f"{baseline!r} comes twice for one seed; add to by the columns in which its runs differ"
        )
    matching = base.reindex(pd.MultiIndex.from_frame(runs[keys]) if by else runs["seed"])
    ratios = runs[[*by, column, "seed"]].copy()
    ratios[names] = runs[names].to_numpy(float) / matching.to_numpy(float)
    return ratios


def paired_ratios(
    runs: pd.DataFrame, values: Sequence[str], *, column: str, baseline: str, by: Sequence[str]
) -> pd.DataFrame:
    """Mean ratios to the baseline within a seed, with their intervals of 95 %.

    Parameters
    ----------
    runs : DataFrame
        A row for each run and seed: the baseline and one other value of the column.
    values : sequence of str
        Columns to divide.
    column : str
        Column that tells a run and its baseline apart.
    baseline : str
        Value of that column in the rows of the baseline.
    by : sequence of str
        Columns in which a run and its baseline agree, beside the seed.

    Returns
    -------
    DataFrame
        Table of `helixlab.mean_interval`, sorted by `by`.

    Examples
    --------
    >>> runs = pd.DataFrame({"cluster": "mine", "execution": ["greedy", "chunked"], "seed": 0,
    ...                      "decode_latency_mean_s": [2.0, 1.0]})
    >>> ratios = paired_ratios(runs, ["decode_latency_mean_s"], column="execution", baseline="greedy",
    ...                        by=["cluster"])
    >>> ratios[["cluster", "mean"]].values.tolist()
    [['mine', 0.5]]
    """
    ratios = over_baseline(runs, values, column=column, baseline=baseline, by=by)
    others = ratios[ratios[column] != baseline].sort_values([*by, "seed"])
    return mean_interval(others, by=by, values=values)


def gains_over(runs: pd.DataFrame, value: str, *, column: str, baseline: str) -> pd.DataFrame:
    """Gain over the baseline within a seed, in percent, with its interval of 95 %.

    Parameters
    ----------
    runs : DataFrame
        A row for each run and seed.
    value : str
        Column to compare.
    column : str
        Column that tells the runs apart, one of which is the baseline.
    baseline : str
        Value of that column in the rows of the baseline.

    Returns
    -------
    DataFrame
        One row for each other value of the column, sorted, as `helixlab.mean_interval` has them of
        gain_percent.

    Examples
    --------
    >>> runs = pd.DataFrame({"method": ["a", "b"], "seed": 0, "decode_tokens_per_s": [100.0, 150.0]})
    >>> gains_over(runs, "decode_tokens_per_s", column="method", baseline="a")["mean"].tolist()
    [50.0]
    """
    ratios = over_baseline(runs, value, column=column, baseline=baseline)
    others = ratios[ratios[column] != baseline].sort_values(column, kind="stable")
    gains = others.assign(gain_percent=100 * (others[value] - 1))
    return mean_interval(gains, by=column, values="gain_percent")


def ratio_ranges(ratios: pd.DataFrame) -> pd.DataFrame:
    """Least and greatest mean ratio of each value over all settings, and in how many it is surely below 1.

    Parameters
    ----------
    ratios : DataFrame
        Means of ratios with their intervals, as `helixlab.mean_interval` gives them.

    Returns
    -------
    DataFrame
        One row a value: value, settings (their number), least, greatest, below_1 (the number of settings
        whose interval is below 1).

    Examples
    --------
    >>> ratios = pd.DataFrame({"value": "ttft_s", "mean": [0.5, 0.9], "low": [0.4, 0.7], "high": [0.6, 1.1]})
    >>> ratio_ranges(ratios).values.tolist()
    [['ttft_s', 2, 0.5, 0.9, 1]]
    """
    groups = ratios.assign(below=ratios["high"] < 1).groupby("value", sort=False)
    ranges = groups.agg(
        settings=("mean", "size"), least=("mean", "min"), greatest=("mean", "max"), below_1=("below", "sum")
    )
    return ranges.reset_index()


def placement_orders(runs: pd.DataFrame) -> pd.DataFrame:
    """Order of placements by planned flow and by throughput, with the lead of the first over the second.

    Parameters
    ----------
    runs : DataFrame
        A row for each run and seed, with at least two methods for each cluster and execution: cluster,
        method, execution, seed, max_flow_tokens_per_s, decode_tokens_per_s.

    Returns
    -------
    DataFrame
        For each cluster a row by ``"planned flow"`` and one by each execution policy: cluster, by, order
        (the methods from best to worst), lead_tokens_per_s (mean difference between the first two within a
        seed) with its interval of 95 %, lead_low and lead_high, and apart, whether the interval is above 0.
        The plan has no lead.

    Examples
    --------
    >>> runs = pd.DataFrame({"cluster": "mine", "execution": "greedy", "seed": [0, 1, 0, 1],
    ...                      "method": ["helix", "helix", "swarm", "swarm"],
    ...                      "max_flow_tokens_per_s": [50.0, 50.0, 40.0, 40.0],
    ...                      "decode_tokens_per_s": [20.0, 21.0, 28.0, 29.0]})
    >>> placement_orders(runs)[["by", "order", "lead_tokens_per_s"]]
                 by          order  lead_tokens_per_s
    0  planned flow  helix > swarm                NaN
    1        greedy  swarm > helix                8.0
    """
    orders, leads = [], []
    for cluster, of_cluster in runs.groupby("cluster", sort=False):
        planned = of_cluster.drop_duplicates("method").sort_values("max_flow_tokens_per_s", ascending=False)
        orders.append({"cluster": cluster, "by": "planned flow", "order": " > ".join(planned["method"])})
        for execution, rows in of_cluster.groupby("execution", sort=False):
            served = rows.pivot(index="seed", columns="method", values="decode_tokens_per_s")
            ranked = list(served.mean().sort_values(ascending=False).index)
            orders.append({"cluster": cluster, "by": execution, "order": " > ".join(ranked)})
            lead = (served[ranked[0]] - served[ranked[1]]).rename("lead_tokens_per_s")
            leads.append(lead.reset_index().assign(cluster=cluster, by=execution))
    lead = mean_interval(pd.concat(leads), by=["cluster", "by"], values="lead_tokens_per_s")
    lead = lead.rename(columns={"mean": "lead_tokens_per_s", "low": "lead_low", "high": "lead_high"})
    columns = ["cluster", "by", "lead_tokens_per_s", "lead_low", "lead_high"]
    table = pd.DataFrame(orders).merge(lead[columns], on=["cluster", "by"], how="left")
    table["apart"] = table["lead_low"].dropna() > 0
    return table
