"""Numbers of numpy and pandas are numbers, everywhere."""

import json
import math
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import helixlab as hx
from helixlab._validation import as_flag, as_generator, as_items, as_jobs, as_number, as_seed, as_whole, plain
from helixlab.errors import ClusterError, HelixlabError, ModelError, PlacementError
from helixlab.experiments.sweep import seeds_of
from helixlab.placement.placement import PlanReport
from helixlab.scheduling import SCHEDULERS
from helixlab.simulation.provenance import hash_of
from helixlab.workload import offline, online

CLUSTER, MODEL = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
PLACEMENT = hx.load_placement("small10/llama-1-30b/helix")
WHOLE = [int, np.int8, np.int64, np.uint16, np.array, lambda n: pd.Series([n], dtype="Int64")[0]]
NUMBERS = [*WHOLE, float, np.float32, np.float64, np.longdouble, Fraction, Decimal]
NO_NUMBERS = [
    True, np.True_, np.array(True), None, "3", np.str_("3"), b"3", math.nan, np.nan, pd.NA, pd.NaT, 1j, [3],
    np.array([3]), pd.Series([3]), np.timedelta64(3, "s"), np.datetime64(3, "s"), pd.Timedelta(3), {3},
    Decimal("NaN"), Decimal("sNaN"),
]  # fmt: skip


