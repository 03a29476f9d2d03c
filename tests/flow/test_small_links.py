"""Which links the Helix scheduler does without for their flow, by either rule, and what that leaves."""

from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

import helixlab as hx
from helixlab.cluster import SINK, SOURCE
from helixlab.errors import UnknownNameError
from helixlab.flow import links_left_out
from helixlab.flow.small_links import MOST_LEFT_OUT


def one_sender(*flows):
    """A node that sends so much by each of its links, and nodes behind it that send all on."""
    sent = {("first", f"node {number}"): flow for number, flow in enumerate(flows)}
    onward = {(receiver, SINK): flow for (_, receiver), flow in sent.items()}
    return {(SOURCE, "first"): sum(flows)} | sent | onward


def of_the_sender(on_link, rule="relative"):
    """Positions of the links of that node that are left out."""
    left_out = links_left_out(on_link, rule)
    return [at for at, link in enumerate(link for link in on_link if link[0] == "first") if link in left_out]


amounts = st.one_of(st.floats(1e-3, 1e4), st.sampled_from([0.1 * 3, 1.0, 5.0, 1e-13, 1e-9]))


@st.composite
def flows(draw):
    """A flow made of routes through stages of nodes, as wide as a hundred, with any amount on each."""
    stages = [
        [f"{stage}.{node}" for node in range(draw(st.integers(1, width)))]
        for stage, width in enumerate(
            draw(st.lists(st.sampled_from([1, 3, 25, 100]), min_size=1, max_size=3))
        )
    ]
    on_link = {}
    alike = draw(amounts)
    for _ in range(draw(st.integers(1, 120))):
        route = [SOURCE, *(draw(st.sampled_from(stage)) for stage in stages), SINK]
        amount = draw(st.one_of(st.just(alike), amounts))
        for link in pairwise(route):
            on_link[link] = on_link.get(link, 0.0) + amount
    return on_link


@settings(max_examples=30)
@given(flows())
def test_little_is_left_out_a_path_stays_and_equal_links_are_treated_alike(on_link):
    left_out = links_left_out(on_link)
    kept = [link for link in on_link if link not in left_out]
    for sender in {sender for sender, _ in on_link}:
        links = [link for link in on_link if link[0] == sender]
        whole = sum(on_link[link] for link in links)
        assert sum(on_link[link] for link in links if link in left_out) < MOST_LEFT_OUT * whole
        assert max(links, key=on_link.__getitem__) in kept
    end = SOURCE
    while end != SINK:  # whichever is taken, there is one more
        end = next(receiver for sender, receiver in kept if sender == end)

    for sender in {sender for sender, _ in on_link}:
        fates = {}
        for link in on_link:
            if link[0] == sender:
                fates.setdefault(on_link[link], set()).add(link in left_out)
        assert all(len(each) == 1 for each in fates.values())


@given(st.floats(1e-6, 1.0), st.floats(1e-3, 1e6))
def test_of_two_links_both_rules_leave_out_the_same(part, whole):
    if abs(part - 0.05) < 1e-6:
        part = 0.04
    on_link = one_sender(part * whole, (1 - part) * whole)
    assert of_the_sender(on_link) == of_the_sender(on_link, "paper")


@pytest.mark.parametrize("name", hx.placement_names())
def test_in_bundled_placements_both_rules_leave_out_the_same(name):
    placement = hx.load_placement(name)
    cluster = placement.part or hx.load_cluster(placement.cluster)
    flow = hx.max_flow(cluster, hx.load_model(placement.model), placement)
    shares = flow.links["flow_tokens_per_s"] / flow.links.groupby(flow.links["sender"].astype(str))[
        "flow_tokens_per_s"
    ].transform("sum")
    by_share = {link for link, share in zip(flow.on_link, shares, strict=True) if not share >= 0.05}
    assert links_left_out(flow.on_link) == links_left_out(flow.on_link, "paper") == by_share


