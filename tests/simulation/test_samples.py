"""The timeline: what it leaves out, and that nothing is lost by that."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import helixlab as hx

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)


@st.composite
def traces(draw, *, longest_gap_s=300.0):
    """A few requests, some at once and some far apart."""
    gaps = st.one_of(st.just(0.0), st.floats(0, 5), st.floats(0, longest_gap_s))
    arrival_s = np.cumsum(draw(st.lists(gaps, min_size=1, max_size=8)))
    if arrival_s[0] > hx.workload.workload.FAR_FROM_0_S:
        arrival_s -= arrival_s[0]
    tokens = st.lists(st.integers(1, 800), min_size=len(arrival_s), max_size=len(arrival_s))
    outputs = st.lists(st.integers(1, 30), min_size=len(arrival_s), max_size=len(arrival_s))
    return pd.DataFrame(
        {"arrival_s": arrival_s, "input_tokens": draw(tokens), "output_tokens": draw(outputs)}
    )


def online(arrival_s, **how):
    table = pd.DataFrame({"arrival_s": arrival_s, "input_tokens": 100, "output_tokens": 20})
    return hx.online(requests=table, **how)


@settings(max_examples=25, deadline=None)
@given(traces(), st.sampled_from([0.25, 1.0, 5.0]), st.one_of(st.none(), st.floats(1, 2000)))
def test_no_sample_that_is_left_out_is_missed(table, step_s, duration_s):
    """At every sample time the row before it says what is so, by requests and iterations."""
    result = hx.simulate(
        *SYSTEM,
        workload=hx.online(requests=table, duration_s=duration_s),
        sample_step_s=step_s,
        keep_breakdown=True,
    )
    row, timeline = result.metrics, result.timeline
    end_s = max(row["window_end_s"], row["last_finish_s"])
    times = row["start_s"] + np.arange(0, (end_s - row["start_s"]) // step_s + 1) * step_s
    times = times[times <= end_s - 1e-6]
    # What happens in the very instant of a sample may count on either side of it.
    moments = np.concatenate(
        [result.requests[["arrival_s", "end_s"]].to_numpy().ravel(), result.iterations["end_s"]]
    )
    clear = np.array([np.abs(moments - time).min() > 1e-6 for time in times], dtype=bool)
    times = times[clear]
    before = np.searchsorted(timeline["time_s"], times + 1e-7, side="right") - 1
    came, gone = (np.sort(result.requests[name]) for name in ("arrival_s", "end_s"))
    in_flight = np.searchsorted(came, times) - np.searchsorted(gone, times)
    assert timeline["in_flight"].to_numpy()[before].tolist() == in_flight.tolist()
    decoded = np.sort(result.iterations.loc[result.iterations["iteration"] > 0, "end_s"])
    assert timeline["decode_tokens"].to_numpy()[before].tolist() == np.searchsorted(decoded, times).tolist()


@settings(max_examples=10, deadline=None)
@given(traces(), st.floats(1, 2000))
def test_it_covers_the_window(table, duration_s):
    result = hx.simulate(
        *SYSTEM, workload=hx.online(requests=table, duration_s=duration_s), sample_step_s=1.0
    )
    times, row = result.timeline["time_s"], result.metrics
    assert times.iloc[0] == row["start_s"]
    assert times.iloc[-1] > row["window_end_s"] - 1.0 - 1e-6
    steps = times.diff().dropna()
    assert (abs(steps - steps.round()) < 1e-6).all(), "multiples of the step"
    busy_s = result.node_timeline["busy_fraction"].fillna(0) * np.repeat(
        times.diff().fillna(0).to_numpy(), 10
    )
    inside = result.node_timeline["time_s"] <= row["window_end_s"]
    of_nodes = busy_s[inside].groupby(result.node_timeline["node"]).sum() / duration_s
    assert np.abs(of_nodes - result.nodes["busy_fraction"]).max() <= 1.0 / duration_s + 1e-9


@pytest.mark.parametrize(
    ("workload", "step_s"),
    [
        (online([0, 5e8, 1e9]), 5.0),
        (online([0, 5e8, 1e9]), 1e-4),
        (online([0, 4 * 86_400, 5 * 86_400], duration_s=1800), 0.01),
        (online([0], duration_s=1e9), 1.0),
        (hx.online(rate_tokens_per_s=1e-6, duration_s=1e9, arrivals="poisson"), 1.0),
        (hx.offline(requests=online([0]).requests, duration_s=1e9), 1.0),
    ],
)
def test_idle_stretches_cost_nothing(workload, step_s):
    result = hx.simulate(*SYSTEM, workload=workload, sample_step_s=step_s)
    assert len(result.timeline) <= 3 * (result.metrics["events"] + 2)
    assert result.timeline["time_s"].is_monotonic_increasing
    assert hx.diagnose(result)
    figure = result.plot_timeline()[0, 0].figure
    assert len(figure.axes) == 5


def test_rows_of_the_progress_table_are_bounded(capsys):
    hx.simulate(*SYSTEM, workload=online([0, 5e8, 1e9]), progress_table_step_s=0.5)
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) < 200
    last_s = 1e9
    assert last_s <= float(rows[-1].split()[0]) < last_s + 60


@pytest.mark.parametrize("step_s", [1e-6, 1e-300, 5e-324])
@pytest.mark.parametrize("name", ["sample_step_s", "progress_table_step_s"])
def test_steps_too_small_for_anything(name, step_s):
    with pytest.raises(
        hx.errors.SimulationError, match=f"{name} is .*; give 0 .* or at least 0.0001 seconds"
    ):
        hx.simulate(*SYSTEM, workload=online([0]), **{name: step_s})


def test_a_queue_that_came_at_once():
    """The time does not grow with the square of those that are queued."""
    count = 20_000
    table = pd.DataFrame({"arrival_s": np.zeros(count), "input_tokens": 40, "output_tokens": 1})
    result = hx.simulate(*SYSTEM, workload=hx.online(requests=table))
    assert result.metrics["requests_finished"] == count
    begun = result.iterations[result.iterations["iteration"] == 0].sort_values("end_s")["request"]
    assert (begun.diff().dropna() > -200).all(), "in order of arrival"
