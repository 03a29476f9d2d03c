"""``REPORT.md``: every published number beside ours, the misses and their causes, and the rankings."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pandas as pd

from helixlab._hashing import RESULTS_DEPEND_ON, library_digest
from helixlab._io import write_text
from helixlab.diagnosis.steady_state import LABELS
from helixlab.reproduce.comparison import rankings, reference_error
from helixlab.reproduce.published import DRAWS
from helixlab.reproduce.records import data_digest

__all__ = [
    "REPORT",
    "RUN",
    "STILL",
    "all_numbers",
    "misses",
    "of_runs",
    "otherwise_ranked",
    "run_name",
    "what_windows_hide",
    "write_report",
]

REPORT: Final = "REPORT.md"
NUMBERS: Final = "numbers_"
"""Prefix of the names of tables of `beside_published`."""
FINDINGS: Final = "findings_"
"""Prefix of the names of tables with a column ``finding``: sentences for the summary."""
OPTIONAL: Final = (
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
RUN: Final = ["cluster", "model", "method", "mode"]
CAUSES: Final = {
    "geo24, llama-1-30b, swarm, online": (
        "the order of nearly simultaneous events decides this run: with link latencies moved by a part in"
        " 10⁷, 3 of 20 draws gave all ten published percentiles"
    ),
    "hetero42, llama-2-70b, helix, online": (
        "the maximum flow of this placement is not unique: with other names of the vertices, which decide"
        " what is found, 6 of 20 searches gave all ten published percentiles"
    ),
    "geo24, llama-2-70b, random, offline": "the summary has its mean over 20 seeds",
    "hetero42, llama-2-70b, helix, offline": (
        "the maximum flow of this placement is not unique, and the reference varies from run to run"
    ),
    "single24, llama-1-30b, helix, online": (
        "one request decides it: the published percentile is that of our next quicker prompt"
    ),
}
"""Known causes of single misses; `tests/golden` has the published runs."""
STILL: Final = {"moving": ", still moving", "undecided": ", undecided"}
"""Words for the trends of long windows."""


def write_report(
    output: Path,
    names: Sequence[str],
    records: Mapping[str, Any],
    *,
    scale: str,
    seeds: int | None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write the report of finished notebooks into their output folder, the same for the same tables.

    Parameters
    ----------
    output : Path
        Folder that the notebooks wrote into.
    names : sequence of str
        Names of the notebooks, in their order.
    records : mapping
        Records of the notebooks, as `take_over` gives them.
    scale : str
        Scale at which they ran.
    seeds : int or None
        Number of seeds that was asked for.
    others : mapping, optional
        Parameters with which notebooks were finished before, by notebook, where these were others.
    """
    numbers = _tables(output, names, records, NUMBERS)
    if not numbers.empty:  # flows of solvers have no interval and no load
        numbers = numbers.reindex(columns=[*numbers, *(name for name in OPTIONAL if name not in numbers)])
    # At small scale there are no causes to look for.
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
    lines += ["", *_made_with(names, scale, seeds, others or {})]
    write_text(output / REPORT, "\n".join(lines) + "\n")
    return output / REPORT


def misses(numbers: pd.DataFrame) -> list[str]:
    """List the published numbers that ours do not meet, each with the evidence."""
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
            f"| {row['figure']} | {run_name(row)} | {row['metric']} | {_plain(row['published'])} |"
            f" {_plain(row['ours'])}"
            f" | {row['difference']:+.1%} | {_why(row, numbers)} |"
        )
    return [*lines, ""]


