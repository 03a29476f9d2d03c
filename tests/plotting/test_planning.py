"""Searches over time and predictions, drawn."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab._data import read_table
from helixlab.plotting import plot_prediction, plot_search_progress
from helixlab.plotting.planning import FIRST_S, SEARCH_COLOURS

SEARCHES = pd.DataFrame(
    {
        "run": ["ours"] * 3 + ["theirs"] * 3,
        "seconds": [0, 0.1, 2, 1, 60, 3000],
        "incumbent_tokens_per_s": [None, 900, 1000, -0.0, 1e-6, 700],
        "bound_tokens_per_s": [2000, 1500, 1000, 9e4, 8e4, 7e4],
    }
)
POINTS = pd.DataFrame(
    {
        "cluster": ["one", "one", "two"],
        "plan": ["published", "planned", "published"],
        "predicted_tokens_per_s": [110.0, 300.0, 50.0],
        "simulated_tokens_per_s": [100.0, 200.0, 80.0],
    }
)


def curves(ax):
    return [line for line in ax.lines if line.get_drawstyle() == "steps-post"]


def words(ax):
    return [text.get_text() for text in ax.texts]


class TestSearchProgress:
    def test_placements_and_bounds(self):
        ax = plot_search_progress(SEARCHES)
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "tokens/s")
        ours, our_bound, theirs, their_bound = curves(ax)
        assert ours.get_xydata().tolist() == [[0.1, 900], [2, 1000]]
        assert our_bound.get_xydata().tolist() == [[FIRST_S, 2000], [0.1, 1500], [2, 1000]]
        assert theirs.get_xydata().tolist() == [[3000, 700]], "rounding is no placement"
        assert len(their_bound.get_xydata()) == 3
        assert [line.get_color() for line in curves(ax)] == [
            colour for colour in SEARCH_COLOURS[:2] for _ in range(2)
        ]
        assert [line.is_dashed() for line in curves(ax)] == [False, True] * 2

    def test_names_stand_at_the_ends(self):
        ax = plot_search_progress(SEARCHES)
        assert sorted(words(ax)) == ["bound", "ours", "theirs"], "a bound that is met needs no name"
        only_bound = SEARCHES.assign(incumbent_tokens_per_s=np.nan)
        assert sorted(words(plot_search_progress(only_bound))) == ["ours: bound", "theirs: bound"]

    def test_published_traces(self):
        traces = read_table("published/solver_traces.csv")
        ax = plot_search_progress(traces[traces["run"].isin(["small10", "geo24-pruned"])])
        ax.figure.draw_without_rendering()
        assert sorted(words(ax)) == ["bound", "geo24-pruned", "small10"]
        for one, other in combinations(ax.texts, 2):
            assert not one.get_window_extent().overlaps(other.get_window_extent())
        assert ax.get_ylim()[0] > 1

    def test_trace_of_a_plan(self):
        system = hx.load_cluster("single24"), hx.load_model("llama-2-70b")
        report = hx.plan(*system, method="helix", objective="flow").report
        columns = ["seconds", "incumbent_tokens_per_s", "bound_tokens_per_s"]
        trace = pd.DataFrame(report.trace, columns=columns).assign(run="helixlab")
        served, bound = curves(plot_search_progress(trace))
        assert served.get_ydata()[-1] == report.objective_tokens_per_s
        assert bound.get_ydata()[-1] == report.upper_bound_tokens_per_s

    def test_no_rows(self):
        assert not curves(plot_search_progress(SEARCHES.head(0)))


class TestPredictions:
    def test_a_point_a_placement(self):
        ax = plot_prediction(POINTS)
        points = [tuple(point) for drawn in ax.collections[1:] for point in drawn.get_offsets()]
        assert sorted(points) == [(80, 50), (100, 110), (200, 300)]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
        assert ax.get_xlim() == ax.get_ylim() == pytest.approx((40, 375))

    def test_the_line_is_where_both_agree(self):
        ax = plot_prediction(POINTS, limits=(10, 1000))
        (line,) = ax.lines
        assert line.get_xdata().tolist() == line.get_ydata().tolist() == [10, 1000]
        assert ax.get_xlim() == ax.get_ylim() == (10, 1000)

    def test_shapes(self):
        ax = plot_prediction(POINTS, marker="plan")
        assert [text.get_text() for text in ax.get_legend().get_texts()] == [
            "one",
            "two",
            "published",
            "planned",
        ]
        assert plot_prediction(POINTS, legend=False).get_legend() is None
