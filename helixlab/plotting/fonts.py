"""Fonts for names in other scripts than Latin, where the machine has them."""

from __future__ import annotations

from functools import cache
from typing import Final

from matplotlib import font_manager

__all__ = ["families"]

FIRST: Final = "DejaVu Sans"
"""Comes with matplotlib."""
BOLD: Final = 600
MORE: Final = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Arial Unicode MS",
)
"""For Chinese, Japanese and Korean, on the usual systems."""


@cache
def families() -> list[str]:
    """Families of fonts, of which the first that has a character draws it.

    Only such as have bold letters too, which titles are set in: matplotlib warns of others wherever a title
    is drawn.

    Examples
    --------
    >>> families()[0]
    'DejaVu Sans'
    """
    bold = {font.name for font in font_manager.fontManager.ttflist if _weight(font.weight) >= BOLD}
    return [FIRST, *(name for name in MORE if name in bold)]


def _weight(weight: int | str) -> int:
    return font_manager.weight_dict.get(weight, 400) if isinstance(weight, str) else weight
