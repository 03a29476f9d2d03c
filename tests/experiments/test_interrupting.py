"""Ctrl-C in long calls: real signals to processes of their own, and what they give back."""

import json
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import helixlab as hx
from helixlab.experiments.runner import Store
from helixlab.plotting import plot_rate_sweep, plot_throughput_latency

SYSTEM = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
OBJECTIVE = hx.Objective(ttft_s=20, tpot_s=2)
# A process that is started in the background of a script does not hear Ctrl-C by itself.
PREPARED = """
import json, os, signal, sys, warnings
import helixlab as hx
signal.signal(signal.SIGINT, signal.default_int_handler)
store = sys.argv[1]
system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
          hx.load_placement("small10/llama-1-30b/helix"))
objective = hx.Objective(ttft_s=20, tpot_s=2)
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    try:
        found = CALL
        told = DESCRIBED
    except KeyboardInterrupt:
        told = {"raised": True}
print(json.dumps(told | {"said": [str(each.message) for each in caught]}))
"""
TABLE = '{"errors": found["error"].tolist(), "partial": found.attrs.get("partial")}'


@pytest.fixture
def interrupted(tmp_path):
    """Call something in a process of its own, and press Ctrl-C when so many runs are kept."""
    store = tmp_path / "runs"

    def call(what, described, *, kept, then_s=0.0):
        script = PREPARED.replace("CALL", what).replace("DESCRIBED", described.strip())
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(store)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
        )
        try:
            for _ in range(6000):
                if child.poll() is not None or len(list(store.glob("[!.]*"))) >= kept:
                    break
                time.sleep(0.02)
            assert child.poll() is None, "it ended before it could be interrupted"
            time.sleep(then_s)
            pressed_s = time.monotonic()
            child.send_signal(signal.SIGINT)
            told, _ = child.communicate(timeout=60)
            return json.loads(told) | {"took_s": time.monotonic() - pressed_s}
        finally:
            child.kill()
            child.wait()

    call.store = store
    return call


LONG = "warmup_s=60, duration_s=600, store=store"


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_rate_sweep_gives_the_rows_that_there_are(interrupted, n_jobs):
    rates = f"rates_tokens_per_s=[100, 150, 250], seeds=40, n_jobs={n_jobs}"
    told = interrupted(f"hx.rate_sweep(*system, {rates}, objective=objective, {LONG})", TABLE, kept=3)
    assert told["partial"] is True
    assert len(told["errors"]) == 120
    assert 3 <= told["errors"].count(None) < 120
    assert set(told["errors"]) == {None, "not run: interrupted"}
    [said] = told["said"]
    finished = told["errors"].count(None)
    assert f"rate_sweep interrupted; {finished} of 120 runs are kept in {interrupted.store}, call it" in said


GOODPUT = """
{"partial": found.partial, "rate": found.rate_tokens_per_s, "missed": found.missed_at_tokens_per_s,
 "shown": repr(found), "requests": found.requests_per_s, "runs": found.runs.to_json(),
 "attrs": found.runs.attrs.get("partial")}
"""


@pytest.mark.slow
def test_goodput_says_what_is_known(interrupted):
    asked = f"objective=objective, seeds=3, tolerance=0.001, {LONG}"
    told = interrupted(f"hx.goodput(*system, {asked})", GOODPUT, kept=8)
    assert told["partial"] is told["attrs"] is True
    runs = pd.DataFrame(json.loads(told["runs"]))
    assert told["shown"].startswith("Partial goodput(")
    finished = runs["error"].isna()
    assert set(runs.loc[~finished, "error"]) <= {"not run: interrupted"}
    whole = runs.groupby("rate_tokens_per_s").filter(lambda rows: rows["error"].isna().all())
    requests = whole.groupby("rate_tokens_per_s")[["requests", "requests_in_time"]].sum()
    met = requests["requests_in_time"] / requests["requests"] >= OBJECTIVE.attainment
    assert told["rate"] == pytest.approx(max(met.index[met], default=0))
    assert told["missed"] == pytest.approx(met.index[~met].min())
    [said] = told["said"]
    assert (
        f"missed at {told['missed']:g} tokens/s; {finished.sum()} runs are kept in {interrupted.store}"
        in said
    )
    # The same call goes on: what is kept is not run again.
    kept = len(list(interrupted.store.glob("[!.]*")))
    assert kept == finished.sum() >= 8


