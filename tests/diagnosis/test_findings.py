"""Texts of findings, against those in findings.txt.

After a change of wording, write the file anew and read what changed in it:
``HELIXLAB_REWRITE_FINDINGS=1 pytest tests/diagnosis/test_findings.py`` (without ``-n``).
"""

import os
import textwrap
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from diagnosis_cases import (
    CASES,
    MORE_CASES,
    arriving,
    at_mark,
    given,
    offered,
    small10,
    two_requests,
    warmed_up,
)

import helixlab as hx
from helixlab.diagnosis import idle_nodes
from helixlab.diagnosis.causes import explain
from helixlab.diagnosis.measures import facts_of
from helixlab.diagnosis.steady_state import Load

FILE = Path(__file__).with_name("findings.txt")
REWRITE = "HELIXLAB_REWRITE_FINDINGS"


def explained(cause, result, *, of=None, **changes):
    """Explain a cause in a run, some of whose facts, or fields of the result, are changed."""
    result = replace(result(), **(of(result()) if of else {}))
    explanation = explain(cause, replace(facts_of(result), **changes), idle_nodes(result))
    return paragraph(cause, explanation.text, explanation.advice)


def found(cause, result):
    return next(each for each in findings(result) if each.startswith(f"{cause}: "))


def findings(result):
    return [paragraph(each.cause, each.text, each.advice) for each in hx.diagnose(result())]


def paragraph(cause, text, advice):
    lines = [textwrap.fill(f"{cause}: {text}", 110), textwrap.fill(advice, 110, initial_indent="-> ")]
    return "\n".join(lines)


def nodes(**columns):
    return lambda result: {"nodes": result.nodes.assign(**columns)}


def summary(**columns):
    return lambda result: {"summary": result.summary.assign(**columns)}


def source(part, **fields):
    def change(result):
        return {"provenance": {**result.provenance, part: {**result.provenance[part], **fields}}}

    return change


def bound_by(*cards):
    kinds = {"kind": "network card", "sender": cards, "receiver": cards}
    return pd.DataFrame(
        {**kinds, "capacity_tokens_per_s": 1.0, "used_tokens_per_s": 1.0, "busy_fraction": 1.0}
    )


def one_minute():
    return arriving(np.sort(np.random.default_rng(0).uniform(0, 60, 60)), 60)


def small_chunks():
    return warmed_up(execution=hx.chunked(chunk_tokens=8))


def petals():
    return hx.simulate(
        hx.load_cluster("single24"),
        hx.load_model("llama-2-70b"),
        hx.load_placement("single24/llama-2-70b/petals"),
        scheduler="swarm",
        workload=hx.offline(initial_requests=2, warmup_s=60, duration_s=300, rng=0),
    )


def without_bound():
    return hx.simulate(
        hx.load_cluster("geo24"),
        hx.load_model("llama-2-70b"),
        hx.load_placement("geo24/llama-2-70b/separate-a100"),
        scheduler="swarm",
        workload=hx.offline(duration_s=20, rng=0),
    )


def long_prompts():
    table = pd.DataFrame({"input_tokens": [3000] * 300, "output_tokens": 5})
    return small10(hx.offline(requests=table, warmup_s=0, duration_s=60))


def beyond_the_flow(factor, **changes):
    """Explain the placement of a run that serves so many times the maximum flow."""
    flow = facts_of(warmed_up()).max_flow_tokens_per_s
    return explained("placement", warmed_up, served_tokens_per_s=factor * flow, **changes)


