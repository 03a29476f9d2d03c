"""Figures of the reference simulator, for the same requests."""

from pathlib import Path

import pandas as pd
import pytest

import helixlab as hx
from helixlab.tables import read_table

HERE = Path(__file__).parent
REFERENCE = pd.read_csv(HERE / "reference.csv").set_index(["case", "figure"])["value"]
OFFLINE = HERE / "offline-lengths-seed0.csv.gz"
ONLINE = HERE / "online-requests-rate700-seed0.csv.gz"
PLACEMENT = "single24/llama-2-70b/example-"


@pytest.fixture(scope="module")
def cluster():
    return hx.load_cluster("single24")


@pytest.fixture(scope="module")
def model():
    return hx.load_model("llama-2-70b")


def check_every_figure(result, case):
    """Each figure of the case to 1e-6, the KV cache of every node to the token."""
    stored = result.nodes.set_index("node")["kv_used_token_layers"]
    compared = 0
    for figure, value in REFERENCE[case].items():
        if figure.startswith("kv_used_token_layers["):
            ours = stored[int(figure[len("kv_used_token_layers[") : -1])]
            assert ours == value, figure
        else:
            assert result.summary[figure].item() == pytest.approx(value, rel=1e-6), figure
        compared += 1
    assert compared >= 40


@pytest.mark.parametrize(("case", "placement"), [("helix", "ilp"), ("petals", "petals")])
def test_swarm_offline(cluster, model, case, placement):
    result = hx.simulate(
        cluster,
        model,
        hx.load_placement(PLACEMENT + placement),
        scheduler="swarm",
        workload=hx.offline(initial_queries=50, requests=OFFLINE),
        on_full="drop",
    )
    check_every_figure(result, f"offline-swarm-50-on-{case}")


def test_helix_online(cluster, model):
    result = hx.simulate(
        cluster,
        model,
        hx.load_placement(PLACEMENT + "ilp"),
        scheduler="helix",
        workload=hx.online(requests=ONLINE),
        on_full="drop",
    )
    check_every_figure(result, "online-helix-700-on-helix")


@pytest.mark.parametrize("scheduler", ["random", "shortest-queue"])
def test_schedulers_that_draw(cluster, model, scheduler):
    """Within 3 % on the mean over five seeds."""
    figures = ["decode_tokens_per_s", "prompt_latency_mean_s", "decode_latency_mean_s"]
    runs = [
        hx.simulate(
            cluster,
            model,
            hx.load_placement(PLACEMENT + "ilp"),
            scheduler=scheduler,
            workload=hx.offline(initial_queries=240, requests=OFFLINE, rng=seed),
        ).summary[figures]
        for seed in range(5)
    ]
    mean = pd.concat(runs).mean()
    for figure in figures:
        expected = REFERENCE[f"offline-{scheduler}-240-on-helix"][figure]
        assert mean[figure] == pytest.approx(expected, rel=0.03), figure


PUBLISHED = [
    # figure, method, decode tokens/s as printed
    ("5a", "swarm", 151.6),
    ("5c", "swarm", 124.7),
    ("7a", "swarm", 98.7),
    ("7b", "swarm", 51.9),
    ("9a", "swarm", 41.6),
    ("9a", "petals", 66.6),
    ("10a", "swarm", 81.7),
]


@pytest.mark.parametrize(("figure", "method", "printed"), PUBLISHED)
def test_published_offline_throughput(figure, method, printed):
    """Published simulations of one placement, to the digit printed."""
    scenarios = read_table("published/scenarios.csv")
    row = scenarios.query("figure == @figure and method == @method and mode == 'offline'").iloc[0]
    result = hx.simulate(
        hx.load_cluster(row["cluster"]),
        hx.load_model(row["model"]),
        hx.load_placement(row["placement"]),
        scheduler=row["scheduler"],
        workload=hx.offline(initial_queries=int(row["queries_in_flight_or_initial"]), requests=OFFLINE),
        on_full="drop",
        sample_step_s=0,
    )
    assert result.summary["decode_tokens_per_s"].item() == pytest.approx(printed, abs=0.0501)
