"""Systems side by side that are reported as one.

Separate pipelines are placements on parts of a cluster, each a run of its own. Their throughputs add up, and
their latencies form one pool, so that its percentiles need all iterations of all runs at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab._hashing import digest, library_digest
from helixlab._io import json_ready
from helixlab.diagnosis.measures import STEPS, mean_of, node_samples
from helixlab.errors import SimulationError
from helixlab.experiments.runner import Store, run_tasks
from helixlab.experiments.statistics import load_metrics, trend_metrics
from helixlab.experiments.sweep import grid_points, runs_of, seeds_of
from helixlab.experiments.worker import Outcome, Run, error_text, simulate_run
from helixlab.simulation import Result
from helixlab.simulation.metrics import latency_figures

__all__ = ["LATER", "later", "pooled_metrics", "pooled_runs", "waits_and_runs"]


SUMS: Final = (
    "decode_tokens_per_s",
    "max_flow_tokens_per_s",
    "requests_fed",
    "requests_finished",
    "requests_in_flight",
    "requests_dropped",
    "requests_refused",
    "requests_queued",
    "events",
    "wall_s",
)
"""Metrics that add up over the runs of a group."""
NEARLY: Final = 1e-6
"""Part of a sampling step by which a time may miss a sample."""
LATER: Final = "later_"
"""Prefix of the metrics of the same runs in a later window."""


@dataclass(frozen=True)
class _Pool:
    """Runs of one group with one seed, with all that a worker needs for them."""

    key: str
    runs: tuple[Run, ...]
    later_s: float | None


def pooled_runs(
    groups: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    seeds: int | Iterable[int] = 1,
    later_s: float | None = None,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Simulate groups of runs with every seed, and measure each group as a whole.

    Parameters
    ----------
    groups : mapping of str to sequence of mappings
        Points of a grid, as for `sweep`, by the name of the group. Each needs a ``sample_step_s`` that gives
        a dozen samples or more, from which the trend is judged.
    later_s : float, optional
        Seconds after the start from which online runs are measured a second time, as if the warm-up had been
        that long. Simulating them with such a warm-up would give the same.
    seeds, n_jobs, store, progress
        As for `sweep`; the store keeps a group as it keeps a run.

    Returns
    -------
    DataFrame
        One row for each group and seed: group, seed, the columns of `pooled_metrics`, and error; with
        `later_s` the same columns again, with the prefix ``later_``, empty where runs are offline.

    Raises
    ------
    SweepError, UnknownNameError, FileFormatError
        As for `sweep`.

    Examples
    --------
    >>> import helixlab as hx
    >>> point = {"placement": "small10/llama-1-30b/helix", "sample_step_s": 2.0,
    ...          "workload": hx.offline(warmup_s=10, duration_s=60)}
    >>> table = pooled_runs({"one": [point], "two": [point, point]})
    >>> one, two = table["decode_tokens_per_s"]
    >>> bool(two == 2 * one), bool(table["prompt_latency_p50_s"].nunique() == 1)
    (True, True)
    """
    numbers, finished = seeds_of(seeds), Store(store)
    points = {name: grid_points([*members])[0] for name, members in groups.items()}
    rows: list[tuple[str, int, str]] = []
    outcomes: dict[str, Outcome] = {}
    tasks: dict[str, _Pool] = {}
    labels: dict[str, dict[str, Any]] = {}
    for name, members in points.items():
        error = next((point.error for point in members if point.error is not None), None)
        for seed in numbers:
            key = digest([library_digest(), "pooled", [point.digest for point in members], seed, later_s])
            rows.append((name, seed, key))
            if error is not None:
                outcomes[key] = Outcome(error=error)
            elif key not in outcomes and key not in tasks:
                metrics = finished.load(key)
                if metrics is not None:
                    outcomes[key] = Outcome(metrics)
                else:
                    runs = runs_of({f"{key}-{at}": (point, seed) for at, point in enumerate(members)})
                    tasks[key] = _Pool(key, tuple(runs), later_s)
                    labels[key] = {"group": name, "seed": seed, "runs": len(members)}
    known = sum(key not in tasks for _, _, key in rows)
    outcomes |= run_tasks(
        list(tasks.values()), labels, finished, work=_execute_pool, n_jobs=n_jobs, total=known + len(tasks),
        failed=sum(each.error is not None for each in outcomes.values()), progress=progress, caller="runs",
    )  # fmt: skip
    frame = pd.DataFrame(
        [{"group": name, "seed": seed, **(outcomes[key].metrics or {})} for name, seed, key in rows]
    )
    frame["error"] = pd.Series([outcomes[key].error for _, _, key in rows], dtype=object)
    return frame


