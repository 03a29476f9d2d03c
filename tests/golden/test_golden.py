"""Metrics of the reference simulator, for the same requests."""

from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab._data import read_table
from helixlab.simulation.metrics import latency_metrics, percentile

HERE = Path(__file__).parent
REFERENCE = pd.read_csv(HERE / "reference.csv").set_index(["case", "metric"])["value"]
OFFLINE = HERE / "offline-lengths-seed0.csv.gz"
ONLINE = HERE / "online-requests-rate700-seed0.csv.gz"
PLACEMENT = "single24/llama-2-70b/example-"


@pytest.fixture(scope="module")
def cluster():
    return hx.load_cluster("single24")


@pytest.fixture(scope="module")
def model():
    return hx.load_model("llama-2-70b")


def check_every_metric(result, case):
    """Compare each metric of the case to 1e-6, and the KV cache of every node to the token."""
    stored = result.nodes.set_index("node")["kv_used_token_layers"]
    compared = 0
    for metric, value in REFERENCE[case].items():
        if metric.startswith("kv_used_token_layers["):
            ours = stored[int(metric[len("kv_used_token_layers[") : -1])]
            assert ours == value, metric
        else:
            assert result.metrics[metric] == pytest.approx(value, rel=1e-6), metric
        compared += 1
    assert compared >= 40


@pytest.mark.parametrize(("case", "placement"), [("helix", "ilp"), ("petals", "petals")])
def test_swarm_offline(cluster, model, case, placement):
    result = hx.simulate(
        cluster,
        model,
        hx.load_placement(PLACEMENT + placement),
        scheduler="swarm",
        workload=hx.offline(initial_requests=50, requests=OFFLINE),
        on_full="drop",
    )
    check_every_metric(result, f"offline-swarm-50-on-{case}")


@pytest.mark.parametrize(
    ("case", "workload"),
    [
        ("offline-helix-on-helix", hx.offline(requests=OFFLINE)),
        ("online-helix-700-on-helix", hx.online(requests=ONLINE, duration_s=1800)),
    ],
)
def test_helix(cluster, model, case, workload):
    result = hx.simulate(
        cluster,
        model,
        hx.load_placement(PLACEMENT + "ilp"),
        scheduler="helix",
        workload=workload,
        on_full="drop",
    )
    check_every_metric(result, case)


@pytest.mark.parametrize("scheduler", ["random", "shortest-queue"])
def test_schedulers_that_draw(cluster, model, scheduler):
    """Within 3 % on the mean over five seeds."""
    metrics = ["decode_tokens_per_s", "prompt_latency_mean_s", "decode_latency_mean_s"]
    runs = [
        hx.simulate(
            cluster,
            model,
            hx.load_placement(PLACEMENT + "ilp"),
            scheduler=scheduler,
            workload=hx.offline(initial_requests=240, requests=OFFLINE, rng=seed),
        ).summary[metrics]
        for seed in range(5)
    ]
    mean = pd.concat(runs).mean()
    for metric in metrics:
        expected = REFERENCE[f"offline-{scheduler}-240-on-helix"][metric]
        assert mean[metric] == pytest.approx(expected, rel=0.03), metric


SCENARIOS = read_table("published/scenarios.csv")
RESULTS = read_table("published/results.csv").query("platform == 'simulation'")
RUN = ["figure", "cluster", "model", "method", "mode"]
EXACT = SCENARIOS[SCENARIOS["scheduler"].isin(["helix", "swarm"])]
PRINTED = {"decode_tokens_per_s": 0.1, "prompt_latency": 0.01, "decode_latency": 0.01}
"""Steps in which metrics are printed."""


def published_run(row):
    """Run the published scenario, with the requests that its seed draws."""
    if row["mode"] == "offline":
        workload = hx.offline(initial_requests=int(row["requests_in_flight_or_initial"]), rng=0)
    else:
        workload = hx.online(rate_tokens_per_s=row["rate_tokens_per_s"], rng=0)
    return hx.simulate(
        hx.load_cluster(row["cluster"]),
        hx.load_model(row["model"]),
        hx.load_placement(row["placement"]),
        scheduler=row["scheduler"],
        workload=workload,
        on_full="drop",
        sample_step_s=0,
    )


@pytest.mark.parametrize(
    "run", [pytest.param(run, id=" ".join(run)) for run in EXACT.groupby(RUN, sort=False).groups]
)
def test_published(run):
    """Every published simulation of the Helix and Swarm schedulers, to the digit printed.

    Several rows of one run are pipelines side by side: throughputs add up, latencies are pooled.
    The maximum flow of hetero42 with the Helix placement is not unique, and the reference's own
    result varies from run to run (637 and 645 tokens/s are on record).
    """
    results = [published_run(row) for _, row in EXACT.set_index(RUN).loc[[run]].reset_index().iterrows()]
    ours = {"decode_tokens_per_s": sum(r.metrics["decode_tokens_per_s"] for r in results)}
    measured = pd.concat([result.in_window(result.iterations) for result in results])
    for phase, rows in (("prompt", measured["iteration"] == 0), ("decode", measured["iteration"] > 0)):
        ours |= latency_metrics(measured.loc[rows, "latency_s"].to_numpy(), phase)
    expected = RESULTS.set_index(RUN).loc[[run]].set_index("metric")["value"]
    assert "decode_tokens_per_s" in expected.index
    varies = run[1] == "hetero42" and run[3:] == ("helix", "offline")
    for metric, value in expected.items():
        step = next(step for name, step in PRINTED.items() if metric.startswith(name))
        tolerance = {"rel": 0.02} if varies else {"abs": 0.501 * step}
        assert ours[metric] == pytest.approx(value, **tolerance), metric


