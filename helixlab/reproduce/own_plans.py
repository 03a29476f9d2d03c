"""helixlab's own plans in the settings of the paper, beside the published placements.

A setting is a cluster and a model; a policy is how nodes form batches. Every setting is served with Helix's
published placement and with two plans of ours, one for each policy: offline, and online up to saturation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pandas as pd

from helixlab.cluster import load_cluster
from helixlab.errors import UnknownNameError
from helixlab.execution import Execution, chunked
from helixlab.experiments.pooling import pooled_runs
from helixlab.experiments.statistics import mean_interval, trends
from helixlab.flow import max_flow
from helixlab.model import load_model
from helixlab.placement import Placement, load_placement
from helixlab.planning import plan
from helixlab.reproduce.evaluation import LATENCIES
from helixlab.reproduce.published import scenarios
from helixlab.workload import offline, online

__all__ = [
    "POLICIES",
    "OwnPlans",
    "largest_stable_rates",
    "load_plans",
    "offline_means",
    "plan_factors",
    "plan_findings",
    "run_offline",
    "run_online",
    "throughput_bars",
]

POLICIES: Final = ("greedy", "chunked")
RUN: Final = ["cluster", "model", "plan", "policy"]
COMPARED: Final = ["plan", "policy", "published_policy"]
SETTINGS: Final = {
    "full": (
        ("single24", "llama-1-30b"),
        ("single24", "llama-2-70b"),
        ("geo24", "llama-1-30b"),
        ("geo24", "llama-2-70b"),
        ("hetero42", "llama-2-70b"),
    ),
    "smoke": (("single24", "llama-2-70b"),),
}
PLAN_S: Final = {"full": 60, "smoke": 5}
OFFLINE_S: Final = {"full": (900.0, 900.0), "smoke": (60.0, 30.0)}
"""Warm-up and duration of offline runs, by scale."""
ONLINE_S: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "full": {"single24": (900.0, 1500.0), "geo24": (900.0, 1500.0), "hetero42": (700.0, 1000.0)},
    "smoke": {"single24": (30.0, 60.0)},
}
"""Warm-up and duration of online runs, by scale and cluster."""
STEPS: Final[dict[str, dict[str, dict[str, tuple[float, ...]]]]] = {
    "full": {
        "single24": {"greedy": (0.5, 1.0, 1.5, 2.0), "chunked": (0.5, 1.0, 2.0, 3.0, 4.0)},
        "geo24": {"greedy": (0.5, 1.0, 1.5, 2.0, 3.0), "chunked": (0.5, 1.0, 2.0, 3.0, 4.0)},
        "hetero42": {"greedy": (0.5, 1.0, 1.5), "chunked": (0.5, 1.0, 2.0, 2.75)},
    },
    "smoke": {"single24": {"greedy": (0.5, 2.0), "chunked": (0.5, 2.0)}},
}
"""Rates as multiples of that at which the paper ran Helix's placement, by scale, cluster and policy."""
SERVED_ONLINE: Final = (
    ("published", "greedy"),
    ("for-greedy", "greedy"),
    ("published", "chunked"),
    ("for-chunked", "chunked"),
)
"""Plans and the policies under which they are served online."""
FINDINGS: Final = (
    ("for-greedy", "greedy", "greedy"),
    ("for-chunked", "chunked", "chunked"),
    ("for-chunked", "chunked", "greedy"),
)
"""Plan, its policy, and the policy of the published placement that it is compared with."""


@dataclass(frozen=True)
class OwnPlans:
    """Placements of every setting, published and our own.

    Parameters
    ----------
    scale : str
        ``"full"`` or ``"smoke"``.
    placements : dict
        Placements by cluster, model and plan (``"published"``, ``"for-greedy"`` or ``"for-chunked"``);
        several placements are pipelines side by side.
    """

    scale: str
    placements: Mapping[tuple[str, str, str], Sequence[Placement]]

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """Clusters and models."""
        return SETTINGS[self.scale]

    @property
    def offline_s(self) -> tuple[float, float]:
        """Warm-up and duration of offline runs, in seconds."""
        return OFFLINE_S[self.scale]

    def name(self, cluster: str, model: str, plan: str) -> str:
        """Name a plan by its placements."""
        return " + ".join(part.name for part in self.placements[cluster, model, plan])

    def to_frame(self) -> pd.DataFrame:
        """Describe every plan: its placements, nodes, maximum flow, and the search that made it."""
        return pd.DataFrame(
            [
                {
                    "cluster": cluster,
                    "model": model,
                    "plan": plan,
                    "placement": " + ".join(part.name for part in parts),
                    "placement_hash": " + ".join(part.content_hash[:8] for part in parts),
                    "nodes_used": sum(len(part.layers) for part in parts),
                    "max_flow_tokens_per_s": sum(
                        max_flow(load_cluster(cluster), load_model(model), part).value_tokens_per_s
                        for part in parts
                    ),
                    "objective_tokens_per_s": (
                        parts[0].report.objective_tokens_per_s if parts[0].report else None
                    ),
                    "search_s": parts[0].report.wall_s if parts[0].report else None,
                    "source": parts[0].source,
                }
                for (cluster, model, plan), parts in self.placements.items()
            ]
        )


