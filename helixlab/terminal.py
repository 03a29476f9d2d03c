"""What the command line prints."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from helixlab.files import json_ready

if TYPE_CHECKING:  # it would load the compiler
    from helixlab.diagnosis.finding import Finding

__all__ = ["print_figures", "print_findings", "print_json", "print_paragraph", "print_table"]

WIDTH: Final = 100
"""At which lines of text are broken, unless the terminal is narrower."""


def print_json(content: dict[str, Any]) -> None:
    """One JSON object."""
    print(json.dumps(json_ready(content), indent=1, allow_nan=False))


def print_figures(figures: dict[str, Any]) -> None:
    """One figure a line."""
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {f'{value:.6g}' if isinstance(value, float) else value}")


def print_paragraph(text: str, indent: str = "") -> None:
    """Text, its lines as long as the terminal is wide."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    print(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent))


def print_table(table: pd.DataFrame) -> None:
    """A table, its columns aligned."""
    print(table.to_string(index=False, float_format="{:.4g}".format))


def print_findings(findings: Iterable[Finding]) -> None:
    """One finding a paragraph, numbered: its cause and cost, what is the case, what could be done."""
    for at, finding in enumerate(findings, 1):
        print(f"{at}. {finding.cause} (cost {finding.cost:.1%})")
        for text in (finding.text, finding.suggestion):
            print_paragraph(text, "   ")
