"""The published evaluation: scenarios as data, pooled runs, comparison, report."""

import io

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab._data import read_table
from helixlab.errors import SweepError, UnknownNameError
from helixlab.experiments.pooling import pooled_metrics, pooled_runs
from helixlab.plotting import plot_evaluation_latencies, plot_evaluation_throughputs
from helixlab.reproduce import (
    beside_published,
    evaluate,
    figure_names,
    flows_beside_published,
    published_evaluation,
    published_results,
    published_wide,
    rankings,
    reference_error,
    scenarios,
)
from helixlab.reproduce.published import RUN
from helixlab.reproduce.report import write_report
from helixlab.simulation.metrics import latency_figures

PIPELINES = [f"single24/llama-2-70b/separate-{machine}" for machine in ("a100", "l4", "t4")]


def points(**changes):
    workload = hx.offline(initial_requests=5, warmup_s=10, duration_s=40)
    common = {"cluster": "single24", "model": "llama-2-70b", "workload": workload, "sample_step_s": 1.0}
    return [{**common, "placement": name, "scheduler": "random", **changes} for name in PIPELINES]


class TestData:
    def test_every_simulated_number_has_its_scenario(self):
        results = published_results()
        simulated = results[results["platform"] == "simulation"]
        runs = scenarios().query("published")[RUN].drop_duplicates()
        assert len(simulated.merge(runs, on=RUN)) == len(simulated) == 201

    def test_every_measured_number_is_compared_with_something(self):
        results = published_results()
        measured = results[results["platform"] == "prototype"]
        assert len(measured.merge(scenarios()[RUN].drop_duplicates(), on=RUN)) == len(measured) == 30

    def test_figures_are_chosen_by_name_or_number(self):
        assert set(scenarios(["5e"])["figure"]) == {"5b"}  # latencies and throughput are of one run
        assert set(scenarios(["7"])["figure"]) == {"7a", "7b"}
        assert set(published_results(["5"])["figure"]) == set("5" + panel for panel in "abcdefgh")
        assert set(figure_names()) == set(read_table("published/results.csv")["figure"])
        with pytest.raises(UnknownNameError, match="6a"):
            scenarios(["6a"])

    def test_one_column_a_metric(self):
        wide = published_wide(["8"])
        assert len(wide) == 8
        helix = wide.query("method == 'helix' and mode == 'online'").iloc[0]
        assert helix["decode_tokens_per_s"] == 459.8
        assert helix["prompt_latency_p95_s"] == 3.51


