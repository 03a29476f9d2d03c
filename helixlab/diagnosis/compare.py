"""`compare`: the settings in which runs differ, and the causes that explain the difference."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from helixlab._equality import ByContent
from helixlab.diagnosis.losses import losses
from helixlab.diagnosis.measures import facts_of
from helixlab.diagnosis.text import joined, number, percent
from helixlab.engine.constants import PARTS
from helixlab.errors import SimulationError, memory_for
from helixlab.simulation import Result
from helixlab.simulation.provenance import library_in_words
from helixlab.simulation.simulate import KV_RULES

__all__ = ["Comparison", "compare", "difference_in_words", "differing_settings", "setting_in_words"]

MOST_CAUSES: Final = 3
"""Number of causes named per pair of runs."""
LEVEL: Final = 0.005
"""Fraction of the throughput by which runs may differ and still serve as much."""
LEAST_PART: Final = 0.05
"""Fraction of the difference below which a cause is not named."""
METRICS: Final = (
    "decode_tokens_per_s",
    "prompt_latency_mean_s",
    "decode_latency_mean_s",
    "max_flow_tokens_per_s",
    "upper_bound_tokens_per_s",
)
"""Metrics of the summary that stand side by side."""
_NAMED: Final = ("cluster", "model", "placement", "scheduler", "execution")
"""Parts of the provenance with a name and a content."""
_NOT_RESULTS: Final = ("sample_step_s",)
"""Settings that change no metric."""
_OF_ONE_MODE: Final = ("initial_requests", "rate_tokens_per_s", "arrivals")
"""Settings that mean something offline only, or online only."""
_BY_MODE: Final = ("kv_high_water_mark", "expected_output_ratio")
"""Settings with different defaults offline and online, in the order of `KV_RULES`."""
_UNITS: Final = {"_tokens_per_s": " tokens/s", "_s": " s"}
"""Endings of setting names, and the units they stand for."""


def differing_settings(results: Sequence[Result]) -> dict[str, list[Any]]:
    """Find the settings that are not the same in all results, each with its value in each result.

    Things with a name are compared by their content. Where the names are the same and the contents are
    not, the value is the name with the content hash. Settings that follow from the mode, offline or online,
    are left out beside it.

    Parameters
    ----------
    results : sequence of Result
        Results of `simulate`.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> runs = [
    ...     hx.simulate(cluster, model, placement, scheduler=name, workload=hx.offline(duration_s=10))
    ...     for name in ("helix", "swarm")
    ... ]
    >>> differing_settings(runs)
    {'scheduler': ['helix', 'swarm']}
    """
    sources = [result.provenance for result in results]
    differing: dict[str, list[Any]] = {}
    for part in _NAMED:
        contents = [_content(source[part]) for source in sources]
        if any(content != contents[0] for content in contents):
            names = [str(source[part]["name"]) for source in sources]
            if len(set(names)) < len({str(content) for content in contents}):
                names = [_with_content(source[part]) for source in sources]
            differing[part] = list(names)
    codes = [library_in_words(source["versions"]) for source in sources]
    if len(set(codes)) > 1:
        differing["helixlab"] = list(codes)
    plain = [_plain(source) for source in sources]
    for key in plain[0]:
        values = [each[key] for each in plain]
        if any(value != values[0] for value in values):
            differing[key] = values
    return {key: values for key, values in differing.items() if not _follows(key, differing)}


def _plain(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without a content of their own; requests are named by their source."""
    settings = {"small_links": "paper", **source["workload"], **source["settings"]}  # where it is not named
    trace, given = settings.pop("trace"), settings.pop("requests_hash")
    settings["requests"] = f"own requests {given[:8]}" if given else trace
    return {key: value for key, value in settings.items() if key not in _NOT_RESULTS}


def _follows(key: str, differing: Mapping[str, Sequence[Any]]) -> bool:
    """Tell whether a setting differs only because the mode does."""
    modes = differing.get("mode")
    if modes is None:
        return False
    if key in _BY_MODE:
        usual = [KV_RULES[mode][_BY_MODE.index(key)] for mode in modes]
        return list(differing[key]) == usual
    return key in _OF_ONE_MODE and len(set(zip(modes, differing[key], strict=True))) == len(set(modes))


