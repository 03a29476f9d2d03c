"""Quality of the plans of the helix planner, and gap to its bound: ``make bench``."""

import numpy as np
import pytest

import helixlab as hx

PLANS = {
    # cluster, model: seconds, least flow, largest gap
    "single24, llama-2-70b": (10, 2045.6, 1e-4),
    "small10, llama-1-30b": (30, 286.58, 1e-3),
    "hetero42, llama-2-70b": (120, 5900.0, 0.12),
    "single24, llama-1-30b": (120, 1480.0, 0.06),
    "geo24, llama-2-70b": (120, 1480.0, 0.38),
    "200 nodes, llama-2-70b": (180, 0.0, np.inf),
}
THROUGHPUTS = {
    # cluster, execution: published placement, decode tokens/s as the target
    "single24, greedy": ("example-ilp", 250.0),
    "geo24, greedy": ("helix", 136.0),
    "hetero42, greedy": ("helix", 600.0),
    "single24, chunked": ("example-ilp", 505.0),
    "geo24, chunked": ("helix", 270.0),
    "hetero42, chunked": ("helix", 1080.0),
}
THROUGHPUT_LIMIT_S = 120
TUNED_OVER = {"chunk_tokens": [48, 52, 56, 64, 96], "max_decode_per_batch": [24, 26, 28, 32, 40]}
MACHINES = ("A100", "V100", "L4", "L4x2", "T4", "T4x2", "T4x4")


def large(size=200, regions=5):
    """Nodes of all machine types, drawn evenly, in regions of equal size."""
    counts = [dict.fromkeys(MACHINES, 0) for _ in range(regions)]
    for node, machine in enumerate(np.random.default_rng(0).choice(MACHINES, size).tolist()):
        counts[node % regions][machine] += 1
    return hx.geo_distributed(
        [{m: n for m, n in region.items() if n} for region in counts],
        cross_region_bandwidth_spread_bytes_per_s=2.5e6,
        rng=0,
    )


@pytest.mark.parametrize("name", PLANS)
def test_plan(name, benchmark, table):
    limit_s, flow, gap = PLANS[name]
    cluster, model = name.split(", ")
    cluster = large() if cluster == "200 nodes" else hx.load_cluster(cluster)
    model = hx.load_model(model)
    placement = benchmark.pedantic(
        hx.plan, args=(cluster, model), kwargs={"objective": "flow", "time_limit_s": limit_s}, rounds=1
    )
    report = placement.report
    served = hx.max_flow(cluster, model, placement).value_tokens_per_s
    assert served == pytest.approx(report.objective_tokens_per_s, rel=1e-9)
    assert served >= flow
    assert report.gap <= gap
    what = f"plan {name}: {served:.1f} tokens/s, bound {report.upper_bound_tokens_per_s:.1f}"
    table.append((what, report.wall_s, limit_s, "s"))


@pytest.mark.parametrize("name", THROUGHPUTS)
def test_plan_for_throughput(name, benchmark, table):
    """Compare with the published placement under the same policy, with other requests than in planning."""
    published, aim = THROUGHPUTS[name]
    cluster, execution = name.split(", ")
    model, known = hx.load_model("llama-2-70b"), hx.load_placement(f"{cluster}/llama-2-70b/{published}")
    cluster = hx.load_cluster(cluster)
    placement = benchmark.pedantic(
        hx.plan,
        args=(cluster, model),
        kwargs={"objective": "throughput", "execution": execution, "time_limit_s": THROUGHPUT_LIMIT_S},
        rounds=1,
    )
    workload = hx.offline(warmup_s=900, duration_s=900, rng=0)
    planned, before = (
        hx.simulate(cluster, model, each, execution=execution, workload=workload)
        for each in (placement, known)
    )
    rates = [run.metrics["decode_tokens_per_s"] for run in (planned, before)]
    what = f"plan {name}: {rates[0]:.1f} decode tokens/s, published {rates[1]:.1f}, target {aim:.0f}"
    if execution == "chunked":
        tuned = hx.tune_execution(cluster, model, placement, n_jobs=2, **TUNED_OVER).execution
        run = hx.simulate(cluster, model, placement, execution=tuned, workload=workload)
        limits = f"{tuned.chunk_tokens}/{tuned.max_decode_per_batch}"
        what += f", tuned ({limits}) {run.metrics['decode_tokens_per_s']:.1f}"
    table.append((what, placement.report.wall_s, THROUGHPUT_LIMIT_S, "s"))
    assert rates[0] > rates[1]