def test_goodput_counts_rates_ahead_and_those_under_way(monkeypatch, tmp_path):
    """Of rates that are not whole nothing is said, of others all that is true."""
    keep, wanted = Store.save, []

    def keep_some(self, *arguments):
        if len(wanted) == 7:
            raise KeyboardInterrupt
        wanted.append(arguments)
        keep(self, *arguments)

    monkeypatch.setattr(Store, "save", keep_some)
    asked = {"objective": OBJECTIVE, "warmup_s": 60, "duration_s": 180, "most_tokens_per_s": 800.0}
    with pytest.warns(UserWarning, match="goodput interrupted; .* runs are kept in .* to go on"):
        found = hx.goodput(*SYSTEM, **asked, seeds=2, n_jobs=4, store=tmp_path, progress=False)
    monkeypatch.undo()
    assert found.partial
    assert found.rate_tokens_per_s < found.missed_at_tokens_per_s
    whole = found.runs.groupby("rate_tokens_per_s")["error"].apply(lambda errors: errors.isna().all())
    assert {found.rate_tokens_per_s, found.missed_at_tokens_per_s} - {0} <= set(whole.index[whole])
    assert not whole.all()
    texts = [text.get_text() for text in plot_rate_sweep(found.runs).texts]
    assert "partial sweep" in texts
    plt.close("all")
    end = hx.goodput(*SYSTEM, **asked, seeds=2, store=tmp_path, progress=False)
    assert not end.partial
    assert repr(end).startswith("Goodput(")
    assert found.rate_tokens_per_s <= end.rate_tokens_per_s < end.missed_at_tokens_per_s
    assert end.missed_at_tokens_per_s <= found.missed_at_tokens_per_s


TUNING = """
{"partial": found.partial, "shown": repr(found), "chunk": found.execution.chunk_tokens,
 "finalists": found.finalists.to_json(), "candidates": found.candidates.to_json(),
 "attrs": [found.finalists.attrs.get("partial"), found.candidates.attrs.get("partial")]}
"""
TRIED = "chunk_tokens=range(32, 96), max_decode_per_batch=[8], max_prompt_chunks_per_batch=[1]"


@pytest.mark.parametrize(("limit", "meets"), [("None", True), ("1e-3", False)])
def test_tuning_stops_among_its_short_runs(interrupted, limit, meets):
    workload = "workload=hx.offline(warmup_s=300, duration_s=20000)"
    asked = f"{TRIED}, {workload}, p95_prompt_latency_s={limit}, store=store"
    told = interrupted(f"hx.tune_execution(*system, {asked})", TUNING, kept=3)
    assert told["partial"] is True
    assert told["attrs"] == [True, True]
    assert told["took_s"] < 30, "the long runs are not begun"
    assert told["shown"].startswith("Partial tuning(")
    finalists, candidates = (pd.DataFrame(json.loads(told[name])) for name in ("finalists", "candidates"))
    assert len(candidates) == 64
    ran = candidates[candidates["error"].isna()]
    assert 3 <= len(ran) < 64
    best = finalists.iloc[0]
    assert best["decode_tokens_per_s"] == ran["decode_tokens_per_s"].max()
    assert best["chunk_tokens"] == told["chunk"]
    assert best["meets_goal"] == meets
    [said] = told["said"]
    assert f"{len(ran)} runs are kept in {interrupted.store}" in said
    assert ("does not keep to prompt_latency_p95_s <= 0.001" in said) is not meets
    texts = [text.get_text() for text in plot_throughput_latency(candidates).texts]
    assert texts == ["partial sweep"]
    plt.close("all")


@pytest.mark.parametrize("finals", [0, 1])
def test_tuning_stops_among_its_final_runs(interrupted, finals):
    """The best of the final runs, or of the short ones while none of those has ended."""
    tried = TRIED.replace("range(32, 96)", "[48, 64, 128, 256]")
    asked = f"{tried}, p95_prompt_latency_s=None, store=store"
    workload = "hx.offline(warmup_s=300, duration_s=40000)"
    told = interrupted(
        f"hx.tune_execution(*system, {asked}, workload={workload})", TUNING, kept=4 + finals, then_s=0.3
    )
    assert told["partial"] is True
    assert told["attrs"] == [True, True]
    candidates, finalists = (pd.DataFrame(json.loads(told[name])) for name in ("candidates", "finalists"))
    assert candidates["error"].isna().all()
    assert finalists["error"].isna().sum() == (finals or 4)
    assert finalists["duration_s"].unique().tolist() == [40000 if finals else 150]
    assert pd.isna(finalists["error"].iloc[0])
    assert told["chunk"] == finalists["chunk_tokens"].iloc[0]
    [said] = told["said"]
    assert f"{4 + finals} runs are kept in {interrupted.store}" in said


def test_tuning_before_any_run_has_ended_raises(interrupted):
    workload = "hx.online(rate_tokens_per_s=100, warmup_s=0, duration_s=400000)"
    begun = "os.makedirs(store + '/begun')"
    call = f"({begun}, hx.tune_execution(*system, {TRIED}, workload={workload}))[1]"
    told = interrupted(call, TUNING, kept=1)
    assert told == {"raised": True, "said": [], "took_s": told["took_s"]}
