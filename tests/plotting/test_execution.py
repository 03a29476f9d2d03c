"""What execution policies do, drawn."""

from typing import Any

import pandas as pd
import pytest
from matplotlib.colors import to_hex

import helixlab as hx
from helixlab.errors import SimulationError
from helixlab.plotting import METHOD_COLOURS, plot_batches, plot_rate_sweep, plot_throughput_latency

RUNS = pd.DataFrame(
    {
        "chunk_tokens": [64.0, 64.0, 32.0, 128.0],
        "decode_tokens_per_s": [400.0, 390.0, 270.0, None],
        "decode_latency_mean_s": [0.8, 0.9, 0.7, None],
        "prompt_latency_p95_s": [9.0, 3.0, 150.0, None],
        "meets_goal": [True, True, False, False],
    }
)
RATES = pd.DataFrame(
    {
        "method": ["greedy"] * 3 + ["chunked"] * 3,
        "rate_tokens_per_s": [200, 100, 300] * 2,
        "decode_tokens_per_s": [50.0, 25.0, 55.0, 50.0, 25.0, 75.0],
        "saturated": [False, False, True] + [False] * 3,
    }
)


def test_runs_that_miss_the_goal_are_crosses() -> None:
    ax = plot_throughput_latency(RUNS)
    points = [tuple(point) for drawn in ax.collections for point in drawn.get_offsets()]
    assert sorted(points) == [(0.7, 270), (0.8, 400), (0.9, 390)], "a run that failed is not drawn"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["32", "64", "misses the goal"]
    assert ax.lines[0].get_xydata().tolist() == [[0.8, 400]]


def test_the_frontier_is_of_the_latency_shown() -> None:
    ax = plot_throughput_latency(RUNS, x="prompt_latency_p95_s", label="p95 prompt latency (s)")
    assert ax.lines[0].get_xydata().tolist() == [[3, 390], [9, 400]]
    assert ax.get_xlabel() == "p95 prompt latency (s)"
    assert ax.get_xscale() == "log", "from 3 to 150 s"
    assert plot_throughput_latency(RUNS).get_xscale() == "linear"


def test_a_cross_where_saturation_starts() -> None:
    ax = plot_rate_sweep(RATES)
    curves = {line.get_label(): line for line in ax.lines}
    assert curves["greedy"].get_xdata().tolist() == [100, 200, 300], "in order of the rate"
    assert to_hex(curves["chunked"].get_color()) == METHOD_COLOURS["chunked"]
    crosses = [line for line in ax.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [line.get_xydata().tolist() for line in crosses] == [[[300, 55]]]


def test_several_seeds_are_means_with_intervals() -> None:
    """Of 50 and 60 the mean is 55, and the interval 12.706 standard errors of 5 to each side."""
    seeds = pd.concat([RATES.assign(seed=0), RATES.assign(seed=1)], ignore_index=True)
    seeds.loc[6:, "decode_tokens_per_s"] += 10
    seeds.loc[8, "saturated"] = False  # one of two is not most
    failed = seeds.iloc[[0]].assign(
        seed=2, decode_tokens_per_s=float("nan"), saturated=False, error="SimulationError: no"
    )
    ax = plot_rate_sweep(pd.concat([seeds.assign(error=None), failed], ignore_index=True))
    curves = {line.get_label(): line for line in ax.lines}
    assert curves["greedy"].get_xydata().tolist() == [[100, 30], [200, 55], [300, 60]]
    bars = [segment for drawn in ax.collections for segment in drawn.get_segments()]
    assert len(bars) == 6
    assert bars[0][:, 1].tolist() == pytest.approx([30 - 12.7062 * 5, 30 + 12.7062 * 5], abs=1e-3)
    assert not [line for line in ax.lines if line.get_marker() == "x" and len(line.get_xdata())]


@pytest.mark.parametrize("draw", [plot_throughput_latency, plot_rate_sweep])
def test_a_sweep_that_was_stopped_is_marked(draw: Any) -> None:
    table = RUNS if draw is plot_throughput_latency else RATES
    whole = table.assign(error=None)
    assert "partial sweep" not in [text.get_text() for text in draw(whole).texts]
    rows = whole.assign(error=[None] * (len(table) - 1) + ["not run: interrupted"])
    left = whole.head(3)
    left.attrs["partial"] = True  # rows that were not run are left out already
    for partial in (rows, left):
        assert "partial sweep" in [text.get_text() for text in draw(partial).texts]


def test_the_strip_shows_the_batches_of_its_span() -> None:
    system = (
        hx.load_cluster("small10"),
        hx.load_model("llama-1-30b"),
        hx.load_placement("small10/llama-1-30b/helix"),
    )
    result = hx.simulate(*system, workload=hx.offline(warmup_s=0, duration_s=10), keep_batches=True)
    ax = plot_batches(result, from_s=result.batches["start_s"].min(), span_s=2)
    assert ax.get_xlim() == (0, 2)
    drawn = [path.get_extents() for bars in ax.collections for path in bars.get_paths()]
    assert drawn
    assert all(0 <= box.x0 <= box.x1 <= 2 for box in drawn)
    with pytest.raises(SimulationError, match="show another span"):
        plot_batches(result, from_s=1e6)
