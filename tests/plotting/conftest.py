"""A cluster, a placement and short runs to draw, and no figure that stays open."""

from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

import helixlab as hx


@dataclass(frozen=True)
class Study:
    cluster: hx.Cluster
    model: hx.Model
    placement: hx.Placement
    flow: hx.Flow


@pytest.fixture(scope="package")
def study() -> Study:
    cluster, model = hx.load_cluster("single24"), hx.load_model("llama-2-70b")
    placement = hx.load_placement("single24/llama-2-70b/helix")
    return Study(cluster, model, placement, hx.max_flow(cluster, model, placement))


@pytest.fixture(scope="package")
def result() -> hx.Result:
    cluster, model = hx.load_cluster("small10"), hx.load_model("llama-1-30b")
    placement = hx.load_placement("small10/llama-1-30b/helix")
    workload = hx.offline(warmup_s=20, duration_s=60, rng=0)
    return hx.simulate(cluster, model, placement, workload=workload)


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Drawing changes no setting outside of it."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")