def _why(row: pd.Series, numbers: pd.DataFrame) -> str:
    """Collect the evidence on a number that is not met, from the numbers themselves."""
    words = []
    if run_name(row) in CAUSES:
        words.append(CAUSES[run_name(row)])
    if row["scheduler"] in ("random", "shortest-queue"):
        if row["mode"] == "offline":
            words.append("the scheduler draws, and the requests of the published run are not on record")
        else:
            words.append("the scheduler draws; same requests, other draws")
    if row["scheduler"] not in DRAWS and not words:
        words.append("the requests are those of the published run, and no cause has been found")
    elif row["seeds"] > 1:  # from the interval of the mean to that of one run more
        reach = (row["high"] - row["mean"]) * (row["seeds"] + 1) ** 0.5
        inside = abs(row["published"] - row["mean"]) <= reach
        words.append(
            f"it is {'within' if inside else 'outside'} the scatter of our seeds: 95 % of single runs are"
            f" expected from {_plain(row['mean'] - reach)} to {_plain(row['mean'] + reach)}"
        )
    same_run = numbers[(numbers[RUN] == row[RUN]).all(axis=1) & (numbers["platform"] == "simulation")]
    throughput = same_run[same_run["metric"] == "decode_tokens_per_s"]
    if row["metric"] != "decode_tokens_per_s" and len(throughput):
        of_run = same_run[same_run["metric"] != "decode_tokens_per_s"]
        words.append(
            f"the throughput of the same run is {throughput['difference'].iloc[0]:+.2%},"
            f" and {of_run['met'].astype(bool).sum()} of its {len(of_run)} percentiles are met"
        )
    return "; ".join(words)


def otherwise_ranked(numbers: pd.DataFrame) -> list[str]:
    """List the figures in which our methods rank in another order than the published ones."""
    ranked = rankings(numbers)
    other = ranked[~ranked["same"]]
    lines = ["## Where the methods rank otherwise", ""]
    if other.empty:
        return [*lines, "Nowhere.", ""]
    lines += ["| figure | figure of | platform | published | ours | |", "|---|---|---|---|---|---|"]
    for _, row in other.iterrows():
        verdict = _distinguished_text(row["distinguished"])
        lines.append(
            f"| {row['figure']} | {row['cluster']}, {row['mode']}, {row['metric']} | {row['platform']}"
            f" | {row['published']} | {row['ours']} | {verdict} |"
        )
    return [*lines, ""]


def what_windows_hide(numbers: pd.DataFrame) -> list[str]:
    """List the runs that the published settings flatter, or that had not settled."""
    runs = of_runs(numbers[numbers["metric"] == "decode_tokens_per_s"])
    if runs.empty:
        return []
    runs = runs[runs["wait_mean"].notna() | runs["long_mean"].notna() | runs["load"].isin(LABELS[1:])]
    lines = [
        "## What the published window and rules hide",
        "",
        "Published runs drop requests that find no free KV cache, which favours short ones; *waiting* is the"
        " same run"
        " with nothing dropped, where dropping moved the mean input by more than 2 %. *From 900 s* is what"
        " runs with nothing dropped decode from 900 s on, where throughput or requests in flight moved in the"
        " published window of a run compared here, or our seeds differ by too much to say (*undecided*)."
        " Online runs are *filling* that are too short to say"
        " whether their queue would go on growing. Decode tokens/s, means over seeds.",
        "",
    ]
    if runs.empty:
        return [*lines, "All runs had settled, and none is flattered.", ""]
    lines += ["| figure | run | published way | waiting | from 900 s | load |", "|---|---|---|---|---|---|"]
    for _, row in runs.iterrows():
        moving = STILL.get(row["long_trend"], "")
        lines.append(
            f"| {row['figure']} | {run_name(row)} | {_plain(row['mean'])} | {_plain(row['wait_mean'])} |"
            f" {_plain(row['long_mean'])}{moving}"
            f" | {row['load'] if isinstance(row['load'], str) else ''} |"
        )
    return [*lines, "", *_latencies_later(numbers), *_turns(numbers)]


def _latencies_later(numbers: pd.DataFrame) -> list[str]:
    """Compare latencies of the long window with those of the published one."""
    latencies = numbers[numbers["metric"].str.contains("latency") & numbers["long_mean"].notna()]
    latencies = latencies.drop_duplicates([*RUN, "scheduler", "placement_hash", "metric"])
    if latencies.empty:
        return []
    moved = latencies["long_mean"] / latencies["mean"] - 1
    far = latencies.iloc[int(moved.abs().argmax())]
    return [
        f"Of {len(latencies)} latencies of these runs, {(moved.abs() > 0.05).sum()} are more than 5 % from"
        f" those of the published window; the furthest is {far['metric']} of {run_name(far)}, with"
        f" {_plain(far['long_mean'])} for {_plain(far['mean'])} s. The pictures of latencies have both.",
        "",
    ]


