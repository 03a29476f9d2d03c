"""Reading of a saved result, with checks that it is what was saved."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Final

import pandas as pd

from helixlab._io import content_hash, read_json
from helixlab.errors import FileFormatError, memory_for
from helixlab.simulation.columns import TABLES
from helixlab.simulation.result import FORMAT, VERSION, Result, bytes_hash

__all__ = ["load_result"]

_STATED_TWICE: Final = (
    ("cluster", "cluster", "name"),
    ("model", "model", "name"),
    ("scheduler", "scheduler", "name"),
    ("execution", "execution", "name"),
    ("mode", "workload", "mode"),
    ("initial_requests", "workload", "initial_requests"),
    ("warmup_s", "workload", "warmup_s"),
    ("duration_s", "workload", "duration_s"),
    ("on_full", "settings", "on_full"),
    ("seed", "workload", "seed"),
)
"""Columns of the summary, and the part and key of the provenance that state the same."""


@memory_for("reading a result", "save it with keep_iterations=False, or of a shorter duration_s")
def load_result(path: str | os.PathLike[str]) -> Result:
    """Load a result that `Result.save` wrote.

    Parameters
    ----------
    path : path
        Path of its folder.

    Returns
    -------
    Result

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
    written = content.get("tables")
    tables = {
        name: _table(folder, name, written.get(name) if isinstance(written, dict) else None)
        for name in TABLES
    }
    _check_agreement(tables["summary"], content["provenance"], folder)
    if content_hash(content["provenance"]) != content.get("provenance_hash"):
        raise FileFormatError(
            f"{folder} was changed after it was written: its provenance is another one; simulate again"
        )
    return Result(**tables, provenance=content["provenance"])


def _table(folder: Path, name: str, written: Any) -> pd.DataFrame:
    """Read a table of a result. Bytes with another hash are refused before anything parses them."""
    try:
        content = (folder / f"{name}.parquet").read_bytes()
        if bytes_hash(content) != written:
            raise FileFormatError(
                f"{folder} was changed after it was written: table {name!r} is another one; simulate again"
            )
        return _restored(pd.read_parquet(io.BytesIO(content)))
    except (OSError, ValueError, TypeError, LookupError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise FileFormatError(
            f"{folder}: table {name!r} is missing or broken ({reason}); simulate again"
        ) from None


def _restored(table: pd.DataFrame) -> pd.DataFrame:
    ends = [name for name in ("sender", "receiver") if name in table]
    number = {name: [int(end) if end.isdecimal() else end for end in table[name]] for name in ends}
    return table.assign(
        **{name: pd.Series(column, index=table.index, dtype=object) for name, column in number.items()}
    )


def _check_agreement(summary: pd.DataFrame, provenance: dict[str, Any], folder: Path) -> None:
    """Check that summary and provenance agree: on the placement by content, on the rest by name."""

    def stated(column: str) -> list[Any]:
        return list(summary[column].tolist()) if column in summary else []

    parts = {name: part if isinstance(part, dict) else {} for name, part in provenance.items()}
    placement = parts.get("placement", {})
    keys = ("layers", "links", "kv_capacity_token_layers")
    own, name = content_hash({key: placement.get(key) for key in keys}), placement.get("name")
    same = all(each == own for each in (placement.get("hash"), *stated("placement_hash")))
    differing = [] if same and all(each == name for each in stated("placement")) else ["placement"]
    for column, part, key in _STATED_TWICE:
        if any(value != parts.get(part, {}).get(key) for value in stated(column)):
            differing.append(column)
    if differing:
        raise FileFormatError(
            f"{folder} was changed after it was written: its {differing[0]} is not the one it says it"
            " ran with; simulate again"
        )
