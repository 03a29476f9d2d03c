"""Fonts for names in other scripts than Latin, where the machine has them."""

from __future__ import annotations

from functools import cache
from typing import Final

from matplotlib import font_manager

__all__ = ["families"]

FIRST: Final = "DejaVu Sans"
"""Comes with matplotlib."""
MORE: Final = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "Arial Unicode MS",
)
"""For Chinese, Japanese and Korean, on the usual systems."""


@cache
def families() -> list[str]:
    """Families of fonts, of which the first that has a character draws it.

    Examples
    --------
    >>> families()[0]
    'DejaVu Sans'
    """
    installed = set(font_manager.get_font_names())
    return [FIRST, *(name for name in MORE if name in installed)]
