"""Many runs: order, seeds, failures, what is kept on disk, and who does the work."""

import importlib
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from types import FunctionType

import cloudpickle
import joblib
import numba
import numpy as np
import pandas as pd
import pytest
from cloudpickle import list_registry_pickle_by_value
from dask.distributed import Client, LocalCluster

import helixlab as hx
from helixlab._hashing import digest
from helixlab.errors import FileFormatError, SweepError, UnknownNameError
from helixlab.execution import fits_limits
from helixlab.experiments.runner import Store
from helixlab.experiments.worker import _dumps, execute_run, pack, unpack

HELIX = "small10/llama-1-30b/helix"
SHORT = hx.offline(warmup_s=5, duration_s=20)
SMALL = {"placement": HELIX, "workload": SHORT}
COSTS = ["wall_s", "peak_rss_mb"]
SKIP = 0


def quiet(*arguments, **options):
    return hx.sweep(*arguments, progress=False, **options)


def figures(frame):
    return frame.drop(columns=COSTS)


def first_free(state, sender, request):
    return state.nodes[sender].first_link + SKIP


@numba.njit
def _room(node, most):
    return node.batch_prompts + node.batch_decode_tokens < most


def sent(value):
    """A value as a worker gets it."""
    return cloudpickle.loads(_dumps(value))


def few_at_a_time(most):
    def admits(node, request):
        return _room(node, most)

    return hx.Execution(f"at most {most}", admits)


# Rows


def test_rows_are_the_combinations_in_order():
    grid = {
        "scheduler": ["swarm", "helix"],
        "placement": [HELIX],
        "on_full": ("wait", "drop"),
        "workload": SHORT,
    }
    runs = quiet(grid, seeds=[3, 1])
    asked = ["mode", "warmup_s", "duration_s", "trace", "initial_requests", "rate_tokens_per_s"]
    assert list(runs.columns[:10]) == ["scheduler", "placement", "on_full", *asked, "seed"]
    rows = runs[["scheduler", "placement", "on_full", "seed"]].itertuples(index=False, name=None)
    assert list(rows) == list(itertools.product(["swarm", "helix"], [HELIX], ["wait", "drop"], [3, 1]))
    assert runs["error"].tolist() == [None] * 8
    assert list(runs.index) == list(range(8))


def test_a_row_is_the_summary_of_that_run():
    runs = quiet(SMALL | {"execution": "prompt-first", "kv_high_water_mark": 0.5}, seeds=[7])
    alone = hx.simulate(
        hx.load_cluster("small10"),
        hx.load_model("llama-1-30b"),
        hx.load_placement(HELIX),
        execution="prompt-first",
        workload=replace(SHORT, seed=7),
        kv_high_water_mark=0.5,
    ).summary
    alone = alone.drop(columns="partial")  # those that are partial are no rows
    assert set(alone) <= set(runs)
    pd.testing.assert_frame_equal(figures(runs[alone.columns]), figures(alone))
    assert runs["kv_high_water_mark"].item() == 0.5
    assert runs["peak_rss_mb"].item() > 0


def test_points_by_hand():
    points = [
        {"placement": HELIX, "workload": SHORT, "scheduler": "random"},
        {"placement": hx.load_placement(HELIX), "workload": SHORT, "cluster": "small10"},
        {"placement": HELIX, "workload": hx.online(rate_tokens_per_s=50, duration_s=20), "sample_step_s": 1},
    ]
    runs = quiet(iter(points))
    assert runs["scheduler"].tolist() == ["random", "helix", "helix"]
    assert runs["mode"].tolist() == ["offline", "offline", "online"]
    assert runs["rate_tokens_per_s"].tolist() == pytest.approx([np.nan, np.nan, 50], nan_ok=True)
    assert runs["sample_step_s"].tolist() == [0, 0, 1]
    assert runs["cluster"].tolist() == ["small10"] * 3
    assert runs["error"].isna().all()


def test_a_placement_on_part_of_a_cluster_brings_that_part():
    runs = quiet({"placement": "single24/llama-1-30b/separate-l4", "workload": SHORT})
    assert runs[["cluster", "model", "error"]].to_numpy().tolist() == [["single24-l4", "llama-1-30b", None]]