def is_plain(value):
    """Whether a value is made of nothing but Python's own types."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    if hasattr(value, "items"):
        return all(is_plain(part) for pair in value.items() for part in pair)
    if hasattr(value, "__dataclass_fields__"):
        return all(is_plain(getattr(value, field.name)) for field in fields(value))
    return value is None or type(value) in (int, float, bool, str)


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers(kind):
    assert type(as_whole(kind(3), "it", least=3, most=3, error=HelixlabError)) is int
    assert type(as_jobs(kind(3), error=HelixlabError)) is type(as_seed(kind(3), error=HelixlabError)) is int
    draws = as_generator(kind(3), error=HelixlabError).integers(1000)
    assert draws == np.random.default_rng(3).integers(1000)


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers(kind):
    number = as_number(kind(3), "it", least=3, most=3, error=HelixlabError)
    assert number == 3
    assert type(number) is float


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("check", [as_whole, as_number])
def test_no_numbers(check, value):
    with pytest.raises(HelixlabError, match=r"^it is .*; give a (whole )?number") as caught:
        check(value, "it", error=HelixlabError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [3.0, np.float64(3), 3.5, Fraction(7, 2)])
def test_whole_numbers_are_of_a_whole_type(value):
    with pytest.raises(HelixlabError, match="it is 3"):
        as_whole(value, "it", error=HelixlabError)


@given(st.floats() | st.integers(), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_limits(value, least, most):
    try:
        number = as_number(value, "it", least=least, most=most, error=HelixlabError)
    except HelixlabError:
        assert not least <= value <= most or abs(value) > 1e308
    else:
        assert least <= number <= most
        assert math.copysign(1, number) == 1 or number < 0  # no negative zero


def test_limits_in_words():
    for limits, words in [
        ({"least": 1, "most": 2}, "from 1 to 2"),
        ({"above": 0}, "above 0"),
        ({"above": 0, "below": 1}, "above 0 and below 1"),
        ({"least": 0.5}, "of at least 0.5"),
        ({}, "give a number$"),
    ]:
        with pytest.raises(HelixlabError, match=words):
            as_number("much", "it", error=HelixlabError, **limits)


@pytest.mark.parametrize("value", [True, np.True_, np.array(True)])
def test_flags(value):
    assert as_flag(value, "it", error=HelixlabError) is True


@pytest.mark.parametrize("value", [1, "yes", None, np.int64(1)])
def test_no_flags(value):
    with pytest.raises(HelixlabError, match=r"it is .*; give True or False"):
        as_flag(value, "it", error=HelixlabError)


@pytest.mark.parametrize("values", [[1, 2], (1, 2), np.array([1, 2]), pd.Series([1, 2]), range(1, 3)])
def test_items(values):
    assert repr(as_items(values, "it", error=HelixlabError)) == "(1, 2)"


@pytest.mark.parametrize("values", ["12", b"12", {1, 2}, {1: 2}, 12, None, np.eye(2), pd.DataFrame([1, 2])])
def test_no_items(values):
    with pytest.raises(HelixlabError, match=r"it is .*; give a sequence of numbers"):
        as_items(values, "it", error=HelixlabError)


def numpy_placement():
    layers = [
        hx.NodeLayers(*(np.int64(n) for n in (held.node, held.first_layer, held.end_layer)))
        for held in PLACEMENT.layers
    ]
    links = np.empty((len(PLACEMENT.links), 2), dtype=object)
    links[:] = [
        [np.str_(end) if isinstance(end, str) else np.int32(end) for end in link] for link in PLACEMENT.links
    ]
    first = PLACEMENT.layers[0].node
    capacity = PLACEMENT.kv_capacity(CLUSTER, MODEL, first)
    texts = {
        name: np.str_(getattr(PLACEMENT, name)) for name in ("name", "cluster", "model", "method", "source")
    }
    return (
        hx.Placement(
            **texts,
            layers=layers,
            links=links,
            kv_capacity_token_layers={np.int16(first): np.int64(capacity)},
        ),
        replace(PLACEMENT, kv_capacity_token_layers={first: capacity}),
    )


def test_a_placement_of_numpy_numbers(tmp_path):
    mine, other = numpy_placement()
    assert mine == other
    assert (hash(mine), repr(mine), mine.content_hash) == (hash(other), repr(other), other.content_hash)
    assert all(is_plain(getattr(mine, field.name)) for field in fields(mine))
    hx.save_placement(mine, np.str_(tmp_path / "mine.json"))
    with pytest.warns(UserWarning, match="calls its placement"):
        assert hx.load_placement(np.str_(tmp_path / "mine.json")) == other
    node = np.int64(mine.layers[0].node)
    assert mine.layers_of(node) == mine.layers[0]
    assert type(mine.kv_capacity(CLUSTER, MODEL, node)) is int
    assert CLUSTER.machine_of(node) == CLUSTER.machine_of(int(node))
    assert hx.max_flow(CLUSTER, MODEL, mine) == hx.max_flow(CLUSTER, MODEL, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [(0, 1, 2)]}, "layers hold .*; give NodeLayers"),
        ({"links": [(0, 1, 2)]}, "links hold .*; give pairs"),
        ({"links": [3]}, "links hold 3; give pairs"),
        ({"links": [("source", 0.5)]}, "has the end 0.5; give the index of a node"),
        ({"kv_capacity_token_layers": {0: 1.5}}, "the KV capacity of node 0 is 1.5; give a whole number"),
        ({"kv_capacity_token_layers": {"0": 1}}, "a node with a KV capacity is '0'; give a whole number"),
    ],
)
def test_no_placements(change, message):
    with pytest.raises(PlacementError, match=message):
        replace(PLACEMENT, **change)
    with pytest.raises(PlacementError, match="first_layer of NodeLayers is True"):
        hx.NodeLayers(0, True, 2)


def test_clusters_and_models_of_numpy_numbers():
    amounts = ("vram_bytes", "nic_in_bytes_per_s", "nic_out_bytes_per_s", "disk_bytes_per_s")
    machines = [
        hx.Machine(np.str_(m.name), *(np.int64(getattr(m, amount)) for amount in amounts))
        for m in CLUSTER.machines
    ]
    nodes = [hx.Node(np.int64(n.index), np.str_(n.machine), np.str_(n.region)) for n in CLUSTER.nodes]
    links = [
        hx.Link(
            *(np.str_(e) if isinstance(e, str) else np.int64(e) for e in (each.sender, each.receiver)),
            Fraction(each.bandwidth_bytes_per_s), np.float64(each.latency_s),
        )
        for each in CLUSTER.links
    ]  # fmt: skip
    nics = (np.float64(CLUSTER.coordinator.nic_in_bytes_per_s), int(CLUSTER.coordinator.nic_out_bytes_per_s))
    mine = hx.Cluster(np.str_(CLUSTER.name), machines, nodes, links, hx.Coordinator(*nics))
    assert mine == CLUSTER
    assert (hash(mine), mine.content_hash) == (hash(CLUSTER), CLUSTER.content_hash)
    assert all(is_plain(getattr(mine, field.name)) for field in fields(mine))
    profile = MODEL.profile("T4")
    columns = {f.name: getattr(profile, f.name) for f in fields(profile) if f.name != "machine"}
    arrays = {name: np.array(value) for name, value in columns.items()}
    assert repr(hx.MachineProfile(np.str_("T4"), **arrays).__dict__) == repr(
        {f.name: getattr(profile, f.name) for f in fields(profile)}
    )
    series = {name: pd.Series(v) if isinstance(v, tuple) else np.array(v) for name, v in columns.items()}
    again = MODEL.with_profile(hx.MachineProfile("T4", **series))
    assert again == MODEL
    assert hash_of(again) == hash_of(MODEL)
    assert hash_of(replace(MODEL, layers=np.int64(60), token_bytes=np.uint8(2))) == hash_of(MODEL)


def test_no_profiles():
    with pytest.raises(ModelError, match=r"profiles of model 'mine' are \[\]; give a mapping"):
        hx.Model("mine", 2, 1, 1, 1, [])
    with pytest.raises(ModelError, match="the profile of machine 'T4' is 5; give a MachineProfile"):
        hx.Model("mine", 2, 1, 1, 1, {"T4": 5})
    with pytest.raises(ModelError, match="batch of '5' prompt tokens"):
        MODEL.profile("T4").prompt_time_s("5")


def test_whole_and_broken_numbers_are_one_content():
    whole = hx.Machine("T4", 16 * 10**9, 10**10, 10**10, 10**9)
    broken = hx.Machine("T4", 16e9, 1e10, 1e10, 1e9)
    others = [machine for machine in CLUSTER.machines if machine.name != "T4"]
    clusters = [replace(CLUSTER, machines=[*others, machine]) for machine in (whole, broken)]
    assert clusters[0] == clusters[1]
    assert clusters[0].content_hash == clusters[1].content_hash
    zero = [
        replace(CLUSTER, links=[replace(link, latency_s=z) for link in CLUSTER.links]) for z in (0, 0.0, -0.0)
    ]
    assert len({cluster.content_hash for cluster in zero}) == len(set(zero)) == 1


def test_workloads_and_policies_of_numpy_numbers():
    mine = offline(
        initial_requests=np.int64(5), warmup_s=np.float32(1), duration_s=np.int8(60), rng=np.uint8(3)
    )
    assert mine == offline(initial_requests=5, warmup_s=1, duration_s=60, rng=3)
    assert all(is_plain(getattr(mine, field.name)) for field in fields(mine))
    assert online(rate_tokens_per_s=np.array(70), trace=np.str_("azure-conv")).rate_tokens_per_s == 70
    policy = hx.chunked(chunk_tokens=np.int64(64), memory_floor=np.True_, prompt_cost_factor=Decimal(1))
    assert repr(policy) == repr(hx.chunked())
    assert hash_of(policy) == hash_of(hx.chunked())
    scheduler = hx.Scheduler(
        "mine", SCHEDULERS["swarm"].choose, parameters=np.array([1, 2]), plans_ahead=np.False_
    )
    assert scheduler.parameters == (1.0, 2.0)
    assert is_plain(scheduler.parameters)
    assert scheduler.plans_ahead is False
    assert is_plain(PlanReport("mine", np.float32(1), np.int64(2), np.float64(0), np.ones((1, 3))))


@pytest.mark.parametrize("seeds", [3, np.int64(3), np.array(3), range(3), np.arange(3), pd.Series(range(3))])
def test_seeds(seeds):
    assert repr(seeds_of(seeds)) == "[0, 1, 2]"


def test_runs_with_numpy_numbers():
    workload = offline(warmup_s=0, duration_s=10)
    settings = {
        "kv_high_water_mark": np.float32(0.5),
        "expected_output_ratio": np.int64(1),
        "sample_step_s": np.int64(5),
    }
    result = hx.simulate(CLUSTER, MODEL, PLACEMENT, workload=workload, keep_batches=np.True_, **settings)
    assert is_plain(tuple(result.provenance["settings"].values()))
    json.dumps(result.provenance)
    runs = hx.sweep(
        {"placement": PLACEMENT, "workload": workload, "sample_step_s": np.array(0)},
        seeds=np.int64(1),
        n_jobs=np.int64(1),
    )
    assert runs["error"].tolist() == [None]


@pytest.mark.parametrize("n_jobs", [-1, np.int64(1), 1])
def test_planning_with_numpy_numbers(n_jobs):
    options = {"rng": np.int64(3), "time_limit_s": np.float32(1), "objective": "flow", "n_jobs": n_jobs}
    assert hx.plan(CLUSTER, MODEL, **options).report.status in ("optimal", "heuristic", "time limit")
    order = np.arange(10)[::-1]
    mine = hx.plan(CLUSTER, MODEL, method="petals", order=order)
    assert mine == hx.plan(CLUSTER, MODEL, method="petals", order=order.tolist())


@pytest.mark.parametrize("count", [np.int64(2), np.uint8(2), pd.Series([2])[0]])
def test_generated_clusters_of_numpy_numbers(count):
    expected = hx.single_region({"T4": 2}, rng=1)
    assert hx.single_region({np.str_("T4"): count}, rng=np.int64(1), latency_s=np.float64(1e-3)) == expected
    with pytest.raises(ClusterError, match="shuffle is 'no'; give True or False"):
        hx.single_region({"T4": 2}, shuffle="no")


def test_plain_leaves_the_rest():
    for value in (None, [1], np.timedelta64(1, "s"), np.array([1])):
        assert plain(value) is value