def pooled_metrics(results: Sequence[Result]) -> dict[str, Any]:
    """Measure runs side by side as a whole.

    Returns
    -------
    dict
        placement_hash, joined by plus signs. Sums: decode_tokens_per_s, max_flow_tokens_per_s, counts of
        requests, events, wall_s. Prompt and decode latencies of the pooled iterations of the window, as in
        `Result.summary`. Means over all requests: input_tokens_mean_accepted, and input_tokens_mean_asked,
        which counts dropped ones too. busy_fraction_mean and kv_used_fraction_mean of the window, over the
        nodes that hold layers, and the metrics of `trend_metrics` and `load_metrics`.
    """
    hashes = " + ".join(result.metrics["placement_hash"] for result in results)
    metrics: dict[str, Any] = {"placement_hash": hashes}
    metrics |= {name: sum(result.metrics[name].item() for result in results) for name in SUMS}
    for phase, latency_s in zip(("prompt", "decode"), _window_latencies(results), strict=True):
        metrics |= latency_figures(latency_s, phase)
    metrics |= _mean_inputs(results)
    nodes = pd.concat([result.serving_nodes for result in results])
    metrics["busy_fraction_mean"] = float(nodes["busy_fraction"].mean())
    steps_s = [float(result.provenance["settings"]["sample_step_s"]) for result in results]
    used = pd.concat(
        [
            inside.assign(**{STEPS: inside[STEPS] * (step_s / max(steps_s) if step_s else 1.0)})
            for inside, step_s in zip(map(node_samples, results), steps_s, strict=True)
        ]
    )
    metrics["kv_used_fraction_mean"] = mean_of(used, used["kv_used_fraction"])
    return metrics | trend_metrics(results) | load_metrics(results)


def later(result: Result, from_s: float) -> Result:
    """Give an online run the window of a longer warm-up, for all that `pooled_metrics` looks at.

    Parameters
    ----------
    result : Result
        Online run with a timeline that has a sample at that time.
    from_s : float
        End of the warm-up, in seconds after the start.

    Raises
    ------
    SimulationError
        There is no sample at that time, or it is outside the window.
    """
    run_start_s, (window_start_s, end_s) = float(result.metrics["start_s"]), result.window_s
    start_s = run_start_s + from_s
    step_s = float(result.provenance["settings"]["sample_step_s"])
    at_a_sample = step_s > 0 and abs(from_s / step_s - round(from_s / step_s)) <= NEARLY
    if not (at_a_sample and window_start_s <= start_s < end_s):
        raise SimulationError(
            f"{result!r} has no sample at {from_s:g} s in its window; give a multiple of its sample_step_s,"
            f" {step_s:g}, from {window_start_s - run_start_s:g} on"
        )
    moved = result.summary.assign(window_start_s=start_s)
    ended = replace(result, summary=moved).in_window(result.iterations)
    decoded = int((ended["iteration"] > 0).sum())
    # A sample covers the time since the one before it, which is mostly one step.
    times = pd.Series(result.timeline["time_s"].to_numpy(float))
    since = times.shift(fill_value=times.iloc[0]).clip(lower=start_s)
    steps = pd.Series(np.rint((times - since) / step_s).to_numpy(), index=times)
    samples = result.node_timeline
    samples = samples[samples["time_s"].between(start_s + step_s / 2, end_s + step_s / 2)]
    busy = (samples["busy_fraction"] * samples["time_s"].map(steps)).groupby(samples["node"]).sum()
    busy_fraction = result.nodes["node"].map(busy * step_s / (end_s - start_s))
    return replace(
        result,
        summary=moved.assign(decode_tokens_per_s=decoded / (end_s - start_s)),
        nodes=result.nodes.assign(busy_fraction=busy_fraction.fillna(0.0)),
    )


