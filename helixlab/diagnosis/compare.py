"""`compare`: in what runs differ, and which causes explain the difference."""

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
from helixlab.diagnosis.text import listed, number
from helixlab.engine.constants import PARTS
from helixlab.errors import SimulationError, memory_for
from helixlab.simulation import Result
from helixlab.simulation.provenance import library_in_words
from helixlab.simulation.simulate import KV_RULES

__all__ = ["Comparison", "compare", "difference_in_words", "differing_settings", "setting_in_words"]


_NAMED: Final = ("cluster", "model", "placement", "scheduler", "execution")
_NOT_RESULTS: Final = ("sample_step_s",)
"""Settings that change no figure."""
_OF_ONE_MODE: Final = ("initial_requests", "rate_tokens_per_s", "arrivals")
"""Settings that mean something offline only, or online only."""
_BY_MODE: Final = ("kv_high_water_mark", "expected_output_ratio")
"""Settings that have another usual value offline than online, in the order of `KV_RULES`."""
_UNITS: Final = {"_tokens_per_s": " tokens per second", "_s": " seconds"}


def differing_settings(results: Sequence[Result]) -> dict[str, list[Any]]:
    """What is not the same in all results: setting to its value in each.

    Things with a name are compared by their content. Where the names are the same and the contents are
    not, the value is the name with the content hash. What follows from the mode, offline or online, is not
    named beside it.

    Parameters
    ----------
    results : sequence of Result
        Of `simulate`.

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
    for what in _NAMED:
        contents = [_content(source[what]) for source in sources]
        if any(content != contents[0] for content in contents):
            names = [str(source[what]["name"]) for source in sources]
            if len(set(names)) < len({str(content) for content in contents}):
                names = [_with_content(source[what]) for source in sources]
            differing[what] = list(names)
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
    """Settings without a content of their own; requests are named by where they come from."""
    settings = {"small_links": "paper", **source["workload"], **source["settings"]}  # where it is not named
    trace, given = settings.pop("trace"), settings.pop("requests_hash")
    settings["requests"] = f"own requests {given[:8]}" if given else trace
    return {key: value for key, value in settings.items() if key not in _NOT_RESULTS}


def _follows(key: str, differing: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a setting is another one because the mode is."""
    modes = differing.get("mode")
    if modes is None:
        return False
    if key in _BY_MODE:
        usual = [KV_RULES[mode][_BY_MODE.index(key)] for mode in modes]
        return list(differing[key]) == usual
    return key in _OF_ONE_MODE and len(set(zip(modes, differing[key], strict=True))) == len(set(modes))


def _content(part: Mapping[str, Any]) -> Any:
    """Of a thing with a name what makes it what it is: its hash, or its parameters."""
    return part["hash"] if "hash" in part else {key: part[key] for key in part}


def _with_content(part: Mapping[str, Any]) -> str:
    name = str(part["name"])
    if "hash" in part:
        return f"{name} with content {part['hash'][:8]}"
    parameters = part.get("parameters")
    return f"{name} with {parameters}" if parameters else name


def setting_in_words(name: str, values: Sequence[Any]) -> str:
    """One sentence: the value of a setting in each run.

    Examples
    --------
    >>> setting_in_words("warmup_s", [60.0, 900.0])
    'Warmup: 60 seconds in run 1, 900 seconds in run 2.'
    >>> setting_in_words("placement", ["a", "b"])
    'Placement: a in run 1, b in run 2.'
    """
    shown = [_shown(value, _UNITS.get(_unit(name), "")) for value in values]
    each = ", ".join(f"{value} in run {at}" for at, value in enumerate(shown, 1))
    words = _spoken(name)
    return f"{words[0].upper()}{words[1:]}: {each}."


def _shown(value: Any, unit: str) -> str:
    if isinstance(value, float) or (unit and value is not None):
        return f"{value:g}{unit}"
    return "none" if value is None else str(value)


def _unit(name: str) -> str:
    return next((unit for unit in _UNITS if name.endswith(unit)), "")


def _spoken(name: str) -> str:
    return name.removesuffix(_unit(name)).replace("_", " ").replace("kv ", "KV ")


def difference_in_words(differing: Mapping[str, Sequence[Any]]) -> str:
    """One sentence: what runs differ in, with a warning where that is more than one thing.

    Examples
    --------
    >>> difference_in_words({"placement": ["a", "b"], "scheduler": ["helix", "swarm"]})
    'These runs differ in placement AND scheduler, so that neither alone explains what differs.'
    >>> difference_in_words({"scheduler": ["helix", "swarm"]})
    'These runs differ in scheduler only.'
    >>> difference_in_words({})
    'These runs have the same settings.'
    """
    if not differing:
        return "These runs have the same settings."
    names = [_spoken(name) for name in differing]
    if len(names) == 1:
        return f"These runs differ in {names[0]} only."
    which = "neither" if len(names) == 2 else "none of them"
    return f"These runs differ in {' AND '.join(names)}, so that {which} alone explains what differs."


