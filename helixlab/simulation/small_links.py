"""Which links a run does without, and whether it can serve like that: settled before it starts."""

from __future__ import annotations

import warnings
from typing import Final

from helixlab.cluster import SOURCE, Cluster
from helixlab.errors import SchedulingError
from helixlab.flow import Flow, links_left_out, max_flow
from helixlab.flow.small_links import PAPER_SHARE, RELATIVE, rule_in_words
from helixlab.model import Model
from helixlab.placement import Placement
from helixlab.placement.placement import End

__all__ = ["leave_links_out", "warn_of_lost_flow"]

MUCH: Final = 0.1
"""Part of the maximum flow that has to be lost with the links left out for a warning."""


def leave_links_out(flow: Flow, rule: str) -> set[tuple[End, End]]:
    """The links that a scheduler that follows this flow does not use.

    Raises
    ------
    SchedulingError
        Without them no way leads from the source to the sink, so that every query would be turned away.
    """
    left_out = links_left_out(flow.on_link, rule)
    starts = [link for link in flow.on_link if link[0] == SOURCE]
    if left_out.issuperset(starts):
        shares = flow.left_out(rule)["share"]
        most = shares[shares < PAPER_SHARE].max()
        raise SchedulingError(
            f"nothing can be served through placement {flow.placement!r} with small_links={rule!r}, which"
            f" leaves out links with {rule_in_words(rule)} (here up to {100 * most:.3g} %), as no way from"
            f" source to sink is left; use {_mend(rule)}"
        )
    return left_out


def warn_of_lost_flow(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    flow: Flow,
    left_out: set[tuple[End, End]],
    rule: str,
) -> None:
    """Warn where more than a tenth of the maximum flow cannot get through without these links."""
    most = flow.value_tokens_per_s
    if sum(flow.on_link[link] for link in left_out) <= MUCH * most:
        return  # no more is lost than they carry
    passing = max_flow(cluster, model, placement, small_links=rule).value_tokens_per_s
    if passing < (1 - MUCH) * most:
        count = len(flow.left_out(rule))
        warnings.warn(
            f"at most {passing:.1f} of {most:.1f} tokens/s get through placement {flow.placement!r}:"
            f" small_links={rule!r} leaves out {count} link{'s' if count > 1 else ''} with"
            f" {rule_in_words(rule)}, or from which none leads on; use {_mend(rule)}",
            stacklevel=3,
        )


def _mend(rule: str) -> str:
    other = "" if rule == RELATIVE else f"small_links={RELATIVE!r}, "
    return f"{other}another scheduler, or a placement with fewer nodes side by side"
