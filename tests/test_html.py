"""Objects in notebooks: escaped, with units, and a text for where there is no HTML."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

import helixlab as hx

EVIL = "<script>alert('$x$')</script>"


class Checker(HTMLParser):
    """Every tag is closed in its turn, and none is another than these."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        assert tag in {"div", "strong", "table", "thead", "tbody", "tr", "th", "td", "em", "p"}
        known = (
            [("style", "max-height: 24em; overflow-y: auto")],
            [("class", "tex2jax_ignore mathjax_ignore")],
        )
        assert not attrs or (tag == "div" and attrs in known)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def texts(thing):
    checker = Checker()
    checker.feed(thing._repr_html_())
    checker.close()
    assert checker.open == []
    assert repr(thing)
    return checker.texts


@pytest.fixture(scope="module")
def study():
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    workload = hx.offline(warmup_s=0, duration_s=20, rng=0)
    result = hx.simulate(cluster, model, placement, workload=workload, keep_breakdown=True)
    return cluster, model, placement, result


def test_what_they_show(study):
    cluster, model, placement, result = study
    assert {"Cluster small10", "vram_GB", cluster.content_hash[:8]} <= set(texts(cluster))
    assert {f"Placement {placement.name}", "first_layer", placement.content_hash[:8]} <= set(texts(placement))
    flow = hx.max_flow(cluster, model, placement)
    assert {"value_tokens_per_s", "compute", "capacity_tokens_per_s"} <= set(texts(flow))
    shown = texts(result)
    assert {"Result", placement.name, "decode_tokens_per_s", "busy_fraction", result.origin} <= set(shown)
    finding = next(each for each in hx.diagnose(result) if "tokens_per_s" in each.evidence)
    assert {str(finding), "tokens_per_s"} <= set(texts(finding))
    assert "(cost " in texts(finding)[0]
    assert texts(finding)[0].endswith("%)")
    bound = next(each for each in hx.diagnose(result) if each.cause == "placement")
    assert "see evidence['bottlenecks'] (rows: 1)" in texts(bound)
    assert {"kind", "sender", "capacity_tokens_per_s"} <= set(texts(bound)), "its rows"


def test_names_are_escaped(study):
    cluster, model, placement, result = study
    things = [
        replace(cluster, name=EVIL),
        replace(placement, name=EVIL, method=EVIL, source=EVIL),
        replace(hx.max_flow(cluster, model, placement), placement=EVIL),
        replace(result, summary=result.summary.assign(placement=EVIL)),
        replace(hx.diagnose(result)[0], text=EVIL, cause=EVIL),
    ]
    for thing in things:
        assert EVIL in "".join(texts(thing)), "as text"
        assert "<script" not in thing._repr_html_()


def test_the_clusters_of_the_paper_are_shown_whole():
    placement = hx.load_placement("hetero42/llama-2-70b/helix")
    rows = placement._repr_html_().split("<tbody>")[1]
    assert rows.count("<tr>") == len(placement.layers) > 24
    assert "more rows" not in rows


def test_long_tables_are_cut():
    cluster = hx.single_region({"T4": 100}, machines=hx.load_cluster("single24").machines)
    placement = hx.plan(cluster, hx.load_model("llama-1-30b"), method="swarm")
    assert "and 40 more rows" in texts(placement)
