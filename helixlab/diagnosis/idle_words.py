"""Idle nodes in words."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from helixlab.diagnosis.wording import counted, node_names, sentence

__all__ = ["idle_words"]

_IDLE_TEXTS: Final = {
    "no layers": (
        "{nodes} {hold} no layers",
        "Plan with all nodes, or see whether the bound is within reach without them.",
    ),
    "no way through": (
        "{nodes} {hold} layers, but no path of links leads over {them} from source to sink",
        "Link {them} to nodes that end where {they} {begin} and go on where {they} {end}.",
    ),
    "no flow": (
        "{nodes} {hold} layers, but the maximum flow does without {them} and the scheduler follows the flow",
        "Give {them} layers that the flow is short of.",
    ),
    "KV cache masked": (
        "{nodes} {are} idle because the scheduler expected {their} KV cache to be too full {masked}",
        "Give {them} fewer layers, which leaves more KV cache{mark}.",
    ),
    "batch too small": (
        "{nodes} {are} idle because prompts do not fit in one batch there, {masked}",
        "Cut prompts into chunks with execution='chunked', or keep such machines off the first layers.",
    ),
    "never chosen": (
        "{nodes} {are} idle though the scheduler could have sent queries there: all through the window it"
        " chose others",
        "{spread}",
    ),
    "nothing upstream": (
        "{nodes} {are} idle because no node that could send to {them} sent anything on in the window",
        "Look at those nodes first.",
    ),
    "nothing sent": (
        "{nodes} {are} idle because the coordinator sent nothing in the window",
        "See whether queries were turned away or held; if not, measure for longer before judging.",
    ),
}


_SPREAD: Final = (
    "Use a scheduler that spreads queries, such as helix, or let this one look at how busy nodes are."
)
_SHARES: Final = (
    "Measure for longer, so that each has its turn, or plan for a larger share of the flow there."
)


def idle_words(
    idle: pd.DataFrame, cause: str, *, mark: str, follows_flow: bool
) -> tuple[str, str, dict[str, Any]]:
    """Text, suggestion and evidence about the nodes that are idle for this cause.

    `mark` is what can be said of raising kv_high_water_mark, `follows_flow` whether the scheduler does so.
    """
    nodes = idle[idle["cause"] == cause]
    one = len(nodes) == 1
    words = {
        "nodes": node_names(nodes["node"].tolist()),
        "hold": "holds" if one else "hold",
        "are": "is" if one else "are",
        "them": "it" if one else "them",
        "they": "it" if one else "they",
        "their": "its" if one else "their",
        "begin": "begins" if one else "begin",
        "end": "ends" if one else "end",
        "mark": mark,
        "masked": _masked(nodes),
        "spread": _SHARES if follows_flow else _SPREAD,
    }
    text, suggestion = (template.format(**words) for template in _IDLE_TEXTS[cause])
    return sentence(text), suggestion, {"nodes": nodes.to_dict("records")}


def _masked(nodes: pd.DataFrame) -> str:
    """How often queries were kept away."""
    kept_away = int(nodes[["kv_masked", "batch_masked"]].to_numpy().sum())
    considered = int(nodes["considered"].sum())
    if kept_away == considered:
        return f"each time that a query could have come, {counted(kept_away, 'time', 'times')} in all"
    return f"{kept_away} of the {considered} times that a query could have come"