@pytest.mark.parametrize(("rate", "requests"), [(None, OFFLINE), (700, ONLINE)], ids=["offline", "online"])
def test_a_seed_means_the_same_requests(rate, requests):
    """The requests on record for seed 0 are those that seed 0 draws."""
    recorded = pd.read_csv(requests)
    workload = hx.offline(rng=0) if rate is None else hx.online(rate_tokens_per_s=rate, rng=0)
    drawn = pd.DataFrame(next(workload.batches()), columns=["arrival_s", "input_tokens", "output_tokens"])
    rows = min(len(recorded), len(drawn))
    assert rows > 1000
    for column in recorded.columns:
        np.testing.assert_allclose(drawn[column][:rows], recorded[column][:rows], atol=1e-9)


def latencies_published(*figures, **run):
    """Return the percentiles of one published run, by metric."""
    rows = RESULTS[RESULTS["figure"].isin(figures) & (RESULTS[list(run)] == pd.Series(run)).all(axis=1)]
    assert len(rows) == 10
    return rows.set_index("metric")["value"]


def test_another_maximum_flow_gives_the_published_percentiles(monkeypatch):
    """Figures 8b and 8c, helix: which maximum flow is found depends on the names of the vertices."""
    names = np.random.default_rng(3)
    first_found = nx.maximum_flow

    def renamed(graph, source, sink, flow_func):
        name = dict(zip(graph, names.integers(2**60, size=len(graph)).tolist(), strict=True))
        value, flow = first_found(
            nx.relabel_nodes(graph, name), name[source], name[sink], flow_func=flow_func
        )
        return value, {a: {b: flow[name[a]][name[b]] for b in graph[a]} for a in graph}

    row = SCENARIOS.query("figure == '8a' and method == 'helix' and mode == 'online'").iloc[0]
    system = hx.load_cluster(row["cluster"]), hx.load_model(row["model"]), hx.load_placement(row["placement"])
    ours = hx.max_flow(*system)
    monkeypatch.setattr("helixlab.flow.maxflow._SOLVED", {})
    monkeypatch.setattr("helixlab.flow.maxflow.nx.maximum_flow", renamed)
    other = hx.max_flow(*system)
    assert other.value_tokens_per_s == pytest.approx(ours.value_tokens_per_s, rel=1e-9)
    assert other.on_link != ours.on_link
    result = published_run(row)
    for metric, value in latencies_published("8b", "8c", method="helix", mode="online").items():
        assert round(result.metrics[metric], 2) == value, metric


def test_a_percentile_that_hangs_on_one_request():
    """Figure 5e, helix: the published 95th percentile is that of our next quicker prompt."""
    rows = SCENARIOS.query(
        "figure == '5b' and model == 'llama-1-30b' and method == 'helix' and mode == 'online'"
    )
    runs = [published_run(row) for _, row in rows.iterrows()]
    iterations = pd.concat([run.in_window(run.iterations) for run in runs])
    prompts = iterations[iterations["iteration"] == 0]
    ordered = np.sort(prompts["latency_s"].to_numpy())
    published = latencies_published("5e", "5f", model="llama-1-30b", method="helix")["prompt_latency_p95_s"]
    assert len(rows) == 3
    assert round(percentile(ordered, 95), 2) != published
    at = int(0.95 * (len(ordered) - 1))
    assert int(0.95 * len(ordered)) == at + 1
    assert round(float(ordered[at]), 2) == published


def test_a_run_that_turns_on_ties():
    """Figures 7c and 7d, swarm: the published percentiles are one of the ways in which near ties can fall."""
    cluster, rng = hx.load_cluster("geo24"), np.random.default_rng(2)
    moved = [replace(link, latency_s=link.latency_s * (1 + 1e-7 * rng.random())) for link in cluster.links]
    result = hx.simulate(
        replace(cluster, links=moved),
        hx.load_model("llama-1-30b"),
        hx.load_placement("geo24/llama-1-30b/swarm"),
        scheduler="swarm",
        workload=hx.online(rate_tokens_per_s=380, rng=0),
        on_full="drop",
    )
    for metric, value in latencies_published("7c", "7d", model="llama-1-30b", method="swarm").items():
        assert round(result.metrics[metric], 2) == value, metric
