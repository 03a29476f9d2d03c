"""Estimates of iterations and memory of a simulation. Wall times are compared in the benchmarks."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import helixlab as hx
from helixlab import cli
from helixlab._memory import rss_mb
from helixlab.errors import SimulationError

SINGLE24 = ("single24", "llama-2-70b", "single24/llama-2-70b/example-ilp")
SMALL10 = ("small10", "llama-1-30b", "small10/llama-1-30b/helix")
HETERO42 = ("hetero42", "llama-2-70b", "hetero42/llama-2-70b/helix")
REQUESTS = pd.DataFrame({"arrival_s": np.arange(400) * 1.5, "input_tokens": 300, "output_tokens": 120})
SETTINGS = {
    "seconds": (SMALL10, {"workload": hx.offline(warmup_s=0, duration_s=20)}),
    "as published": (SMALL10, {"workload": hx.offline(warmup_s=60, duration_s=600)}),
    "as published, 24 nodes": (SINGLE24, {"workload": hx.offline(warmup_s=60, duration_s=600)}),
    "swarm": (SINGLE24, {"scheduler": "swarm", "workload": hx.offline(initial_requests=50)}),
    "random, 1 s": (SINGLE24, {"scheduler": "random", "sample_step_s": 1.0}),
    "chunked": (SINGLE24, {"execution": "chunked", "workload": hx.offline(duration_s=900)}),
    "breakdown": (SINGLE24, {"keep_breakdown": True, "workload": hx.offline(duration_s=600)}),
    "online": (SINGLE24, {"workload": hx.online(rate_tokens_per_s=600, duration_s=1200)}),
    "online, 42 nodes": (HETERO42, {"workload": hx.online(rate_tokens_per_s=2000, duration_s=600)}),
    "own requests": (SMALL10, {"workload": hx.online(requests=REQUESTS, duration_s=600)}),
    "batches": (SMALL10, {"keep_batches": True, "workload": hx.offline(duration_s=1800)}),
    "little, in fine steps": (
        SINGLE24,
        {"workload": hx.online(rate_tokens_per_s=5, duration_s=20_000), "sample_step_s": 1.0},
    ),
    "filling up for long": (
        ("geo24", "llama-2-70b", "geo24/llama-2-70b/helix"),
        {"scheduler": "shortest-queue", "workload": hx.offline(initial_requests=200, duration_s=6000)},
    ),
    "overloaded": (
        ("geo24", "llama-2-70b", "geo24/llama-2-70b/swarm"),
        {"scheduler": "swarm", "workload": hx.online(rate_tokens_per_s=1500, duration_s=600)},
    ),
    "overloaded, dropping": (
        SMALL10,
        {"on_full": "drop", "workload": hx.online(rate_tokens_per_s=1500, duration_s=3600)},
    ),
    "a day": (SMALL10, {"scheduler": "swarm", "workload": hx.offline(duration_s=86_400)}),
}
IN_A_PROCESS = """
import helixlab as hx
import sys
sys.path.insert(0, {folder!r})
from test_estimate import SETTINGS, loaded
from helixlab._memory import peak_rss_mb
names, how = SETTINGS[{name!r}]
estimated = hx.estimate(*loaded(names), **how)
iterations = len(hx.simulate(*loaded(names), **how).iterations)
print(estimated.memory_mb, peak_rss_mb(), estimated.iterations, iterations)
"""


def loaded(names):
    return hx.load_cluster(names[0]), hx.load_model(names[1]), hx.load_placement(names[2])


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "a day"])
def test_iterations(name):
    names, how = SETTINGS[name]
    estimated = hx.estimate(*loaded(names), **how)
    iterations = len(hx.simulate(*loaded(names), **how).iterations)
    assert estimated.iterations / 2 <= iterations <= estimated.iterations * 2
    assert estimated.wall_s > 0
    assert estimated.memory_mb > 0
    assert estimated.fits == (estimated.memory_mb <= estimated.free_memory_mb)


@pytest.mark.parametrize("name", ["breakdown", "a day"])
def test_memory(name, root):
    code = IN_A_PROCESS.format(folder=str(root / "tests" / "simulation"), name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    estimated_mb, peak_mb, estimated, iterations = map(float, done.stdout.split())
    assert estimated_mb / 2 <= peak_mb <= estimated_mb * 2
    assert estimated / 2 <= iterations <= estimated * 2


def test_a_busy_machine_changes_nothing_that_is_counted():
    names, how = SETTINGS["filling up for long"]
    codes = ["while True: pass"] * 4
    alone = hx.estimate(*loaded(names), **how)
    others = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    try:
        crowded = hx.estimate(*loaded(names), **how)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert crowded.iterations == alone.iterations


def test_limits_of_the_shell_count():
    code = (
        "import resource, helixlab as hx; from helixlab._memory import free_mb;"
        "resource.setrlimit(resource.RLIMIT_AS, (20_000_000_000, resource.RLIM_INFINITY)); print(free_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 20_000


def test_it_asks_for_what_simulate_takes():
    with pytest.raises(SimulationError, match="on_full must be 'wait' or 'drop'"):
        hx.estimate(*loaded(SMALL10), on_full="queue")


def test_more_takes_more():
    short, long = (
        hx.estimate(*loaded(SMALL10), workload=hx.offline(duration_s=s)) for s in (3_000, 3_000_000)
    )
    assert long.wall_s > 20 * short.wall_s
    assert long.memory_mb > 10 * short.memory_mb
    assert "for" in str(long)
    huge = hx.estimate(*loaded(SMALL10), workload=hx.offline(duration_s=900_000_000))
    assert not huge.fits
    assert "does NOT fit" in str(huge)


def test_on_the_command_line(capsys):
    names = ["--cluster", "small10", "--model", "llama-1-30b", "--placement", SMALL10[2]]
    assert cli.main(["simulate", *names, "--duration", "40", "--estimate"]) == 0
    assert capsys.readouterr().out.startswith("about ")
    assert cli.main(["simulate", *names, "--duration", "40", "--estimate", "--json"]) == 0
    assert '"fits": true' in capsys.readouterr().out


def test_the_first_request_comes_late():
    table = REQUESTS.assign(arrival_s=REQUESTS["arrival_s"] + 3000.0)
    workload = hx.online(requests=table, duration_s=4000)
    estimated = hx.estimate(*loaded(SMALL10), workload=workload)
    assert estimated.iterations == pytest.approx(400 * 121, rel=0.02)


def test_given_requests_have_an_end():
    table = REQUESTS.drop(columns="arrival_s")
    estimated = hx.estimate(*loaded(SMALL10), workload=hx.offline(requests=table, duration_s=86_400))
    assert estimated.iterations <= 400 * 121


def test_requests_that_end_before_the_first_sample():
    table = pd.DataFrame({"input_tokens": [900] * 4000, "output_tokens": 30})
    workload = hx.offline(requests=table, warmup_s=0, duration_s=86_400)
    assert hx.estimate(*loaded(SMALL10), workload=workload).iterations == pytest.approx(4000 * 31)


@st.composite
def any_online(draw):
    """A few requests with gaps of any length, or a rate so low that hardly any come; any window."""
    if draw(st.booleans()):
        rate = draw(st.sampled_from([1e-6, 0.5, 20.0]))
        return hx.online(
            rate_tokens_per_s=rate, duration_s=draw(st.floats(0.1, 400)), rng=draw(st.integers(0, 9))
        )
    gaps = st.one_of(st.just(0.0), st.floats(0, 100), st.floats(0, 1e8))
    times_s = np.cumsum(draw(st.lists(gaps, min_size=1, max_size=6)))
    outputs = draw(st.lists(st.integers(1, 200), min_size=len(times_s), max_size=len(times_s)))
    inputs = draw(st.sampled_from([1, 300, 30_000]))  # the last of which are refused
    table = pd.DataFrame({"arrival_s": times_s, "input_tokens": inputs, "output_tokens": outputs})
    return hx.online(requests=table, duration_s=draw(st.one_of(st.none(), st.floats(0.1, 1e9))))


@settings(max_examples=25, deadline=None)
@pytest.mark.filterwarnings("ignore:the first request arrives")
@given(any_online(), st.booleans(), st.sampled_from([0.0, 1e-3, 5.0, 1e7]))
def test_it_covers_what_comes(workload, keep_iterations, step_s):
    how = {"workload": workload, "sample_step_s": step_s, "keep_iterations": keep_iterations}
    had_mb = rss_mb()
    estimated = hx.estimate(*loaded(SMALL10), **how)
    result = hx.simulate(*loaded(SMALL10), **how)
    finished = result.requests[result.requests["outcome"] == "finished"]
    assert estimated.iterations == (finished["output_tokens"] + 1).sum()
    if keep_iterations:
        assert estimated.iterations == len(result.iterations)
    tables = (result.iterations, result.requests, result.timeline, result.node_timeline)
    has_mb = sum(table.memory_usage(index=False, deep=False).sum() for table in tables) / 1e6
    assert estimated.memory_mb >= had_mb + has_mb - 0.1
    assert estimated.fits


def test_a_rate_at_which_nothing_comes():
    estimated = hx.estimate(*loaded(SMALL10), workload=hx.online(rate_tokens_per_s=0.5, duration_s=60))
    assert estimated.iterations == 0


def test_what_comes_after_the_window_counts():
    """And the pilot does not take all of it."""
    table = pd.DataFrame({"arrival_s": np.arange(9000) * 20.0, "input_tokens": 50, "output_tokens": 100})
    estimated = hx.estimate(*loaded(SMALL10), workload=hx.online(requests=table, duration_s=100))
    assert estimated.iterations == 9000 * 101


def test_a_rate_far_beyond_what_can_be_drawn(monkeypatch):
    monkeypatch.setattr(sys.modules["helixlab.simulation.estimate"], "MOST_PILOT_EVENTS", 100_000)
    workload = hx.online(rate_tokens_per_s=1e8, duration_s=1000)
    assert not hx.estimate(*loaded(SMALL10), workload=workload).fits


def test_free_memory_that_is_not_known(monkeypatch):
    monkeypatch.setattr(sys.modules["helixlab.simulation.estimate"], "free_mb", lambda: float("nan"))
    estimated = hx.estimate(*loaded(SMALL10), workload=hx.offline(warmup_s=0, duration_s=5))
    assert estimated.fits
    assert str(estimated).endswith("iterations; how much is free is not known")


def test_samples_take_their_time():
    workload = hx.online(rate_tokens_per_s=20, duration_s=86_400)  # there is a request at almost any time
    coarse, fine = (
        hx.estimate(*loaded(SINGLE24), workload=workload, sample_step_s=step_s) for step_s in (60.0, 0.1)
    )
    assert fine.wall_s > coarse.wall_s + 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"workload": "x"}, "workload must come from offline"),
        ({"sample_step_s": -1}, "sample_step_s is .*; give 0"),
        ({"sample_step_s": "5"}, "sample_step_s is .*; give 0"),
    ],
)
def test_what_simulate_refuses(wrong, message):
    with pytest.raises(SimulationError, match=message):
        hx.estimate(*loaded(SMALL10), **wrong)


def test_idle_stretches_need_no_memory():
    """A request every 5000 seconds for 1e7 seconds: a few samples each."""
    requests = pd.DataFrame(
        {"arrival_s": np.linspace(0, 1e7, 2000), "input_tokens": 100, "output_tokens": 20}
    )
    system = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    workload = hx.online(requests=requests)
    estimated = hx.estimate(*system, placement, workload=workload)
    rows = len(hx.simulate(*system, placement, workload=workload).node_timeline)
    assert estimated.fits
    assert estimated.memory_mb - rss_mb() < 200 + rows * 1e-3
