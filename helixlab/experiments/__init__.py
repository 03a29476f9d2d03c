"""Running the study: the notebooks that make every figure and number."""

from helixlab.experiments.reproduce import NotebookError, numbered_notebooks, reproduce

__all__ = ["NotebookError", "numbered_notebooks", "reproduce"]