@pytest.mark.parametrize("amount", [0.1 * 3, 1.0, 7e-5, 1e6 / 3])
@pytest.mark.parametrize("count", [1, 19, 20, 21, 40, 1000])
def test_equal_links_all_stay(count, amount):
    on_link = one_sender(*[amount] * count)
    assert of_the_sender(on_link) == []
    paper = of_the_sender(on_link, "paper")
    assert (len(paper) == count) if count > 20 else (not paper or count == 20)


def test_rounding_errors_of_equal_links_do_not_tell_them_apart():
    amounts = [1.0 + number * 1e-13 for number in range(3)] * 2 + [0.004, 0.004 * (1 + 1e-12)] * 7
    assert of_the_sender(one_sender(*amounts)) == list(range(6, 20)), "5.6 of 600 in all"
    assert of_the_sender(one_sender(*amounts, *[0.02] * 20)) == list(range(6, 20)), "more would be too much"


@pytest.mark.parametrize(
    ("amounts", "left_out"),
    [
        ([96.0, 4.0], [1]),
        ([4.0, 96.0, 1e-13, *[1e-12] * 30], [0, *range(2, 33)]),
        ([94.0, 6.0], []),
        ([50.0, *[2.5] * 20], []),
        ([90.0, *[1.0] * 10], []),
        ([90.0, 0.9, 0.9, 0.9], [1, 2, 3]),
        ([1.0, 0.0], [1]),
        ([1e-13, 1e-13], []),
    ],
)
def test_what_is_small_beside_the_others_is_left_out(amounts, left_out):
    assert of_the_sender(one_sender(*amounts)) == left_out


@pytest.mark.parametrize("rule", ["relative", "paper"])
def test_links_into_dead_ends_are_left_out(rule):
    # More than 20 equal links leave the second node, and by the paper's rule none of them is used.
    ways = {("wide", number): 1.0 for number in range(30)} | {(number, SINK): 1.0 for number in range(30)}
    on_link = {(SOURCE, "narrow"): 10.0, (SOURCE, "wide"): 30.0, ("narrow", SINK): 10.0} | ways
    left_out = links_left_out(on_link, rule)
    assert ((SOURCE, "wide") in left_out) == (rule == "paper")
    assert (SOURCE, "narrow") not in left_out
    # What a rounding error leads to has no way on at all.
    assert (SOURCE, "stray") in links_left_out(on_link | {(SOURCE, "stray"): 1e-13}, rule)


def test_unknown_rules():
    for rule in ("papers", None, 5, ["paper"]):
        with pytest.raises(UnknownNameError, match=r"unknown rule small_links .* Known: paper, relative"):
            links_left_out({(SOURCE, SINK): 1.0}, rule)


def test_the_flow_that_gets_through():
    system = hx.load_cluster("hetero42"), hx.load_model("llama-2-70b")
    placement = hx.load_placement("hetero42/llama-2-70b/swarm")
    whole = hx.max_flow(*system, placement)
    table = whole.left_out("paper")
    assert whole.small_links is None
    assert table[["sender", "receiver"]].to_numpy().tolist() == [[30, 37]]
    assert 0 < table["share"].item() < 0.05
    for rule in ("relative", "paper"):
        passing = hx.max_flow(*system, placement, small_links=rule)
        assert passing.on_link[30, 37] == 0
        assert passing.links["capacity_tokens_per_s"].equals(whole.links["capacity_tokens_per_s"])
        assert 0.95 * whole.value_tokens_per_s < passing.value_tokens_per_s <= whole.value_tokens_per_s
        assert f"with small_links={rule!r}" in repr(passing)
        assert f"with small_links={rule!r}" in passing._repr_html_().replace("&#x27;", "'")
    with pytest.raises(UnknownNameError, match="did you mean 'paper'"):
        hx.max_flow(*system, placement, small_links="papr")