def _content(part: Mapping[str, Any]) -> Any:
    """Return what identifies a thing with a name: its hash, or its parameters."""
    return part["hash"] if "hash" in part else {key: part[key] for key in part}


def _with_content(part: Mapping[str, Any]) -> str:
    name = str(part["name"])
    if "hash" in part:
        return f"{name} with content {part['hash'][:8]}"
    parameters = part.get("parameters")
    return f"{name} with {parameters}" if parameters else name


def setting_in_words(name: str, values: Sequence[Any]) -> str:
    """Write the value of a setting in each run, as one sentence.

    Examples
    --------
    >>> setting_in_words("warmup_s", [60.0, 900.0])
    'Warmup: 60 s in run 1, 900 s in run 2.'
    >>> setting_in_words("placement", ["a", "b"])
    'Placement: a in run 1, b in run 2.'
    """
    shown = [_shown(value, _UNITS.get(_unit(name), "")) for value in values]
    each = ", ".join(f"{value} in run {at}" for at, value in enumerate(shown, 1))
    label = _label(name)
    return f"{label[0].upper()}{label[1:]}: {each}."


def _shown(value: Any, unit: str) -> str:
    if isinstance(value, float) or (unit and value is not None):
        return f"{value:g}{unit}"
    return "none" if value is None else str(value)


def _unit(name: str) -> str:
    return next((unit for unit in _UNITS if name.endswith(unit)), "")


def _label(name: str) -> str:
    return name.removesuffix(_unit(name)).replace("_", " ").replace("kv ", "KV ")


def difference_in_words(differing: Mapping[str, Sequence[Any]]) -> str:
    """Write what runs differ in, as one sentence, with a warning where that is more than one setting.

    Examples
    --------
    >>> difference_in_words({"placement": ["a", "b"], "scheduler": ["helix", "swarm"]})
    'These runs differ in placement AND scheduler, so that no single one explains the difference.'
    >>> difference_in_words({"scheduler": ["helix", "swarm"]})
    'These runs differ in scheduler only.'
    >>> difference_in_words({})
    'These runs have the same settings.'
    """
    if not differing:
        return "These runs have the same settings."
    names = [_label(name) for name in differing]
    if len(names) == 1:
        return f"These runs differ in {names[0]} only."
    return f"These runs differ in {' AND '.join(names)}, so that no single one explains the difference."


@dataclass(frozen=True, eq=False)
class Comparison(ByContent):
    """Comparison of runs side by side.

    Parameters
    ----------
    settings : DataFrame
        One row per setting that is not the same in all, one column per run.
    metrics : DataFrame
        One row per run: placement, scheduler, partial, served_tokens_per_s and the main metrics of its
        summary.
    causes : DataFrame
        One row per cause of lost tokens/s, one column per run, in tokens/s; the cause in which the runs
        differ most comes first.
    text : str
        The same in words, one sentence per line.
    """

    settings: pd.DataFrame
    metrics: pd.DataFrame
    causes: pd.DataFrame
    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Comparison of {len(self.metrics)} runs\n{self.text}"


