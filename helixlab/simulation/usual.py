"""Settings as they usually are, and in words where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from helixlab.flow.small_links import RELATIVE

__all__ = ["KV_RULES", "unusual_in_words"]

KV_RULES: Final = {"offline": (0.85, 1.0), "online": (0.9, 0.6)}
"""The paper's part of a KV cache that may fill, and part of the mean output that is expected."""


def unusual_in_words(workload: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Settings that change results and are not the usual ones, each in a few words.

    Parameters
    ----------
    workload, settings : mapping
        As the provenance of a result has them.

    Examples
    --------
    >>> workload = {"mode": "online", "trace": "sharegpt", "arrivals": "poisson"}
    >>> settings = {"on_full": "drop", "kv_high_water_mark": 0.9, "expected_output_ratio": 1.0}
    >>> unusual_in_words(workload, settings)
    ['arrivals poisson', 'queries dropped on full', 'expected_output_ratio 1']
    """
    words = []
    if workload.get("arrivals") and workload["arrivals"] != workload["trace"]:
        words.append(f"arrivals {workload['arrivals']}")
    if settings.get("on_full") == "drop":
        words.append("queries dropped on full")
    rules = ("kv_high_water_mark", "expected_output_ratio")
    for name, usual in zip(rules, KV_RULES[workload["mode"]], strict=True):
        if settings.get(name, usual) != usual:
            words.append(f"{name} {settings[name]:g}")
    if settings.get("small_links", RELATIVE) != RELATIVE:
        words.append(f"small_links {settings['small_links']}")
    return words
