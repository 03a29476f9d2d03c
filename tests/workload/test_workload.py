"""Offline and online workloads."""

import math
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from helixlab.errors import FileFormatError, UnknownNameError, WorkloadError
from helixlab.workload import offline, online, trace_lengths, trace_names


def arrivals(workload):
    batches = list(workload.batches())
    assert len(batches) == 1
    return batches[0]


# Offline


@pytest.mark.parametrize("trace", trace_names())
def test_offline_lengths_are_drawn_from_the_trace(trace):
    drawn = np.concatenate(list(islice(offline(trace=trace, rng=1).batches(), 4)))
    assert (drawn[:, 0] == 0).all()
    lengths = trace_lengths(trace)
    known = set(map(tuple, lengths.to_numpy().tolist()))
    assert set(map(tuple, drawn[:, 1:].tolist())) <= known
    np.testing.assert_allclose(drawn[:, 1:].mean(axis=0), lengths.mean(), rtol=0.1)


def test_offline_never_ends():
    assert len(list(islice(offline().batches(), 20))) == 20


def test_offline_of_ones_own_requests_in_their_order_once():
    table = pd.DataFrame({"input_tokens": [30, 10, 20], "output_tokens": [3, 1, 2]})
    workload = offline(requests=table)
    np.testing.assert_array_equal(arrivals(workload), [[0, 30, 3], [0, 10, 1], [0, 20, 2]])
    assert workload.trace == ""
    assert not workload.online


# Online


@settings(max_examples=8)
@given(
    rate=st.floats(300, 5000),
    trace=st.sampled_from(trace_names()),
    arrivals_of=st.sampled_from([None, "azure-code", "azure-conv", "poisson"]),
    seed=st.integers(0, 2**40),
)
def test_online_meets_the_rate(rate, trace, arrivals_of, seed):
    duration_s = 36_000
    table = arrivals(
        online(rate_tokens_per_s=rate, duration_s=duration_s, trace=trace, arrivals=arrivals_of, rng=seed)
    )
    times, tokens = table[:, 0], table[:, 1:].sum(axis=1)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < duration_s
    # Intervals of 3 s are drawn independently; requests in each, and tokens in each request, scatter.
    mean = trace_lengths(trace).sum(axis=1).mean()
    assert tokens.sum() / duration_s == pytest.approx(rate, rel=0.15)
    assert len(times) / duration_s * mean == pytest.approx(rate, rel=0.15)


