"""In which settings runs differ, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from helixlab.simulation import Result
from helixlab.simulation.provenance import library_in_words
from helixlab.simulation.run import KV_RULES

__all__ = ["difference_in_words", "differing_settings", "setting_in_words"]

_NAMED: Final = ("cluster", "model", "placement", "scheduler", "execution")
_NOT_RESULTS: Final = ("sample_step_s",)
"""Settings that change no figure."""
_OF_ONE_MODE: Final = ("initial_queries", "rate_tokens_per_s", "arrivals")
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