def test_points_of_a_kind_can_be_told_apart():
    cluster = hx.load_cluster("small10")
    slower = replace(cluster, links=tuple(replace(link, latency_s=0.05) for link in cluster.links))
    policies = [hx.chunked(), hx.chunked(chunk_tokens=128), "greedy", few_at_a_time(3), few_at_a_time(3)]
    workloads = [SHORT, replace(SHORT, trace="sharegpt"), replace(SHORT, duration_s=25.0)]
    grid = {"placement": HELIX, "cluster": [cluster, slower], "execution": policies, "workload": workloads}
    runs = quiet(grid)
    assert runs["error"].isna().all()
    assert runs["cluster"].unique().tolist() == ["small10", f"small10@{slower.content_hash[:8]}"]
    assert runs["execution"].unique().tolist() == ["chunked", "greedy", "at most 3"]
    assert runs["chunk_tokens"].dropna().unique().tolist() == [64, 128]
    assert runs["trace"].unique().tolist() == ["azure-conv", "sharegpt"]
    assert runs["duration_s"].unique().tolist() == [20, 25]
    assert "arrivals" not in runs, "as it is the same for all"
    names = ["cluster", "execution", "chunk_tokens", "trace", "duration_s"]
    twice = runs["execution"] == "at most 3"  # the same policy, written twice, is the same point twice
    assert not runs.loc[~twice, names].duplicated().any()
    assert runs.loc[twice, names].duplicated().sum() == 6


def test_own_requests_of_one_shape_can_be_told_apart():
    tables = [pd.DataFrame({"input_tokens": [n], "output_tokens": [8]}) for n in (100, 200)]
    workloads = [replace(hx.offline(requests=table), duration_s=20.0, warmup_s=0.0) for table in tables]
    runs = quiet({"placement": HELIX, "workload": workloads})
    assert runs["trace"].tolist() == ["own requests", "own requests #2"]
    assert runs["input_tokens_mean_accepted"].tolist() == [100, 200]


# Seeds


def test_every_point_gets_the_same_seeds():
    online = hx.online(rate_tokens_per_s=200, duration_s=60, rng=99)
    runs = quiet({"placement": HELIX, "workload": online, "scheduler": ["random", "swarm"]}, seeds=3)
    assert runs["seed"].tolist() == [0, 1, 2] * 2
    asked = runs.pivot(index="seed", columns="scheduler", values="input_tokens_mean_accepted")
    assert asked["random"].tolist() == asked["swarm"].tolist()
    assert asked["swarm"].nunique() == 3
    again = quiet({"placement": HELIX, "workload": online, "scheduler": "random"}, seeds=[2])
    pd.testing.assert_frame_equal(figures(again), figures(runs).iloc[[2]].reset_index(drop=True))


def test_own_requests_vary_with_the_seed_where_a_scheduler_draws():
    requests = pd.DataFrame({"input_tokens": [400] * 60, "output_tokens": [60] * 60})
    system = {"placement": "single24/llama-1-30b/swarm", "scheduler": ["random", "helix"]}
    runs = quiet(system | {"workload": hx.offline(requests=requests, warmup_s=0, duration_s=60)}, seeds=2)
    latency_s = runs.groupby("scheduler")["prompt_latency_mean_s"].nunique()
    assert latency_s.to_dict() == {"random": 2, "helix": 1}


# Failures


def test_failures_are_rows():
    def bad(state, sender, request):
        return "the first one"

    def nowhere(state, sender, request):
        return -7

    grid = {
        "placement": [HELIX, "single24/llama-2-70b/helix"],
        "cluster": "small10",
        "scheduler": ["helix", hx.Scheduler("bad", bad), hx.Scheduler("nowhere", nowhere)],
        "workload": SHORT,
    }
    runs = quiet(grid)
    assert [(error or "fine").split(":")[0] for error in runs["error"]] == [
        "fine",
        "SchedulingError",
        "SchedulingError",
        *["PlacementError"] * 3,
    ]
    assert "choose of scheduler 'bad' does not compile" in runs["error"][1]
    assert "is for cluster 'single24', not 'small10'" in runs["error"][3]
    assert runs["decode_tokens_per_s"].notna().tolist() == [True] + [False] * 5
    assert runs["scheduler"].tolist() == ["helix", "bad", "nowhere"] * 2
    assert runs["cluster"].tolist() == ["small10"] * 6


