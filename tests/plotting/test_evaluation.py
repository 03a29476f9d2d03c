"""The evaluation beside the published numbers, loads, searches and congestion, drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from helixlab.plotting import (
    METHOD_COLOURS,
    legend_above,
    mark_loads,
    panels,
    plot_congestion,
    plot_evaluation,
    plot_saturation,
    plot_search_quality,
)

NUMBERS = pd.DataFrame(
    {
        "method": ["swarm", "helix", "helix"],
        "platform": ["simulation", "simulation", "prototype"],
        "published": [99.0, 201.0, 180.0],
        "mean": [100.0, 200.0, 200.0],
        "low": [95.0, 190.0, 190.0],
        "high": [105.0, 210.0, 210.0],
        "wait_mean": [np.nan, 170.0, 170.0],
        "long_mean": [np.nan, 150.0, 150.0],
        "load": ["overloaded", "stable", "stable"],
    }
)


def markers(ax, marker):
    return [line for line in ax.lines if line.get_marker() == marker and len(line.get_xdata())]


class TestEvaluationBars:
    def test_bars_are_means_in_the_fixed_order_and_colours(self):
        ax = plot_evaluation(NUMBERS)
        helix, swarm = ax.patches[:2]
        assert [helix.get_height(), swarm.get_height()] == [200, 100]
        assert [to_hex(bar.get_facecolor()) for bar in (helix, swarm)] == [
            METHOD_COLOURS["helix"],
            METHOD_COLOURS["swarm"],
        ]
        assert [label.get_text() for label in ax.get_xticklabels()] == ["Helix", "Swarm"]

    def test_intervals_are_whiskers(self):
        ax = plot_evaluation(NUMBERS)
        spans = [segment[:, 1].tolist() for lines in ax.collections for segment in lines.get_segments()]
        assert spans == [[190, 210], [95, 105]]
        assert not plot_evaluation(NUMBERS.assign(low=np.nan, high=np.nan)).collections

    def test_published_values_are_hollow(self):
        ax = plot_evaluation(NUMBERS)
        (simulated,), (measured,) = markers(ax, "o"), markers(ax, "D")
        assert simulated.get_ydata().tolist() == [99, 201]
        assert measured.get_ydata().tolist() == [180]
        assert simulated.get_markerfacecolor() == measured.get_markerfacecolor() == "white"

    def test_other_windows_and_loads_are_shown_and_named(self):
        ax = plot_evaluation(NUMBERS)
        across = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
        assert sorted(line.get_ydata()[0] for line in across) == [150, 170]
        assert [bar.get_hatch() for bar in ax.patches[:2]] == [None, "xxxx"]
        named = [text.get_text() for text in ax.get_legend().get_texts()]
        assert set(named) == {
            "nothing dropped",
            "nothing dropped, from 900 s",
            "published, simulated",
            "published, measured",
            "overloaded",
        }

    def test_everything_is_inside(self):
        ax = plot_evaluation(NUMBERS.assign(long_mean=400.0))
        assert ax.get_ylim()[1] > 400

    def test_a_legend_in_columns(self):
        figure, axes = panels(1, 2)
        for ax in axes:
            plot_evaluation(NUMBERS, legend=False, ax=ax)
        legend_above(figure, columns=2)
        (legend,) = figure.legends
        assert legend._ncols == 2
        assert len(legend.get_texts()) == 5


def test_loads_are_written_where_they_belong():
    ax = plot_evaluation(NUMBERS.assign(load=""))
    before = len(ax.texts)
    mark_loads(ax, pd.Series({"swarm": "overloaded", "helix": "stable"}))
    (word,) = ax.texts[before:]
    assert word.get_text() == "over-\nloaded"
    assert word.xy[0] == 1


def test_crosses_where_the_queue_grows():
    table = pd.DataFrame(
        {
            "method": ["helix", "helix", "mine"],
            "rate_tokens_per_s": [200, 100, 100],
            "load": ["backlogged", "stable", "stable"],
            "prompt_latency_p95_s": [9.0, 2.0, 3.0],
        }
    )
    ax = plot_saturation(table, "prompt_latency_p95_s", label="s", log=True)
    assert ax.get_yscale() == "log"
    crosses = [line.get_xydata().tolist() for line in markers(ax, "X")]
    assert crosses == [[[200, 9]]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Helix", "mine", "queue grows"]


def test_hollow_dots_where_it_still_fills_up():
    loads = ["stable", "filling", "overloaded"]
    table = pd.DataFrame({"method": "helix", "rate_tokens_per_s": [1, 2, 3], "load": loads, "value": 1.0})
    ax = plot_saturation(table, "value", label="s")
    dots = {line.get_markerfacecolor(): line.get_xdata().tolist() for line in markers(ax, "o")}
    assert dots == {METHOD_COLOURS["helix"]: [1], "white": [2]}
    assert [line.get_xdata().tolist() for line in markers(ax, "X")] == [[3]]
    assert "still filling up" in [text.get_text() for text in ax.get_legend().get_texts()]


class TestSearchQuality:
    TABLE = pd.DataFrame(
        {
            "run": ["Gurobi"] * 4 + ["helixlab"] * 2,
            "seconds": [0, 5, 60, 600, 0, 0.5],
            "incumbent_tokens_per_s": [-0.0, 50, 40, 100, 80, 110],
            "published": [True] * 4 + [False] * 2,
        }
    )

    def test_published_ones_are_dashed_and_never_get_worse(self):
        ax = plot_search_quality(self.TABLE, bound=120)
        gurobi, ours = (line for line in ax.lines if line.get_drawstyle() == "steps-post")
        assert gurobi.is_dashed()
        assert not ours.is_dashed()
        assert gurobi.get_xydata().tolist() == [[5, 50], [60, 50], [600, 100]]
        assert [text.get_text() for text in ax.texts] == ["upper bound 120"]
        assert {text.get_text() for text in ax.get_legend().get_texts()} == {"Gurobi", "helixlab"}
        assert ax.get_ylim()[0] == 0
        assert ax.get_ylim()[1] > 120

    def test_what_found_nothing_has_no_line(self):
        ax = plot_search_quality(self.TABLE.assign(incumbent_tokens_per_s=[0.0] * 4 + [80, 110]))
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["helixlab"]


def test_congestion():
    table = pd.DataFrame(
        {
            "node": [0, 1],
            "machine": ["A100", "T4"],
            "first_layer": [40, 0],
            "wait_s": [0.1, 0.4],
            "run_s": [0.2, 0.3],
        }
    )
    ax = plot_congestion(table, longest_s=2.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["T4 1", "A100 0"]
    runs, waits = ax.containers
    assert [bar.get_width() for bar in runs] == [0.3, 0.2]
    assert [bar.get_x() for bar in waits] == [0.3, 0.2]
    assert [bar.get_width() for bar in waits] == pytest.approx([0.4, 0.1])
    assert ax.get_xlim() == (0, 2.0)
    assert len({bar.get_hatch() for bar in [runs[0], waits[0]]}) == 2, "told apart in grey"
    plt.close("all")


def test_curves_of_a_sweep_that_was_stopped_are_marked() -> None:
    table = pd.DataFrame(
        {
            "method": "helix",
            "rate_tokens_per_s": [100, 200],
            "load": ["stable", None],
            "decode_tokens_per_s": [20.0, None],
            "error": [None, "not run: interrupted"],
        }
    )
    assert [text.get_text() for text in plot_saturation(table).texts] == ["partial sweep"]
    assert list(plot_saturation(table.head(1)).texts) == []
