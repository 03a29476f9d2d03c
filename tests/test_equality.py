"""Equal means the same content: of own requests, of tables, and of what was pickled."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import helixlab as hx
from helixlab._equality import same
from helixlab._hashing import digest
from helixlab.errors import WorkloadError
from helixlab.placement.placement import PlanReport
from helixlab.simulation.provenance import hash_of

CLUSTER, MODEL = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
PLACEMENT = hx.load_placement("small10/llama-1-30b/helix")
TABLE = pd.DataFrame({"arrival_s": [0.0, 1.5], "input_tokens": [10, 20], "output_tokens": [3, 4]})


def pickled(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301


@pytest.fixture(scope="module")
def subjects():
    """One of every public object that holds data."""
    result = hx.simulate(
        CLUSTER, MODEL, PLACEMENT, workload=hx.offline(warmup_s=0, duration_s=20), keep_breakdown=True
    )
    objective, runs = hx.Objective(ttft_s=10, tpot_s=2), result.summary.assign(error=None)
    return [
        CLUSTER, *CLUSTER.machines, CLUSTER.nodes[0], CLUSTER.links[0], CLUSTER.coordinator, MODEL,
        MODEL.profile("T4"), PLACEMENT, hx.plan(CLUSTER, MODEL, method="swarm"), PLACEMENT.layers[0],
        PlanReport("mine", None, 2.0, 0.1, ((0.0, float("nan"), float("nan")),)),
        hx.offline(), hx.online(rate_tokens_per_s=50), hx.online(requests=TABLE), hx.offline(requests=TABLE),
        hx.chunked(), hx.execution.get_execution("greedy"), hx.scheduling.get_scheduler("helix"),
        hx.max_flow(CLUSTER, MODEL, PLACEMENT), result, hx.Estimate(1.0, 2.0, 3.0, float("nan"), True),
        *hx.diagnose(result), hx.compare([result, result]), objective,
        hx.Goodput(objective, 1.0, 2.0, 3.0, result.summary), hx.Tuning(hx.chunked(), runs, runs),
        hx.predict(CLUSTER, MODEL, PLACEMENT),
    ]  # fmt: skip


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_copies_equal_their_originals(subjects, copied):
    for subject in subjects:
        again = copied(subject)
        assert again == subject, subject
        assert again != "something else"
        assert repr(again) == repr(subject)
        assert hash(again) == hash(subject)


def test_objects_that_differ_in_a_table_differ(subjects):
    for subject in subjects:
        if isinstance(subject, hx.Result):
            changed = subject.summary.assign(decode_tokens_per_s=-1.0)
            assert replace(subject, summary=changed) != subject
        if isinstance(subject, hx.Goodput):
            assert replace(subject, runs=subject.runs.assign(seed=7)) != subject


def test_findings_compare_by_their_evidence():
    finding = hx.Finding("idle", 0.1, "It is.", "Change it.", {"nodes": [1, float("nan")], "table": TABLE})
    assert finding == replace(finding, evidence={"nodes": [1, float("nan")], "table": TABLE.copy()})
    assert finding != replace(finding, evidence={"nodes": [1, 2.0], "table": TABLE})


@pytest.mark.parametrize("make", [hx.online, hx.offline])
def test_workloads_compare_their_requests(make):
    workload, other = make(requests=TABLE), make(requests=TABLE.assign(output_tokens=[3, 5]))
    assert workload == make(requests=TABLE.copy())
    assert hash(workload) == hash(make(requests=TABLE.copy()))
    assert workload != other
    assert digest(workload) != digest(other)
    assert len({workload, make(requests=TABLE.astype(float)), other}) == 2


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4), st.booleans())
def test_workloads_are_equal_where_their_contents_have_one_digest(rows, twice):
    table = pd.DataFrame(rows, columns=["input_tokens", "output_tokens"])
    other = table.iloc[::-1] if twice else table.astype(np.int32)
    one, two = hx.offline(requests=table), hx.offline(requests=other)
    assert (
        (one == two)
        == (digest(one) == digest(two))
        == table.equals(other.astype(np.int64).reset_index(drop=True))
    )


def test_requests_do_not_change_with_the_tables_that_come_and_go():
    mine = TABLE.copy()
    workload = hx.online(requests=mine)
    before = workload.requests.copy()
    mine.loc[0, "input_tokens"] = 99
    handed = workload.requests
    handed.loc[0, "input_tokens"] = 99
    handed["output_tokens"] = 99
    assert workload.requests.equals(before)
    assert next(workload.batches())[0].tolist() == [0.0, 10.0, 3.0]


@pytest.mark.parametrize(
    ("requests", "why"),
    [
        (5, "requests must be a DataFrame"),
        (TABLE.drop(columns="input_tokens"), "no column 'input_tokens'"),
        (TABLE.assign(input_tokens=[1.5, 2]), "input_tokens is 1.5"),
    ],
)
def test_no_requests(requests, why):
    with pytest.raises(WorkloadError, match=why):
        hx.Workload("offline", 0, 10, 0, initial_requests=1, requests=requests)


def test_the_order_of_profiles_is_no_content():
    turned = replace(MODEL, profiles=dict(reversed(MODEL.profiles.items())))
    assert turned == MODEL
    assert hash_of(turned) == hash_of(MODEL)
    assert digest(turned) == digest(MODEL)


def test_the_order_of_links_is_content():
    turned = replace(PLACEMENT, links=PLACEMENT.links[::-1])
    assert turned != PLACEMENT
    assert turned.content_hash != PLACEMENT.content_hash


@given(
    st.recursive(st.floats() | st.text(max_size=2), lambda inner: st.lists(inner, max_size=3), max_leaves=8)
)
def test_same_is_as_pickled(value):
    assert same(value, pickled(value))
    assert same({"a": value}, {"a": value})
    assert not same(value, [value])


def test_same_of_arrays():
    assert same(np.array([1.0, np.nan]), np.array([1.0, np.nan]))
    assert not same(np.array([1.0]), np.array([1]))
    assert not same(np.array([1.0]), [1.0])
    assert not same(TABLE, TABLE["arrival_s"])
