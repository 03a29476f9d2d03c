"""Means over seeds and their intervals."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import helixlab as hx
from helixlab.errors import HelixlabError, UnknownNameError

RUNS = pd.DataFrame(
    {
        "placement": ["b", "b", "b", "a", "a", "b"],
        "chunk_tokens": [np.nan] * 3 + [64.0] * 3,
        "seed": [0, 1, 2, 0, 1, 0],
        "decode_tokens_per_s": [1.0, 2.0, 3.0, 10.0, np.nan, 5.0],
        "events": [10, 20, 60, 1, 2, 3],
        "error": [None, None, None, None, "SimulationError: no", None],
    }
)
BY = ["placement", "chunk_tokens"]
numbers = st.floats(-1e6, 1e6)


def test_by_hand():
    """Means 2 and 30, standard deviations 1 and sqrt(700); t for two degrees of freedom is 4.302653."""
    means = hx.mean_interval(RUNS, by=BY, values=["decode_tokens_per_s", "events"])
    assert list(means) == [*BY, "value", "mean", "low", "high", "runs", "failed", "not_run"]
    assert means["placement"].tolist() == ["b", "b", "a", "a", "b", "b"]
    assert means["value"].tolist() == ["decode_tokens_per_s", "events"] * 3
    assert means["mean"].tolist() == [2, 30, 10, 1, 5, 3]
    assert means["runs"].tolist() == [3, 3, 1, 1, 1, 1]
    assert means["failed"].tolist() == [0, 0, 1, 1, 0, 0]
    half = means["high"] - means["mean"]
    expected = [4.302653 / 3**0.5, 4.302653 * 700**0.5 / 3**0.5]
    assert half[:2].tolist() == pytest.approx(expected, rel=1e-6)
    assert (means["mean"] - means["low"])[:2].tolist() == pytest.approx(expected, rel=1e-6)
    assert means[["low", "high"]][2:].isna().all(axis=None)


def test_a_level():
    """t for two degrees of freedom: 2.919986 for 90 %, 9.924843 for 99 %."""
    for level, t in ((0.9, 2.919986), (0.99, 9.924843)):
        means = hx.mean_interval(RUNS[:3], by="placement", values="decode_tokens_per_s", level=level)
        assert means["high"].item() == pytest.approx(2 + t / 3**0.5, rel=1e-6)


def test_all_rows_are_one_group():
    means = hx.mean_interval(RUNS[:3], by=[], values="events")
    assert means.drop(columns=["low", "high"]).to_dict("records") == [
        {"value": "events", "mean": 30, "runs": 3, "failed": 0, "not_run": 0}
    ]


def test_no_runs_at_all():
    means = hx.mean_interval(RUNS[:0], by="placement", values="events")
    assert list(means) == ["placement", "value", "mean", "low", "high", "runs", "failed", "not_run"]
    assert means.empty


def test_nothing_but_failures():
    failed = RUNS.assign(error="SimulationError: no")[:3]
    means = hx.mean_interval(failed, by="placement", values="events")
    assert means[["runs", "failed"]].to_numpy().tolist() == [[0, 3]]
    assert means[["mean", "low", "high"]].isna().all(axis=None)


def test_an_infinite_latency_has_an_infinite_mean():
    runs = pd.DataFrame({"seed": [0, 1], "ttft_mean_s": [1.0, np.inf]})
    means = hx.mean_interval(runs, by=[], values="ttft_mean_s").iloc[0]
    assert means["mean"] == np.inf
    assert np.isnan(means["low"])
    assert np.isnan(means["high"])


@given(st.lists(numbers, min_size=2, max_size=30), st.floats(-100, 100), st.floats(0.5, 0.99))
def test_intervals(sample, shift, level):
    """Around the mean; moved with the sample; narrower for less, or with the same sample four times."""

    def interval(values, level=level):
        means = hx.mean_interval(pd.DataFrame({"x": values}), by=[], values="x", level=level)
        return means[["mean", "low", "high"]].iloc[0].to_numpy()

    mean, low, high = interval(sample)
    size = 1e-9 * (1 + np.abs(sample).max() + abs(shift))
    assert low <= mean <= high
    assert mean - low == pytest.approx(high - mean, abs=size)
    assert min(sample) - size <= mean <= max(sample) + size
    assert interval([x + shift for x in sample]) == pytest.approx(interval(sample) + shift, abs=100 * size)
    assert interval(sample[::-1]) == pytest.approx(interval(sample), abs=size)
    _, tight_low, tight_high = interval(sample * 4)
    assert tight_high - tight_low <= high - low + size
    _, less_low, less_high = interval(sample, level - 0.1)
    assert less_high - less_low <= high - low + size


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 6))
def test_intervals_hold_as_often_as_they_say(seed, runs):
    """Of 300 samples of a normal distribution, about 80 % have its mean in their interval."""
    draws = np.random.default_rng(seed).normal(7, 2, size=(300, runs))
    frame = pd.DataFrame({"group": np.repeat(np.arange(300), runs), "x": draws.ravel()})
    means = hx.mean_interval(frame, by="group", values="x", level=0.8)
    held = means["low"].le(7) & means["high"].ge(7)
    assert 0.68 < held.mean() < 0.92  # five standard deviations to each side


def test_of_a_sweep():
    grid = {"placement": "small10/llama-1-30b/helix", "scheduler": ["swarm", "random"]}
    runs = hx.sweep(grid | {"workload": hx.offline(warmup_s=5, duration_s=30)}, seeds=3, progress=False)
    means = hx.mean_interval(runs, by="scheduler", values=["decode_tokens_per_s"])
    assert means["scheduler"].tolist() == ["swarm", "random"]
    expected = runs.groupby("scheduler")["decode_tokens_per_s"].mean()
    assert means.set_index("scheduler")["mean"].to_dict() == pytest.approx(expected.to_dict())
    assert means["runs"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ({"by": "placment", "values": "events"}, UnknownNameError, "did you mean 'placement'"),
        ({"by": BY, "values": "decode_tokens"}, UnknownNameError, "unknown column 'decode_tokens'"),
        ({"by": BY, "values": []}, HelixlabError, "values is empty"),
        ({"by": BY, "values": "error"}, HelixlabError, "'error' holds no numbers"),
        (
            {"by": BY, "values": "events", "level": 95},
            HelixlabError,
            "level is 95; give a number between 0 and 1",
        ),
        (
            {"by": "placement", "values": "events"},
            HelixlabError,
            "seed 0 comes twice among the runs of .*'b'",
        ),
        ({"by": [], "values": "events"}, HelixlabError, "seed 0 comes twice among the runs of all rows"),
    ],
)
def test_arguments_that_make_no_sense(asked, kind, message):
    with pytest.raises(kind, match=message):
        hx.mean_interval(RUNS, **asked)


def test_a_column_of_the_answer_is_no_group():
    with pytest.raises(HelixlabError, match="by has 'runs', which the answer has too"):
        hx.mean_interval(RUNS.assign(runs=1), by="runs", values="events")


def test_what_is_no_table():
    with pytest.raises(HelixlabError, match=r"runs is \[1, 2\]; give a DataFrame"):
        hx.mean_interval([1, 2], by=[], values="events")


def test_what_was_not_run_has_not_failed():
    table = RUNS.assign(error=[None, *["not run: interrupted"] * (len(RUNS) - 1)])
    means = hx.mean_interval(table[:1], by="placement", values="decode_tokens_per_s")
    assert means[["failed", "not_run"]].to_numpy().tolist() == [[0, 0]]
    assert not means.attrs
    rest = hx.mean_interval(table[1:3], by=[], values="decode_tokens_per_s")
    assert rest[["runs", "failed", "not_run"]].to_numpy().tolist() == [[0, 0, 2]]
    assert rest.attrs["partial"]


def test_means_of_what_is_partial_are_partial():
    """Also where the rows that were not run were left out before."""
    whole = RUNS[:3].copy()
    assert not hx.mean_interval(whole, by=[], values="events").attrs
    whole.attrs["partial"] = True
    assert hx.mean_interval(whole, by=[], values="events").attrs["partial"]
    stopped = RUNS[:3].assign(partial=[False, True, False])
    assert hx.mean_interval(stopped, by=[], values="events").attrs["partial"]