class TestPooled:
    def test_throughputs_add_up_and_latencies_are_of_one_pool(self):
        each = points()
        table = pooled_runs({"all": each, **{p["placement"]: [p] for p in each}}, seeds=2, progress=False)
        sums = table[table["group"] != "all"].groupby("seed")["decode_tokens_per_s"].sum()
        whole = table[table["group"] == "all"].set_index("seed")
        assert whole["decode_tokens_per_s"].tolist() == pytest.approx(sums.tolist())
        cluster, model = hx.load_cluster("single24"), hx.load_model("llama-2-70b")
        results = [
            hx.simulate(
                cluster, model, hx.load_placement(p["placement"]), scheduler="random", workload=p["workload"],
                sample_step_s=1.0,
            )
            for p in each
        ]  # fmt: skip
        latency_s = []
        for result in results:
            summary, rows = result.summary.iloc[0], result.iterations
            inside = rows["end_s"].between(summary["window_start_s"], summary["window_end_s"])
            latency_s.append(rows.loc[inside & (rows["iteration"] > 0), "latency_s"])
        expected = latency_figures(np.concatenate(latency_s), "decode")
        assert {name: whole.loc[0, name] for name in expected} == pytest.approx(expected)
        assert pooled_metrics(results)["decode_latency_p50_s"] == expected["decode_latency_p50_s"]

    def test_the_store_keeps_groups(self, tmp_path, monkeypatch):
        first = pooled_runs({"all": points()}, store=tmp_path, progress=False)
        monkeypatch.setattr("helixlab.experiments.pooling.simulate_run", None)
        again = pooled_runs({"all": points()}, store=tmp_path, progress=False)
        pd.testing.assert_frame_equal(first, again)
        monkeypatch.undo()
        monkeypatch.setattr("helixlab.experiments.pooling.library_digest", lambda: "another")
        other = pooled_runs({"all": points()}, store=tmp_path, progress=False)
        assert other["wall_s"].tolist() != first["wall_s"].tolist()

    def test_those_let_in_and_those_that_asked(self):
        crowded = hx.offline(initial_requests=400, warmup_s=10, duration_s=60)
        one = {"placement": "small10/llama-1-30b/helix", "workload": crowded, "sample_step_s": 1.0}
        table = pooled_runs({"drop": [one | {"on_full": "drop"}], "wait": [one]}, progress=False)
        drop, wait = table.set_index("group").loc[["drop", "wait"]].to_dict("records")
        assert drop["requests_dropped"] > 0
        assert drop["input_tokens_mean_accepted"] < drop["input_tokens_mean_asked"]
        assert wait["requests_dropped"] == 0

    def test_a_later_window_is_that_of_a_longer_warm_up(self):
        def group(warmup_s):
            workload = hx.online(rate_tokens_per_s=300, warmup_s=warmup_s, duration_s=120)
            return {"all": [point | {"workload": workload} for point in points()]}

        both = pooled_runs(group(0), later_s=60, seeds=2, progress=False)
        alone = pooled_runs(group(60), seeds=2, progress=False)
        kept = [name for name in alone if name not in ("group", "seed", "error", "wall_s")]
        again = both[[f"later_{name}" for name in kept]].set_axis(kept, axis=1)
        pd.testing.assert_frame_equal(again, alone[kept], check_exact=False, rtol=1e-12)
        assert both["decode_tokens_per_s"].tolist() != again["decode_tokens_per_s"].tolist()
        offline = pooled_runs({"all": points()}, later_s=20, progress=False)
        assert not [name for name in offline if name.startswith("later_")]

    @pytest.mark.parametrize("from_s", [2.5, 120, 130])
    def test_a_later_window_begins_at_a_sample_in_the_window(self, from_s):
        workload = hx.online(rate_tokens_per_s=300, warmup_s=0, duration_s=120)
        group = {"all": [points(workload=workload)[0]]}
        assert "no sample" in pooled_runs(group, later_s=from_s, progress=False)["error"].item()

    def test_a_run_that_fails_is_a_row(self):
        wrong = {"placement": PIPELINES[0], "cluster": "small10", "sample_step_s": 1.0}
        table = pooled_runs({"bad": [wrong]}, progress=False)
        assert table["error"].notna().all()


@pytest.fixture(scope="module")
def runs():
    return evaluate(scenarios(["10a"]).query("published"), scale="smoke", seeds=2, progress=False)


