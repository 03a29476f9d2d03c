"""Runs where many nodes share a sender's flow, and links that carry too little of it are not used."""

import pandas as pd
import pytest

import helixlab as hx
from helixlab.diagnosis.compare import differing_settings
from helixlab.diagnosis.measures import passing_tokens_per_s
from helixlab.errors import SchedulingError, UnknownNameError
from helixlab.flow.small_links import RULES
from helixlab.placement import usable_links

MODEL = hx.load_model("llama-1-30b")
HALF = MODEL.layers // 2


def stages(first, second, machine="T4x4"):
    """So many nodes side by side hold the first half of the model, and so many the second."""
    cluster = hx.single_region({machine: first + second}, name="wide")
    spans = [(0, HALF)] * first + [(HALF, MODEL.layers)] * second
    layers = tuple(hx.NodeLayers(node, *span) for node, span in enumerate(spans))
    links = usable_links(cluster, layers, MODEL.layers)
    return cluster, MODEL, hx.Placement("stages", "wide", MODEL.name, "by hand", layers, links)


def uneven(quick=2, slow=18):
    """Quick nodes serve the model in rows of four beside many pairs of slower ones, which do most."""
    cluster = hx.single_region({"A100": 4 * quick, "T4x4": 2 * slow}, name="uneven")
    quarter = MODEL.layers // 4
    spans = [(at * quarter, (at + 1) * quarter) for at in range(4)] * quick
    spans += [(0, HALF), (HALF, MODEL.layers)] * slow
    layers = tuple(hx.NodeLayers(node, *span) for node, span in enumerate(spans))
    links = usable_links(cluster, layers, MODEL.layers)
    return cluster, MODEL, hx.Placement("uneven", "uneven", MODEL.name, "by hand", layers, links)


def served(system, **how):
    workload = hx.offline(initial_requests=60, warmup_s=100, duration_s=100, rng=0)
    return hx.simulate(*system, workload=workload, progress=False, **how)


def decode_tokens_per_s(result):
    return result.metrics["decode_tokens_per_s"]


def test_a_node_more_does_not_empty_the_cluster():
    a_node = {count: decode_tokens_per_s(served(stages(count, count))) / count for count in (20, 21, 26)}
    assert a_node[20] > 30
    for count in (21, 26):
        assert a_node[count] == pytest.approx(a_node[20], rel=0.05)


def test_twenty_nodes_serve_alike_by_both_rules():
    one, other = served(stages(19, 19)), served(stages(19, 19), small_links="paper")
    assert one.iterations.equals(other.iterations)


def test_a_run_without_a_way_through_does_not_start():
    system = stages(21, 21)
    message = (
        r"nothing can be served through placement 'stages' with small_links='paper', which leaves out"
        r" links with less than 5 % of the flow of their sender \(here up to 4.76 %\), .*; use"
        r" small_links='relative', another scheduler, or a placement with fewer nodes side by side"
    )
    for ask in (hx.simulate, hx.estimate, hx.predict):
        with pytest.raises(SchedulingError, match=message):
            ask(*system, small_links="paper")
    assert decode_tokens_per_s(served(system, scheduler="swarm", small_links="paper")) > 0
    assert hx.max_flow(*system, small_links="paper").value_tokens_per_s == 0
    assert hx.max_flow(*system, small_links="relative").value_tokens_per_s > 0


def test_a_sender_in_the_middle_without_links_is_not_sent_to():
    """Requests that got there could not go on, and all others would wait behind them for good."""
    wide = 24
    counts = {"A100": 1, "T4x4": wide + 3 + 3, "L4x2": wide}
    cluster = hx.single_region(counts, bandwidth_bytes_per_s=5e5, name="middle")
    # An A100 sends by slow links to many, beside six nodes that serve the model in two stages.
    of_machine = {name: [node.index for node in cluster.nodes if node.machine == name] for name in counts}
    (first,), others, last = of_machine["A100"], of_machine["T4x4"], of_machine["L4x2"]
    spans = [(first, 0, 15), *((node, 15, 45) for node in others[:wide]), *((node, 45, 60) for node in last)]
    spans += [(node, 0, 30) for node in others[wide:-3]] + [(node, 30, 60) for node in others[-3:]]
    layers = tuple(hx.NodeLayers(*span) for span in sorted(spans))
    links = usable_links(cluster, layers, MODEL.layers, partial_inference=False)
    system = cluster, MODEL, hx.Placement("middle", "middle", MODEL.name, "by hand", layers, links)
    requests = pd.DataFrame({"input_tokens": [50] * 500, "output_tokens": 20})
    workload = hx.offline(initial_requests=20, requests=requests, warmup_s=10, duration_s=50)
    with pytest.warns(UserWarning, match="get through placement 'middle': small_links='paper' leaves out 2"):
        paper = hx.simulate(*system, workload=workload, small_links="paper")
    sent = paper.links.set_index(["sender", "receiver"])["tokens_per_s"]
    assert sent["source", first] == 0
    assert sum(sent["source", node] for node in others[wide:-3]) > 0
    assert paper.metrics["requests_refused"] == paper.timeline["queued"].iloc[-1] == 0
    assert decode_tokens_per_s(hx.simulate(*system, workload=workload)) > 1.5 * decode_tokens_per_s(paper)


def test_a_run_that_loses_much_of_the_flow_warns_and_says_so():
    system = uneven()
    message = r"at most 1688\.0 of 7433\.9 tokens/s get through .* leaves out \d+ links with less than 5 %"
    with pytest.warns(UserWarning, match=message):
        result = served(system, small_links="paper")
    (finding,) = [each for each in hx.diagnose(result) if each.cause == "below the share"]
    assert "at most 1690 of the 7430 tokens/s of the maximum flow get through" in finding.text
    assert "small_links='relative'" in finding.advice
    assert finding.evidence["small_links"] == "paper"
    assert len(finding.evidence["links"]) >= 18
    passing = hx.max_flow(*system, small_links="paper").value_tokens_per_s
    assert passing_tokens_per_s(result) == pytest.approx(passing, rel=1e-6)
    assert finding.evidence["passing_tokens_per_s"] == pytest.approx(passing, rel=1e-6)
    assert hx.diagnose(result)[0] == finding

    whole = served(system)
    assert passing_tokens_per_s(whole) == whole.metrics["max_flow_tokens_per_s"]
    assert not [each for each in hx.diagnose(whole) if each.cause == "below the share"]
    predicted = {rule: hx.predict(*system, small_links=rule).decode_tokens_per_s for rule in RULES}
    assert predicted["relative"] > 2 * predicted["paper"]


def test_the_rule_is_part_of_what_ran(tmp_path):
    system = stages(2, 2)
    usual, paper = served(system), served(system, small_links="paper")
    assert usual.provenance["settings"]["small_links"] == "relative"
    assert "small_links" not in usual.origin
    assert "; small_links paper; " in paper.origin
    assert differing_settings([usual, paper]) == {"small_links": ["relative", "paper"]}
    paper.save(tmp_path / "saved")
    assert hx.load_result(tmp_path / "saved").provenance["settings"]["small_links"] == "paper"
    grid = {"cluster": [system[0]], "placement": system[2], "workload": hx.offline(duration_s=5)}
    runs = hx.sweep(grid | {"small_links": ["relative", "paper", "papr"]}, progress=False)
    assert runs["small_links"].tolist() == ["relative", "paper", "papr"]
    assert runs["error"].isna().tolist() == [True, True, False]
    with pytest.raises(UnknownNameError, match="unknown rule small_links 'papr'; did you mean 'paper'"):
        hx.simulate(*system, small_links="papr")