def test_a_frame_of_failures_has_all_columns():
    runs = quiet(SMALL | {"kv_high_water_mark": 1.5}, seeds=2)
    assert runs["error"].str.startswith("SimulationError: kv_high_water_mark is").all()
    assert list(runs) == list(quiet(SMALL | {"kv_high_water_mark": 0.5}))
    assert runs["decode_tokens_per_s"].isna().all()
    assert runs["decode_tokens_per_s"].dtype == np.float64


# What is kept


@pytest.fixture
def store(tmp_path):
    return tmp_path / "runs"


def test_what_is_there_is_not_run_again(store):
    before = quiet(SMALL, seeds=2, store=store)
    stamps = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    assert len(stamps) == 2
    after = quiet(SMALL | {"scheduler": ["helix", "swarm"]}, seeds=3, store=str(store))
    assert len(list(store.iterdir())) == 6
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    pd.testing.assert_frame_equal(after.iloc[:2][before.columns], before)  # the wall time too
    pd.testing.assert_frame_equal(
        figures(after), figures(quiet(SMALL | {"scheduler": ["helix", "swarm"]}, seeds=3))
    )


def test_failed_runs_are_tried_again(store):
    quiet(SMALL | {"kv_high_water_mark": [1.5, 0.5]}, store=store)
    assert len(list(store.iterdir())) == 1


