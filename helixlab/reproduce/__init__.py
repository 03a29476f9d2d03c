"""Running the study: the notebooks that make every figure and number.

``reproduce`` and what it stands on (statistics, the diagnosis, the compiler) load when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helixlab._interrupts import loaded
from helixlab.reproduce.notebooks import NotebookError, numbered_notebooks
from helixlab.reproduce.parameters import check_parameters, output_folder

if TYPE_CHECKING:
    from helixlab.reproduce.study import reproduce

__all__ = ["NotebookError", "check_parameters", "numbered_notebooks", "output_folder", "reproduce"]


def __getattr__(name: str) -> Any:
    if name != "reproduce":
        raise AttributeError(f"module 'helixlab.reproduce' has no attribute {name!r}")
    globals()[name] = loaded("helixlab.reproduce.study").reproduce
    return globals()[name]
