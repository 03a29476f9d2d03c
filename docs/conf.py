"""How Sphinx builds the site: `make docs` writes it to build/docs."""

import json
import shutil
from pathlib import Path

import helixlab

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

project = "helixlab"
author = "The helixlab developers"
copyright = author
release = helixlab.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb"]
html_theme = "pydata_sphinx_theme"
html_title = "helixlab"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_show_copyright = False

default_role = "autolink"  # a name in single backquotes is a link where there is such a thing
autodoc_typehints = "none"  # the docstrings say it
autodoc_member_order = "bysource"
autosummary_generate = True
autosummary_generate_overwrite = True
templates_path = ["templates"]
exclude_patterns = ["templates"]
numpydoc_show_class_members = False
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `helixlab reproduce` runs them
nb_render_markdown_format = "myst"
suppress_warnings = ["mystnb.unknown_mime_type"]  # the widgets of progress bars


def code_of(notebook: Path) -> list[str]:
    """The code cells of a notebook, but for the parameters that papermill puts in."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    injected = [cell for cell in cells if "injected-parameters" in cell["metadata"].get("tags", [])]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code" and cell not in injected]


# The notebooks as they were run last, where that was this version of them, else as they are written.
shutil.rmtree(HERE / "generated", ignore_errors=True)
(HERE / "generated" / "notebooks").mkdir(parents=True)
for written in sorted((ROOT / "notebooks").glob("*.ipynb")):
    run = ROOT / "figures" / "executed" / written.name
    shown = run if run.is_file() and code_of(run) == code_of(written) else written
    shutil.copyfile(shown, HERE / "generated" / "notebooks" / written.name)