def _turns(numbers: pd.DataFrame) -> list[str]:
    """List our rankings that turn without the published window and its dropped requests."""
    ranked = rankings(numbers[numbers["platform"] == "simulation"])
    turned = ranked[ranked["turns"] & (ranked["metric"] == "decode_tokens_per_s")]
    if turned.empty:
        return ["No ranking of methods by throughput turns with it.", ""]
    lines = [
        "With these values the methods rank otherwise by throughput than in the published window:",
        "",
        "| figure | run | ours, published window | waiting, from 900 s | |",
        "|---|---|---|---|---|",
    ]
    for _, row in turned.iterrows():
        run = f"{row['cluster']}, {row['model']}, {row['mode']}"
        verdict = _distinguished_text(row["turns_distinguished"]) + (STILL["moving"] if row["moving"] else "")
        lines.append(f"| {row['figure']} | {run} | {row['ours']} | {row['steady']} | {verdict} |")
    return [*lines, ""]


def all_numbers(numbers: pd.DataFrame) -> list[str]:
    """List every published number beside ours, with its interval over seeds."""
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
            f"| {row['figure']} | {run_name(row)} | {row['platform']} | {row['metric']} |"
            f" {_plain(row['published'])}"
            f" | {_plain(row['ours'])} | {row['difference']:+.1%} | {span} | {met} |"
        )
    return [*lines, ""]


def of_runs(numbers: pd.DataFrame) -> pd.DataFrame:
    """Reduce numbers to one row for each run: the first, simulated ones before others."""
    simulated_first = numbers.sort_values("platform", ascending=False, kind="stable")
    return simulated_first.drop_duplicates([*RUN, "scheduler", "placement_hash"]).sort_index()


def run_name(row: pd.Series) -> str:
    """Name a run as the report does."""
    return f"{row['cluster']}, {row['model']}, {row['method']}, {row['mode']}"


def _distinguished_text(apart: bool) -> str:
    return "seeds tell them apart" if apart else "seeds do not"


def _plain(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.3g}"


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
        distinguished = ranked["distinguished"] & ~ranked["same"]
        lines.append(
            f"The methods rank as in the published simulations in **{ranked['same'].sum()} of {len(ranked)}**"
            f" comparisons; in {distinguished.sum()} of the others the {int(numbers['seeds'].max())} seeds of"
            " each run tell the methods apart."
        )
    throughputs = ranked[ranked["metric"] == "decode_tokens_per_s"]
    turned = throughputs[throughputs["turns"]]
    if len(turned):
        where = "; ".join(
            f"{row['figure']}, {row['cluster']}: {row['steady']}"
            + (STILL["moving"] if row["moving"] else "")
            + ("" if row["turns_distinguished"] else ", though seeds do not tell them apart")
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
    """Say what the published windows of online runs, which begin with an empty system, leave out."""
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
    names: Sequence[str], scale: str, seeds: int | None, others: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    before = ", ".join(
        f"{name} ({', '.join(f'{key} {value}' for key, value in before.items())})"
        for name, before in others.items()
        if before
    )
    before = f"; finished before with other parameters: {before}" if before else ""
    packages = ", ".join(f"{package} {version(package)}" for package in RESULTS_DEPEND_ON)
    return [
        "## Made with",
        "",
        f"Notebooks {', '.join(names)}, at {scale} scale, {seeds or 'their own number of'} seeds{before};"
        f" {packages}; Python {platform.python_version()}; {platform.system()} on {platform.machine()},"
        f" {os.cpu_count()} processors. Code {library_digest()}, data {data_digest()}.",
    ]
