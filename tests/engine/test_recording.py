"""Where the time of an iteration goes: the parts add up to its latency, and each is what it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st
from test_agreement import SCHEDULERS, lengths, systems

import helixlab as hx
from helixlab.engine.constants import PARTS
from helixlab.errors import SimulationError
from helixlab.execution import EXECUTIONS

CHAIN = (
    hx.load_cluster("small10"),
    hx.load_model("llama-1-30b"),
    hx.load_placement("small10/llama-1-30b/helix"),
)
parts = list(PARTS)


def own(input_tokens, output_tokens, arrival_s=0.0):
    table = pd.DataFrame({"input_tokens": input_tokens, "output_tokens": output_tokens})
    table.insert(0, "arrival_s", arrival_s)
    return hx.online(requests=table, duration_s=30)


def with_kv(placement, tokens):
    """The placement with a KV cache for this number of tokens in every layer."""
    return replace(placement, kv_capacity_token_layers={h.node: h.count * tokens for h in placement.layers})


def one_machine(latency_s=0.01, link_bytes_per_s=1e6):
    """One L4 that holds a model of four layers: 1 ms a layer for a prompt token, 10 ms for any decodes."""
    profile = replace(
        hx.load_model("llama-1-30b").profile("L4"),
        prompt_batch_tokens=(0, 10_000),
        prompt_layer_s=(0.0, 10.0),
        decode_batch_tokens=(0, 1, 2, 100),
        decode_layer_s=(0.0, 0.005, 0.01, 0.01),
        kv_blocks=(10_000,) * 4,
        max_prompt_requests=(1,) * 4,
        max_decode_tokens=(100,) * 4,
        typical_layers=4,
        typical_layers_when_tight=4,
    )
    model = replace(hx.load_model("llama-1-30b"), layers=4, profiles={"L4": profile})
    cluster = hx.single_region(
        {"L4": 1}, latency_s=latency_s, bandwidth_bytes_per_s=link_bytes_per_s, name="one"
    )
    placement = hx.Placement(
        "one", "one", model.name, "by hand", (hx.NodeLayers(0, 0, 4),), (("source", 0), (0, "sink"))
    )
    return cluster, model, placement


def check_sums(result):
    iterations = result.iterations
    np.testing.assert_allclose(iterations[parts].sum(axis=1), iterations["latency_s"], rtol=0, atol=1e-9)
    assert (iterations[parts] >= -1e-9).all(axis=None)
    assert (iterations["compute_s"] > 0).all()


@settings(max_examples=120)
@given(
    systems(),
    st.sampled_from(SCHEDULERS),
    st.sampled_from(sorted(EXECUTIONS)),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 50), lengths), min_size=1, max_size=60),
    st.integers(0, 99),
)
def test_parts_add_up_to_the_latency(system, scheduler, execution, tight, arrivals, seed):
    requests = sorted((tenths * 0.1, *pair) for tenths, pair in arrivals)
    table = pd.DataFrame(requests, columns=["arrival_s", "input_tokens", "output_tokens"])
    workload = hx.online(requests=table, duration_s=10, rng=seed)
    if tight:
        # Room for the longest request and not much more: some wait, some lose their cache.
        system = (*system[:2], with_kv(system[2], 20_000 if scheduler == "helix" else 420))
        assume(scheduler != "helix" or hx.max_flow(*system).value_tokens_per_s > 0)
    how = {"scheduler": scheduler, "execution": execution, "workload": workload}
    result = hx.simulate(*system, **how, keep_breakdown=True)
    check_sums(result)
    without = hx.simulate(*system, **how)
    pd.testing.assert_frame_equal(result.iterations.drop(columns=parts), without.iterations, check_exact=True)
    # Waiting at nodes and for links is the same, seen from there; chunks that are not the last one add to it.
    if execution != "chunked" and not result.iterations["lost_s"].any():
        in_window = result.summary["last_finish_s"].item() < result.summary["window_end_s"].item()
        for part, table in (("batch_wait_s", result.nodes), ("kv_wait_s", result.nodes)):
            if in_window and not (result.requests["outcome"] == "refused").any():
                assert table[part].sum() == pytest.approx(result.iterations[part].sum(), abs=1e-6)


def test_without_it_nothing_is_added():
    result = hx.simulate(*CHAIN, workload=hx.offline(warmup_s=0, duration_s=20))
    assert not set(parts) & set(result.iterations)
    assert result.nodes["batch_wait_s"].isna().all()
    assert result.links["wait_s"].isna().all()


def test_it_needs_the_iterations():
    with pytest.raises(SimulationError, match="leave keep_iterations on"):
        hx.simulate(*CHAIN, keep_iterations=False, keep_breakdown=True)


def test_a_lone_request():
    result = hx.simulate(*one_machine(), scheduler="swarm", workload=own([100], [1]), keep_breakdown=True)
    check_sums(result)
    prompt, decode = result.iterations[parts].to_dict("records")
    activation_bytes = hx.load_model("llama-1-30b").activation_bytes
    for part, tokens, compute_s in ((prompt, 100, 4 * 0.1), (decode, 1, 4 * 0.01)):
        assert part["compute_s"] == pytest.approx(compute_s)
        assert part["overhead_s"] == pytest.approx(tokens * activation_bytes * (1 / 4e9 + 1 / 5e9))
        assert part["link_latency_s"] == pytest.approx(2 * 0.01)
        assert part["sending_s"] == pytest.approx(2 * tokens * 2 / 1e6)
        waits = ("queued_s", "lost_s", "link_wait_s", "batch_wait_s", "kv_wait_s")
        assert [part[name] for name in waits] == pytest.approx([0] * 5)


def test_two_prompts_wait_for_each_other():
    # 1000 bytes/s: the second prompt waits while the first is sent, and not at the node.
    system = one_machine(link_bytes_per_s=1e3)
    result = hx.simulate(*system, scheduler="swarm", workload=own([300, 300], [1, 1]), keep_breakdown=True)
    check_sums(result)
    first, second = result.iterations[result.iterations["iteration"] == 0].to_dict("records")
    assert first["link_wait_s"] == pytest.approx(0)
    assert second["link_wait_s"] == pytest.approx(300 * 2 / 1e3)
    # Quick links: it waits at the node instead, which runs one prompt at a time.
    result = hx.simulate(
        *one_machine(), scheduler="swarm", workload=own([300] * 2, [1, 1]), keep_breakdown=True
    )
    check_sums(result)
    first, second = result.iterations[result.iterations["iteration"] == 0].to_dict("records")
    assert first["batch_wait_s"] == pytest.approx(0)
    assert second["batch_wait_s"] == pytest.approx(first["compute_s"], abs=0.01)


def test_the_last_chunk_stands_for_its_prompt():
    result = hx.simulate(
        *one_machine(),
        scheduler="swarm",
        execution=hx.chunked(chunk_tokens=50, memory_floor=False, kv_reread_factor=0.0),
        workload=own([200], [1]),
        keep_breakdown=True,
    )
    check_sums(result)
    prompt = result.iterations.iloc[0]
    assert prompt["compute_s"] == pytest.approx(4 * 0.05), "its own 50 tokens"
    assert prompt["batch_wait_s"] == pytest.approx(3 * 4 * 0.05, abs=0.01), "the chunks before it"
    assert prompt["link_wait_s"] == pytest.approx(3 * 50 * 2 / 1e6), "while they are sent"


def test_what_is_queued_waits_for_nothing_else():
    system = (*CHAIN[:2], with_kv(CHAIN[2], 8000))
    workload = own([1500] * 30, [20] * 30, np.arange(30) * 0.01)
    result = hx.simulate(*system, workload=workload, keep_breakdown=True)
    check_sums(result)
    prompts = result.iterations[result.iterations["iteration"] == 0]
    assert result.summary["requests_queued"].item() == (prompts["queued_s"] > 0).sum() > 0
    assert not result.iterations[["lost_s", "kv_wait_s"]].any(axis=None)
    assert not result.iterations.loc[result.iterations["iteration"] > 0, "queued_s"].any()


@pytest.mark.parametrize("scheduler", ["swarm", "random", "shortest-queue"])
def test_what_is_preempted_loses_time(scheduler):
    # All prompts fit together, what they generate does not.
    result = hx.simulate(
        *CHAIN[:2],
        with_kv(CHAIN[2], 500),
        scheduler=scheduler,
        workload=own([60] * 8, [150] * 8, np.arange(8) / 10),
        keep_breakdown=True,
    )
    check_sums(result)
    assert result.summary["requests_preempted"].item() > 0
    assert (result.iterations["lost_s"] > 0).sum() > 0
    assert (result.iterations["queued_s"] > 0).sum() > 0


def test_prompts_without_free_kv_cache_at_a_node():
    result = hx.simulate(
        *CHAIN[:2],
        with_kv(CHAIN[2], 550),
        scheduler="swarm",
        workload=own([400] * 5, [20] * 5),
        keep_breakdown=True,
    )
    check_sums(result)
    assert result.summary["prompts_waited_for_kv"].item() > 0
    assert result.iterations["kv_wait_s"].sum() > 1
    assert result.nodes["kv_wait_s"].sum() == pytest.approx(result.iterations["kv_wait_s"].sum())