@memory_for("comparing results", "compare fewer, or of a shorter duration_s")
def compare(results: Sequence[Result]) -> Comparison:
    """Find the settings in which runs differ, and the causes that explain how their throughput differs.

    Every run is compared with the first. What a run serves more is what it loses less: the tokens/s lost to
    each cause (``helixlab.diagnosis.losses``) add up to the distance from the upper bound in each run.

    Parameters
    ----------
    results : sequence of Result
        Two or more results of `simulate`.

    Returns
    -------
    Comparison

    Raises
    ------
    SimulationError
        There are fewer than two results, or something else.

    Warns
    -----
    UserWarning
        The runs differ in more than one setting, so that none alone explains the difference, or one was
        stopped early.

    Examples
    --------
    >>> import helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> few, many = (
    ...     hx.simulate(
    ...         cluster, model, placement, scheduler="swarm", keep_breakdown=True,
    ...         workload=hx.offline(initial_requests=count, warmup_s=30, duration_s=60, rng=0),
    ...     )
    ...     for count in (2, 20)
    ... )
    >>> comparison = hx.compare([few, many])
    >>> comparison.settings
                     1   2
    setting
    initial_requests  2  20
    >>> comparison.causes.index[0]
    'few requests'
    """
    runs = list(results) if isinstance(results, Sequence) else [results]
    if len(runs) < 2 or not all(isinstance(run, Result) for run in runs):
        raise SimulationError("compare needs two or more results: compare([first, second])")
    differing = differing_settings(runs)
    numbers = [str(at) for at in range(1, len(runs) + 1)]
    stopped = [at for at, run in zip(numbers, runs, strict=True) if run.metrics["partial"]]
    if stopped:
        warnings.warn(_stopped_in_words(stopped), stacklevel=3)
    difference = difference_in_words(differing)
    if len(differing) > 1:
        warnings.warn(difference, stacklevel=3)
    settings = pd.DataFrame(differing, index=pd.Index(numbers), dtype=object).T.rename_axis("setting")
    metrics = pd.DataFrame([_metrics(run) for run in runs], index=pd.Index(numbers, name="run"))
    without = [at for at, run in zip(numbers, runs, strict=True) if PARTS[0] not in run.iterations]
    mixed = without if len(without) < len(runs) else []
    alike = [_without_breakdown(run) for run in runs] if mixed else runs
    tables = [losses(run).set_index("cause")["tokens_per_s"] for run in alike]
    causes = pd.concat(tables, axis=1, keys=numbers).fillna(0.0).rename_axis("cause")
    spread = causes.max(axis=1) - causes.min(axis=1)
    causes = causes.loc[spread.sort_values(ascending=False, kind="stable").index]
    lines = [difference, *(setting_in_words(name, values) for name, values in differing.items())]
    if stopped:
        lines.append(_stopped_in_words(stopped))
    if mixed:
        lines.append(
            f"Simulated without keep_breakdown: {_runs(mixed)}. So no run is explained by the time of tokens."
        )
    lines += [_against_the_first(metrics, causes, other) for other in numbers[1:]]
    return Comparison(settings, metrics, causes, "\n".join(lines))


def _metrics(result: Result) -> dict[str, Any]:
    row = result.metrics
    named = {name: row[name] for name in ("placement", "scheduler", "partial")}
    named["served_tokens_per_s"] = facts_of(result).served_tokens_per_s
    return named | {name: row[name] for name in METRICS}


def _without_breakdown(result: Result) -> Result:
    """Return the result as if it had not noted where time goes, so that all runs are explained alike."""
    parts = [part for part in PARTS if part in result.iterations]
    nodes = result.nodes.assign(batch_wait_s=np.nan, kv_wait_s=np.nan)
    return replace(result, iterations=result.iterations.drop(columns=parts), nodes=nodes)


def _runs(numbers: list[str]) -> str:
    return joined([f"run {number}" for number in numbers])


def _stopped_in_words(stopped: list[str]) -> str:
    return f"Stopped early, with metrics of a part only: {_runs(stopped)}."


def _against_the_first(metrics: pd.DataFrame, causes: pd.DataFrame, other: str) -> str:
    """Write how run `other` differs from the first, and why: the causes to which it loses more or less."""
    served, bound = metrics["served_tokens_per_s"], metrics["upper_bound_tokens_per_s"]
    gain = float(served[other] - served["1"])
    text = f"Run {other} serves {number(float(served[other]))} tokens/s, "
    if abs(gain) <= LEVEL * float(served.max()):
        return f"{text}the same as run 1 to within {percent(LEVEL)}."
    text += f"{number(abs(gain))} {'more' if gain >= 0 else 'less'} than run 1."
    less_lost = (causes["1"] - causes[other]).rename("tokens_per_s")
    higher = float(bound[other] - bound["1"])
    least = LEAST_PART * max(abs(gain), float(less_lost.abs().max()) if len(less_lost) else 0.0)
    named = [
        (f"{cause}, {number(abs(amount))} {'less' if amount > 0 else 'more'} lost", amount * gain > 0)
        for cause, amount in less_lost.sort_values(key=abs, ascending=False, kind="stable").items()
        if abs(amount) > least
    ][:MOST_CAUSES]
    if abs(higher) > least:
        direction = "higher" if higher > 0 else "lower"
        machines = f"the machines, whose upper bound is {number(abs(higher))} {direction}"
        named.insert(0, (machines, higher * gain > 0))
    for label, agreeing in (("Main reasons", True), ("Against that", False)):
        reasons = "; ".join(words for words, agrees in named if agrees == agreeing)
        text += f" {label}: {reasons}." if reasons else ""
    return text
