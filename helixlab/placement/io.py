"""Bundled placements, and placement files."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import cache
from operator import attrgetter
from typing import Any, Final

from helixlab._data import data_file, names_in
from helixlab._io import check_format, json_ready, parse_json, read_text, write_text
from helixlab._naming import find_namesake, fold_name, mark_name
from helixlab._validation import LARGEST, as_whole, plain_amount, shown
from helixlab.cluster import SINK, SOURCE
from helixlab.cluster.io import cluster_from_json, cluster_to_json
from helixlab.errors import FileFormatError, PlacementError, UnknownNameError, name_source
from helixlab.placement.placement import End, NodeLayers, Placement, PlanReport

__all__ = ["load_placement", "placement_names", "placement_to_dict", "save_placement"]

PLANNED: Final = "planned by helixlab"
"""Source of the placements that planners find, which are named by their method as the published ones are."""
FORMAT: Final = "helixlab-placement"
VERSION: Final = 1
_CAPACITIES: Final = "kv_capacity_token_layers"
_TEXTS: Final = ("name", "cluster", "model", "method", "source")
_KEYS: Final = ("format", "version", *_TEXTS, "layers", "links", _CAPACITIES, "part", "report")
_NODE: Final = re.compile(r"0|[1-9][0-9]{0,8}")


def placement_names() -> list[str]:
    """List the names of the bundled placements, ``cluster/model/method``.

    Examples
    --------
    >>> "single24/llama-2-70b/helix" in placement_names()
    True
    """
    return names_in("placements")


def placement_to_dict(placement: Placement) -> dict[str, Any]:
    """Convert a placement to plain data, as `save_placement` writes it.

    Examples
    --------
    >>> content = placement_to_dict(load_placement("single24/llama-2-70b/helix"))
    >>> content["layers"][0]
    [0, 7, 11]
    """
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    content |= {key: getattr(placement, key) for key in _TEXTS}
    content |= placement.layout()
    if placement.part is not None:
        content["part"] = json.loads(cluster_to_json(placement.part))
    if placement.report is not None:
        content["report"] = asdict(placement.report)
    return content


def save_placement(placement: Placement, path: str | os.PathLike[str]) -> None:
    """Write a placement to a JSON file, as a whole or not at all.

    Examples
    --------
    >>> import os, tempfile
    >>> placement = load_placement("small10/llama-1-30b/helix")
    >>> path = os.path.join(tempfile.mkdtemp(), "mine.json")
    >>> save_placement(placement, path)
    >>> load_placement(path) == placement
    True
    """
    content = placement_to_dict(placement)
    lines = [f"{json.dumps(key)}: {json.dumps(json_ready(value))}" for key, value in content.items()]
    write_text(path, "{" + ",\n ".join(lines) + "}\n")


def load_placement(name_or_path: str | os.PathLike[str]) -> Placement:
    """Load a bundled placement by name, or one of your own from a JSON file.

    Raises
    ------
    UnknownNameError
        There is no bundled placement of this name.
    FileFormatError, PlacementError, ClusterError
        The file cannot be read or states something impossible.

    Warns
    -----
    UserWarning
        The file, or the placement in it, has the name of a published placement but another content.

    Examples
    --------
    >>> load_placement("single24/llama-2-70b/helix")
    Placement('single24/llama-2-70b/helix' c17a8112: helix, llama-2-70b on single24, 24 nodes, 31 links)
    """
    name = str(name_or_path)
    known = placement_names()
    if name in known:
        *folders, last = name.split("/")
        text = data_file("placements", *folders, f"{last}.json").read_text(encoding="utf-8")
        return _from_dict(parse_json(text, name), name)
    elif name.endswith(".ini"):
        raise FileFormatError(f"{name} names no cluster and model; call read_placement_ini with both")
    elif name.endswith(".json") or os.path.isfile(name):
        text = read_text(name)
    else:
        raise UnknownNameError("placement", name, known)
    placement = _from_dict(parse_json(text, name), name)
    for mismatch in name_mismatches(placement, name):
        warnings.warn(mismatch, stacklevel=2)
    return placement


def shown_name(placement: Placement) -> str:
    """Name a placement for results: never as a published one that has another content.

    Planners name placements ``cluster/model/method`` as the published ones are named. Where the content
    differs from the published one, its hash is added to the name.

    Examples
    --------
    >>> from dataclasses import replace
    >>> placement = load_placement("small10/llama-1-30b/helix")
    >>> shown_name(placement)
    'small10/llama-1-30b/helix'
    >>> shown_name(replace(placement, kv_capacity_token_layers={0: 500_000}))
    'small10/llama-1-30b/helix@9f031fc3'
    >>> shown_name(replace(placement, name="mine"))
    'mine'
    """
    published = _published(placement.name)
    if published is None or published.content_hash == placement.content_hash:
        return placement.name
    return mark_name(placement.name, placement.content_hash)


def name_mismatches(
    placement: Placement, path: str, content: Callable[[Placement], Any] = attrgetter("content_hash")
) -> Iterator[str]:
    """Describe what the names of a placement and of its file claim wrongly, in one sentence each.

    Two placements are the same if their `content` is; for a file that states only layers, those are compared.
    """
    folder, own = f"{placement.cluster}/{placement.model}/", content(placement)
    methods = {name.removeprefix(folder): name for name in placement_names() if name.startswith(folder)}
    equals = [name for name in methods.values() if content(load_placement(name)) == own]
    held = f"it holds {equals[0]!r}" if equals else "its content is none of the published ones"
    rename = "rename it, or results are taken for those of another placement"
    # Planners name a placement by its method; that is no claim to be the published one.
    planned = placement.source == PLANNED and not equals
    published = _published(placement.name)
    if not planned and published is not None and content(published) != own:
        yield f"{path} calls its placement {placement.name!r}, but {held}; {rename}"
    stem = fold_name(os.path.splitext(os.path.basename(path))[0])
    right = {fold_name(placement.name), *equals}
    if stem in methods:
        meant = [methods[stem]]
    elif equals or placement.method in methods:
        meant = [name for method, name in methods.items() if _is_word(method, stem)]
        right.add(methods.get(placement.method, ""))
    else:  # a word in a longer name may mean something else
        meant = []
    if meant and not right & set(meant):
        yield f"{path} is named after {meant[0]!r}, but {held} and is called {placement.name!r}; {rename}"


def _is_word(method: str, stem: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(method)}(?![a-z0-9])", stem) is not None


@cache
def _published(name: str) -> Placement | None:
    """Return the published placement that a reader takes one of this name to be."""
    known = find_namesake(name, placement_names())
    return None if known is None else load_placement(known)


def _whole(value: Any, what: str, path: str) -> int:
    mend = f"a whole number, 0 or more and at most {LARGEST:g}"
    return as_whole(value, f"{path}: {what}", least=0, most=int(LARGEST), mend=mend, error=FileFormatError)


def _end(value: Any, path: str) -> End:
    if value in (SOURCE, SINK):
        return str(value)
    return _whole(value, f"an end of a link that is not {SOURCE!r} or {SINK!r}", path)


def _rows(content: Mapping[str, Any], key: str, columns: str, path: str) -> list[list[Any]]:
    """Check the rows of a table, each with as many values as `columns` names."""
    rows, width = content.get(key), len(columns.split(", "))
    if not isinstance(rows, list):
        raise FileFormatError(f"{path}: {key!r} is {shown(rows)}; give a list of [{columns}]")
    for row in rows:
        if not isinstance(row, list) or len(row) != width:
            raise FileFormatError(f"{path}: {key!r} holds {shown(row)}; give [{columns}]")
    return rows


def _capacities(content: Any, path: str) -> dict[int, int]:
    if not isinstance(content, dict):
        raise FileFormatError(
            f"{path}: {_CAPACITIES!r} is {shown(content)}; give an object, node to token-layers"
        )
    for key in content:
        if not _NODE.fullmatch(key):
            raise FileFormatError(
                f'{path}: {_CAPACITIES!r} names node {shown(key)}; write its index, as in "7"'
            )
    return {int(key): _whole(value, "a KV capacity", path) for key, value in content.items()}


def _from_dict(content: Any, path: str) -> Placement:
    check_format(content, path, "placement", FORMAT, VERSION)
    for key in content:
        if key not in _KEYS:
            raise FileFormatError(
                f"{path} has the unknown key {shown(key)}; leave it out, known are: {', '.join(_KEYS)}"
            )
    texts = {key: content.get(key, "" if key == "source" else None) for key in _TEXTS}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise FileFormatError(f"{path}: {key!r} is {shown(text)}; give it as text")
    layers = [
        NodeLayers(*(_whole(value, "a node or layer", path) for value in row))
        for row in _rows(content, "layers", "node, first layer, end layer", path)
    ]
    links = [(_end(a, path), _end(b, path)) for a, b in _rows(content, "links", "sender, receiver", path)]
    capacities = _capacities(content.get(_CAPACITIES, {}), path)
    part, report = content.get("part"), content.get("report")
    with name_source(path, PlacementError):
        return Placement(
            **texts,
            layers=tuple(layers),
            links=tuple(links),
            kv_capacity_token_layers=capacities,
            part=None if part is None else cluster_from_json(json.dumps(part), f"part of {path}"),
            report=None if report is None else _report(report, path),
        )


def _number(value: Any, path: str) -> float:
    number = plain_amount(value)
    if type(number) is not float or not abs(number) <= LARGEST:
        raise FileFormatError(f"{path}: 'report' holds {shown(value)}; give a number or null")
    return number


def _report(content: Any, path: str) -> PlanReport:
    names = tuple(f.name for f in fields(PlanReport))
    if not isinstance(content, dict) or set(content) != set(names) or not isinstance(content["status"], str):
        raise FileFormatError(f"{path}: 'report' is {shown(content)}; give an object with {', '.join(names)}")
    objective, bound = content["objective_tokens_per_s"], content["upper_bound_tokens_per_s"]
    trace = []
    for row in _rows(content, "trace", "seconds, incumbent, bound", path):
        # JSON has no infinities: a planner without an incumbent or a bound leaves null.
        seconds, incumbent, limit = (math.nan if value is None else _number(value, path) for value in row)
        trace.append((seconds, incumbent, limit))
    return PlanReport(
        status=content["status"],
        objective_tokens_per_s=None if objective is None else _number(objective, path),
        upper_bound_tokens_per_s=None if bound is None else _number(bound, path),
        wall_s=_number(content["wall_s"], path),
        trace=tuple(trace),
    )