class TestEvaluation:
    def test_every_run_with_every_seed(self, runs):
        published = runs[runs["variant"] == "published"]
        assert len(published) == 8
        assert set(published["seed"]) == {0, 1}
        assert published["method"].unique().tolist() == ["helix", "swarm", "random", "shortest-queue"]

    def test_a_long_window_is_for_all_that_are_compared(self, runs):
        by_variant = runs.groupby("variant")["method"].agg(set)
        assert by_variant["long"] == by_variant["published"], "half a minute has not settled"

    def test_beside_the_published_numbers(self, runs):
        numbers = beside_published(runs)
        assert len(numbers) == 4  # measured ones are of another cluster
        by_method = numbers.set_index("method")
        first = runs[(runs["seed"] == 0) & (runs["variant"] == "published")].set_index("method")
        # Where requests are known it is the run that has them, else the mean.
        assert by_method.loc["helix", "ours"] == first.loc["helix", "decode_tokens_per_s"]
        assert by_method.loc["random", "ours"] == by_method.loc["random", "mean"]
        assert (numbers["low"] <= numbers["mean"]).all()
        assert numbers["difference"].tolist() == pytest.approx(
            (numbers["ours"] / numbers["published"] - 1).tolist()
        )
        assert not numbers["met"].any(), "half a minute is not ten"

    def test_requests_are_kept_where_the_scheduler_draws(self):
        table = scenarios(["5d"]).query("method == 'separate'")
        runs = evaluate(table, scale="smoke", seeds=2, progress=False)
        fed = runs.groupby("variant")["requests_fed"].nunique()
        assert fed["same-requests"] == 1
        assert fed["published"] == 2

    def test_a_long_window_online_is_of_the_published_run_where_nothing_was_dropped(self, monkeypatch):
        table = scenarios(["5d"]).query("method == 'separate'")
        shared = evaluate(table, scale="smoke", seeds=2, progress=False)
        monkeypatch.setattr("helixlab.reproduce.evaluation._two_windows", lambda runs: (runs, runs[:0]))
        apart = evaluate(table, scale="smoke", seeds=2, progress=False)
        one, other = (
            runs[runs["variant"] == "long"][list(shared.columns)]
            .drop(columns="wall_s")
            .reset_index(drop=True)
            for runs in (shared, apart)
        )
        assert len(one) == 2
        pd.testing.assert_frame_equal(one, other, check_exact=False, rtol=1e-12)

    def test_variants_can_be_left_out(self):
        table = scenarios(["5d"]).query("method == 'separate'")
        runs = evaluate(table, scale="smoke", seeds=1, variants=["wait"], progress=False)
        assert set(runs["variant"]) <= {"published", "wait"}
        with pytest.raises(UnknownNameError, match="vast"):
            evaluate(table, scale="smoke", variants=["vast"])

    def test_scales_have_names(self):
        with pytest.raises(UnknownNameError, match="vast"):
            evaluate(scenarios(["10a"]), scale="vast")

    def test_a_failure_is_not_passed_over(self):
        table = scenarios(["10a"]).query("method == 'swarm' and published").assign(cluster="single24")
        table["placement"] = "small10/llama-1-30b/helix"
        with pytest.raises(SweepError, match=r"10\|single24\|llama-2-70b\|swarm\|offline with seed 0 failed"):
            evaluate(table, scale="smoke", seeds=1, progress=False)


@pytest.fixture(scope="module")
def study():
    return published_evaluation(["5d", "5e", "5f"], scale="smoke", seeds=2, progress=False)


class TestPublishedEvaluation:
    def test_its_tables_are_of_one_evaluation(self, study):
        assert set(study.throughput["metric"]) == {"decode_tokens_per_s"}
        assert set(study.online_runs["variant"]) == {"published"}
        assert study.latencies["method"].tolist() == ["helix", "separate", "swarm"] * 2
        assert study.latencies["load"].notna().all()
        one = study.online_runs.query("method == 'swarm' and model == 'llama-2-70b'")
        row = study.latencies.set_index(["model", "method"]).loc["llama-2-70b", "swarm"]
        assert row["decode_latency_p95_s"] == pytest.approx(one["decode_latency_p95_s"].mean())
        assert study.agreement["numbers"].sum() == len(study.judged)
        assert len(study.misses) == (~study.judged["met"]).sum()
        assert set(study.checks["variant"]) == set(study.runs["variant"])
        assert set(study.helix_factors) == {"separate", "swarm"}

    def test_its_pictures_have_a_panel_each(self, study):
        axes = plot_evaluation_throughputs(study.throughput)
        assert [ax.axison for ax in axes] == [True, False]
        axes = plot_evaluation_latencies(
            study.latencies,
            later=study.later_latencies,
            published=study.published_latencies,
            figures=study.latency_figures,
        )
        assert len(axes) == 4
        assert len({ax.figure for ax in axes}) == 1