def _execute_pool(pool: _Pool) -> tuple[str, Outcome]:
    try:
        results = [simulate_run(run) for run in pool.runs]
        metrics = pooled_metrics(results)
        if pool.later_s is not None and all(run.workload.online for run in pool.runs):
            again = pooled_metrics([later(result, pool.later_s) for result in results])
            metrics |= {f"{LATER}{name}": value for name, value in again.items()}
    except Exception as error:
        return pool.key, Outcome(error=error_text(error))
    return pool.key, Outcome(metrics=json_ready(metrics))


def _window_latencies(results: Sequence[Result]) -> tuple[np.ndarray, np.ndarray]:
    """Collect the latencies of the prompts and of the decodes that ended in the windows."""
    prompts, decodes = [], []
    for result in results:
        ended = result.in_window(result.iterations)
        is_prompt, latency_s = (ended["iteration"] == 0).to_numpy(), ended["latency_s"].to_numpy()
        prompts.append(latency_s[is_prompt])
        decodes.append(latency_s[~is_prompt])
    return np.concatenate(prompts), np.concatenate(decodes)


def _mean_inputs(results: Sequence[Result]) -> dict[str, float]:
    """Average the input of the requests that were admitted, and of all that asked."""
    accepted = tokens = asked = tokens_asked = 0.0
    for result in results:
        row, requests = result.metrics, result.requests
        admitted = float(row["requests_finished"] + row["requests_in_flight"])
        admitted_tokens = admitted * float(row["input_tokens_mean_accepted"]) if admitted else 0.0
        refused = requests.loc[requests["outcome"] != "finished", "input_tokens"]
        accepted, tokens = accepted + admitted, tokens + admitted_tokens
        asked += admitted + len(refused)
        tokens_asked += admitted_tokens + refused.sum()
    return {
        "input_tokens_mean_accepted": tokens / accepted if accepted else float("nan"),
        "input_tokens_mean_asked": tokens_asked / asked if asked else float("nan"),
    }


def waits_and_runs(result: Result) -> pd.DataFrame:
    """Average the seconds that a request waits and runs at each visit to a node, in the measured window.

    A request waits for its turn, and for free KV cache. It runs with its batch, whatever the size of that.

    Parameters
    ----------
    result : Result
        Result of ``simulate(..., keep_breakdown=True, keep_batches=True)``.

    Returns
    -------
    DataFrame
        One row for each node that was visited: node, machine, region, first_layer, visits, wait_s, run_s.

    Raises
    ------
    SimulationError
        The run has kept no batches or no breakdown.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> result = hx.simulate(*system, workload=hx.offline(warmup_s=20, duration_s=60),
    ...                      keep_breakdown=True, keep_batches=True)
    >>> table = waits_and_runs(result)
    >>> bool((table["run_s"] > 0).all()), bool((table["wait_s"] >= 0).all())
    (True, True)
    """
    if result.batches.empty or "batch_wait_s" not in result.nodes:
        raise SimulationError(
            f"{result!r} does not say where requests waited; simulate with keep_breakdown=True and"
            " keep_batches=True"
        )
    batches = result.in_window(result.batches)
    requests = batches["prompts"] + batches["decodes"]
    # All that visit a node run its last layers, wherever they entered.
    last = batches["first_layer"] == batches.groupby("node")["first_layer"].transform("max")
    visits = requests[last].groupby(batches["node"]).sum()
    run_s = (requests * (batches["end_s"] - batches["start_s"])).groupby(batches["node"]).sum()
    nodes = result.nodes[result.nodes["node"].isin(visits.index)]
    visited = nodes["node"].map(visits)
    return pd.DataFrame(
        {
            **{name: nodes[name] for name in ("node", "machine", "region", "first_layer")},
            "visits": visited,
            "wait_s": (nodes["batch_wait_s"] + nodes["kv_wait_s"]) / visited,
            "run_s": nodes["node"].map(run_s) / visited,
        }
    ).reset_index(drop=True)
