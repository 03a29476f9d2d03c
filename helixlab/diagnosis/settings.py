"""In which settings runs differ, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from helixlab.simulation import Result

__all__ = ["difference_in_words", "differing_settings"]

_NAMED: Final = ("cluster", "model", "placement", "scheduler", "execution")
_PLAIN: Final = ("workload", "settings")
_NOT_RESULTS: Final = ("sample_step_s",)
"""Settings that change no figure."""


def differing_settings(results: Sequence[Result]) -> dict[str, list[Any]]:
    """What is not the same in all results: setting to its value in each.

    Things with a name are compared by their content. Where the names are the same and the contents are
    not, the value is the name with the content hash.

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
    codes = [_code(source["versions"]) for source in sources]
    if len(set(codes)) > 1:
        differing["helixlab"] = list(codes)
    for what in _PLAIN:
        keys = [key for key in sources[0][what] if key not in _NOT_RESULTS]
        for key in keys:
            values = [source[what].get(key) for source in sources]
            if any(value != values[0] for value in values):
                differing[key] = values
    return differing


def _content(part: Mapping[str, Any]) -> Any:
    """Of a thing with a name what makes it what it is: its hash, or its parameters."""
    return part["hash"] if "hash" in part else {key: part[key] for key in part}


def _code(versions: Mapping[str, Any]) -> str:
    """Which helixlab ran: two of one version can differ in their code."""
    return f"{versions.get('helixlab')} ({str(versions.get('helixlab_code'))[:8]})"


def _with_content(part: Mapping[str, Any]) -> str:
    name = str(part["name"])
    if "hash" in part:
        return f"{name} with content {part['hash'][:8]}"
    parameters = part.get("parameters")
    return f"{name} with {parameters}" if parameters else name


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
    names = [name.replace("_", " ") for name in differing]
    if len(names) == 1:
        return f"These runs differ in {names[0]} only."
    which = "neither" if len(names) == 2 else "none of them"
    return f"These runs differ in {' AND '.join(names)}, so that {which} alone explains what differs."