def load_plans(*, scale: str = "full", replan: bool = False, seed: int = 0) -> OwnPlans:
    """Load the published placements and our plans of every setting.

    Parameters
    ----------
    scale : str
        ``"full"``, or ``"smoke"`` for one setting.
    replan : bool
        Search for our plans anew, a minute each, instead of loading those that ship with helixlab.
    seed : int
        Seed of the searches.

    Raises
    ------
    UnknownNameError
        There is no such scale.

    Examples
    --------
    >>> load_plans(scale="smoke").to_frame()["plan"].tolist()
    ['published', 'for-greedy', 'for-chunked']
    """
    if scale not in SETTINGS:
        raise UnknownNameError("scale", scale, list(SETTINGS))
    published = _helix_scenarios()
    placements: dict[tuple[str, str, str], list[Placement]] = {}
    for cluster, model in SETTINGS[scale]:
        rows = _of_setting(published[published["mode"] == "offline"], cluster, model)
        placements[cluster, model, "published"] = [load_placement(name) for name in rows["placement"]]
        for policy in POLICIES:
            if replan:
                ours = plan(
                    load_cluster(cluster),
                    load_model(model),
                    execution=_execution(policy),
                    time_limit_s=PLAN_S[scale],
                    rng=seed,
                )
            else:
                ours = load_placement(f"{cluster}/{model}/for-{policy}")
            placements[cluster, model, f"for-{policy}"] = [ours]
    return OwnPlans(scale, placements)


