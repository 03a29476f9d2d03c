"""The engine does what the slow one does: the same iterations, in the same order, to the last digit."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
from hypothesis import given, settings, strategies as st
from slow_engine import SlowEngine

import helixlab as hx
from helixlab.placement import usable_links
from helixlab.simulation.setup import loading_time_s
from helixlab.simulation.simulate import KV_RULES

LAYERS = 6
MACHINES = ("A100", "L4", "T4")
SCHEDULERS = ("helix", "swarm", "random", "shortest-queue")


@st.composite
def models(draw):
    """Six layers, round layer times (so that things happen at the same instant), narrow batch limits."""
    model = hx.load_model("llama-1-30b")
    profiles = {}
    for machine in MACHINES:
        prompt_ms = draw(st.integers(1, 40))
        decode_ms = draw(st.integers(1, 4))
        steps = draw(st.integers(0, 3))
        profiles[machine] = replace(
            model.profile(machine),
            prompt_batch_tokens=(0, 100, 20_000),
            prompt_layer_s=(0.0, prompt_ms * 1e-3, prompt_ms * 0.2),
            decode_batch_tokens=(0, 2, 8, 1000),
            decode_layer_s=(0.0, decode_ms * 1e-3, (decode_ms + steps) * 1e-3, (decode_ms + steps) * 0.1),
            kv_blocks=(100_000,) * LAYERS,
            typical_layers=2,
            typical_layers_when_tight=2,
            max_prompt_requests=(draw(st.integers(1, 3)),) * LAYERS,
            max_decode_tokens=(draw(st.integers(2, 40)),) * LAYERS,
        )
    return replace(model, layers=LAYERS, profiles=profiles)


def reached(start, links):
    """Everything that can be reached from there over the links."""
    found = {start}
    while more := {end for begin, end in links if begin in found} - found:
        found |= more
    return found


@st.composite
def systems(draw):
    """A few nodes, each with a run of layers; links that may be slow, and enter nodes in the middle."""
    model = draw(models())
    counts = dict(zip(MACHINES, draw(st.lists(st.integers(0, 2), min_size=3, max_size=3)), strict=True))
    cluster = hx.single_region(
        {machine: count + 1 for machine, count in counts.items()},
        latency_s=draw(st.sampled_from([0.0, 1e-3, 0.02])),
        bandwidth_bytes_per_s=draw(st.sampled_from([1.25e9, 1e7, 2e6])),
        machines=[
            replace(machine, vram_bytes=1e12, nic_in_bytes_per_s=nic, nic_out_bytes_per_s=nic)
            for machine in hx.load_cluster("single24").machines
            for nic in [draw(st.sampled_from([1.25e9, 1.5e7]))]
        ],
        name="few",
    )
    # A chain through all layers, so that there is a pipeline; the other nodes hold any layers.
    cuts = sorted(draw(st.sets(st.integers(1, LAYERS - 1), max_size=min(2, len(cluster.nodes) - 1))))
    spans = list(zip([0, *cuts], [*cuts, LAYERS], strict=True))
    for _ in cluster.nodes[len(spans) :]:
        first = draw(st.integers(0, LAYERS - 1))
        spans.append((first, draw(st.integers(first + 1, LAYERS))))
    order = draw(st.permutations(range(len(cluster.nodes))))
    layers = tuple(hx.NodeLayers(node, *span) for node, span in zip(order, spans, strict=False))
    links = usable_links(cluster, layers, LAYERS, partial_inference=draw(st.booleans()))
    # Links that lead nowhere may not be chosen by schedulers that look one hop ahead.
    leaving = reached("sink", [(receiver, sender) for sender, receiver in links])
    useful = leaving & reached("source", links) | {"source", "sink"}
    placement = hx.Placement(
        "drawn",
        cluster.name,
        model.name,
        "by hand",
        tuple(held for held in layers if held.node in useful),
        tuple(link for link in links if set(link) <= useful),
    )
    return cluster, model, placement


lengths = st.tuples(st.integers(1, 400), st.integers(1, 12))


def check_same(system, scheduler, workload, requests, seed):
    cluster, model, placement = system
    how = {"workload": workload, "on_full": "drop", "sample_step_s": 0, "small_links": "paper"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # much of the flow may be lost by that rule
        result = hx.simulate(*system, scheduler=scheduler, **how)
    mark, ratio = KV_RULES[workload.mode]
    flow = hx.max_flow(*system).on_link if scheduler == "helix" else None
    slow = SlowEngine(
        cluster,
        model,
        placement,
        scheduler,
        flow,
        requests,
        start_s=loading_time_s(*system),
        warmup_s=workload.warmup_s,
        duration_s=workload.duration_s,
        initial_requests=None if workload.online else workload.initial_requests,
        high_water_mark=mark,
        output_ratio=ratio,
        random_state=int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0]),
    )
    slow.run(math.inf if workload.online else slow.end_s)
    columns = ["request", "iteration", "tokens", "start_s", "end_s"]
    assert list(result.iterations[columns].itertuples(index=False, name=None)) == slow.iterations
    figures = result.summary.iloc[0]
    assert figures["requests_finished"] == slow.finished
    assert figures["requests_dropped"] == slow.dropped
    assert figures["requests_in_flight"] == slow.in_flight
    stored = result.nodes.set_index("node")["kv_used_token_layers"]
    assert {name: node.kv_used for name, node in slow.nodes.items()} == {
        name: stored[name] for name in slow.nodes
    }


@settings(max_examples=120)
@given(
    systems(),
    st.sampled_from(SCHEDULERS),
    st.lists(lengths, min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(0, 99),
)
def test_offline(system, scheduler, requests, initial_requests, seed):
    workload = hx.offline(
        initial_requests=initial_requests,
        warmup_s=0,
        duration_s=20,
        rng=seed,
        requests=pd.DataFrame(requests, columns=["input_tokens", "output_tokens"]),
    )
    check_same(system, scheduler, workload, requests, seed)


@settings(max_examples=120)
@given(
    systems(),
    st.sampled_from(SCHEDULERS),
    st.lists(st.tuples(st.integers(0, 50), lengths), min_size=1, max_size=60),
    st.integers(0, 99),
)
def test_online(system, scheduler, arrivals, seed):
    requests = sorted((tenths * 0.1, *pair) for tenths, pair in arrivals)
    table = pd.DataFrame(requests, columns=["arrival_s", "input_tokens", "output_tokens"])
    check_same(system, scheduler, hx.online(requests=table, duration_s=10, rng=seed), requests, seed)
