"""How Sphinx builds the site: `make docs` writes it to build/docs."""

import argparse
import json
import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import helixlab
from helixlab.cli import parser

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

project = "helixlab"
author = "The helixlab developers"
copyright = author
release = helixlab.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb"]
html_theme = "pydata_sphinx_theme"
html_title = "helixlab"
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 6,
}
html_sidebars = {  # to the left are the pages below a page: where there are none, its text has the room
    path.stem: [] for path in HERE.glob("*.md") if path.stem not in ("api", "notebooks")
}
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


def options_of(verb: str) -> list[tuple[str, str]]:
    """What a verb of the command line takes, as it is typed, and what the verb says of it."""
    [verbs] = [each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)]
    rows = []
    for action in verbs.choices[verb]._actions:
        if action.dest == "help":
            continue
        value = "" if action.nargs == 0 else action.metavar or action.dest.upper()
        typed = " ".join(filter(None, [*action.option_strings, value, "..." if action.nargs == "+" else ""]))
        said = action.help or ""
        if action.choices:
            said = f"{', '.join(action.choices)}{' ' if said.startswith('(') else ': '}{said}"
        if action.required and action.option_strings:
            said = f"needed: {said}"
        rows.append((typed, said))
    return rows


class Options(SphinxDirective):
    """``{options} VERB``: the table of them, made anew with each build."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table."""
        lines = ["| option | |", "|---|---|"]
        for typed, said in options_of(self.arguments[0]):
            said = re.sub(r"(--\w[\w-]*)", r"`\1`", said)  # else two hyphens become a dash
            lines.append(f"| `{typed}` | {said} |")
        return self.parse_text_to_nodes("\n".join(lines))


class Columns(SphinxDirective):
    """``{columns} TABLE``: the columns of a table of a Result, made anew with each build."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        lines = ["| column | type | unit | |", "|---|---|---|---|"]
        for _, name, kind, unit, description in helixlab.Result.describe(self.arguments[0]).itertuples(
            index=False
        ):
            lines.append(f"| `{name}` | {kind} | {unit} | {description} |")
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> None:
    """Register the site's own directives."""
    app.add_directive("options", Options)
    app.add_directive("columns", Columns)
