"""Comparison of published numbers with ours: differences, tolerances, and rankings of the methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab.cluster import load_cluster
from helixlab.experiments.statistics import mean_interval, trends
from helixlab.flow import max_flow
from helixlab.model import load_model
from helixlab.placement import load_placement
from helixlab.reproduce.published import DRAWS, RUN, published_results

__all__ = ["beside_published", "flows_beside_published", "rankings", "reference_error"]

STEPS: Final = {"decode_tokens_per_s": 0.1, "prompt_latency": 0.01, "decode_latency": 0.01}
"""Precision with which published simulations are printed."""
EQUAL: Final = 1e-6
TOLERANCE: Final = 0.005
TOLERANCE_OF_MEANS: Final = 0.03
TOLERANCE_OF_MANY_FLOWS: Final = 0.02
"""Tolerance on hetero42 with the Helix placement, whose maximum flow is not unique, so that the paper's own
simulator gave different results from run to run."""


def beside_published(runs: pd.DataFrame, figures: Iterable[str] | None = None) -> pd.DataFrame:
    """Put every published number of the runs beside ours.

    Parameters
    ----------
    runs : DataFrame
        Runs, as `evaluate` gives them.
    figures : iterable of str, optional
        Names of figures to compare, as for `scenarios`; all by default.

    Returns
    -------
    DataFrame
        One row for each number: figure, cluster, model, method, mode, scheduler, platform, metric, placement
        and placement_hash of ours, published; ours; mean, low and high, the mean over seeds and its 95 %
        interval; seeds; difference, ours / published - 1; tolerance, and met, where the published number was
        simulated; of_seeds, the values behind the mean, in the order of the seeds, as text; wait_mean,
        wait_low, wait_high, wait_of_seeds and the same with the prefix ``long_``, where they were run;
        load, that of most seeds; trend and long_trend, see `helixlab.experiments.statistics`. Ours has the
        requests of the published run: it is the run of seed 0, or the mean of ``"same-requests"``. Where
        the published requests are not known, and beside measurements on the prototype, it is the mean over
        seeds.
    """
    known = published_results(figures).merge(runs[[*RUN, "scheduler"]].drop_duplicates(), on=RUN)
    metrics = list(known["metric"].unique())
    means = mean_interval(runs, by=[*RUN, "variant"], values=metrics).set_index([*RUN, "variant", "value"])
    by_run = {key: rows for key, rows in runs.groupby([*RUN, "variant"])}
    trend = trends(runs, by=[*RUN, "variant"])
    rows = []
    for number in known.to_dict("records"):
        metric, run = number["metric"], tuple(number[name] for name in RUN)
        published = by_run[*run, "published"]
        of_seeds = means.loc[(*run, "published", metric)]
        mean, low, high = (float(of_seeds[name]) for name in ("mean", "low", "high"))
        simulated, draws = number["platform"] == "simulation", number["scheduler"] in DRAWS
        ours = mean
        if simulated and (*run, "same-requests") in by_run:
            ours = float(means.loc[(*run, "same-requests", metric), "mean"])
        elif simulated and not draws and (published["seed"] == 0).any():
            ours = float(published.loc[published["seed"] == 0, metric].iloc[0])
        row = {name: number[name] for name in ("figure", *RUN[1:], "scheduler", "platform", "metric")}
        row |= {name: published[name].iloc[0] for name in ("placement", "placement_hash")}
        row |= {"published": number["value"], "ours": ours, "mean": mean, "low": low, "high": high}
        row |= {"seeds": int(of_seeds["runs"]), "difference": ours / number["value"] - 1}
        if simulated:
            row["tolerance"] = _tolerance(number)
            step = next(step for name, step in STEPS.items() if metric.startswith(name))
            row["met"] = abs(ours - number["value"]) <= max(
                row["tolerance"] * number["value"], 0.501 * step + 1e-12
            )
        for variant in ("wait", "long"):
            there = (*run, variant) in by_run
            for name in ("mean", "low", "high"):
                row[f"{variant}_{name}"] = means.loc[(*run, variant, metric), name] if there else np.nan
            row[f"{variant}_of_seeds"] = _of_seeds(by_run[*run, variant], metric) if there else ""
        row["of_seeds"] = _of_seeds(published, metric)
        row["load"] = published["load"].mode().iloc[0] if number["mode"] == "online" else ""
        row |= {"trend": trend[*run, "published"], "long_trend": trend.get((*run, "long"), "")}
        rows.append(row)
    return pd.DataFrame(rows)


def flows_beside_published(figures: Iterable[str] | None = None) -> pd.DataFrame:
    """Put the solver's published objectives beside the maximum flow of the published placements.

    Returns
    -------
    DataFrame
        Columns of `beside_published` that apply to flows; platform is ``"solver"``.

    Raises
    ------
    UnknownNameError
        There is no such figure.

    Examples
    --------
    >>> flows = flows_beside_published(["12"])
    >>> flows["met"].tolist(), round(float(flows["ours"].iloc[0]), 2)
    ([True], 286.59)
    """
    known = published_results(figures)
    rows = []
    for number in known[known["platform"] == "solver"].to_dict("records"):
        suffix = f"-no_prune_{number['cluster'][-2:]}" if number["mode"].endswith("no-prune") else ""
        placement = load_placement(f"{number['cluster']}/{number['model']}/{number['method']}{suffix}")
        flow = max_flow(load_cluster(number["cluster"]), load_model(number["model"]), placement)
        ours, difference = flow.value_tokens_per_s, flow.value_tokens_per_s / number["value"] - 1
        rows.append(
            {name: number[name] for name in ("figure", *RUN[1:], "platform", "metric")}
            | {"published": number["value"], "ours": ours, "mean": ours, "difference": difference}
            | {"tolerance": EQUAL, "met": abs(difference) <= EQUAL, "placement": placement.name}
        )
    return pd.DataFrame(rows)


def rankings(numbers: pd.DataFrame) -> pd.DataFrame:
    """Order the methods of every figure, published and ours.

    Parameters
    ----------
    numbers : DataFrame
        Numbers, as `beside_published` gives them.

    Returns
    -------
    DataFrame
        One row for each figure, cluster, model, mode, platform and metric with two methods or more:

        - published and ours: the methods from the largest value to the smallest. Methods that are printed
          with the same number have no order.
        - same: True if no two methods changed places.
        - distinguished: True if two that changed places differ by seed, in the direction of ours (95 %
          interval of the mean difference, Student's t).
        - steady: the order of means with the long window of runs that had not settled, and with requests
          waiting where dropping favoured some.
        - moving: True if a long window had not settled either.
        - turns: True if two methods change places between means of the published window and steady.
        - turns_distinguished: True if two that turn differ by seed, in that window.
    """
    rows = []
    keys = ["figure", "cluster", "model", "mode", "platform", "metric"]
    for key, group in numbers.groupby(keys, sort=False):
        if len(group) < 2:
            continue
        of = group.set_index("method")
        theirs, mine = of["published"], of["ours"]
        steady = of["long_mean"].fillna(of["wait_mean"]).fillna(of["mean"])
        seeds = {name: _numbers(row["of_seeds"]) for name, row in of.iterrows()}
        later = {
            name: _numbers(row["long_of_seeds"]) or _numbers(row["wait_of_seeds"]) or seeds[name]
            for name, row in of.iterrows()
        }
        changed, turned = _changed_places(theirs, mine), _changed_places(of["mean"], steady)
        rows.append(
            dict(zip(keys, key, strict=True))
            | {
                "published": _order(theirs),
                "ours": _order(mine),
                "same": not changed,
                "distinguished": any(_is_more(seeds[other], seeds[one]) for one, other in changed),
                "steady": _order(steady),
                "moving": bool((of["long_trend"] == "moving").any()),
                "turns": bool(turned),
                "turns_distinguished": any(_is_more(later[other], later[one]) for one, other in turned),
            }
        )
    columns = [
        "published",
        "ours",
        "same",
        "distinguished",
        "steady",
        "moving",
        "turns",
        "turns_distinguished",
    ]
    return pd.DataFrame(rows, columns=[*keys, *columns])


def reference_error(figures: Iterable[str] | None = None) -> pd.DataFrame:
    """Compare the published simulations with measurements on the prototype.

    Returns
    -------
    DataFrame
        One row for each number that was both simulated and measured: figure, cluster, model, method, mode,
        metric, prototype, simulation, difference.

    Examples
    --------
    >>> error = reference_error()["difference"].abs()
    >>> len(error), bool(0 < error.mean() < 0.15)
    (12, True)
    """
    known = published_results(figures)
    known = known[known["platform"].isin(["simulation", "prototype"])]
    keys = ["figure", "cluster", "model", "method", "mode", "metric"]
    wide = known.pivot(index=keys, columns="platform", values="value")
    wide = wide.reindex(columns=["prototype", "simulation"]).dropna().reset_index()
    wide.columns.name = None
    return wide.assign(difference=wide["simulation"] / wide["prototype"] - 1)


def _of_seeds(runs: pd.DataFrame, metric: str) -> str:
    return " ".join(f"{value:.6g}" for value in runs.sort_values("seed")[metric])


def _numbers(text: Any) -> list[float]:
    return [float(each) for each in text.split()] if isinstance(text, str) else []


def _is_more(these: list[float], others: list[float]) -> bool:
    """Test whether these exceed the others seed by seed, by more than chance."""
    if len(these) != len(others):
        return False
    more = pd.DataFrame({"more": np.subtract(these, others)})
    return bool(len(these) > 1 and mean_interval(more, by=[], values="more")["low"].item() > 0)


def _changed_places(before: pd.Series, after: pd.Series) -> list[tuple[Any, Any]]:
    return [
        (one, other)
        for one, other in permutations(before.index, 2)
        if before[one] > before[other] and after[one] < after[other]
    ]


def _order(values: pd.Series) -> str:
    return " > ".join(values.sort_values(ascending=False, kind="stable").index)


def _tolerance(number: Mapping[Any, Any]) -> float:
    if number["scheduler"] in DRAWS:
        return TOLERANCE_OF_MEANS
    of_many_flows = number["cluster"] == "hetero42" and number["method"] == "helix"
    return TOLERANCE_OF_MANY_FLOWS if of_many_flows else TOLERANCE