def test_arrivals_are_bursty_as_in_the_trace_or_even():
    def spread(arrivals_of):
        times = arrivals(online(rate_tokens_per_s=5000, duration_s=9000, arrivals=arrivals_of))[:, 0]
        counts = np.bincount((times // 3).astype(int), minlength=3000)
        return counts.var() / counts.mean()

    assert spread("poisson") == pytest.approx(1, abs=0.15)
    assert spread("azure-code") > 2 * spread("poisson")


def test_times_are_even_inside_an_interval():
    times = arrivals(online(rate_tokens_per_s=5000, duration_s=9000))[:, 0]
    counts, _ = np.histogram(times % 3, bins=6, range=(0, 3))
    np.testing.assert_allclose(counts / counts.mean(), 1, atol=0.1)


def test_a_duration_that_is_no_multiple_of_the_interval():
    for duration_s in (0.5, 4.0, 100.1):
        times = arrivals(online(rate_tokens_per_s=5000, duration_s=duration_s))[:, 0]
        assert (times < duration_s).all()


def test_arrivals_of_the_trace_by_default():
    assert online(rate_tokens_per_s=1, trace="azure-code").arrivals == "azure-code"
    assert online(rate_tokens_per_s=1, trace="alpaca").arrivals == "azure-conv"


def test_online_of_ones_own_requests():
    table = pd.DataFrame(
        {"arrival_s": [0.5, 0.5, 7], "input_tokens": [30, 10, 20], "output_tokens": [3, 1, 2]}
    )
    workload = online(requests=table, duration_s=10)
    np.testing.assert_array_equal(arrivals(workload), table)
    assert workload.online


# Seeds


def arriving(*times_s):
    return pd.DataFrame({"arrival_s": times_s, "input_tokens": 10, "output_tokens": 5})


@pytest.mark.parametrize(
    "first_s", [3601.0, 1709542810.25, 1.7e9 + 0.5, 1709542810250.0], ids=["slice", "1970", "1970", "ms"]
)
def test_arrivals_far_from_0_are_moved(first_s, tmp_path):
    table = arriving(first_s, first_s + 1.5, first_s + 3.75)
    table.to_csv(tmp_path / "mine.csv", index=False)
    for requests in (table, tmp_path / "mine.csv"):
        with pytest.warns(UserWarning, match=f"moved by {first_s:.15g} seconds") as warned:
            workload = online(requests=requests)
        assert warned[0].filename == __file__
        np.testing.assert_allclose(arrivals(workload)[:, 0], [0, 1.5, 3.75], atol=1e-3)
        assert ("milliseconds" in str(warned[0].message)) == (first_s > 1e11)
    assert table["arrival_s"].iloc[0] == first_s, "the user's table is as it was"


@pytest.mark.parametrize("times_s", [(3600.0, 3601.0), (0, 1e8), (5000.0, 10_001.0), (0,), (30, 30)])
def test_other_arrivals_stay(times_s, recwarn):
    assert arrivals(online(requests=arriving(*times_s)))[:, 0].tolist() == list(times_s)
    assert not recwarn


@pytest.mark.parametrize("times_s", [(0, 1.7e9), (1.6e12, 1.7e12)])
@pytest.mark.filterwarnings("ignore:the first request arrives")
def test_a_trace_longer_than_a_run(times_s):
    with pytest.raises(WorkloadError, match="at most 1e\\+09; give arrival_s in seconds"):
        online(requests=arriving(*times_s))


@pytest.mark.parametrize(
    ("times_s", "duration_s"),
    [((0,), 60), ((0, 0), 60), ((5, 59), 60), ((0, 61.5), 61.5), ((0, 432_000), 432_000)],
)
def test_the_window_of_ones_own_requests(times_s, duration_s):
    assert online(requests=arriving(*times_s)).duration_s == duration_s
    assert online(requests=arriving(*times_s), duration_s=7).duration_s == 7
    assert offline(requests=arriving(*times_s)).duration_s == 600
    assert online(rate_tokens_per_s=5).duration_s == 1800
    assert online(requests=arriving(*times_s), warmup_s=59).warmup_s == 59
    with pytest.raises(WorkloadError, match=f"of the {duration_s:g} seconds in which requests arrive"):
        online(requests=arriving(*times_s), warmup_s=duration_s)
    with pytest.raises(WorkloadError, match="warmup_s is '1'"):
        online(requests=arriving(*times_s), warmup_s="1")


def test_intervals_are_drawn_one_by_one():
    with pytest.raises(WorkloadError, match="at most 3e\\+07 seconds"):
        online(rate_tokens_per_s=1e-3, duration_s=4e7)


@pytest.mark.parametrize("make", [offline, lambda **rng: online(rate_tokens_per_s=500, **rng)])
def test_seeds_and_generators(make):
    def drawn(rng):
        return next(make(rng=rng).batches())

    np.testing.assert_array_equal(drawn(3), drawn(np.int64(3)))
    assert not np.array_equal(drawn(3), drawn(4))
    np.testing.assert_array_equal(drawn(np.random.default_rng(3)), drawn(np.random.default_rng(3)))
    generator = np.random.default_rng(3)
    assert not np.array_equal(drawn(generator), drawn(generator)), "a generator moves on"


def test_a_workload_says_the_same_each_time():
    workload = offline(rng=np.random.default_rng(3))
    np.testing.assert_array_equal(next(workload.batches()), next(workload.batches()))
    assert isinstance(workload.seed, int)
    assert workload == offline(rng=workload.seed)


# What makes no sense


@pytest.mark.parametrize("rng", [-1, 1.5, "0", None, True])
def test_seeds_that_make_no_sense(rng):
    with pytest.raises(WorkloadError, match=r"rng is .*; give a seed from 0 to"):
        offline(rng=rng)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_durations_and_rates_that_make_no_sense(value):
    with pytest.raises(WorkloadError, match=r"duration_s is .*; give a number above 0"):
        offline(duration_s=value)
    with pytest.raises(WorkloadError, match=r"duration_s is .*; give a number above 0"):
        online(rate_tokens_per_s=5, duration_s=value)
    with pytest.raises(WorkloadError, match=r"rate_tokens_per_s is .*; give a number above 0"):
        online(rate_tokens_per_s=value)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_warmups_that_make_no_sense(value):
    with pytest.raises(WorkloadError, match=r"warmup_s is .*; give a number from 0"):
        offline(warmup_s=value)


def test_other_arguments_that_make_no_sense():
    with pytest.raises(WorkloadError, match="initial_requests is 0; give a whole number from 1"):
        offline(initial_requests=0)
    with pytest.raises(WorkloadError, match="needs rate_tokens_per_s"):
        online()
    with pytest.raises(UnknownNameError, match="did you mean 'sharegpt'"):
        offline(trace="sharegtp")
    with pytest.raises(UnknownNameError, match="did you mean 'sharegpt'"):
        online(rate_tokens_per_s=5, trace="sharegtp")
    with pytest.raises(UnknownNameError, match="unknown arrivals 'alpaca'"):
        online(rate_tokens_per_s=5, arrivals="alpaca")
    with pytest.raises(FileFormatError, match="no such file"):
        offline(requests="missing.csv")


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (online, {"rate_tokens_per_s": 100}),
        (online, {"trace": "sharegpt"}),
        (online, {"arrivals": "poisson"}),
        (offline, {"trace": "azure-conv"}),
    ],
)
def test_what_requests_leave_undecided_is_refused_beside_them(make, given):
    requests = pd.DataFrame({"arrival_s": [0.0], "input_tokens": [10], "output_tokens": [2]})
    with pytest.raises(WorkloadError, match=f"{next(iter(given))} is .* beside requests"):
        make(requests=requests, **given)