MOST_CAUSES: Final = 3
LEVEL: Final = 0.005
"""Part of the throughput by which runs may differ and still serve as much."""
LEAST_PART: Final = 0.05
"""Of the difference, below which a cause is not named."""
FIGURES: Final = (
    "decode_tokens_per_s",
    "prompt_latency_mean_s",
    "decode_latency_mean_s",
    "max_flow_tokens_per_s",
    "upper_bound_tokens_per_s",
)


@dataclass(frozen=True, eq=False)
class Comparison(ByContent):
    """Runs side by side.

    Parameters
    ----------
    settings : DataFrame
        One row a setting that is not the same in all, one column a run.
    figures : DataFrame
        One row a run: what it is called, whether it is partial, served_tokens_per_s and the main figures of
        its summary.
    causes : DataFrame
        One row a cause of lost tokens/s, one column a run, in tokens/s; the order is that of how much the
        runs differ in it.
    text : str
        The same in words, a sentence a line.
    """

    settings: pd.DataFrame
    figures: pd.DataFrame
    causes: pd.DataFrame
    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Comparison of {len(self.figures)} runs\n{self.text}"


@memory_for("comparing results", "compare fewer, or of a shorter duration_s")
def compare(results: Sequence[Result]) -> Comparison:
    """Say in which settings runs differ, and which causes explain how their throughput differs.

    Every run is set against the first. What a run serves more is what it loses less: the tokens/s lost to
    each cause (``helixlab.diagnosis.losses``) add up to the distance from the upper bound in each run.

    Parameters
    ----------
    results : sequence of Result
        Two or more.

    Returns
    -------
    Comparison

    Raises
    ------
    SimulationError
        Fewer than two, or something else than results.

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
    stopped = [at for at, run in zip(numbers, runs, strict=True) if run.summary["partial"].item()]
    if stopped:
        warnings.warn(_stopped_in_words(stopped), stacklevel=3)
    sentence = difference_in_words(differing)
    if len(differing) > 1:
        warnings.warn(sentence, stacklevel=3)
    settings = pd.DataFrame(differing, index=pd.Index(numbers), dtype=object).T.rename_axis("setting")
    figures = pd.DataFrame([_figures(run) for run in runs], index=pd.Index(numbers, name="run"))
    without = [at for at, run in zip(numbers, runs, strict=True) if not _tells_times(run)]
    mixed = without if len(without) < len(runs) else []
    like = [_without_times(run) for run in runs] if mixed else runs
    tables = [losses(run).set_index("cause")["tokens_per_s"] for run in like]
    causes = pd.concat(tables, axis=1, keys=numbers).fillna(0.0).rename_axis("cause")
    spread = causes.max(axis=1) - causes.min(axis=1)
    causes = causes.loc[spread.sort_values(ascending=False, kind="stable").index]
    lines = [sentence, *(setting_in_words(name, values) for name, values in differing.items())]
    if stopped:
        lines.append(_stopped_in_words(stopped))
    if mixed:
        lines.append(_mixed_in_words(mixed))
    lines += [_in_words(figures, causes, other) for other in numbers[1:]]
    return Comparison(settings, figures, causes, "\n".join(lines))


def _figures(result: Result) -> dict[str, Any]:
    row = result.summary.iloc[0]
    named = {name: row[name] for name in ("placement", "scheduler", "partial")}
    named["served_tokens_per_s"] = facts_of(result).served_tokens_per_s
    return named | {name: row[name] for name in FIGURES}


def _tells_times(result: Result) -> bool:
    return PARTS[0] in result.iterations


def _without_times(result: Result) -> Result:
    """As if it had not been noted where time goes, so that all runs are told alike."""
    parts = [part for part in PARTS if part in result.iterations]
    nodes = result.nodes.assign(batch_wait_s=np.nan, kv_wait_s=np.nan)
    return replace(result, iterations=result.iterations.drop(columns=parts), nodes=nodes)


def _mixed_in_words(without: list[str]) -> str:
    one = len(without) == 1
    return (
        f"Run{'' if one else 's'} {listed(without)} {'was' if one else 'were'} simulated without"
        " keep_breakdown, so that for none of the runs it is told why nodes waited."
    )


def _stopped_in_words(stopped: list[str]) -> str:
    one = len(stopped) == 1
    return (
        f"Run{'' if one else 's'} {listed(stopped)} {'was' if one else 'were'} stopped early, so that"
        f" {'its' if one else 'their'} figures are of a part only."
    )


def _in_words(figures: pd.DataFrame, causes: pd.DataFrame, other: str) -> str:
    """How run `other` differs from the first, and why: the causes of which it loses more or less."""
    served, bound = figures["served_tokens_per_s"], figures["upper_bound_tokens_per_s"]
    gain = float(served[other] - served["1"])
    text = f"Run {other} serves {number(float(served[other]))} tokens per second, "
    if abs(gain) <= LEVEL * float(served.max()):
        return f"{text}as many as run 1 to within half a percent."
    text += f"{number(abs(gain))} {'more' if gain >= 0 else 'less'} than run 1"
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
    speak_for = "; ".join(words for words, agrees in named if agrees)
    speak_against = "; ".join(words for words, agrees in named if not agrees)
    sentences = [text]
    if speak_for:
        sentences.append(f"What explains it most: {speak_for}")
    if speak_against:
        sentences.append(f"Against it stands: {speak_against}")
    return f"{'. '.join(sentences)}."
