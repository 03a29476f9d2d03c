"""Room in KV caches: how full they were, and how to make more of it."""

from __future__ import annotations

from typing import Any

from helixlab.diagnosis.balance import gini, max_over_mean
from helixlab.diagnosis.sampled import node_means, node_samples
from helixlab.diagnosis.wording import number, percent
from helixlab.simulation import Result
from helixlab.simulation.run import KV_RULES

__all__ = ["cache_words", "make_room", "raise_the_mark"]


def make_room(result: Result) -> str:
    """What lets more queries in, the most effective first."""
    return f"Give the fullest nodes fewer layers, or more nodes those layers{raise_the_mark(result)}."


def raise_the_mark(result: Result) -> str:
    """To end a sentence: whether more of each KV cache could be filled, and what to expect of that."""
    mark = float(result.provenance["settings"]["kv_high_water_mark"])
    if mark >= 1 or not result.provenance["scheduler"].get("plans_ahead"):
        return ""
    mode = result.summary["mode"].item()
    usual, _ = KV_RULES[mode]
    if mark < usual:
        return f"; kv_high_water_mark, only {number(mark)} here, can be raised too"
    if mode == "offline":  # as much is in flight as the rule of feeding lets in
        return ""
    return f"; raising kv_high_water_mark, {number(mark)} here, helps less"


def cache_words(result: Result) -> tuple[str, dict[str, Any]]:
    """How full KV caches were, and the numbers behind it; nothing where that is not known of the window."""
    nodes = result.nodes
    with_layers = nodes.loc[nodes["end_layer"] > nodes["first_layer"], "node"]
    inside = node_samples(result)
    if len(inside):
        means = node_means(inside, ["kv_used_fraction", "kv_expected_fraction"])
        words = "in the window node {node} had the fullest cache, on average {most} in use{expected}"
    elif result.summary["mode"].item() == "offline":  # online, all queries have left at the end
        means = nodes.set_index("node").loc[with_layers, ["kv_used_fraction"]]
        words = "at the end node {node} had the fullest cache, {most} in use"
    else:
        return "", {}
    used = means["kv_used_fraction"]
    node = used.idxmax()
    expected = ""
    if "kv_expected_fraction" in means and result.provenance["scheduler"].get("plans_ahead"):
        share = float(means["kv_expected_fraction"].to_dict()[node])
        expected = f", where the scheduler expected {percent(share)}"
    words = words.format(node=node, most=percent(float(used.max())), expected=expected)
    return f"{words}, and the mean of all nodes was {percent(float(used.mean()))}", {
        "kv_used_max": float(used.max()),
        "kv_used_mean": float(used.mean()),
        "kv_used_gini": gini(used.tolist()),
        "kv_used_max_over_mean": max_over_mean(used.tolist()),
    }
