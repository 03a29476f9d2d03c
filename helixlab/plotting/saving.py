"""Files of a figure: the picture, the picture for print, and the table behind it, with what ran."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helixlab._hashing import library_digest
from helixlab._io import replacing
from helixlab.errors import FileFormatError
from helixlab.plotting.style import styled
from helixlab.simulation import Result

__all__ = ["save_figure", "save_table"]

_NAMED: Final = (
    "cluster", "model", "scheduler", "execution", "chunk_tokens", "max_prompt_chunks_per_batch",
    "max_decode_per_batch", "memory_floor", "prompt_cost_factor", "kv_reread_factor", "on_full",
    "kv_high_water_mark", "expected_output_ratio", "small_links", "mode", "trace", "arrivals",
    "initial_requests", "rate_tokens_per_s", "warmup_s", "duration_s", "helixlab",
)  # fmt: skip
"""Columns of a table of runs that say, with placement, its hash and seed, what ran."""


@styled
def save_figure(
    drawn: Figure | Axes | np.ndarray,
    name: str,
    folder: str | os.PathLike[str],
    table: pd.DataFrame,
    *,
    results: Iterable[Result] | pd.DataFrame | None = None,
) -> dict[str, Path]:
    """Write ``name.png``, ``name.pdf`` and ``name.csv`` into a folder.

    Each file is written whole or not at all, and the same figure gives the same bytes.

    Parameters
    ----------
    drawn : matplotlib Figure, Axes or array of Axes
        The figure, or any of its axes, as plot functions return them.
    name : str
        Name of the files, without ending.
    folder : path
        Folder of the files; made if it is not there.
    table : DataFrame
        Data of the picture; its index is left out.
    results : iterable of Result, or DataFrame, optional
        The runs that the figure shows, or a table of them with columns such as placement, placement_hash,
        scheduler and seed; by default `table`, or the run whose `Result.origin` is in its ``attrs``. What ran
        is written into the files, with the version of helixlab, as ``Description`` (png) and ``Subject``
        (pdf).

    Returns
    -------
    dict of str to Path
        The files, by their ending.

    Raises
    ------
    FileFormatError
        The name is not that of a file, the folder cannot be written, or `results` are none.

    Examples
    --------
    >>> import tempfile
    >>> from helixlab.plotting import panels
    >>> _, ax = panels()
    >>> files = save_figure(ax, "empty", tempfile.mkdtemp(), pd.DataFrame({"x": []}))
    >>> [path.name for path in files.values()]
    ['empty.png', 'empty.pdf', 'empty.csv']
    """
    files = {ending: _file(folder, name, ending) for ending in ("png", "pdf")}
    origins = "\n".join(_origins_of(table) if results is None else _origins(results))
    fig = _figure_of(drawn)
    engine = fig.get_layout_engine()
    fig.draw_without_rendering()
    # Laying out takes most of the time of drawing, and once is enough.
    fig.set_layout_engine("none")
    try:
        with replacing(files["png"]) as beside:
            fig.savefig(beside, format="png", metadata={"Description": origins})
        with replacing(files["pdf"]) as beside:
            fig.savefig(beside, format="pdf", metadata={"CreationDate": None, "Subject": origins})
    except OSError as error:
        raise FileFormatError(
            f"cannot write figure {name!r} into {folder} ({error.strerror or error}); give another folder"
        ) from None
    finally:
        fig.set_layout_engine(engine)
    return files | {"csv": _save_csv(table, name, folder, None)}


def _figure_of(drawn: Figure | Axes | np.ndarray) -> Figure:
    axes = drawn.flat[0] if isinstance(drawn, np.ndarray) and drawn.size else drawn
    figure = axes if isinstance(axes, Figure) else getattr(axes, "figure", None)
    if not isinstance(figure, Figure):
        raise FileFormatError(f"drawn is {drawn!r:.60}; give a figure, or axes as plot functions return them")
    return figure


def save_table(
    table: pd.DataFrame,
    name: str,
    folder: str | os.PathLike[str],
    *,
    results: Iterable[Result] | pd.DataFrame | None = None,
) -> Path:
    r"""Write ``name.csv`` into a folder, whole or not at all.

    Parameters
    ----------
    table : DataFrame
        Table to write; its index is left out.
    name : str
        Name of the file, without ending.
    folder : path
        Folder of the files; made if it is not there.
    results : iterable of Result, or DataFrame, optional
        The runs that a table comes from which does not name them itself, as for `save_figure`; by default the
        run whose `Result.origin` is in its ``attrs``. What ran is written beside it, into
        ``name.origin.txt``.

    Raises
    ------
    FileFormatError
        The name is not that of a file, the folder cannot be written, or `results` are none.

    Examples
    --------
    >>> import tempfile
    >>> save_table(pd.DataFrame({"x": [1]}), "ones", tempfile.mkdtemp()).read_text()
    'x\n1\n'
    """
    if results is not None:
        return _save_csv(table, name, folder, _origins(results))
    return _save_csv(table, name, folder, _origins_of(table) if _is_signed(table) else None)


def _save_csv(
    table: pd.DataFrame, name: str, folder: str | os.PathLike[str], origins: list[str] | None
) -> Path:
    """Write a table, and beside it what ran, where `origins` say so."""
    file = _file(folder, name, "csv")
    try:
        with replacing(file) as beside:
            table.to_csv(beside, index=False, lineterminator="\n")
        if origins is not None:
            with replacing(file.with_name(f"{name}.origin.txt")) as beside:
                beside.write_text("\n".join([*origins, ""]), encoding="utf-8")
    except OSError as error:
        raise FileFormatError(
            f"cannot write table {name!r} into {folder} ({error.strerror or error}); give another folder"
        ) from None
    return file


def _is_signed(table: pd.DataFrame) -> bool:
    """Return True if the table comes from one run and says so in its ``attrs`` only."""
    return "placement" not in table and isinstance(table.attrs.get("origin"), str)


def _origins_of(table: pd.DataFrame) -> list[str]:
    """List what a table itself says of its runs."""
    return [table.attrs["origin"]] if _is_signed(table) else _origins(table)


def _origins(runs: Iterable[Result] | pd.DataFrame) -> list[str]:
    """List what ran, in one line for each run, or for the rows of a table that differ in the seed alone."""
    if not isinstance(runs, pd.DataFrame):
        several = list(runs) if isinstance(runs, Iterable) else [runs]
        for result in several:
            if not isinstance(result, Result):
                raise FileFormatError(
                    f"results holds {result!r:.60}; give results of simulate, or a table of runs"
                )
        return [result.origin for result in several]
    library = f"helixlab {version('helixlab')} ({library_digest()[:8]})"
    if "placement" not in runs:
        return [library]
    columns = [name for name in ("placement", "placement_hash", *_NAMED) if name in runs]
    lines = []
    for values, rows in runs.groupby(columns, sort=False, dropna=False):
        named: dict[str, Any] = dict(zip(columns, values, strict=True))
        hashed = named.pop("placement_hash", None)
        ran_with = f"helixlab {named.pop('helixlab')}" if "helixlab" in named else library
        parts = [f"placement {named.pop('placement')}" + (f" ({hashed})" if pd.notna(hashed) else "")]
        parts += [
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in named.items()
            if pd.notna(value)
        ]
        if "seed" in rows:
            parts.append(f"seed {', '.join(str(seed) for seed in sorted(rows['seed'].dropna().unique()))}")
        lines.append("; ".join([*parts, ran_with]))
    return lines


def _file(folder: str | os.PathLike[str], name: str, ending: str) -> Path:
    if not name or Path(name).name != name or name.startswith("."):
        raise FileFormatError(
            f"cannot call a file {name!r}; give a plain name such as 'comparison', the folder apart"
        )
    return Path(folder) / f"{name}.{ending}"
