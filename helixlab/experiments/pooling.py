"""Runs that belong together: systems side by side that are reported as one.

Separate pipelines are placements on parts of a cluster, each a run of its own. Their throughputs add up, and
their latencies are those of one pool, so that its percentiles need all iterations of all runs at once.
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
from helixlab.diagnosis.measures import STEPS, node_samples, time_mean
from helixlab.errors import SimulationError
from helixlab.experiments.runner import Outcome, Run, Store, carried_out, described, finished
from helixlab.experiments.statistics import load_figures, trend_figures
from helixlab.experiments.sweep import grid_points, runs_of, seeds_of
from helixlab.simulation import Result
from helixlab.simulation.metrics import latency_metrics

__all__ = ["LATER", "later", "pooled_figures", "pooled_runs", "waits_and_runs"]


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
NEARLY: Final = 1e-6
"""Part of a step by which a time may miss a sample."""
LATER: Final = "later_"
"""Before the names of figures of the same runs from later on."""


@dataclass(frozen=True)
class _Pool:
    """All that a worker needs for the runs of one group with one seed."""

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
    """Simulate groups of runs with every seed, and take the figures of each group as a whole.

    Parameters
    ----------
    groups : mapping of str to sequence of mappings
        Points of a grid, as for `sweep`, by the name of the group. Each needs a ``sample_step_s`` that gives
        a dozen samples or more, for what is said of the trend.
    later_s : float, optional
        Take the figures of online runs twice: in their windows, and from so many seconds after the start on,
        as if the warm-up had been so long. To simulate it would be the same.
    seeds, n_jobs, store, progress
        As for `sweep`; the store keeps a group as it keeps a run.

    Returns
    -------
    DataFrame
        One row a group and seed: group, seed, the columns of `pooled_figures`, and error; with `later_s` the
        same columns once more, with ``later_`` before their names, empty where runs are offline.

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
    numbers, kept = seeds_of(seeds), Store(store)
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
                figures = kept.kept(key)
                if figures is not None:
                    outcomes[key] = Outcome(figures)
                else:
                    runs = runs_of({f"{key}-{at}": (point, seed) for at, point in enumerate(members)})
                    tasks[key] = _Pool(key, tuple(runs), later_s)
                    labels[key] = {"group": name, "seed": seed, "runs": len(members)}
    known = sum(key not in tasks for _, _, key in rows)
    outcomes |= finished(
        list(tasks.values()), labels, kept, work=_carry_out, n_jobs=n_jobs, total=known + len(tasks),
        failed=sum(each.error is not None for each in outcomes.values()), progress=progress, what="runs",
    )  # fmt: skip
    frame = pd.DataFrame(
        [{"group": name, "seed": seed, **(outcomes[key].figures or {})} for name, seed, key in rows]
    )
    frame["error"] = pd.Series([outcomes[key].error for _, _, key in rows], dtype=object)
    return frame


def pooled_figures(results: Sequence[Result]) -> dict[str, Any]:
    """What runs side by side come to.

    Returns
    -------
    dict
        placement_hash, joined by plus signs. Sums: decode_tokens_per_s, max_flow_tokens_per_s, counts of
        requests, events, wall_s. Of the pooled iterations of the window: prompt and decode latencies, as in
        `Result.summary`. Means over all requests: input_tokens_mean_accepted, and input_tokens_mean_asked,
        which counts dropped ones too. Of the window: busy_fraction_mean and kv_used_fraction_mean over the
        nodes that hold layers, and what `trend_figures` and `load_figures` say.
    """
    summaries = [result.summary.iloc[0] for result in results]
    figures: dict[str, Any] = {"placement_hash": " + ".join(each["placement_hash"] for each in summaries)}
    figures |= {name: sum(summary[name].item() for summary in summaries) for name in SUMS}
    for phase, latency_s in zip(("prompt", "decode"), _window_latencies(results), strict=True):
        figures |= latency_metrics(latency_s, phase)
    figures |= _inputs(results)
    nodes = pd.concat([result.nodes for result in results])
    nodes = nodes[nodes["end_layer"] > nodes["first_layer"]]
    figures["busy_fraction_mean"] = float(nodes["busy_fraction"].mean())
    steps_s = [float(result.provenance["settings"]["sample_step_s"]) for result in results]
    used = pd.concat(
        [
            inside.assign(**{STEPS: inside[STEPS] * (step_s / max(steps_s) if step_s else 1.0)})
            for inside, step_s in zip(map(node_samples, results), steps_s, strict=True)
        ]
    )
    figures["kv_used_fraction_mean"] = time_mean(used, used["kv_used_fraction"])
    return figures | trend_figures(results) | load_figures(results)


