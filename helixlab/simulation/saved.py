"""Reading a saved result, and whether it still is what was saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from helixlab.errors import FileFormatError, memory_for
from helixlab.files import content_hash, read_json
from helixlab.simulation.result import FORMAT, TABLES, VERSION, Result, file_hash

__all__ = ["load_result"]


@memory_for("reading a result", "save it with keep_iterations=False, or of a shorter duration_s")
def load_result(path: str | os.PathLike[str]) -> Result:
    """Load what `Result.save` wrote.

    Raises
    ------
    FileFormatError
        The folder is not a result, or part of it is missing, broken or changed.

    Examples
    --------
    >>> import tempfile, helixlab as hx
    >>> cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    >>> placement = hx.load_placement("small10/llama-1-30b/helix")
    >>> result = hx.simulate(cluster, model, placement, workload=hx.offline(duration_s=10, warmup_s=0))
    >>> again = hx.load_result(result.save(tempfile.mkdtemp()))
    >>> again.summary.equals(result.summary)
    True
    """
    folder = Path(path)
    content = read_json(folder / "result.json")
    known = (
        isinstance(content, dict) and content.get("format") == FORMAT and content.get("version") == VERSION
    )
    if not known or not isinstance(content.get("provenance"), dict):
        raise FileFormatError(
            f"{folder} is not a result of this version of helixlab; write it again with Result.save"
        )
    tables = {}
    for name in TABLES:
        try:
            tables[name] = _restored(pd.read_parquet(folder / f"{name}.parquet"))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise FileFormatError(
                f"{folder}: table {name!r} is missing or broken ({reason}); simulate again"
            ) from None
    _check_hash(tables["summary"], content["provenance"], folder)
    for name in TABLES:
        if file_hash(folder / f"{name}.parquet") != content.get("tables", {}).get(name):
            raise FileFormatError(
                f"{folder} was changed after it was written: table {name!r} is another one; simulate again"
            )
    if content_hash(content["provenance"]) != content.get("provenance_hash"):
        raise FileFormatError(
            f"{folder} was changed after it was written: its provenance is another one; simulate again"
        )
    return Result(**tables, provenance=content["provenance"])


def _restored(table: pd.DataFrame) -> pd.DataFrame:
    ends = [name for name in ("sender", "receiver") if name in table]
    number = {name: [int(end) if end.isdecimal() else end for end in table[name]] for name in ends}
    return table.assign(
        **{name: pd.Series(column, index=table.index, dtype=object) for name, column in number.items()}
    )


_STATED_TWICE = (
    ("cluster", "cluster", "name"),
    ("model", "model", "name"),
    ("scheduler", "scheduler", "name"),
    ("execution", "execution", "name"),
    ("mode", "workload", "mode"),
    ("initial_queries", "workload", "initial_queries"),
    ("warmup_s", "workload", "warmup_s"),
    ("duration_s", "workload", "duration_s"),
    ("on_full", "settings", "on_full"),
    ("seed", "workload", "seed"),
)
"""Column of the summary, and where in the provenance the same is said."""


def _check_hash(summary: pd.DataFrame, provenance: dict[str, Any], folder: Path) -> None:
    """What it names must be what it states: its placement by content, the rest by name."""
    placement = provenance.get("placement", {})
    keys = ("layers", "links", "kv_capacity_token_layers")
    stated = {content_hash({key: placement.get(key) for key in keys}), placement.get("hash")}
    stated |= set(summary.get("placement_hash", ()))
    names = {placement.get("name"), *summary.get("placement", ())}
    differing = ["placement"] if len(stated) > 1 or len(names) > 1 else []
    for what, part, key in _STATED_TWICE:
        of_part = provenance.get(part, {})
        if any(value != of_part.get(key) for value in summary.get(what, ())):
            differing.append(what)
    if differing:
        raise FileFormatError(
            f"{folder} was changed after it was written: its {differing[0]} is not the one it says it"
            " ran with; simulate again"
        )