NUMBERS = """\
method,scheduler,published,ours,mean,low,high,difference,met,wait_mean
helix,helix,300,301,302,290,310,0.0033,True,250
swarm,swarm,100,99,98,90,110,-0.01,False,
separate,random,200,201,202,190,210,0.005,True,
"""
SHARED = {
    "figure": "5a",
    "cluster": "single24",
    "model": "llama-1-30b",
    "mode": "offline",
    "platform": "simulation",
    "metric": "decode_tokens_per_s",
    "seeds": 5,
    "tolerance": 0.005,
    **dict.fromkeys(["wait_low", "wait_high", "long_mean", "long_low", "long_high"], np.nan),
    **dict.fromkeys(["of_seeds", "wait_of_seeds", "long_of_seeds"], ""),
    "load": "",
    "trend": "settled",
    "long_trend": "",
}


def numbers_of(**columns):
    return pd.read_csv(io.StringIO(NUMBERS)).assign(**SHARED).assign(**columns)


class TestRankings:
    def test_the_same(self):
        (row,) = rankings(numbers_of()).to_dict("records")
        assert row["published"] == row["ours"] == "helix > separate > swarm"
        assert row["same"]

    @pytest.mark.parametrize(
        ("of_seeds", "told"),
        [
            (["180 190 200", "99 99 99", "191 201 212"], True),  # seed by seed, though intervals meet
            (["180 190 200", "99 99 99", "212 201 191"], False),
            (["190", "99", "201"], False),
            (["180 190", "99 99", "191 201 211"], False),
        ],
    )
    def test_changed_places(self, of_seeds, told):
        ours = [190.0, 99.0, 201.0]
        (row,) = rankings(numbers_of(ours=ours, of_seeds=of_seeds)).to_dict("records")
        assert not row["same"]
        assert row["distinguished"] == told

    def test_the_long_window_turns_them(self):
        (row,) = rankings(numbers_of(long_mean=[np.nan, np.nan, 280.0])).to_dict("records")
        assert row["steady"] == "separate > helix > swarm", "where nothing else is known, nothing moves"
        assert row["turns"]
        assert not row["turns_distinguished"], "nothing is known of the seeds"
        long = {"long_mean": [250, 99, 255], "long_of_seeds": ["240 250 260", "98 99 100", "246 255 264"]}
        assert rankings(numbers_of(**long))["turns_distinguished"].all(), "5 apart, give or take 1"
        long["long_of_seeds"] = ["240 250 260", "98 99 100", "240 265 260"]
        assert not rankings(numbers_of(**long))["turns_distinguished"].any()
        assert not rankings(numbers_of(long_mean=[260.0, np.nan, 210.0]))["turns"].any()

    def test_equal_numbers_have_no_order(self):
        assert rankings(numbers_of(published=100.0))["same"].all()


def test_flows_are_the_solver_s():
    flows = flows_beside_published()
    assert len(flows) == 6
    assert flows["met"].all()


def test_how_far_the_reference_is_from_its_prototype():
    error = reference_error()["difference"].abs()
    assert len(error) == 12
    assert error.mean() == pytest.approx(0.082, abs=5e-4)