@pytest.mark.parametrize(
    "damage", ["cut off", "empty", "no JSON", "another figure", "another run", "a folder"]
)
def test_a_file_that_is_not_whole_is_run_again(store, damage):
    before = quiet(SMALL, store=store)
    [path] = store.iterdir()
    text = path.read_text()
    if damage == "cut off":
        path.write_text(text[: len(text) // 2])
    elif damage == "empty":
        path.write_text("")
    elif damage == "no JSON":
        path.write_bytes(b"\xff\x00")
    elif damage == "another figure":
        path.write_text(text.replace('"events": ', '"events": 1'))
    elif damage == "another run":
        path.write_text(json.dumps(json.loads(text) | {"key": "0" * 32}))
    else:
        path.unlink()
        path.mkdir()
        with pytest.raises(
            SweepError, match=r"cannot be written to .*; free some space, or give another store"
        ):
            quiet(SMALL, store=store)
        return
    after = quiet(SMALL, store=store)
    pd.testing.assert_frame_equal(figures(after), figures(before))
    assert (
        json.loads(path.read_text())["metrics"]["wall_s"] == after["wall_s"].item() != before["wall_s"].item()
    )


def changed(what):
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement(HELIX)
    held = placement.layers[0]
    return {
        "one layer of the placement": {
            "placement": replace(placement, layers=(replace(held, first_layer=41), *placement.layers[1:]))
        },
        "one link of the cluster": {
            "cluster": replace(cluster, links=(replace(cluster.links[0], latency_s=0.2), *cluster.links[1:]))
        },
        "the model": {"model": replace(model, layer_bytes=model.layer_bytes * 1.1)},
        "the workload": {"workload": replace(SHORT, warmup_s=6.0)},
        "the execution": {"execution": replace(hx.chunked(), name="greedy")},
        "a setting": {"expected_output_ratio": 0.9},
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        "one layer of the placement",
        "one link of the cluster",
        "the model",
        "the workload",
        "the execution",
        "a setting",
    ],
)
def test_a_result_of_other_content_is_not_taken(store, what):
    quiet(SMALL, store=store)
    runs = quiet(SMALL | changed(what), store=store)
    assert len(list(store.iterdir())) == 2
    assert runs["error"].tolist() == [None]
    if what == "one layer of the placement":
        other = changed(what)["placement"]
        assert runs["placement"].tolist() == [f"{HELIX}@{other.content_hash[:8]}"]
        assert runs["max_flow_tokens_per_s"].item() < 240


def test_names_are_not_content(store):
    before = quiet(SMALL, store=store)
    placement = replace(hx.load_placement(HELIX), name="mine", method="by hand", source="a drawer")
    after = quiet(SMALL | {"placement": placement, "execution": "greedy"}, store=store)
    assert len(list(store.iterdir())) == 1
    assert after["placement"].item() == "mine"
    assert after["wall_s"].item() == before["wall_s"].item()


def test_a_result_of_another_helixlab_is_not_taken(store, monkeypatch):
    before = quiet(SMALL, store=store)
    for module in ("sweep", "worker"):
        monkeypatch.setattr(f"helixlab.experiments.{module}.library_digest", lambda: "another")
    after = quiet(SMALL, store=store)
    assert len(list(store.iterdir())) == 2
    pd.testing.assert_frame_equal(figures(after), figures(before))


def test_a_worker_with_another_helixlab_is_found_out(store, monkeypatch):
    monkeypatch.setattr("helixlab.experiments.worker.library_digest", lambda: "another")
    [error] = quiet(SMALL, store=store)["error"]
    assert error.startswith("SweepError: the worker process has another helixlab")
    assert list(store.iterdir()) == []


def test_without_a_store_it_says_so(monkeypatch):
    def interrupted(run):
        if run.workload.duration_s > 1:
            raise KeyboardInterrupt
        return execute_run(run)  # the short run that gives the names of the metrics

    monkeypatch.setattr("helixlab.experiments.sweep.execute_run", interrupted)
    with pytest.warns(UserWarning, match="sweep interrupted; .*nothing was kept: give a store"):
        runs = quiet(SMALL)
    assert runs["error"].tolist() == ["not run: interrupted"]
    assert runs["decode_tokens_per_s"].isna().all()


# Who does the work


def own_policies():
    return SMALL | {
        "scheduler": [hx.Scheduler("first", first_free), "swarm"],
        "execution": [few_at_a_time(3), hx.chunked(max_decode_per_batch=8), "one-phase"],
    }


@pytest.mark.slow
def test_workers_give_the_same():
    runs = quiet(own_policies(), seeds=2, n_jobs=2)
    assert runs["error"].isna().all()
    pd.testing.assert_frame_equal(figures(runs), figures(quiet(own_policies(), seeds=2)))


@pytest.mark.slow
def test_a_dask_cluster_takes_over():
    points = SMALL | {"scheduler": hx.Scheduler("first", first_free), "execution": few_at_a_time(3)}
    alone = quiet(points, seeds=2)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        runs = quiet(points, seeds=2)
        tasks = [
            task
            for log in client.run(lambda dask_worker: list(dask_worker.state.log)).values()
            for task in log
        ]
    assert any("execute_run" in str(task) for task in tasks)
    pd.testing.assert_frame_equal(figures(runs), figures(alone))


# The next three stop the workers, each in another way.


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_interrupted_sweep_says_how_to_go_on(store, n_jobs, monkeypatch):
    keep, kept = Store.save, []

    def keep_two(self, *arguments):
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(arguments)
        keep(self, *arguments)

    monkeypatch.setattr(Store, "save", keep_two)
    said = r"2 of 30 runs are kept in .*, call it again with store='.*runs' to go on"
    with pytest.warns(UserWarning, match=said):
        partial = quiet(SMALL, seeds=30, n_jobs=n_jobs, store=store)
    monkeypatch.undo()
    assert partial.attrs["partial"]
    assert len(partial) == 30
    assert 2 <= partial["error"].isna().sum() <= 3
    assert (partial["error"].dropna() == "not run: interrupted").all()
    assert (partial["decode_tokens_per_s"].isna() == partial["error"].notna()).all()
    runs = quiet(SMALL, seeds=3, n_jobs=n_jobs, store=store)
    assert runs["error"].isna().all()


@pytest.mark.slow
def test_a_worker_that_dies(store, monkeypatch):
    def dies(run):
        os._exit(3)

    monkeypatch.setattr("helixlab.experiments.sweep.execute_run", dies)
    with pytest.raises(SweepError, match=r"the workers stopped .*0 of 4 runs are kept in"):
        quiet(SMALL, seeds=4, n_jobs=2, store=store)


LONG = {"placement": HELIX, "workload": hx.offline(warmup_s=60, duration_s=600)}
CHILD = """
import sys, helixlab as hx
workload = hx.offline(warmup_s=60, duration_s=600)
grid = {"placement": "small10/llama-1-30b/helix", "workload": workload}
hx.sweep(grid, seeds=1000, n_jobs=2, store=sys.argv[1])
"""


def parents():
    """Parent of every process."""
    done = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    return dict(map(int, line.split()) for line in done.stdout.splitlines())


def until(true, patience_s=300):
    """Wait for something that will happen; fail rather than hang."""
    for _ in range(patience_s * 20):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(store, tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(store)], stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        until(lambda: child.poll() is not None or len(list(store.glob("[!.]*"))) >= 2)
        assert child.poll() is None, "it ended before it could be killed"
        workers = {pid for pid, parent in parents().items() if parent == child.pid}
    finally:
        child.kill()
        child.wait()
    assert workers
    until(lambda: not workers & set(parents()))  # nobody goes on alone
    stamps = {path: path.stat().st_mtime_ns for path in store.glob("[!.]*")}
    assert 2 <= len(stamps) < 1000
    seeds = len(stamps) + 2
    runs = quiet(LONG, seeds=seeds, store=store)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    kept = {json.loads(path.read_text())["metrics"]["wall_s"] for path in stamps}
    assert kept <= set(runs["wall_s"])
    pd.testing.assert_frame_equal(figures(runs), figures(quiet(LONG, seeds=seeds)))


def test_the_bar_counts(capsys):
    hx.sweep(SMALL | {"kv_high_water_mark": [0.5, 1.5]}, seeds=2, progress=True)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "4/4" in last
    assert "2 finished, 2 failed" in last
    quiet(SMALL)
    assert capsys.readouterr().err == ""


# Functions of one's own: what makes them different, and how they travel


def plus_zero(state, sender, request):
    return state.nodes[sender].first_link + 0


def plus_one(state, sender, request):
    return state.nodes[sender].first_link + 1


def plus_far(state, sender, request):
    return state.nodes[sender].first_link + far  # noqa: F821


def plus_first(state, sender, request):
    return state.nodes[sender].first_link + far[0]  # noqa: F821


def plus_step(state, sender, request):
    return state.nodes[sender].first_link + step(1)  # noqa: F821


def plus_from_helpers(state, sender, request):
    return state.nodes[sender].first_link + helpers.BY  # noqa: F821


def plus_sine(state, sender, request):
    return state.nodes[sender].first_link + np.sin(0)


def plus_cosine(state, sender, request):
    return state.nodes[sender].first_link + np.cos(0)


def step_of_one(number):
    return number + 1


def step_of_two(number):
    return number + 2


def mine(function, **names):
    """A scheduler with this function, as if it was written where the names are these."""
    return hx.Scheduler("mine", FunctionType(function.__code__, names or globals(), "choose"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (mine(plus_zero), mine(plus_one)),
        (mine(plus_sine), mine(plus_cosine)),
        (mine(plus_far, far=0), mine(plus_far, far=1)),
        (mine(plus_first, far=np.array([0])), mine(plus_first, far=np.array([1]))),
        (mine(plus_first, far=(0, 1)), mine(plus_first, far=(0, 2))),
        (mine(plus_step, step=step_of_one), mine(plus_step, step=step_of_two)),
        (mine(plus_step, step=numba.njit(step_of_one)), mine(plus_step, step=numba.njit(step_of_two))),
        (mine(plus_zero), replace(mine(plus_zero), plans_ahead=True)),
        (mine(plus_zero), replace(mine(plus_zero), parameters=(1.0,))),
        (few_at_a_time(3), replace(few_at_a_time(4), name="at most 3")),
        (hx.chunked(), hx.chunked(prompt_cost_factor=1.5)),
    ],
)
def test_functions_differ_by_all_they_use(one, other):
    assert digest(one) != digest(other)
    assert digest(one) == digest(replace(one))


def test_a_function_stays_the_same_where_nothing_it_uses_changes():
    one = mine(plus_far, far=2, nodes=pd.DataFrame({"a": [object()]}), unused=object())
    assert digest(one) == digest(mine(plus_far, far=2))


DIGEST = """
import helixlab as hx
from helixlab._hashing import digest
far = (1, 2.5)
def choose(state, sender, request):
    return state.nodes[sender].first_link + far[0] * (request in {"a", "b", "c"})
print(digest([hx.Scheduler("mine", choose), hx.load_placement("small10/llama-1-30b/helix"), hx.chunked()]))
"""


def test_the_digest_is_the_same_in_another_process():
    seen = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(seen) == 1


def test_content_that_cannot_be_told_is_refused():
    with pytest.raises(
        SweepError, match=r"Scheduler\('mine'\) uses <object .*use functions, numbers, tuples"
    ):
        quiet(SMALL | {"scheduler": mine(plus_far, far=object())})


def test_functions_travel_with_what_they_use():
    def countdown(number, step=1):
        return 0 if number <= 0 else offset + SKIP + countdown(number - step)

    offset = 2
    arrived = sent(countdown)
    assert arrived is not countdown
    assert arrived(3) == 6
    assert {name for name in arrived.__globals__ if not name.startswith("__")} == {"SKIP"}
    jitted = sent(_room)
    assert type(jitted) is type(_room)
    assert jitted is not _room
    assert digest(jitted) == digest(_room)
    assert sent((np, np.sin, len, 3)) == (np, np.sin, len, 3)
    assert sent(fits_limits) is fits_limits, "what is helixlab's is there, and compiled"


MINE = """
from enum import Enum
import math
import numba

class Rank(Enum):
    FIRST = 0

BY = 0

@numba.njit
def down(number, step=1):
    return 0 if number <= 0 else down(number - step, step)

def choose(state, sender, request):
    return state.nodes[sender].first_link + BY + down(3) + int(math.sin(0))
"""


def test_a_worker_needs_no_copy_of_a_module(tmp_path, monkeypatch):
    (tmp_path / "mine_alone.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    before = list_registry_pickle_by_value()
    packed = pack(hx.Scheduler("mine", importlib.import_module("mine_alone").choose))
    assert list_registry_pickle_by_value() == before
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "mine_alone")
    assert unpack(packed).name == "mine"
    assert "mine_alone" not in sys.modules


def test_a_helper_that_changed_on_its_way_is_noticed(tmp_path, monkeypatch):
    """What a function reads from a module goes by name: another state of it is another policy."""
    (tmp_path / "helpers_of_mine.py").write_text("BY = 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    helpers = importlib.import_module("helpers_of_mine")

    packed = pack(mine(plus_from_helpers, helpers=helpers))
    monkeypatch.setattr(helpers, "BY", 1)
    with pytest.raises(SweepError, match="is not the same in the worker process"):
        unpack(packed)


# Mistakes


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "nothing in it; give it a 'placement'"),
        ([], "grid has no points"),
        ({"scheduler": "helix"}, "grid has scheduler; give it a 'placement'"),
        ({"placement": []}, r"grid\['placement'\] is empty; give at least one value"),
        ({"placement": {HELIX}}, "is a set, which has no order; give a list"),
        ({"placement": 7}, r"grid\['placement'\] has 7; give a name, or a Placement"),
        (SMALL | {"workload": "offline"}, "has 'offline'; make workloads with offline"),
        ([HELIX], "has the point 'small10.*give each as a mapping"),
        ([{"placement": [HELIX]}], "placement of a point is .*; give single values"),
        (HELIX, "grid is 'small10/llama-1-30b/helix'; give a mapping of lists"),
        (7, "grid is 7; give a mapping"),
    ],
)
def test_a_grid_that_makes_no_sense(grid, message):
    with pytest.raises(SweepError, match=message):
        quiet(grid)


