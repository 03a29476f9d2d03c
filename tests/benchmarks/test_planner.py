"""What the helix planner reaches, and how close its bound is: ``make bench``."""

import numpy as np
import pytest

import helixlab as hx

PLANS = {
    # cluster, model, seconds: flow and gap that are aimed at
    "single24, llama-2-70b": (10, 2045.6, 1e-4),
    "small10, llama-1-30b": (30, 286.58, 1e-3),
    "hetero42, llama-2-70b": (120, 5900.0, 0.12),
    "single24, llama-1-30b": (120, 1480.0, 0.06),
    "geo24, llama-2-70b": (120, 1480.0, 0.38),
    "200 nodes, llama-2-70b": (180, 0.0, np.inf),
}
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
        hx.plan, args=(cluster, model), kwargs={"method": "helix", "time_limit_s": limit_s}, rounds=1
    )
    report = placement.report
    served = hx.max_flow(cluster, model, placement).value_tokens_per_s
    assert served == pytest.approx(report.objective_tokens_per_s, rel=1e-9)
    assert served >= flow
    assert report.gap <= gap
    what = f"plan {name}: {served:.1f} tokens/s, bound {report.upper_bound_tokens_per_s:.1f}"
    table.append((what, report.wall_s, limit_s, "s"))