class TestReport:
    @pytest.fixture
    def written(self, tmp_path):
        def write(numbers, scale="full"):
            (tmp_path / "numbers_x.csv").write_text(numbers.to_csv(index=False))
            (tmp_path / "findings_y.csv").write_text("finding\nPlans are better.\n")
            records = {"07_x": {"files": {"numbers_x.csv": "", "findings_y.csv": "", "a.png": ""}}}
            return write_report(tmp_path, ["07_x"], records, scale=scale, seeds=5).read_text()

        return write

    def test_every_number_is_there(self, written):
        text = written(numbers_of())
        assert "**2 of 3** published figures" in text
        assert "rank as in the published simulations in **1 of 1**" in text
        assert "Plans are better." in text
        assert (
            "| 5a | single24, llama-1-30b, swarm, offline | decode_tokens_per_s | 100.0 | 99.0 | -1.0% |"
            in text
        )
        assert "the requests are those of the published run, and no cause has been found" in text
        drawn = written(numbers_of(met=[True, True, False], high=[310, 110, 214]))
        assert "it is within the scatter of our seeds: 95 % of single runs are expected from 172.6" in drawn
        assert "outside the scatter" in written(numbers_of(met=False, published=[300, 100, 300]))
        assert "| 5a | single24, llama-1-30b, helix, offline | 302.0 | 250.0 |" in text
        assert text.count("| simulation |") == 3
        assert "numba" in text

    def test_rankings_that_turn_in_a_long_run(self, written):
        text = written(numbers_of(long_mean=[np.nan, np.nan, 280.0]))
        assert "1 of 1 rankings by throughput turn (5a, single24: separate > helix > swarm, though" in text
        assert "| helix > separate > swarm | separate > helix > swarm | seeds do not |" in text
        assert "No ranking of methods by throughput turns" in written(numbers_of())

    def test_long_windows_that_had_not_settled_are_marked(self, written):
        trends = {"long_trend": ["settled", "undecided", "moving"]}
        text = written(numbers_of(long_mean=[280.0, 90.0, 210.0], **trends))
        assert "| 280.0 |" in text
        assert "| 90.0, undecided |" in text
        assert "| 210.0, still moving |" in text

    def test_what_windows_of_online_runs_leave_out(self, written):
        online = numbers_of(mode="online", load="stable", trend=["settled", "undecided", "moving"])
        text = written(online.assign(long_mean=[301.0, 101.0, 250.0]))
        assert (
            "3 of 3 online runs are stable. But the windows of 2 were not seen to have settled: from 900 s"
            in text
        )
        assert "they decode +3% to +24% against the published window." in text
        assert "But the windows" not in written(online)

    def test_latencies_that_move_are_counted(self, written):
        latency = numbers_of(mode="online", metric="prompt_latency_p50_s", long_mean=[303.0, 110.0, np.nan])
        numbers = pd.concat([numbers_of(mode="online", load="filling"), latency])
        text = written(numbers)
        assert "Of 2 latencies of these runs, 1 are more than 5 % from those" in text
        assert "prompt_latency_p50_s of single24, llama-1-30b, swarm, online, with 110.0 for 98.0 s" in text

    def test_a_ranking_that_turns_while_it_moves(self, written):
        moving = numbers_of(long_mean=[np.nan, np.nan, 280.0], long_trend=["", "", "moving"])
        assert "helix > swarm, still moving, though seeds do not tell them apart)" in written(moving)

    def test_what_was_measured_is_ranked_too(self, written):
        measured = numbers_of(platform="prototype", figure="5d", published=[300, 200, 100])
        assert "rank as measured there in 0 of 1 comparisons (otherwise in 5d)" in written(measured)
        measured["published"] = [300, 100, 200]
        assert "rank as measured there in 1 of 1 comparisons." in written(measured)

    def test_the_same_tables_give_the_same_report(self, written):
        assert written(numbers_of()) == written(numbers_of())

    def test_of_flows_alone(self, written):
        text = written(flows_beside_published(["12"]))
        assert "**1 of 1** published figures" in text
        assert "| 12 | small10, llama-1-30b, helix, gurobi-63min-optimal | solver |" in text

    def test_small_is_said_to_be_small(self, written):
        small = written(numbers_of(), scale="smoke")
        assert "No number here can be" in small
        assert "What is not met" not in small
        assert "No number here can be" not in written(numbers_of())

    def test_without_numbers(self, tmp_path):
        text = write_report(tmp_path, ["01_x"], {"01_x": {"files": {}}}, scale="full", seeds=None).read_text()
        assert "compare nothing with published numbers" in text
