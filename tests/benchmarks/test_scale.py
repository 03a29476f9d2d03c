"""Whether it stays quick and small on large clusters and in long runs: ``make bench``.

Every case runs in a process of its own, so that the memory measured is that of the case. What is asserted is
that the simulated work was done; time and memory go into the table at the end.
"""

import json
import subprocess
import sys

PACE = """
import json, time
import helixlab as hx
import numpy as np
import pandas as pd
from helixlab.placement import NodeLayers, usable_links
from helixlab._memory import peak_rss_mb

MACHINES = ("A100", "V100", "L4", "L4x2", "T4", "T4x2", "T4x4")
model = hx.load_model("llama-2-70b")


def large(nodes=1000, regions=10):
    counts = [dict.fromkeys(MACHINES, 0) for _ in range(regions)]
    for node, machine in enumerate(np.random.default_rng(0).choice(MACHINES, nodes).tolist()):
        counts[node % regions][machine] += 1
    cluster = hx.geo_distributed(
        [{machine: count for machine, count in region.items() if count} for region in counts],
        cross_region_bandwidth_spread_bytes_per_s=2.5e6,
        rng=0,
    )
    # Stages of three layers, which leave room for the KV cache on the smallest machine.
    cuts = [*range(0, model.layers - 1, 3), model.layers]
    stages = list(zip(cuts[:-1], cuts[1:]))
    layers = tuple(NodeLayers(node, *stages[node % len(stages)]) for node in range(nodes))
    links = usable_links(cluster, layers, model.layers, partial_inference=False)
    return cluster, hx.Placement(
        name="stages", cluster=cluster.name, model=model.name, method="stages", layers=layers, links=links
    )


def run(cluster, placement, requests, output_tokens):
    # All come at once and decode equally often, so that all are in flight from the first seconds to the last.
    requests = pd.DataFrame(
        {"arrival_s": np.linspace(0, 5, requests), "input_tokens": 100, "output_tokens": output_tokens}
    )
    workload = hx.online(requests=requests, duration_s=10)
    before = time.process_time()
    result = hx.simulate(
        cluster, model, placement, workload=workload, sample_step_s=1, keep_iterations=False
    )
    seconds = time.process_time() - before
    return seconds, result.summary.iloc[0], int(result.timeline["in_flight"].max())


def pace(cluster, placement, requests, few, many):
    # What is the same in both (making tables, prompts) drops out of the difference.
    run(cluster, placement, 1, 2)
    first, short, _ = run(cluster, placement, requests, few)
    second, long, in_flight = run(cluster, placement, requests, many)
    return {
        "events_per_s": float(long["events"] - short["events"]) / (second - first),
        "finished": int(long["requests_finished"]),
        "in_flight": in_flight,
    }


small = hx.load_cluster("single24"), hx.load_placement("single24/llama-2-70b/example-ilp")
found = {"small": pace(*small, 300, 100, 2000), "large": pace(*large(), 10_000, 20, 60)}
print(json.dumps(found | {"peak_mb": peak_rss_mb()}))
"""

HOURS = """
import json
import helixlab as hx
from helixlab._memory import peak_rss_mb

cluster, model = hx.load_cluster("hetero42"), hx.load_model("llama-2-70b")
result = hx.simulate(
    cluster,
    model,
    hx.load_placement("hetero42/llama-2-70b/helix"),
    workload=hx.online(rate_tokens_per_s=2150, duration_s=3600 * {hours}, rng=0),
    keep_iterations=False,
)
run = result.summary.iloc[0]
fed, finished = int(run["requests_fed"]), int(run["requests_finished"])
print(json.dumps({{"fed": fed, "finished": finished, "peak_mb": peak_rss_mb()}}))
"""

SLOWER, PEAK_MB, GROWTH = 2.0, 2000.0, 1.05


def figures_of(code):
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def test_a_thousand_nodes(benchmark, table):
    found = benchmark.pedantic(figures_of, args=(PACE,), rounds=1)
    small, large = found["small"], found["large"]
    assert (small["finished"], small["in_flight"]) == (300, 300)
    assert (large["finished"], large["in_flight"]) == (10_000, 10_000)
    paces = [each["events_per_s"] / 1e6 for each in (small, large)]
    what = f"single24 {paces[0]:.2f} M events/s, 1000 nodes with 10,000 requests in flight {paces[1]:.2f}"
    table.append((what, paces[0] / paces[1], SLOWER, "times slower"))
    table.append(("1000 nodes with 10,000 requests in flight: peak memory", found["peak_mb"], PEAK_MB, "MB"))


def test_memory_stays_flat(benchmark, table):
    found = benchmark.pedantic(lambda: [figures_of(HOURS.format(hours=hours)) for hours in (1, 3)], rounds=1)
    for each in found:
        assert each["finished"] == each["fed"] > 0
    assert found[1]["fed"] > 2.5 * found[0]["fed"]
    first, third = (each["peak_mb"] for each in found)
    what = f"hetero42 online: memory after an hour {first:.0f} MB, after three {third:.0f} MB"
    table.append((what, third / first, GROWTH, "times as much"))
