"""Writing a figure: the picture, the picture for print, and the table behind it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from helixlab.errors import FileFormatError
from helixlab.files import replacing
from helixlab.plotting.style import styled
from helixlab.simulation import Result

__all__ = ["save_figure", "save_table"]


@styled
def save_figure(
    fig: Figure,
    name: str,
    folder: str | os.PathLike[str],
    table: pd.DataFrame,
    *,
    results: Iterable[Result] = (),
) -> dict[str, Path]:
    """Write ``name.png``, ``name.pdf`` and ``name.csv`` into a folder.

    Each file is written whole or not at all, and the same figure gives the same bytes.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        The figure, ``ax.figure``.
    name : str
        Name of the files, without ending.
    folder : path
        Made if it is not there.
    table : DataFrame
        What was drawn; its index is left out.
    results : iterable of Result
        The runs that the figure shows: their origins are written into the files, as ``Description`` (png)
        and ``Subject`` (pdf).

    Returns
    -------
    dict of str to Path
        The files, by their ending.

    Raises
    ------
    FileFormatError
        The name is not that of a file, or the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from helixlab.plotting import panels
    >>> figure, ax = panels()
    >>> files = save_figure(figure, "empty", tempfile.mkdtemp(), pd.DataFrame({"x": []}))
    >>> [path.name for path in files.values()]
    ['empty.png', 'empty.pdf', 'empty.csv']
    """
    files = {ending: _file(folder, name, ending) for ending in ("png", "pdf")}
    origins = "\n".join(result.origin for result in results)
    engine = fig.get_layout_engine()
    fig.draw_without_rendering()
    # Laying out takes most of the time of drawing, and once is enough.
    fig.set_layout_engine("none")
    try:
        with replacing(files["png"]) as beside:
            fig.savefig(beside, format="png", metadata={"Description": origins} if origins else None)
        with replacing(files["pdf"]) as beside:
            subject = {"Subject": origins} if origins else {}
            fig.savefig(beside, format="pdf", metadata={"CreationDate": None, **subject})
    except OSError as error:
        raise FileFormatError(
            f"cannot write figure {name!r} into {folder} ({error.strerror or error}); give another folder"
        ) from None
    finally:
        fig.set_layout_engine(engine)
    return files | {"csv": save_table(table, name, folder)}


def save_table(table: pd.DataFrame, name: str, folder: str | os.PathLike[str]) -> Path:
    r"""Write ``name.csv`` into a folder, whole or not at all.

    Parameters
    ----------
    table : DataFrame
        Its index is left out.
    name : str
        Name of the file, without ending.
    folder : path
        Made if it is not there.

    Raises
    ------
    FileFormatError
        The name is not that of a file, or the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> save_table(pd.DataFrame({"x": [1]}), "ones", tempfile.mkdtemp()).read_text()
    'x\n1\n'
    """
    file = _file(folder, name, "csv")
    try:
        with replacing(file) as beside:
            table.to_csv(beside, index=False, lineterminator="\n")
    except OSError as error:
        raise FileFormatError(
            f"cannot write table {name!r} into {folder} ({error.strerror or error}); give another folder"
        ) from None
    return file


def _file(folder: str | os.PathLike[str], name: str, ending: str) -> Path:
    if not name or Path(name).name != name or name.startswith("."):
        raise FileFormatError(
            f"cannot call a file {name!r}; give a plain name such as 'comparison', the folder apart"
        )
    return Path(folder) / f"{name}.{ending}"
