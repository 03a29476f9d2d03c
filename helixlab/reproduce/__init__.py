"""Running the study: the notebooks that make every figure and number.

``reproduce`` and what it stands on (statistics, the diagnosis, the compiler) load when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helixlab._interrupts import loaded
from helixlab.errors import NotebookError
from helixlab.reproduce.notebooks import numbered_notebooks
from helixlab.reproduce.parameters import check_parameters, output_folder

if TYPE_CHECKING:
    from helixlab.reproduce.evaluation import published_results, scenarios
    from helixlab.reproduce.study import reproduce

_HOME_OF = {"published_results": "evaluation", "reproduce": "study", "scenarios": "evaluation"}

__all__ = [
    "NotebookError",
    "check_parameters",
    "numbered_notebooks",
    "output_folder",
    "published_results",
    "reproduce",
    "scenarios",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'helixlab.reproduce' has no attribute {name!r}")
    globals()[name] = getattr(loaded(f"helixlab.reproduce.{_HOME_OF[name]}"), name)
    return globals()[name]