def run_offline(
    plans: OwnPlans,
    *,
    seeds: int | Iterable[int],
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Serve requests offline with every plan under every policy; requests wait for free KV cache.

    Parameters
    ----------
    plans : OwnPlans
        Plans to serve with.
    seeds, n_jobs, store, progress
        As for `sweep`.

    Returns
    -------
    DataFrame
        One row for each run and seed: the columns of `pooled_runs`, cluster, model, plan, policy, placement.
    """
    warmup_s, duration_s = plans.offline_s
    workload = offline(initial_requests=20, warmup_s=warmup_s, duration_s=duration_s)
    groups = {
        "|".join((*key, policy)): [
            {
                "cluster": key[0],
                "model": key[1],
                "placement": part,
                "execution": _execution(policy),
                "workload": workload,
                "sample_step_s": duration_s / 60,
            }
            for part in parts
        ]
        for key, parts in plans.placements.items()
        for policy in POLICIES
    }
    runs = pooled_runs(groups, seeds=seeds, n_jobs=n_jobs, store=store, progress=progress)
    return _labelled(runs, plans, RUN)


def offline_means(runs: pd.DataFrame) -> pd.DataFrame:
    """Average offline runs over seeds.

    Parameters
    ----------
    runs : DataFrame
        Runs of `run_offline`.

    Returns
    -------
    DataFrame
        One row for each cluster, model, plan and policy: decode_tokens_per_s with its interval (low, high),
        latencies, kv_used_fraction_mean, busy_fraction_mean, and trend.
    """
    metrics = ["decode_tokens_per_s", *LATENCIES, "kv_used_fraction_mean", "busy_fraction_mean"]
    means = runs.groupby(RUN, sort=False)[metrics].mean().join(trends(runs, by=RUN)).reset_index()
    throughput = mean_interval(runs, by=RUN, values="decode_tokens_per_s")
    return means.merge(throughput[[*RUN, "low", "high"]], on=RUN)


def throughput_bars(runs: pd.DataFrame) -> pd.DataFrame:
    """Average the throughput of offline runs over seeds, as `helixlab.plotting.plot_evaluation` takes it.

    Parameters
    ----------
    runs : DataFrame
        Runs of `run_offline`.

    Returns
    -------
    DataFrame
        Columns of `mean_interval`, with the plan as method, and no published values.
    """
    means = mean_interval(runs, by=RUN, values="decode_tokens_per_s")
    return means.rename(columns={"plan": "method"}).assign(published=float("nan"), platform="")


def plan_factors(runs: pd.DataFrame) -> pd.DataFrame:
    """Compare the throughput of our plans with that of the published placement, seed by seed.

    Parameters
    ----------
    runs : DataFrame
        Runs of `run_offline`.

    Returns
    -------
    DataFrame
        One row for each cluster, model, plan, policy and published_policy (that of the published placement):
        mean, low and high of the factor.
    """
    by_seed = runs.pivot(
        index=["cluster", "model", "seed"], columns=["policy", "plan"], values="decode_tokens_per_s"
    )
    over = {
        (plan, policy, other): by_seed[policy, plan] / by_seed[other, "published"]
        for plan in ("for-greedy", "for-chunked")
        for policy in POLICIES
        for other in dict.fromkeys(["greedy", policy])
    }
    ratios = pd.concat(over, names=COMPARED).rename("factor").reset_index()
    factors = mean_interval(ratios, by=["cluster", "model", *COMPARED], values="factor")
    return factors.drop(columns=["value", "runs", "failed", "not_run"])


def plan_findings(plans: OwnPlans, runs: pd.DataFrame) -> list[str]:
    """Say in a sentence for each comparison by how much our plans serve more, and at what latency.

    Parameters
    ----------
    plans : OwnPlans
        Plans that were served with.
    runs : DataFrame
        Runs of `run_offline`.
    """
    factors, means = plan_factors(runs), offline_means(runs)
    prompts = means.pivot(
        index=["cluster", "model"], columns=["policy", "plan"], values="prompt_latency_mean_s"
    )
    warmup_s, duration_s = plans.offline_s
    findings = []
    for compared in FINDINGS:
        plan, policy, other = compared
        here = factors[(factors[COMPARED] == list(compared)).all(axis=1)]
        least, most = (
            f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f}; {row['cluster']}, {row['model']})"
            for _, row in here.sort_values("mean").iloc[[0, -1]].iterrows()
        )
        longer = prompts[policy, plan] / prompts[other, "published"]
        findings.append(
            f"From {warmup_s:.0f} to {warmup_s + duration_s:.0f} s and with nothing dropped, helixlab's plans"
            f" for {policy} nodes serve {least} to {most} times what the published placements serve with"
            f" {other} nodes; in {(here['low'] > 1).sum()} of {len(here)} settings more and in"
            f" {(here['high'] < 1).sum()} less by more than chance (95 % intervals over"
            f" {runs['seed'].nunique()} seeds). A prompt then takes {longer.min():.2g} to {longer.max():.2g}"
            " times as long on the mean."
        )
    return findings


def run_online(
    plans: OwnPlans,
    *,
    seed: int = 0,
    n_jobs: int = 1,
    store: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Serve requests online with every plan under its policy, at rates up to saturation.

    Parameters
    ----------
    plans : OwnPlans
        Plans to serve with.
    seed : int
        Seed of the requests.
    n_jobs, store, progress
        As for `sweep`.

    Returns
    -------
    DataFrame
        One row for each run: the columns of `pooled_runs`, cluster, model, plan, policy, rate_tokens_per_s,
        placement, and method, the name of plan and policy in pictures.
    """
    published = _helix_scenarios()
    groups: dict[str, list[dict[str, Any]]] = {}
    for cluster, model in plans.settings:
        rows = _of_setting(published[published["mode"] == "online"], cluster, model)
        warmup_s, duration_s = ONLINE_S[plans.scale][cluster]
        for name, policy in SERVED_ONLINE:
            parts = plans.placements[cluster, model, name]
            rates = list(rows["rate_tokens_per_s"])
            if len(parts) == 1:
                rates = [sum(rates)]
            for step in STEPS[plans.scale][cluster][policy]:
                groups[f"{cluster}|{model}|{name}|{policy}|{step * sum(rates):g}"] = [
                    {
                        "cluster": cluster,
                        "model": model,
                        "placement": part,
                        "execution": _execution(policy),
                        "workload": online(
                            rate_tokens_per_s=step * rate, warmup_s=warmup_s, duration_s=duration_s
                        ),
                        "sample_step_s": duration_s / 120,
                    }
                    for part, rate in zip(parts, rates, strict=True)
                ]
    runs = pooled_runs(groups, seeds=[seed], n_jobs=n_jobs, store=store, progress=progress)
    key = ["cluster", "model", "plan", "policy", "rate_tokens_per_s"]
    runs = _labelled(runs, plans, key)
    runs["rate_tokens_per_s"] = runs["rate_tokens_per_s"].astype(float)
    runs["method"] = runs["plan"].where(runs["plan"] != "published", "published-" + runs["policy"])
    return runs


def largest_stable_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """Find the largest rate (tokens/s) at which runs were stable, with ≥ where no larger one was tried.

    Parameters
    ----------
    runs : DataFrame
        Runs of `run_online`.

    Returns
    -------
    DataFrame
        Rates as text, by cluster and model; a column for each method.
    """
    by = ["cluster", "model", "method"]
    stable = runs[runs["load"] == "stable"]
    tried, bearable = (table.groupby(by)["rate_tokens_per_s"].max() for table in (runs, stable))
    words = bearable.map("{:.0f}".format).where(
        bearable < tried[bearable.index], bearable.map("≥ {:.0f}".format)
    )
    return words.unstack("method").fillna("none of them")


def _helix_scenarios() -> pd.DataFrame:
    table = scenarios(["5", "7", "8"])
    return table[table["method"] == "helix"]


def _of_setting(table: pd.DataFrame, cluster: str, model: str) -> pd.DataFrame:
    return table[(table["cluster"] == cluster) & (table["model"] == model)]


@cache
def _execution(policy: str) -> str | Execution:
    return chunked() if policy == "chunked" else policy


def _labelled(runs: pd.DataFrame, plans: OwnPlans, labels: list[str]) -> pd.DataFrame:
    """Split the name of each group into its labels, and name the placements."""
    runs[labels] = runs["group"].str.split("|", expand=True)
    keys = runs[["cluster", "model", "plan"]].itertuples(index=False, name=None)
    runs["placement"] = [plans.name(*key) for key in keys]
    return runs
