"""Access to the data that ships with helixlab, in a checkout or an installed wheel."""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import pandas as pd

__all__ = ["data_file", "names_in", "read_table"]


def data_file(*parts: str) -> Traversable:
    """Find a bundled file or folder, for instance ``data_file("clusters", "single24.json")``.

    Examples
    --------
    >>> data_file("README.md").is_file()
    True
    """
    return files("helixlab.data").joinpath(*parts)


@cache
def _table(path: str) -> pd.DataFrame:
    content = data_file(*path.split("/")).read_bytes()
    return pd.read_csv(io.BytesIO(content), compression="gzip" if path.endswith(".gz") else None)


def read_table(path: str) -> pd.DataFrame:
    """Read a bundled CSV table as a new DataFrame; ``data/README.md`` describes its columns.

    Examples
    --------
    >>> list(read_table("profiles/layer_times.csv"))
    ['model', 'machine', 'phase', 'batch_tokens', 'layer_ms']
    """
    return _table(path).copy()


def names_in(*parts: str, ending: str = ".json") -> list[str]:
    """List the names (without `ending`) of the bundled files in a folder; ``/`` separates subfolders.

    Examples
    --------
    >>> "single24" in names_in("clusters")
    True
    """
    found: list[str] = []
    for entry in data_file(*parts).iterdir():
        if entry.is_dir():
            found += [f"{entry.name}/{name}" for name in names_in(*parts, entry.name, ending=ending)]
        elif entry.name.endswith(ending):
            found.append(entry.name[: -len(ending)])
    return sorted(found)
