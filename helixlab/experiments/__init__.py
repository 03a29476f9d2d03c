"""Running the study: the notebooks that make every figure and number."""

from helixlab.experiments.notebooks import NotebookError, numbered_notebooks
from helixlab.experiments.reproduce import reproduce

__all__ = ["NotebookError", "numbered_notebooks", "reproduce"]
