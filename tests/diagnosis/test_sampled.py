"""Means over samples, against the same numbers by requests and iterations."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import helixlab as hx
from helixlab.diagnosis.causes import explain
from helixlab.diagnosis.measures import facts_of, queued_fraction, queued_s
from helixlab.diagnosis.steady_state import window_blocks
from helixlab.experiments.pooling import pooled_metrics

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
STEP_S = 0.5


@st.composite
def runs(draw):
    """Bursts that fill the caches, with gaps between them; windows shorter and longer than the trace."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bursts = draw(st.lists(st.tuples(st.floats(0, 400), st.integers(1, 60)), min_size=1, max_size=3))
    starts = np.cumsum([gap for gap, _ in bursts])
    arrival_s = np.concatenate(
        [at + rng.uniform(0, 20, n) for at, (_, n) in zip(starts, bursts, strict=True)]
    )
    table = pd.DataFrame(
        {
            "arrival_s": np.sort(arrival_s),
            "input_tokens": rng.integers(200, 900, len(arrival_s)),
            "output_tokens": rng.integers(5, 40, len(arrival_s)),
        }
    )
    length_s = max(float(arrival_s.max()), 60.0)
    duration_s = length_s * draw(st.sampled_from([0.3, 1.0, 1.5, 10.0]))
    warmup_s = duration_s * draw(st.sampled_from([0.0, 0.0, 0.4]))
    workload = hx.online(requests=table, duration_s=duration_s, warmup_s=warmup_s)
    return hx.simulate(*SYSTEM, workload=workload, keep_breakdown=True, sample_step_s=STEP_S)


def overlap_s(begin_s, end_s, first_s, last_s):
    return float(np.clip(np.minimum(end_s, last_s) - np.maximum(begin_s, first_s), 0, None).sum())


@settings(max_examples=15, deadline=None)
@given(runs())
def test_numbers_agree_with_the_iterations(result):
    row, requests, iterations = result.metrics, result.requests, result.iterations
    first_s, last_s = row["window_start_s"], row["window_end_s"]
    span_s, count = last_s - first_s, len(requests)
    # Every request comes and goes, and is queued and let in: so often a sample may be a step late.
    late = 4 * count * STEP_S
    queued = iterations["queued_s"]
    truth_s = queued.groupby(iterations["request"]).sum().reindex(range(count)).fillna(0).mean()
    without = result.__class__(
        **{name: getattr(result, name) for name in result.__dataclass_fields__ if name != "iterations"},
        iterations=iterations.drop(columns="queued_s"),
    )
    assert queued_s(result) / count == pytest.approx(truth_s)
    assert queued_s(without) / count == pytest.approx(truth_s, abs=2 * STEP_S)
    some_queued = replace(result, summary=result.summary.assign(requests_queued=1))
    texts = [explain("little asked for", facts_of(some_queued)).text, *map(str, hx.diagnose(result))]
    assert "s on average over all requests" in texts[0]
    for text in texts:
        for number in re.findall(r"([\d.]+) s on average over all requests", text):
            assert float(number) == pytest.approx(truth_s, rel=0.006, abs=1e-3)

    in_system_s = overlap_s(requests["arrival_s"], requests["end_s"], first_s, last_s)
    blocks = window_blocks(result)
    assert blocks["in_flight"].mean() * span_s == pytest.approx(in_system_s, abs=late + 0.01 * in_system_s)
    waiting_s = overlap_s(iterations["start_s"], iterations["start_s"] + queued, first_s, last_s)
    facts = facts_of(result)
    if facts.demand_fraction > 0:
        assert facts.requests_in_service * facts.demand_fraction * span_s == pytest.approx(
            in_system_s - waiting_s, abs=late
        )
    moments = np.linspace(first_s, last_s, 4001)
    kept = iterations[queued > 0]
    any_queued = np.zeros(len(moments), bool)
    for start_s, for_s in kept[["start_s", "queued_s"]].to_numpy():
        any_queued |= (moments >= start_s) & (moments < start_s + for_s)
    for each in (result, _without_samples(result)):
        assert queued_fraction(each) == pytest.approx(any_queued.mean(), abs=4 * STEP_S * 3 / span_s + 2e-3)
    asked_s = max(row["last_finish_s"], first_s) - first_s
    assert facts.demand_fraction == pytest.approx(min(asked_s / span_s, 1.0))


def _without_samples(result):
    tables = {name: getattr(result, name) for name in result.__dataclass_fields__}
    for name in ("timeline", "node_timeline"):
        tables[name] = tables[name].iloc[:0]
    return result.__class__(**tables)


@settings(max_examples=10, deadline=None)
@given(runs())
def test_kv_use_is_of_the_whole_window(result):
    """With every sample put in again, the plain mean is the same."""
    row = result.metrics
    times = row["start_s"] + np.arange(0, (row["window_end_s"] - row["start_s"]) // STEP_S + 1) * STEP_S
    times = times[(times >= row["window_start_s"]) & (times <= row["window_end_s"])]
    wide = result.node_timeline.pivot(index="time_s", columns="node", values="kv_used_fraction")
    nodes = result.nodes.loc[result.nodes["end_layer"] > result.nodes["first_layer"], "node"]
    every = wide[nodes].to_numpy()[np.searchsorted(wide.index, times + 1e-7, side="right") - 1]
    assert pooled_metrics([result])["kv_used_fraction_mean"] == pytest.approx(every.mean())


def test_pools_of_different_steps():
    """A run is not worth more for being sampled more often."""
    workload = hx.offline(warmup_s=10, duration_s=60, rng=0)
    fine, coarse = (hx.simulate(*SYSTEM, workload=workload, sample_step_s=step_s) for step_s in (0.5, 5.0))
    other = hx.simulate(
        *SYSTEM,
        workload=hx.offline(initial_requests=1, warmup_s=10, duration_s=60),
        scheduler="swarm",
        sample_step_s=5.0,
    )
    one, two = (pooled_metrics([each, other])["kv_used_fraction_mean"] for each in (fine, coarse))
    assert one == pytest.approx(two, rel=0.05)


def test_a_beginning_without_requests_is_found():
    """A day from eight o'clock on, with times since midnight."""
    times_s = np.linspace(28_800, 115_200, 40)
    table = pd.DataFrame({"arrival_s": times_s, "input_tokens": 100, "output_tokens": 5})
    system = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    found = hx.diagnose(hx.simulate(*system, placement, workload=hx.online(requests=table)))
    (outside,) = [finding for finding in found if finding.cause == "outside the window"]
    assert "The first request arrives at 28800 s" in outside.text.replace(",", "")
    assert outside.cost == pytest.approx(0.25)