def test_unknown_keys_and_names():
    with pytest.raises(
        UnknownNameError, match=r"unknown grid key 'schedular'; did you mean 'scheduler'.*workload"
    ):
        quiet(SMALL | {"schedular": "helix"})
    with pytest.raises(UnknownNameError, match="unknown scheduler 'helicks'"):
        quiet(SMALL | {"scheduler": ["helix", "helicks"]})
    with pytest.raises(UnknownNameError, match="unknown placement"):
        quiet({"placement": "small10/llama-1-30b/heliks"})
    with pytest.raises(FileFormatError, match=r"cannot read nowhere.json"):
        quiet({"placement": "nowhere.json"})
    placement = replace(hx.load_placement(HELIX), cluster="mine")
    with pytest.raises(
        SweepError, match="for cluster 'mine', which does not come with helixlab; give the grid a"
    ):
        quiet({"placement": placement})


@pytest.mark.parametrize("seeds", [0, -1, True, 1.5, [], [1, 1], [-1], ["a"], "12", None])
def test_seeds_that_make_no_sense(seeds):
    with pytest.raises(SweepError, match=r"seeds is .*; give a number of seeds"):
        quiet(SMALL, seeds=seeds)


@pytest.mark.parametrize("n_jobs", [0, True, 1.5, "2", None])
def test_jobs_that_make_no_sense(n_jobs):
    with pytest.raises(SweepError, match=r"n_jobs is .*; give the number of runs at a time"):
        quiet(SMALL, n_jobs=n_jobs)


def test_a_store_that_is_no_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(SweepError, match=r"file cannot be a folder .*; give another path"):
        quiet(SMALL, store=path)
    with pytest.raises(SweepError, match="store is 7; give the path of a folder"):
        quiet(SMALL, store=7)
    assert path.read_text() == "mine"
