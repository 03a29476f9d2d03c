"""Drift and load: constructed cases where the truth is known."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import helixlab as hx
from helixlab.diagnosis.steady_state import BLOCKS, drift, load, load_of, window_blocks
from helixlab.errors import SimulationError

SYSTEM = ("small10", "llama-1-30b", "small10/llama-1-30b/helix")


def simulated(workload, **settings):
    cluster, model, placement = SYSTEM
    return hx.simulate(
        hx.load_cluster(cluster),
        hx.load_model(model),
        hx.load_placement(placement),
        workload=workload,
        **settings,
    )


NONE = [0] * BLOCKS


class TestDrift:
    @given(level=st.floats(0.1, 1e6), change=st.floats(-0.9, 0.9))
    def test_a_step_is_what_it_is(self, level, change):
        blocks = [level] * 6 + [level * (1 + change)] * 6
        found = drift(blocks)
        assert found.relative == pytest.approx(change / (1 + change / 2))
        assert found.margin == pytest.approx(0, abs=1e-9)
        if abs(abs(found.relative) - 0.05) > 1e-9:
            assert found.trend == ("settled" if abs(found.relative) < 0.05 else "moving")

    @given(st.lists(st.floats(0.1, 1e3), min_size=4, max_size=40), st.floats(1e-3, 1e3))
    def test_scale_does_not_matter(self, blocks, scale):
        one, other = drift(blocks), drift(np.multiply(blocks, scale))
        assert other.relative == pytest.approx(one.relative, abs=1e-9)
        assert other.margin == pytest.approx(one.margin, abs=1e-9)

    @given(st.lists(st.floats(0, 1e3), min_size=4, max_size=40).filter(lambda blocks: len(blocks) % 2 == 0))
    def test_backwards_it_is_the_other_way(self, blocks):
        assert drift(blocks[::-1]).relative == pytest.approx(-drift(blocks).relative, abs=1e-9)

    @pytest.mark.parametrize(("scatter", "trend"), [(4, "settled"), (20, "undecided"), (50, "undecided")])
    def test_noise_is_no_drift_and_does_not_hide_one(self, scatter, trend):
        rng = np.random.default_rng(0)
        found = [drift(100 + scatter * rng.standard_normal(BLOCKS)).trend for _ in range(400)]
        assert np.mean([each == trend for each in found]) > 0.9
        assert np.mean([each == "moving" for each in found]) < 0.06

    def test_a_drift_that_scatter_hides_is_not_settled(self):
        rng = np.random.default_rng(0)
        growing = np.linspace(85, 115, BLOCKS)
        assert "settled" not in {drift(growing + 20 * rng.standard_normal(BLOCKS)).trend for _ in range(400)}

    def test_filling_is_a_drift(self):
        rng = np.random.default_rng(0)
        filling = 100 * (1 - np.exp(-np.arange(BLOCKS) / 4))
        assert {drift(filling + 3 * rng.standard_normal(BLOCKS)).trend for _ in range(400)} == {"moving"}

    def test_nothing_does_not_move(self):
        assert drift([0, 0, 0, 0]).trend == "settled"

    @pytest.mark.parametrize("blocks", [[1, 2, 3], [[1, 2], [3, 4]], [1, 2, 3, np.nan]])
    def test_what_cannot_be_judged(self, blocks):
        with pytest.raises(SimulationError, match="four or more numbers"):
            drift(blocks)


class TestLoad:
    @given(
        share=st.sampled_from([0.0, 0.01, 0.04, 0.08, 0.15, 0.9]),
        arrivals_per_s=st.floats(0.5, 20),
        start=st.floats(0, 20),
    )
    def test_what_stays_of_what_arrives(self, share, arrivals_per_s, start):
        span_s = 36000.0
        middles = (np.arange(BLOCKS) + 0.5) * span_s / BLOCKS
        found = load(
            start + share * arrivals_per_s * middles, NONE, span_s=span_s, arrivals_per_s=arrivals_per_s
        )
        assert found.growth_per_s == pytest.approx(share * arrivals_per_s, abs=1e-6)
        assert found.label == ("overloaded" if share > 0.1 else "backlogged" if share > 0.02 else "stable")

    def test_filling_up_is_not_growing(self):
        filled = [0, 20, 35, 40, *[40] * 8]
        assert load(filled, NONE, span_s=1800, arrivals_per_s=0.1).label == "stable"

    def test_chance_is_not_growing(self):
        """A stable system that requests enter at random: their number is a Poisson count."""
        rng = np.random.default_rng(0)
        labels = [
            load(rng.poisson(30, BLOCKS), NONE, span_s=600, arrivals_per_s=0.5).label for _ in range(400)
        ]
        assert labels.count("stable") >= 396

    def test_two_requests_are_no_trend(self):
        assert load([0] * 10 + [1, 1], NONE, span_s=1800, arrivals_per_s=0.001).label == "stable"

    @pytest.mark.parametrize(("blocks", "span_s"), [([1, 2], 10), ([1] * 12, 0)])
    def test_what_cannot_be_judged(self, blocks, span_s):
        with pytest.raises(SimulationError, match="six or more numbers"):
            load(blocks, blocks, span_s=span_s, arrivals_per_s=1)

    def test_filling_up_for_long_is_not_growing(self):
        """Requests that take 200 s fill a system for 600 s; those that wait show whether that is all."""
        rising = 100 * (1 - np.exp(-np.arange(BLOCKS) * 50 / 200))
        shape = {"span_s": 600, "arrivals_per_s": 0.5, "life_s": 200}
        assert load(rising, NONE, **shape).label == "filling"
        assert load(rising, np.arange(BLOCKS) * 3, **shape).label == "overloaded"
        longer = 100 * (1 - np.exp(-np.arange(BLOCKS) * 150 / 200))
        assert load(longer, NONE, **shape | {"span_s": 1800}).label == "stable"

    def test_bursts_are_not_growing(self):
        rising, shape = [20] * 8 + [40] * 4, {"span_s": 1800, "arrivals_per_s": 0.3}
        assert load(rising, NONE, **shape).label == "backlogged"
        assert load(rising, NONE, **shape, dispersion=9).label == "stable"

    @pytest.mark.parametrize("wrong", [{"life_s": np.nan}, {"dispersion": -1.0}, {"arrivals_per_s": np.inf}])
    def test_numbers_that_make_no_sense(self, wrong):
        with pytest.raises(SimulationError, match=f"{next(iter(wrong))} is .*; give a number of at least 0"):
            load(NONE, NONE, **{"span_s": 10.0, "arrivals_per_s": 1.0} | wrong)

    def test_blocks_of_both_are_as_many(self):
        with pytest.raises(SimulationError, match="12 blocks and waiting 6; give as many of both"):
            load(NONE, NONE[:6], span_s=10, arrivals_per_s=1)


class TestOfResults:
    def test_the_rate_decides(self):
        labels = [
            load_of(simulated(hx.online(rate_tokens_per_s=rate, duration_s=900))).label for rate in (60, 2000)
        ]
        assert labels == ["stable", "overloaded"]

    def test_the_length_of_a_run_does_not(self):
        """A rate that the system bears for hours, in runs that end before all requests have."""
        system = [hx.load_cluster("geo24"), hx.load_model("llama-2-70b")]
        placement = hx.load_placement("geo24/llama-2-70b/helix")
        labels = [
            load_of(
                hx.simulate(*system, placement, workload=hx.online(rate_tokens_per_s=rate, duration_s=s))
            ).label
            for rate in (320, 900)
            for s in (900, 3600)
        ]
        assert labels == ["filling", "stable", "overloaded", "overloaded"]

    def test_the_window_does_not_decide(self):
        """Two minutes at eight times what can be served, whatever is measured of it."""
        rng, count = np.random.default_rng(1), 400
        table = pd.DataFrame(
            {
                "arrival_s": np.sort(rng.uniform(0, 120, count)),
                "input_tokens": rng.integers(200, 900, count),
                "output_tokens": rng.integers(50, 300, count),
            }
        )
        windows = [
            {},
            *({"duration_s": s} for s in (30, 120, 1800, 7200)),
            {"duration_s": 500, "warmup_s": 200},
        ]
        for window in windows:
            result = simulated(hx.online(requests=table, **window))
            assert load_of(result).label == "overloaded", window
            saturated = [found for found in hx.diagnose(result) if found.cause == "saturated"]
            in_flight = [found.evidence["requests_at_the_end"] for found in saturated]
            assert len(in_flight) == 1
            if window.get("duration_s") != 30:
                assert in_flight[0] > 300

    def test_what_comes_after_the_window_is_judged_too(self):
        """Ten minutes of little, and then an hour of too much."""
        times_s = np.concatenate([np.arange(0, 600, 100), np.linspace(601, 4200, 3600)])
        table = pd.DataFrame({"arrival_s": times_s, "input_tokens": 550, "output_tokens": 175})
        result = simulated(hx.online(requests=table, duration_s=600), keep_iterations=False)
        assert load_of(result).grows
        assert "3600 of 3606 requests outside the window" in repr(result)

    def test_drawn_requests_are_judged_alike_when_given(self):
        drawn = hx.online(rate_tokens_per_s=300, duration_s=600, warmup_s=60)
        rows = next(drawn.batches())
        table = pd.DataFrame(rows, columns=["arrival_s", "input_tokens", "output_tokens"])
        given_ = hx.online(requests=table, duration_s=600, warmup_s=60)
        assert load_of(simulated(given_)) == load_of(simulated(drawn))

    @pytest.mark.parametrize(("count", "label"), [(1, "stable"), (50, "filling")])
    def test_all_at_once(self, count, label):
        table = pd.DataFrame({"arrival_s": [7.0] * count, "input_tokens": 100, "output_tokens": 20})
        assert load_of(simulated(hx.online(requests=table))).label == label

    @settings(max_examples=5, deadline=None)
    @given(seed=st.integers(0, 100))
    def test_blocks_are_of_the_window(self, seed):
        result = simulated(hx.offline(warmup_s=30, duration_s=60, rng=seed), sample_step_s=0.5)
        blocks = window_blocks(result)
        assert len(blocks) == BLOCKS
        summary = result.metrics
        assert blocks["decode_tokens_per_s"].mean() == pytest.approx(summary["decode_tokens_per_s"], rel=0.05)
        inside = result.timeline["time_s"].between(summary["window_start_s"], summary["window_end_s"])
        assert blocks["in_flight"].mean() == pytest.approx(
            result.timeline.loc[inside, "in_flight"].mean(), rel=0.05
        )

    def test_nothing_is_in_flight_after_the_end(self):
        request = pd.DataFrame({"arrival_s": [1.0], "input_tokens": [100], "output_tokens": [20]})
        blocks = window_blocks(simulated(hx.online(requests=request, duration_s=600)))
        assert blocks["in_flight"].iloc[-1] == 0
        assert blocks["in_flight"].iloc[0] > 0

    def test_nothing_comes(self):
        rare = simulated(hx.online(rate_tokens_per_s=1, duration_s=60), sample_step_s=1.0)
        assert rare.metrics["requests_fed"] == 0
        assert (window_blocks(rare) == 0).all(axis=None)
        assert load_of(rare).label == "stable"

    def test_what_is_missing_is_said(self):
        offline = simulated(hx.offline(warmup_s=0, duration_s=20), sample_step_s=0)
        with pytest.raises(SimulationError, match="sample_step_s"):
            window_blocks(offline)
        with pytest.raises(SimulationError, match="not online"):
            load_of(offline)
