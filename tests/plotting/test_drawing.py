"""Each function draws what it says, where it is told to."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import helixlab as hx
from helixlab import plotting
from helixlab.errors import ModelError, SimulationError, UnknownNameError
from helixlab.plotting import (
    METHOD_COLOURS,
    comparison_table,
    latency_quantiles,
    legend_above,
    panels,
    plot_flow,
    plot_kv_capacity,
    plot_latency_boxes,
    plot_latency_cdf,
    plot_layer_times,
    plot_node_throughput,
    plot_node_use,
    plot_placement,
    plot_throughput,
    plot_tokens,
    plot_topology,
    resampled,
    window_latencies,
)


def latencies(method: str, scale: float) -> dict[str, Any]:
    figures = {
        f"{phase}_latency_p{p}_s": scale * p for phase in ("prompt", "decode") for p in (5, 25, 50, 75, 95)
    }
    return {
        "method": method,
        **figures,
        "prompt_latency_mean_s": 55 * scale,
        "decode_latency_mean_s": 60 * scale,
    }


THROUGHPUT = pd.DataFrame({"method": ["swarm", "helix", "mine"], "decode_tokens_per_s": [125.0, 250.0, 5.5]})
LATENCY = pd.DataFrame([latencies("swarm", 0.02), latencies("helix", 0.01)])
QUANTILES = pd.DataFrame(
    {"method": ["swarm"] * 3 + ["helix"] * 3, "quantile": [0, 0.5, 1] * 2, "latency_s": [1, 2, 9, 0.5, 1, 3]}
)
PUBLISHED = pd.DataFrame(
    {
        "method": ["helix", "helix", "petals"],
        "platform": ["simulation", "prototype", "simulation"],
        "decode_tokens_per_s": [252.0, 223.0, 190.0],
    }
)

DRAWINGS: dict[str, Callable[[Any, Any, Axes | None], Axes]] = {
    "plot_throughput": lambda study, result, ax: plot_throughput(THROUGHPUT, ax=ax),
    "plot_latency_boxes": lambda study, result, ax: plot_latency_boxes(LATENCY, ax=ax),
    "plot_latency_cdf": lambda study, result, ax: plot_latency_cdf(QUANTILES, ax=ax),
    "plot_tokens": lambda study, result, ax: plot_tokens(result, ax=ax),
    "plot_node_use": lambda study, result, ax: plot_node_use(result, ax=ax),
    "plot_placement": lambda study, result, ax: plot_placement(study.cluster, study.placement, ax=ax),
    "plot_flow": lambda study, result, ax: plot_flow(study.flow, ax=ax),
    "plot_topology": lambda study, result, ax: plot_topology(study.cluster, ax=ax),
    "plot_layer_times": lambda study, result, ax: plot_layer_times(study.model, ax=ax),
    "plot_node_throughput": lambda study, result, ax: plot_node_throughput(
        study.model, study.cluster.machine_counts(), ax=ax
    ),
    "plot_kv_capacity": lambda study, result, ax: plot_kv_capacity(study.model, ax=ax),
}


def words(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def ticks(ax: Axes) -> list[str]:
    return [tick.get_text() for tick in ax.get_xticklabels()]


@pytest.mark.parametrize("name", DRAWINGS)
def test_returns_axes_of_its_own_or_those_given(study: Any, result: hx.Result, name: str) -> None:
    own = DRAWINGS[name](study, result, None)
    assert isinstance(own, Axes)
    assert plt.get_fignums() == [own.figure.number]
    _, (left, right) = panels(1, 2)
    assert DRAWINGS[name](study, result, right) is right
    assert not left.has_data()
    assert len(plt.get_fignums()) == 2


@pytest.mark.parametrize("name", DRAWINGS)
def test_axes_say_what_they_show_with_units(study: Any, result: hx.Result, name: str) -> None:
    ax = DRAWINGS[name](study, result, None)
    labels = " ".join([ax.get_xlabel(), ax.get_ylabel(), *words(ax)])
    assert any(unit in labels for unit in ("(s)", "(ms)", "tokens", "layer", "GB/s")), labels


@pytest.mark.parametrize("name", DRAWINGS)
def test_axes_made_elsewhere_lose_their_frame(study: Any, result: hx.Result, name: str) -> None:
    _, ax = plt.subplots()
    DRAWINGS[name](study, result, ax)
    assert not ax.spines["top"].get_visible()
    assert not ax.spines["right"].get_visible()


# Throughput


def test_bars_come_in_the_fixed_order_and_colours() -> None:
    ax = plot_throughput(THROUGHPUT)
    assert ticks(ax) == ["Helix", "Swarm", "mine"]
    assert [bar.get_height() for bar in ax.patches] == [250.0, 125.0, 5.5]
    assert to_hex(ax.patches[0].get_facecolor()) == METHOD_COLOURS["helix"]
    assert words(ax) == ["250", "125", "5.5"]


def test_published_values_are_hollow_and_only_beside_their_method() -> None:
    ax = plot_throughput(THROUGHPUT, published=PUBLISHED)
    markers = [line for line in ax.get_lines() if len(line.get_xdata())]
    assert [line.get_ydata().tolist() for line in markers] == [[252.0], [223.0]]
    assert {line.get_markerfacecolor() for line in markers} == {"white"}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "published, simulated",
        "published, measured",
    ]
    assert ax.get_ylim()[1] > 252


def test_several_rows_of_a_method_give_their_mean_and_its_interval() -> None:
    seeds = pd.DataFrame(
        {
            "method": ["swarm", "helix"] * 3,
            "decode_tokens_per_s": [120.0, 240.0, 125.0, 250.0, 130.0, 260.0],
        }
    )
    ax = plot_throughput(seeds)
    assert [bar.get_height() for bar in ax.patches] == [250.0, 125.0]
    assert words(ax) == ["250", "125"]
    spans = [(np.nanmin(line.get_ydata()), np.nanmax(line.get_ydata())) for line in ax.get_lines()]
    half = 4.302653 * 10 / 3**0.5  # Student's t with two degrees of freedom
    assert spans[0] == (pytest.approx(250 - half), pytest.approx(250 + half))
    assert spans[1] == (pytest.approx(125 - half / 2), pytest.approx(125 + half / 2))
    assert ax.get_ylim()[1] > 250 + half
    assert not plot_throughput(THROUGHPUT).get_lines()


@pytest.mark.parametrize(("published", "on"), [(200.0, 10.0), (20.0, 20.0), (9.0, 10.0)])
def test_the_number_of_a_low_bar_stands_on_it_or_on_the_marker_in_its_way(
    published: float, on: float
) -> None:
    table = pd.DataFrame({"method": ["helix", "swarm"], "decode_tokens_per_s": [250.0, 10.0]})
    marker = pd.DataFrame(
        {"method": ["swarm"], "platform": ["simulation"], "decode_tokens_per_s": [published]}
    )
    number = plot_throughput(table, published=marker).texts[1]
    assert number.get_text() == "10"
    assert number.xy == (1, on)


def test_numbers_in_bars_stand_at_one_height_above_a_low_marker() -> None:
    marker = pd.DataFrame({"method": ["swarm"], "platform": ["simulation"], "decode_tokens_per_s": [10.0]})
    feet = [text.xy[1] for text in plot_throughput(THROUGHPUT.head(2), published=marker).texts]
    assert feet[0] == feet[1] > 10
    assert [text.xy[1] for text in plot_throughput(THROUGHPUT.head(2)).texts] == [0, 0]


def test_a_bound_is_a_line_that_is_seen() -> None:
    ax = plot_throughput(THROUGHPUT, bound=400.0)
    assert "upper bound 400" in words(ax)
    assert ax.get_ylim()[1] > 400


def test_one_legend_for_all_panels() -> None:
    figure, axes = panels(1, 2, width_in=7)
    for ax in axes:
        plot_throughput(THROUGHPUT, published=PUBLISHED, legend=False, ax=ax)
        assert ax.get_legend() is None
    legend_above(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "published, simulated",
        "published, measured",
    ]


# Latency


def test_boxes_are_the_percentiles() -> None:
    ax = plot_latency_boxes(LATENCY, "decode")
    assert ticks(ax) == ["Helix", "Swarm"]
    assert ax.get_ylabel() == "decode latency (s)"
    box = ax.patches[0].get_path().vertices[:, 1]
    assert (box.min(), box.max()) == (0.25, 0.75)
    heights = {round(float(y), 6) for line in ax.get_lines() for y in line.get_ydata()}
    assert {0.05, 0.95, 0.5, 0.6} <= heights  # whiskers, median and mean of helix


def test_the_mean_looks_like_no_published_value_and_is_explained() -> None:
    published = pd.DataFrame([latencies("helix", 0.02) | {"platform": "simulation"}])
    ax = plot_latency_boxes(LATENCY, "decode", published=published)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "mean of the box",
        "published, simulated",
    ]
    means = [line for line in ax.get_lines() if line.get_ydata().tolist() in ([0.6], [1.2])]
    assert [line.get_marker() for line in means] == ["X", "X"]


def test_a_later_window_is_on_the_other_side_of_the_box() -> None:
    ax = plot_latency_boxes(LATENCY, "decode", later=pd.DataFrame([latencies("swarm", 0.02)]))
    (label, *others) = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [label, *others] == ["mean of the box", "nothing dropped, from 900 s"]
    dashes = [line for line in ax.get_lines() if line.get_marker() == "_" and len(line.get_xdata())]
    assert len(dashes) == 5
    assert all(0 < line.get_xdata()[0] < 1 for line in dashes), "left of the box at 1"


def test_published_latencies_are_beside_the_box() -> None:
    published = pd.DataFrame(
        [
            latencies("helix", 0.02) | {"platform": "simulation"},
            {"method": "swarm", "platform": "prototype", "prompt_latency_mean_s": 1.5},
        ]
    )
    ax = plot_latency_boxes(LATENCY, "prompt", published=published)
    beside = {
        line.get_marker(): line
        for line in ax.get_lines()
        if line.get_markerfacecolor() == "white" and len(line.get_xdata())
    }
    assert beside["D"].get_ydata().tolist() == [1.5]
    assert len(beside["o"].get_ydata()) == 6
    assert 0 < beside["o"].get_xdata()[0] < 1 < beside["D"].get_xdata()[0] < 2
    assert 1 + beside["o"].get_xdata()[0] < beside["D"].get_xdata()[0]  # never one upon the other


def test_cdf_has_a_line_of_its_own_kind_for_each_method() -> None:
    ax = plot_latency_cdf(QUANTILES, phase="decode")
    helix, swarm = ax.get_lines()
    assert helix.get_xdata().tolist() == [0.5, 1, 3]
    assert helix.get_color() == METHOD_COLOURS["helix"]
    assert helix.get_linestyle() != swarm.get_linestyle()
    assert ax.get_xscale() == "log"
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["Helix", "Swarm"]
    assert [line.get_color() for line in legend.get_lines()] == [helix.get_color(), swarm.get_color()]
    ax.figure.draw_without_rendering()
    assert not legend.get_window_extent().overlaps(ax.get_window_extent())


def test_no_latency_no_line() -> None:
    assert not plot_latency_cdf(QUANTILES.head(0)).get_lines()


# Runs


def test_a_run_that_was_stopped_is_marked(result: hx.Result) -> None:
    stopped = replace(result, summary=result.summary.assign(partial=True))
    runs = {"helix": result, "separate": [result, stopped]}
    table = comparison_table(runs)
    assert table.set_index("method")["partial"].to_dict() == {"helix": False, "separate": True}
    for ax in (plot_throughput(table), plot_latency_boxes(table, phase="prompt")):
        assert ["partial" in tick.get_text() for tick in ax.get_xticklabels()] == [False, True]
    quantiles = latency_quantiles(runs, "decode")
    labels = [
        text.get_text() for text in plot_latency_cdf(quantiles, phase="decode").get_legend().get_texts()
    ]
    assert ["partial" in label for label in labels] == [False, True]


def test_bars_of_a_sweep_that_was_stopped_are_marked() -> None:
    runs = pd.DataFrame(
        {
            "method": ["helix", "helix", "swarm", "swarm", "random", "random"],
            "seed": [0, 1] * 3,
            "decode_tokens_per_s": [250.0, 260.0, 120.0, None, None, None],
            "error": [None] * 3 + ["not run: interrupted"] * 3,
        }
    )
    means = hx.mean_interval(runs, by="method", values="decode_tokens_per_s")
    for table, value in ((runs, "decode_tokens_per_s"), (means, "mean")):
        ax = plot_throughput(table, value=value)
        assert ["partial" in tick for tick in ticks(ax)] == [False, True, True]
        assert words(ax) == ["255", "120", "no value"]
        assert words(plot_throughput(table[table["method"] == "random"], value=value)) == ["no value"]
    whole = runs[runs["method"] == "helix"]
    assert "partial sweep" not in words(plot_throughput(whole))
    whole.attrs["partial"] = True
    assert words(plot_throughput(whole)) == ["255", "partial sweep"]
    assert ticks(plot_throughput(whole)) == ["Helix"], "nothing of it is missing"


def test_comparison_sums_throughput_and_pools_latencies(result: hx.Result) -> None:
    table = comparison_table({"separate": [result, result], "helix": result}).set_index("method")
    summary = result.summary.iloc[0]
    assert list(table.index) == ["helix", "separate"]
    for column in ("decode_tokens_per_s", "max_flow_tokens_per_s", "requests_fed"):
        assert table.loc["separate", column] == pytest.approx(2 * summary[column])
    for column in ("prompt_latency_mean_s", "decode_latency_p95_s"):
        assert table.loc["helix", column] == pytest.approx(summary[column])
    assert len(window_latencies([result, result], "decode")) == 2 * len(window_latencies(result, "decode"))


def test_quantiles_rise_from_the_least_to_the_most(result: hx.Result) -> None:
    table = latency_quantiles({"helix": result}, "decode", points=11)
    latency_s = window_latencies(result, "decode")
    assert table["latency_s"].is_monotonic_increasing
    assert table["latency_s"].iloc[[0, -1]].tolist() == [latency_s.min(), latency_s.max()]


def test_latencies_of_an_unknown_phase_are_refused(result: hx.Result) -> None:
    with pytest.raises(SimulationError, match="'prompt' or 'decode'"):
        window_latencies(result, "training")


def test_timeline_shows_the_max_flow_and_the_warm_up(result: hx.Result) -> None:
    ax = plot_tokens(result)
    assert {"max flow", "decode", "prompt + decode", "warm-up"} <= set(words(ax))
    bound = next(line for line in ax.get_lines() if line.get_label() == "max flow")
    assert set(bound.get_ydata()) == {result.summary["max_flow_tokens_per_s"].item()}
    assert ax.get_xlim() == (0, pytest.approx(80))
    labelled = {line.get_label(): line for line in ax.get_lines()}
    assert {"max flow", "decode", "prompt + decode"} <= set(labelled)
    assert (labelled["prompt + decode"].get_ydata() - labelled["decode"].get_ydata() > -1e-9).all()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["every 5 s", "mean over 30 s"]


def test_node_use_has_a_row_for_every_node(result: hx.Result) -> None:
    ax = plot_node_use(result, "kv_used_fraction")
    assert len(ax.get_yticks()) == 10
    values = np.asarray(ax.collections[0].get_array())
    assert values.shape[0] == 10
    assert 0 <= values.min() <= values.max() <= 1
    with pytest.raises(SimulationError, match="busy_fraction"):
        plot_node_use(result, "temperature")


def test_no_timeline_no_picture() -> None:
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    bare = hx.simulate(
        cluster, model, placement, workload=hx.offline(duration_s=10, warmup_s=0), sample_step_s=0
    )
    for draw in (plot_tokens, plot_node_use):
        with pytest.raises(SimulationError, match="sample_step_s"):
            draw(bare)


# Placements, flows, clusters, profiles


def test_placement_has_a_bar_for_every_node_over_its_layers(study: Any) -> None:
    ax = plot_placement(study.cluster, study.placement)
    spans = {(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches}
    assert spans == {(held.first_layer, held.end_layer) for held in study.placement.layers}
    assert len(ax.patches) == 24
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["A100", "L4", "T4"]


def test_idle_nodes_are_shown(study: Any) -> None:
    placement = hx.plan(study.cluster, study.model, method="homogeneous")
    ax = plot_placement(study.cluster, placement)
    assert words(ax).count("idle") == 24 - len(placement.layers)
    assert len(ax.get_yticks()) == 24


def test_placement_on_part_of_a_cluster_shows_that_part(study: Any) -> None:
    ax = plot_placement(study.cluster, hx.load_placement("single24/llama-2-70b/separate-a100"))
    assert len(ax.get_yticks()) == 4


def test_utilisation_colours_the_bars(study: Any) -> None:
    ax = plot_placement(study.cluster, study.placement, study.flow)
    colours = {to_hex(bar.get_facecolor()) for bar in ax.patches}
    assert len(colours) == study.flow.nodes["utilisation"].round(2).nunique()
    assert len(ax.figure.axes) == 2  # with its scale
    assert len(plot_placement(study.cluster, study.placement, study.flow, key=False).figure.axes) == 1


def test_links_are_as_wide_as_their_flow(study: Any) -> None:
    ax = plot_flow(study.flow)
    links = ax.patches[: len(study.flow.links)]
    widths = np.array([link.get_linewidth() for link in links])
    flows = study.flow.links["flow_tokens_per_s"].to_numpy()
    wide = flows > 0.2 * study.flow.value_tokens_per_s
    assert np.allclose(widths[wide] / widths[wide].max(), flows[wide] / flows[wide].max())
    boxes = ax.patches[len(links) :]
    assert len(boxes) == 24
    framed = [box for box in boxes if box.get_linewidth() > 1]
    assert len(framed) == len(study.flow.bottlenecks)
    assert {"in", "out"} <= {word.strip() for word in words(ax)}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["bottleneck", "link without flow"]


def test_no_link_goes_up_or_down_upon_another(study: Any) -> None:
    ax = plot_flow(study.flow)
    curves = [link.get_path().vertices for link in ax.patches[: len(study.flow.links)]]
    uprights = [(curve[1, 0], *sorted((curve[0, 1], curve[-1, 1]))) for curve in curves]
    for (turn, low, high), (other_turn, other_low, other_high) in combinations(uprights, 2):
        assert turn != other_turn or high <= other_low or other_high <= low


def test_boxes_do_not_overlap(study: Any) -> None:
    boxes = plot_flow(study.flow).patches[len(study.flow.links) :]
    spans = sorted((box.get_y(), box.get_x(), box.get_x() + box.get_width()) for box in boxes)
    for (lane, _, end), (next_lane, start, _) in pairwise(spans):
        assert lane != next_lane or end <= start


@pytest.mark.parametrize("name", ["single24", "geo24", "hetero42", "small10"])
def test_topology_shows_every_node_and_region(name: str) -> None:
    cluster = hx.load_cluster(name)
    ax = plot_topology(cluster)
    shown = set(words(ax))
    assert {str(node.index) for node in cluster.nodes} <= shown
    assert "coordinator" in shown
    for region in cluster.regions:
        assert any(word.startswith(region) and "GB/s" in word for word in shown)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert ("coordinator\nto all nodes" in legend) == (len(cluster.regions) > 1)


def test_topology_of_two_regions_and_of_single_nodes() -> None:
    cluster = hx.geo_distributed({"north": {"A100": 1}, "south": {"T4": 3}})
    assert any("12.5 MB/s" in word for word in words(plot_topology(cluster)))


def test_profile_curves_are_the_measured_points(study: Any) -> None:
    ax = plot_layer_times(study.model, "prompt", machines=["A100", "T4"], max_tokens=2000)
    assert words(ax) == ["A100", "T4"]
    a100 = study.model.profile("A100")
    line = ax.get_lines()[0]
    assert line.get_xdata().max() <= 2000
    assert line.get_ydata()[1] == pytest.approx(1e3 * a100.prompt_layer_s[1])
    with pytest.raises(ModelError, match="phase"):
        plot_layer_times(study.model, "training")
    with pytest.raises(UnknownNameError, match="H100"):
        plot_layer_times(study.model, machines=["H100"])


def test_throughput_curve_ends_at_the_most_layers(study: Any) -> None:
    lines = {
        line.get_label(): line
        for line in plot_node_throughput(study.model, {"A100": 4, "L4": 8, "T4": 12}).get_lines()
    }
    assert lines["A100"].get_xdata().tolist() == list(range(1, 13))
    assert lines["A100"].get_ydata()[-1] == pytest.approx(952, abs=1)
    room = {line.get_label(): line for line in plot_kv_capacity(study.model, machines=["T4"]).get_lines()}
    capacity = study.model.profile("T4").kv_capacity_token_layers(4)
    assert room["T4"].get_ydata()[-1] == pytest.approx(capacity / 4 / 1e3)


@pytest.mark.parametrize("draw", [plot_kv_capacity, plot_layer_times])
def test_names_at_the_ends_of_lines_do_not_overlap(study: Any, draw: Callable[..., Axes]) -> None:
    ax = draw(study.model)
    assert len(ax.texts) == len(study.model.profiles)
    ax.figure.draw_without_rendering()
    for one, other in combinations(ax.texts, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent()), (one, other)


def test_no_point_no_line(study: Any) -> None:
    assert not plot_layer_times(study.model, max_tokens=-1).get_lines()


def test_timeline_at_a_chosen_step() -> None:
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    workload = hx.offline(warmup_s=10, duration_s=50, rng=0)
    result = hx.simulate(cluster, model, placement, workload=workload, sample_step_s=2.0)
    fine, coarse = resampled(result), resampled(result, 10)
    assert fine["time_s"].diff().dropna().tolist() == [2.0] * (len(fine) - 1)
    assert coarse["time_s"].diff().dropna().tolist() == [10.0] * (len(coarse) - 1)
    pd.testing.assert_series_equal(coarse["in_flight"], fine["in_flight"].iloc[::5].reset_index(drop=True))
    for phase in ("prompt", "decode"):
        name = f"{phase}_tokens_per_s"
        means = fine[name].iloc[1:].to_numpy()[: 5 * (len(coarse) - 1)].reshape(-1, 5).mean(axis=1)
        np.testing.assert_allclose(coarse[name].iloc[1:], means)
    busy = fine["busy_mean_fraction"].iloc[1:].to_numpy()[: 5 * (len(coarse) - 1)].reshape(-1, 5).mean(axis=1)
    np.testing.assert_allclose(coarse["busy_mean_fraction"].iloc[1:], busy)
    figure = result.plot_timeline(step_s=10)[0, 0].figure
    assert placement.content_hash[:8] in figure.get_supxlabel()
    assert len(figure.axes) == 5, "four panels and a scale"
    with pytest.raises(SimulationError, match="step_s is 3; give a multiple of 2"):
        result.plot_timeline(step_s=3)
    plt.close(figure)


def test_idle_stretches_are_drawn_in_even_steps() -> None:
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    requests = pd.DataFrame({"arrival_s": [0.0, 1000.0], "input_tokens": 100, "output_tokens": 30})
    workload = hx.online(requests=requests, duration_s=1010)
    result = hx.simulate(cluster, model, placement, workload=workload, sample_step_s=1.0)
    assert len(result.timeline) < 100
    table = resampled(result)
    assert table["time_s"].tolist() == list(range(len(table)))
    quiet = table[table["time_s"].between(100, 999)]
    assert (quiet[["in_flight", "decode_tokens_per_s", "busy_mean_fraction"]] == 0).all(axis=None)
    assert table["decode_tokens_per_s"].sum() == result.timeline["decode_tokens"].iloc[-1]
    assert resampled(result, 500)["finished"].tolist()[:3] == [0, 1, 1]
    (line, *_) = plot_tokens(result).get_lines()
    assert len(line.get_xdata()) == 1010
    far = pd.DataFrame({"arrival_s": [0.0, 5e8], "input_tokens": 100, "output_tokens": 30})
    result = hx.simulate(cluster, model, placement, workload=hx.online(requests=far))
    assert len(resampled(result)) <= 100_001
    with pytest.raises(SimulationError, match=r"step_s is 5, which makes 1000000.. steps"):
        result.plot_timeline(step_s=5)
    plt.close("all")


def test_no_timeline_to_draw() -> None:
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    workload = hx.offline(warmup_s=0, duration_s=5)
    result = hx.simulate(cluster, model, placement, workload=workload, sample_step_s=0)
    with pytest.raises(SimulationError, match="no timeline to draw"):
        result.plot_timeline()


@pytest.fixture(scope="module")
def short_run():
    subject = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = replace(hx.load_placement("small10/llama-1-30b/helix"), name="a$b_{$c")
    return hx.simulate(*subject, placement, workload=hx.offline(warmup_s=0, duration_s=20, rng=0))


def test_a_name_is_no_formula(short_run, tmp_path):
    figure = short_run.plot_timeline()[0, 0].figure
    figure.savefig(tmp_path / "run.png")
    assert "a$b_{$c" in figure.get_suptitle()


def test_names_of_regions_and_methods_are_no_formulas(tmp_path):
    cluster = hx.single_region({"L4": 2}, name="c")
    cluster = replace(cluster, nodes=[replace(node, region="r$1_{$") for node in cluster.nodes])
    plot_topology(cluster).figure.savefig(tmp_path / "cluster.png")
    table = pd.DataFrame({"method": ["a$b_{$c"], "decode_tokens_per_s": [1.0]})
    plot_throughput(table).figure.savefig(tmp_path / "bars.png")


@pytest.mark.parametrize("step_s", [float("nan"), float("inf"), "5", True])
def test_steps_that_are_none(short_run, step_s):
    with pytest.raises(SimulationError, match="give a number of seconds"):
        short_run.plot_timeline(step_s=step_s)


def test_too_short_for_a_timeline(short_run):
    shorter = replace(short_run, timeline=short_run.timeline.iloc[:1])
    with pytest.raises(SimulationError, match="too short for its timeline, which has 1 of the two samples"):
        shorter.plot_timeline()


TABLES = {
    "plot_throughput": (plot_throughput, "decode_tokens_per_s"),
    "plot_latency_boxes": (plot_latency_boxes, "prompt_latency_p5_s"),
    "plot_latency_cdf": (plot_latency_cdf, "quantile"),
    "plot_saturation": (plotting.plot_saturation, "rate_tokens_per_s"),
    "plot_rate_sweep": (plotting.plot_rate_sweep, "rate_tokens_per_s"),
    "plot_throughput_latency": (plotting.plot_throughput_latency, "decode_tokens_per_s"),
    "plot_search_progress": (plotting.plot_search_progress, "run"),
    "plot_search_quality": (plotting.plot_search_quality, "run"),
    "plot_prediction": (plotting.plot_prediction, "predicted_tokens_per_s"),
    "plot_congestion": (plotting.plot_congestion, "node"),
    "plot_evaluation": (plotting.plot_evaluation, "platform"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_a_column_says_which_it_has(name: str) -> None:
    draw, missing = TABLES[name]
    with pytest.raises(UnknownNameError, match=f"unknown column '{missing}'.*Known: method, mine") as raised:
        draw(pd.DataFrame({"method": ["helix"], "mine": [1.0]}))
    assert raised.value.known == ["method", "mine"]
    assert plt.get_fignums() == []
