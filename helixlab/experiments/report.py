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
from helixlab.experiments.report_sections import (
    RUN,
    STILL,
    all_numbers,
    misses,
    of_runs,
    otherwise_ranked,
    run_name,
    what_windows_hide,
)
from helixlab.files import write_text

__all__ = ["REPORT", "write_report"]

REPORT: Final = "REPORT.md"
NUMBERS: Final = "numbers_"
"""Tables with names that begin so are those of `beside_published`."""
FINDINGS: Final = "findings_"
"""Tables with names that begin so have a column ``finding``: sentences for the summary."""
SOME: Final = (
    "scheduler",
    "placement_hash",
    "low",
    "high",
    "seeds",
    "of_seeds",
    *(f"{variant}_{name}" for variant in ("wait", "long") for name in ("mean", "low", "high", "of_seeds")),
    "load",
    "trend",
    "long_trend",
)
"""Columns that only numbers of simulations have."""


def write_report(
    output: Path,
    names: Sequence[str],
    records: Mapping[str, Any],
    *,
    scale: str,
    seeds: int | None,
    otherwise: Mapping[str, Mapping[str, Any]] | None = None,
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
    otherwise : mapping, optional
        By notebook, the parameters with which it was finished before, where these were others.
    """
    numbers = _tables(output, names, records, NUMBERS)
    if not numbers.empty:  # flows of solvers have no interval and no load
        numbers = numbers.reindex(columns=[*numbers, *(name for name in SOME if name not in numbers)])
    # What is small has no causes to look for.
    sections = [misses, otherwise_ranked, what_windows_hide] if scale == "full" else []
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
        lines += [
            "",
            *(line for section in (*sections, all_numbers) for line in section(numbers)),
        ]
    lines += ["", *_made_with(names, scale, seeds, otherwise or {})]
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
            f"**{met.sum()} of {len(judged)}** published figures of the simulator and the solver are met:"
            " within 0.5 %, where a scheduler draws 3 % on the mean over seeds, on hetero42 with its many"
            " maximum flows 2 %, or to the digit printed"
        )
        if of_throughput.any():
            line += (
                f"; {met[of_throughput].sum()} of {of_throughput.sum()} throughputs, which are"
                f" {far.mean():.2%} apart on the mean and {far.max():.1%} at most"
            )
        lines.append(line + ".")
    compared = rankings(numbers)
    ranked = compared[compared["platform"] == "simulation"]
    if len(ranked):
        told = ranked["told_apart"] & ~ranked["same"]
        lines.append(
            f"The methods rank as in the published simulations in **{ranked['same'].sum()} of {len(ranked)}**"
            f" comparisons; in {told.sum()} of the others the {int(numbers['seeds'].max())} seeds of each run"
            " tell the methods apart."
        )
    throughputs = ranked[ranked["metric"] == "decode_tokens_per_s"]
    turned = throughputs[throughputs["turns"]]
    if len(turned):
        where = "; ".join(
            f"{row['figure']}, {row['cluster']}: {row['steady']}"
            + (STILL["moving"] if row["moving"] else "")
            + ("" if row["turns_told_apart"] else ", though seeds do not tell them apart")
            for _, row in turned.iterrows()
        )
        lines.append(
            f"With nothing dropped, and from 900 s on where a window was not seen to have settled,"
            f" {len(turned)} of {len(throughputs)} rankings by throughput turn ({where})."
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
        of_prototype = compared[compared["platform"] == "prototype"]
        if len(of_prototype):
            otherwise = ", ".join(of_prototype.loc[~of_prototype["same"], "figure"])
            line += (
                f". The methods rank as measured there in {of_prototype['same'].sum()} of {len(of_prototype)}"
                " comparisons" + (f" (otherwise in {otherwise})" if otherwise else "")
            )
        lines.append(line + ".")
    online = of_runs(numbers[numbers["mode"] == "online"])
    if len(online):
        others = online[online["load"].isin(LABELS[1:])]
        words = "; ".join(f"{run_name(row)} is {row['load']}" for _, row in others.iterrows())
        lines.append(
            f"{len(online) - len(others)} of {len(online)} online runs are stable"
            + (f"; {words}." if words else ".")
            + _online_later(online)
        )
    return lines


def _online_later(online: pd.DataFrame) -> str:
    """What the published windows of online runs, which begin with an empty system, leave out."""
    throughputs = online[online["metric"] == "decode_tokens_per_s"]
    unsettled = throughputs[(throughputs["trend"] != "settled") & throughputs["long_mean"].notna()]
    if unsettled.empty:
        return ""
    more = unsettled["long_mean"] / unsettled["mean"] - 1
    return (
        f" But the windows of {len(unsettled)} were not seen to have settled: from 900 s on they decode"
        f" {more.min():+.0%} to {more.max():+.0%} against the published window."
    )


def _made_with(
    names: Sequence[str], scale: str, seeds: int | None, otherwise: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    before = ", ".join(
        f"{name} ({', '.join(f'{key} {value}' for key, value in others.items())})"
        for name, others in otherwise.items()
        if others
    )
    before = f"; finished before with other parameters: {before}" if before else ""
    packages = ", ".join(f"{package} {version(package)}" for package in FIGURES_COME_FROM)
    return [
        "## Made with",
        "",
        f"Notebooks {', '.join(names)}, at {scale} scale, {seeds or 'their own number of'} seeds{before};"
        f" {packages}; Python {platform.python_version()}; {platform.system()} on {platform.machine()},"
        f" {os.cpu_count()} processors. Code {library_digest()}, data {data_digest()}.",
    ]
