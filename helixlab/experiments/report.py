"""``REPORT.md``: every published number beside ours, and what they come to."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pandas as pd

from helixlab.contents import FIGURES_COME_FROM, library_digest
from helixlab.diagnosis.steadiness import LABELS
from helixlab.experiments.comparison import rankings, reference_error
from helixlab.experiments.records import data_digest
from helixlab.files import write_text

__all__ = ["REPORT", "write_report"]

REPORT: Final = "REPORT.md"
NUMBERS: Final = "numbers_"
"""Tables with names that begin so are those of `beside_published`."""
FINDINGS: Final = "findings_"
"""Tables with names that begin so have a column ``finding``: sentences for the summary."""
SOME: Final = (
    "scheduler",
    "low",
    "high",
    "seeds",
    "wait_mean",
    "long_mean",
    "load",
    "settled",
    "long_settled",
)
"""Columns that only numbers of simulations have."""
RUN: Final = ["cluster", "model", "method", "mode"]
TURNS_ON_TIES: Final = ("geo24", "llama-1-30b", "swarm", "online")
"""A run that the order of nearly simultaneous events decides; `tests/golden` has the published one."""


def write_report(
    output: Path, names: Sequence[str], records: Mapping[str, Any], *, scale: str, seeds: int | None
) -> Path:
    """Write the report of finished notebooks into their output folder, the same for the same tables.

    Parameters
    ----------
    output : Path
        Where the notebooks wrote.
    names : sequence of str
        Notebooks, in their order.
    records : mapping
        What each of them left, as `take_over` gives it.
    scale : str
        At which they ran.
    seeds : int or None
        How many were asked for.
    """
    numbers = _tables(output, names, records, NUMBERS)
    if not numbers.empty:  # flows of solvers have no interval and no load
        numbers = numbers.reindex(columns=[*numbers, *(name for name in SOME if name not in numbers)])
    findings = _tables(output, names, records, FINDINGS)
    lines = ["# The published evaluation, run again", ""]
    if scale != "full":
        lines += [
            f"**This is the {scale} scale: everything is short, to see that it runs. No number here can be"
            " compared with a published one.**",
            "",
        ]
    lines += ["## Summary", ""]
    if not numbers.empty:
        lines += [f"- {line}" for line in _summary(numbers)]
    lines += [f"- {line}" for line in findings.get("finding", ())]
    if numbers.empty and findings.empty:
        lines += ["The notebooks that were run compare nothing with published numbers."]
    if not numbers.empty:
        lines += ["", *_misses(numbers), *_rankings(numbers), *_honest(numbers), *_all_numbers(numbers)]
    lines += ["", *_made_with(names, scale, seeds)]
    write_text(output / REPORT, "\n".join(lines) + "\n")
    return output / REPORT


def _tables(output: Path, names: Iterable[str], records: Mapping[str, Any], start: str) -> pd.DataFrame:
    found = [
        pd.read_csv(output / file, keep_default_na=True)
        for name in names
        for file in sorted(records[name]["files"])
        if Path(file).name.startswith(start) and file.endswith(".csv")
    ]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _summary(numbers: pd.DataFrame) -> list[str]:
    lines = []
    judged = numbers[numbers["met"].notna()]
    if len(judged):
        met = judged["met"].astype(bool)
        of_throughput = judged["metric"] == "decode_tokens_per_s"
        far = judged.loc[of_throughput, "difference"].abs()
        line = (
            f"**{met.sum()} of {len(judged)}** published figures of the simulator and the solver are met (or"
            " agree to the digit printed)"
        )
        if of_throughput.any():
            line += (
                f"; {met[of_throughput].sum()} of {of_throughput.sum()} throughputs, which are"
                f" {far.mean():.2%} apart on the mean and {far.max():.1%} at most"
            )
        lines.append(line + ".")
    ranked = rankings(numbers)
    ranked = ranked[ranked["platform"] == "simulation"]
    if len(ranked):
        told = ranked["told_apart"] & ~ranked["same"]
        lines.append(
            f"The methods rank as published in **{ranked['same'].sum()} of {len(ranked)}** comparisons;"
            f" in {told.sum()} of the others our seeds tell the methods apart."
        )
    measured = numbers[numbers["platform"] == "prototype"]
    if len(measured):
        both = measured.merge(reference_error(), on=["figure", *RUN, "metric"], suffixes=("", "_reference"))
        line = (
            f"Against what was *measured* on the prototype: {measured['difference'].abs().mean():.1%} on"
            " the mean"
            f" of {len(measured)} numbers"
        )
        if len(both):
            line += (
                f"; on the {len(both)} that the paper simulated too, {both['difference'].abs().mean():.1%},"
                " its own"
                f" simulator {both['difference_reference'].abs().mean():.1%}"
            )
        lines.append(line + ".")
    online = _runs(numbers[numbers["mode"] == "online"])
    if len(online):
        others = online[online["load"].isin(LABELS[1:])]
        words = "; ".join(f"{_named(row)} is {row['load']}" for _, row in others.iterrows())
        lines.append(
            f"{len(online) - len(others)} of {len(online)} online runs are stable"
            + (f"; {words}." if words else ".")
        )
    return lines


def _misses(numbers: pd.DataFrame) -> list[str]:
    judged = numbers[numbers["met"].notna()]
    missed = judged[~judged["met"].astype(bool)]
    lines = ["## What is not met, and why", ""]
    if missed.empty:
        return [*lines, "Nothing.", ""]
    lines += [
        "| figure | run | figure of | published | ours | difference | evidence |",
        "|---|---|---|---|---|---|---|",
    ]
    for _, row in missed.iterrows():
        lines.append(
            f"| {row['figure']} | {_named(row)} | {row['metric']} | {_plain(row['published'])} |"
            f" {_plain(row['ours'])}"
            f" | {row['difference']:+.1%} | {_why(row, numbers)} |"
        )
    return [*lines, ""]


def _why(row: pd.Series, numbers: pd.DataFrame) -> str:
    """What is known of a number that is not met, from the numbers themselves."""
    words = []
    if row["cluster"] == "hetero42" and row["method"] == "helix":
        words.append(
            "the maximum flow of this placement is not unique, and the reference varies from run to run"
        )
    if tuple(row[RUN]) == TURNS_ON_TIES:
        words.append(
            "the order of nearly simultaneous events decides this run: with link latencies moved by a part in"
            " 10⁷, 3 of 20 draws gave all ten published percentiles"
        )
    if row["scheduler"] in ("random", "shortest-queue"):
        if row["mode"] == "offline":
            words.append("the scheduler draws, and the requests of the published run are not on record")
        else:
            words.append("the scheduler draws; same requests, other draws")
    inside = row["low"] <= row["published"] <= row["high"]
    words.append(f"the published value is {'inside' if inside else 'outside'} the interval over our seeds")
    same_run = numbers[(numbers[RUN] == row[RUN]).all(axis=1) & (numbers["platform"] == "simulation")]
    throughput = same_run[same_run["metric"] == "decode_tokens_per_s"]
    if row["metric"] != "decode_tokens_per_s" and len(throughput):
        of_run = same_run[same_run["metric"] != "decode_tokens_per_s"]
        words.append(
            f"the throughput of the same run is {throughput['difference'].iloc[0]:+.2%},"
            f" and {of_run['met'].astype(bool).sum()} of its {len(of_run)} percentiles are met"
        )
    return "; ".join(words)


def _rankings(numbers: pd.DataFrame) -> list[str]:
    ranked = rankings(numbers)
    other = ranked[~ranked["same"]]
    lines = ["## Where the methods rank otherwise", ""]
    if other.empty:
        return [*lines, "Nowhere.", ""]
    lines += ["| figure | figure of | platform | published | ours | |", "|---|---|---|---|---|---|"]
    for _, row in other.iterrows():
        told = "seeds tell them apart" if row["told_apart"] else "intervals over seeds meet"
        lines.append(
            f"| {row['figure']} | {row['cluster']}, {row['mode']}, {row['metric']} | {row['platform']}"
            f" | {row['published']} | {row['ours']} | {told} |"
        )
    return [*lines, ""]


def _honest(numbers: pd.DataFrame) -> list[str]:
    """Runs that the published way of running flatters, or that had not settled."""
    runs = _runs(numbers[numbers["metric"] == "decode_tokens_per_s"])
    if runs.empty:
        return []
    runs = runs[runs["wait_mean"].notna() | runs["long_mean"].notna() | runs["load"].isin(LABELS[1:])]
    lines = [
        "## What the published window and rules hide",
        "",
        "Published runs drop queries that find no room, which favours short ones; *waiting* is the same run"
        " with nothing dropped, where dropping moved the mean input by more than 2 %. *From 900 s* is what"
        " runs with nothing dropped decode from 900 s on, where throughput or queries in flight still moved"
        " in the published window, over all seeds. Online runs are *filling* that are too short to say"
        " whether their queue would go on growing. Decode tokens/s, means over seeds.",
        "",
    ]
    if runs.empty:
        return [*lines, "All runs had settled, and none is flattered.", ""]
    lines += ["| run | published way | waiting | from 900 s | load |", "|---|---|---|---|---|"]
    for _, row in runs.iterrows():
        moving = "" if pd.isna(row["long_mean"]) or row["long_settled"] else ", still moving"
        lines.append(
            f"| {_named(row)} | {_plain(row['mean'])} | {_plain(row['wait_mean'])} |"
            f" {_plain(row['long_mean'])}{moving}"
            f" | {row['load'] if isinstance(row['load'], str) else ''} |"
        )
    return [*lines, ""]


def _all_numbers(numbers: pd.DataFrame) -> list[str]:
    lines = [
        "## Every published number beside ours",
        "",
        "*Ours* has the requests of the published run where they are known (seed 0), and is the mean over"
        " seeds"
        " where they are not and beside prototypes; the interval is of the mean over seeds, 95 %, Student's"
        " t.",
        "",
        "| figure | run | platform | figure of | published | ours | difference | mean, interval | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for _, row in numbers.iterrows():
        met = "" if pd.isna(row["met"]) else ("met" if row["met"] else "**not met**")
        span = _plain(row["mean"])
        if pd.notna(row["low"]):
            span += f" ({_plain(row['low'])} to {_plain(row['high'])})"
        lines.append(
            f"| {row['figure']} | {_named(row)} | {row['platform']} | {row['metric']} |"
            f" {_plain(row['published'])}"
            f" | {_plain(row['ours'])} | {row['difference']:+.1%} | {span} | {met} |"
        )
    return [*lines, ""]


def _made_with(names: Sequence[str], scale: str, seeds: int | None) -> list[str]:
    packages = ", ".join(f"{package} {version(package)}" for package in FIGURES_COME_FROM)
    return [
        "## Made with",
        "",
        f"Notebooks {', '.join(names)}, at {scale} scale, {seeds or 'their own number of'} seeds;"
        f" {packages}; Python {platform.python_version()}; {platform.system()} on {platform.machine()},"
        f" {os.cpu_count()} processors. Code {library_digest()}, data {data_digest()}.",
    ]


def _runs(numbers: pd.DataFrame) -> pd.DataFrame:
    """One row a run: the first of its numbers, simulated ones first."""
    simulated_first = numbers.sort_values("platform", ascending=False, kind="stable")
    return simulated_first.drop_duplicates([*RUN, "scheduler"]).sort_index()


def _named(row: pd.Series) -> str:
    return f"{row['cluster']}, {row['model']}, {row['method']}, {row['mode']}"


def _plain(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.3g}"
