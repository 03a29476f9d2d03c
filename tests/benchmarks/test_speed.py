"""How long the slow parts take: ``make bench``.

Nothing here asserts a time; the table at the end puts what was measured beside what is aimed at.
"""

import os
import subprocess
import sys
import time
from statistics import median

import pytest
from test_estimate import SETTINGS

import helixlab as hx

LOAD = """
import helixlab as hx
cluster = hx.load_cluster({cluster!r})
model = hx.load_model("llama-2-70b")
placement = hx.load_placement({placement!r})
"""
RUN = """
hx.simulate(cluster, model, placement, scheduler={scheduler!r}, workload=hx.{workload})
"""
PEAK = """
from helixlab._memory import peak_rss_mb
print(peak_rss_mb())
"""

OFFLINE = "offline(warmup_s=60, duration_s=620, rng=0)"  # 680 simulated seconds
ONLINE = "online(rate_tokens_per_s=2150, duration_s=1800, rng=0)"
SINGLE24 = {"cluster": "single24", "placement": "single24/llama-2-70b/example-ilp", "workload": OFFLINE}
HETERO42 = {"cluster": "hetero42", "placement": "hetero42/llama-2-70b/helix", "workload": ONLINE}

RUNS = {
    "offline helix, single24": ({"scheduler": "helix"} | SINGLE24, 0.6),
    "offline swarm, single24": ({"scheduler": "swarm"} | SINGLE24, 1.2),
    "offline random, single24": ({"scheduler": "random"} | SINGLE24, 1.2),
    "offline shortest-queue, single24": ({"scheduler": "shortest-queue"} | SINGLE24, 1.2),
    "online helix, hetero42": ({"scheduler": "helix"} | HETERO42, 4.0),
}
IMPORT_S, PEAK_MB, FIRST_CALL_S = 0.5, 400.0, 45.0
SWEEP_RUNS, SWEEP_S = 200, 180.0

KEEPING = {
    "timeline at 1 s": ({"sample_step_s": 0}, {"sample_step_s": 1.0}, 1.1),
    "breakdown": ({}, {"keep_breakdown": True}, 2.0),
}

every_run = pytest.mark.parametrize("name", RUNS)


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


@every_run
def test_simulate(name, benchmark, table):
    how, aim_s = RUNS[name]
    cluster, model = hx.load_cluster(how["cluster"]), hx.load_model("llama-2-70b")
    placement = hx.load_placement(how["placement"])
    mode, arguments = how["workload"].split("(")
    options = dict(pair.split("=") for pair in arguments.rstrip(")").split(", "))
    workload = getattr(hx, mode)(
        **{key: int(value) if key == "rng" else float(value) for key, value in options.items()}
    )
    benchmark.pedantic(
        lambda: hx.simulate(cluster, model, placement, scheduler=how["scheduler"], workload=workload),
        rounds=5,
        warmup_rounds=1,
    )
    table.append((name, benchmark.stats["median"], aim_s, "s"))


@pytest.mark.parametrize("name", KEEPING)
def test_keeping_more(name, benchmark, table):
    without, with_it, aim = KEEPING[name]
    system = (
        hx.load_cluster("single24"),
        hx.load_model("llama-2-70b"),
        hx.load_placement(SINGLE24["placement"]),
    )
    taken_s = {0: [], 1: []}

    def run():
        for which, how in enumerate((without, with_it)):
            start_s = time.process_time()
            hx.simulate(*system, workload=hx.offline(warmup_s=60, duration_s=620, rng=0), **how)
            taken_s[which].append(time.process_time() - start_s)

    benchmark.pedantic(run, rounds=9, warmup_rounds=1)
    table.append((f"{name}, over without", median(taken_s[1]) / median(taken_s[0]), aim, "times"))


@every_run
def test_peak_memory(name, benchmark, table):
    how, _ = RUNS[name]
    code = LOAD.format(**how) + RUN.format(**how) + PEAK
    peaks = [float(benchmark.pedantic(python, args=(code,), rounds=1))]
    table.append((f"{name}: peak memory", peaks[0], PEAK_MB, "MB"))


def test_sweep(benchmark, table):
    grid = {"placement": SINGLE24["placement"], "workload": hx.offline(warmup_s=60, duration_s=620)}
    benchmark.pedantic(
        hx.sweep, args=(grid,), kwargs={"seeds": SWEEP_RUNS, "n_jobs": 2, "progress": False}, rounds=1
    )
    table.append((f"sweep of {SWEEP_RUNS} runs, 2 at a time", benchmark.stats["median"], SWEEP_S, "s"))


def test_import(benchmark, table):
    benchmark.pedantic(python, args=("import helixlab",), rounds=5, warmup_rounds=1)
    table.append(("python -c 'import helixlab'", benchmark.stats["median"], IMPORT_S, "s"))


def test_first_call_with_an_empty_cache(benchmark, table, tmp_path):
    how = RUNS["offline helix, single24"][0] | {"workload": "offline(warmup_s=1, duration_s=1)"}
    code = LOAD.format(**how) + RUN.format(**how)
    benchmark.pedantic(python, args=(code,), kwargs={"HELIXLAB_CACHE_DIR": str(tmp_path)}, rounds=1)
    assert any(tmp_path.rglob("*.nbc")), "compiled code is kept for the next process"
    table.append(("first call, nothing compiled", benchmark.stats["median"], FIRST_CALL_S, "s"))


@pytest.mark.parametrize("name", SETTINGS)
def test_estimate(name, benchmark, table):
    names, how = SETTINGS[name]
    system = hx.load_cluster(names[0]), hx.load_model(names[1]), hx.load_placement(names[2])
    hx.simulate(*system, **how | {"workload": hx.offline(duration_s=1)})
    foretold = hx.estimate(*system, **how)
    benchmark.pedantic(lambda: hx.simulate(*system, **how), rounds=1)
    table.append(
        (f"estimate over wall time: {name}", foretold.wall_s / benchmark.stats["median"], 2.0, "times")
    )