def later(result: Result, from_s: float) -> Result:
    """An online run as if its warm-up had lasted until `from_s`: all that `pooled_figures` looks at.

    Parameters
    ----------
    result : Result
        A run with a timeline, one of whose samples is at that time.
    from_s : float
        Seconds after the start.

    Raises
    ------
    SimulationError
        No sample is at that time, or it is not in the window.
    """
    row = result.summary.iloc[0]
    start_s, end_s = float(row["start_s"]) + from_s, float(row["window_end_s"])
    step_s = float(result.provenance["settings"]["sample_step_s"])
    at_a_sample = step_s > 0 and abs(from_s / step_s - round(from_s / step_s)) <= NEARLY
    if not (at_a_sample and row["window_start_s"] <= start_s < end_s):
        raise SimulationError(
            f"{result!r} has no sample at {from_s:g} s in its window; give a multiple of its sample_step_s,"
            f" {step_s:g}, from {row['window_start_s'] - row['start_s']:g} on"
        )
    moved = result.summary.assign(window_start_s=start_s)
    ended = replace(result, summary=moved).in_window(result.iterations)
    decoded = int((ended["iteration"] > 0).sum())
    # A sample is of the time since the one before it, mostly a step.
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


def _carry_out(pool: _Pool) -> tuple[str, Outcome]:
    try:
        results = [carried_out(run) for run in pool.runs]
        figures = pooled_figures(results)
        if pool.later_s is not None and all(run.workload.online for run in pool.runs):
            again = pooled_figures([later(result, pool.later_s) for result in results])
            figures |= {f"{LATER}{name}": value for name, value in again.items()}
    except Exception as error:
        return pool.key, Outcome(error=described(error))
    return pool.key, Outcome(figures=json_ready(figures))


def _window_latencies(results: Sequence[Result]) -> tuple[np.ndarray, np.ndarray]:
    """Latencies of the prompts and of the decodes that ended in the windows."""
    prompts, decodes = [], []
    for result in results:
        ended = result.in_window(result.iterations)
        is_prompt, latency_s = (ended["iteration"] == 0).to_numpy(), ended["latency_s"].to_numpy()
        prompts.append(latency_s[is_prompt])
        decodes.append(latency_s[~is_prompt])
    return np.concatenate(prompts), np.concatenate(decodes)


def _inputs(results: Sequence[Result]) -> dict[str, float]:
    """Mean input of the requests that were let in, and of all that asked."""
    accepted = tokens = asked = tokens_asked = 0.0
    for result in results:
        summary, requests = result.summary.iloc[0], result.requests
        number = float(summary["requests_finished"] + summary["requests_in_flight"])
        of_them = number * float(summary["input_tokens_mean_accepted"]) if number else 0.0
        turned_away = requests.loc[requests["outcome"] != "finished", "input_tokens"]
        accepted, tokens = accepted + number, tokens + of_them
        asked, tokens_asked = asked + number + len(turned_away), tokens_asked + of_them + turned_away.sum()
    return {
        "input_tokens_mean_accepted": tokens / accepted if accepted else float("nan"),
        "input_tokens_mean_asked": tokens_asked / asked if asked else float("nan"),
    }


def waits_and_runs(result: Result) -> pd.DataFrame:
    """Mean seconds that a request waits and runs each time it visits a node, in the measured window.

    It waits for its turn, and for room in the KV cache. It runs with its batch, however many others are in
    it.

    Parameters
    ----------
    result : Result
        Of ``simulate(..., keep_breakdown=True, keep_batches=True)``.

    Returns
    -------
    DataFrame
        One row a node that was visited: node, machine, region, first_layer, visits, wait_s, run_s.

    Raises
    ------
    SimulationError
        The run has not kept what is needed.

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
    summary = result.summary.iloc[0]
    batches = result.batches[
        result.batches["end_s"].between(summary["window_start_s"], summary["window_end_s"])
    ]
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