VARIANTS = {
    "no upper bound": partial(found, "placement", without_bound),
    "placement far from the flow": partial(explained, "placement", petals),
    "placement near the flow": partial(beyond_the_flow, 0.95),
    "placement beyond the flow": partial(beyond_the_flow, 1.2),
    "placement beyond the flow of links": lambda: beyond_the_flow(
        1.2, flow_cut=facts_of(warmed_up()).flow_cut.assign(kind="link")
    ),
    "placement planned here": lambda: beyond_the_flow(
        0.95, of=source("placement", source="planned by helixlab")
    ),
    "network card of the coordinator": lambda: beyond_the_flow(0.95, flow_cut=bound_by("source")),
    "network cards": lambda: beyond_the_flow(0.95, flow_cut=bound_by("source", 3, 4)),
    "many network cards": lambda: beyond_the_flow(0.95, flow_cut=bound_by(*range(7))),
    "KV caches at mark 1": lambda: explained("full KV caches", lambda: at_mark(1.0)),
    "KV caches at the usual mark": lambda: explained("full KV caches", lambda: at_mark(0.85)),
    "KV caches at a low mark": lambda: explained("full KV caches", lambda: at_mark(0.5)),
    "KV caches online": lambda: found("full KV caches", lambda: offered(320)),
    "KV caches, one request queued": lambda: explained(
        "full KV caches", lambda: at_mark(0.5), of=summary(requests_queued=1)
    ),
    "bubbles at a low mark": lambda: explained("bubbles", lambda: at_mark(0.5)),
    "bubbles online": lambda: found("bubbles", lambda: offered(265)),
    "bubbles on busy nodes": lambda: explained("bubbles", lambda: at_mark(0.5), of=nodes(busy_fraction=0.99)),
    "bubbles on idle nodes": lambda: explained("bubbles", lambda: at_mark(0.5), of=nodes(busy_fraction=0.0)),
    "bubbles of chunks": lambda: found("bubbles", lambda: warmed_up(execution="chunked")),
    "bubbles of small chunks": partial(explained, "bubbles", small_chunks),
    "costly batches of small chunks": partial(explained, "costly batches", small_chunks),
    "costly batches where no more get in": lambda: found("costly batches", lambda: at_mark(0.5)),
    "filling up, offline": lambda: found(
        "filling up", lambda: small10(hx.offline(warmup_s=0, duration_s=60, rng=0))
    ),
    "filling up, too high a rate": lambda: found("filling up", lambda: offered(320)),
    "filling up, online": lambda: found("filling up", lambda: offered(600, 600, on_full="drop")),
    "few requests": partial(found, "few requests", two_requests),
    "few requests on one node": lambda: explained(
        "few requests", lambda: at_mark(0.5), requests_in_service=0.4, active_nodes=1
    ),
    "one request on one node": lambda: explained(
        "few requests", lambda: at_mark(0.5), requests_in_service=1.0, active_nodes=1
    ),
    "more requests than nodes": lambda: explained(
        "few requests", lambda: at_mark(0.5), requests_in_service=50.0, active_nodes=23
    ),
    "few requests of a table": lambda: explained("few requests", lambda: small10(given((3, 100)))),
    "little asked for, stable": lambda: explained(
        "little asked for", one_minute, load=Load("stable", 0.0, 1.0)
    ),
    "little asked for, filling": lambda: explained(
        "little asked for", one_minute, load=Load("filling", 0.0, 1.0)
    ),
    "little asked for, backlogged": lambda: explained(
        "little asked for", one_minute, load=Load("backlogged", 0.1, 1.0)
    ),
    "little asked for, some queued": lambda: found(
        "little asked for", lambda: small10(hx.online(rate_tokens_per_s=199, duration_s=3600, rng=0))
    ),
    "imbalance, helix": lambda: explained("imbalance", warmed_up, of=nodes(busy_fraction=1.0)),
    "imbalance, swarm": lambda: explained(
        "imbalance", lambda: warmed_up(scheduler="swarm"), of=nodes(busy_fraction=1.0)
    ),
    "busy links": partial(explained, "busy links", warmed_up),
    "busy links with chunks": lambda: explained("busy links", lambda: warmed_up(execution="chunked")),
    "one preemption": lambda: found(
        "preemption", lambda: replace(two_requests(), **summary(requests_preempted=1)(two_requests()))
    ),
    "preemption without times": lambda: explained(
        "preemption", warmed_up, of=summary(requests_preempted=3), part_s={}
    ),
    "the only request refused": lambda: findings(lambda: small10(given((1, 20_000))))[0],
    "all requests refused": lambda: findings(lambda: small10(given((5, 20_000))))[0],
    "requests refused last": lambda: found("rejected", lambda: small10(given((20, 100), (5000, 20_000)))),
    "long prompts refused": lambda: found("rejected", long_prompts),
}
SECTIONS = {
    **{f"case: {name}": partial(findings, result) for name, result in {**CASES, **MORE_CASES}.items()},
    **{f"variant: {name}": variant for name, variant in VARIANTS.items()},
}


def text_of(section):
    told = SECTIONS[section]()
    return told if isinstance(told, str) else "\n".join(told)


def recorded():
    parts = FILE.read_text("utf-8").split("\n== ")[1:] if FILE.exists() else []
    return {head: body.strip("\n") for head, _, body in (part.partition("\n") for part in parts)}


@pytest.mark.parametrize("section", SECTIONS)
def test_findings_read_as_recorded(section):
    text = text_of(section)
    if os.environ.get(REWRITE):
        texts = {**recorded(), section: text}
        body = "\n\n".join(f"== {name}\n{texts[name]}" for name in SECTIONS if name in texts)
        FILE.write_text(f"Texts of findings, written by test_findings.py\n\n{body}\n", "utf-8")
    assert text == recorded()[section]


def test_the_file_has_these_sections_only():
    assert list(recorded()) == list(SECTIONS)
