"""How nodes form batches, and what chunked prefill does to a run."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from test_agreement import SCHEDULERS, lengths, systems

import helixlab as hx
from helixlab.errors import SchedulingError, UnknownNameError
from helixlab.execution import EXECUTIONS, fits_limits, get_execution

SINGLE24 = (
    hx.load_cluster("single24"),
    hx.load_model("llama-2-70b"),
    hx.load_placement("single24/llama-2-70b/example-ilp"),
)
TABLES = ("iterations", "requests", "nodes", "links", "timeline", "node_timeline")
every_policy = pytest.mark.parametrize("policy", sorted(EXECUTIONS))


def burst(requests, every_s=0.0):
    table = pd.DataFrame(requests, columns=["input_tokens", "output_tokens"])
    table.insert(0, "arrival_s", np.arange(len(table)) * every_s)
    return hx.online(requests=table, duration_s=100)


def alone(profile, **changes):
    """A cluster of one node that holds a model of one layer with this profile."""
    model = replace(hx.load_model("llama-1-30b"), layers=1, profiles={profile.machine: profile}, **changes)
    cluster = hx.single_region({profile.machine: 1}, name="one")
    placement = hx.Placement(
        "one", "one", model.name, "by hand", (hx.NodeLayers(0, 0, 1),), (("source", 0), (0, "sink"))
    )
    return cluster, model, placement


def plain_profile(**changes):
    """1 ms for a prompt token, 10 ms for up to 100 decodes."""
    return replace(
        hx.load_model("llama-1-30b").profile("L4"),
        prompt_batch_tokens=(0, 10_000),
        prompt_layer_s=(0.0, 10.0),
        decode_batch_tokens=(0, 1, 2, 100),
        decode_layer_s=(0.0, 0.005, 0.01, 0.01),
        kv_blocks=(10_000,),
        max_prompt_requests=(4,),
        max_decode_tokens=(100,),
        typical_layers=1,
        typical_layers_when_tight=1,
        **changes,
    )


def prompt_latency_s(system, execution, input_tokens):
    result = hx.simulate(
        *system, execution=execution, scheduler="random", workload=burst([(input_tokens, 1)])
    )
    return result.iterations.query("iteration == 0")["latency_s"].item()


def test_names():
    assert set(EXECUTIONS) == {"greedy", "chunked", "decode-first", "prompt-first", "one-phase"}
    for name, policy in EXECUTIONS.items():
        assert policy.name == name
        assert get_execution(name) is get_execution(policy) is policy
    with pytest.raises(UnknownNameError, match="unknown execution policy 'chunky'; did you mean 'chunked'"):
        get_execution("chunky")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"chunk_tokens": 0}, "chunk_tokens is 0; give a whole number of at least 1"),
        ({"max_decode_per_batch": 2.5}, "max_decode_per_batch is 2.5; give a whole number"),
        ({"max_prompt_chunks_per_batch": True}, "max_prompt_chunks_per_batch is True; give a whole number"),
        ({"kv_reread_factor": -1}, "kv_reread_factor is -1; give a number of at least 0"),
        ({"prompt_cost_factor": math.nan}, "prompt_cost_factor is nan; give a number of at least"),
        ({"prompt_cost_factor": True}, "prompt_cost_factor is True; give a number of at least 1e-06"),
        ({"memory_floor": "no"}, "memory_floor is 'no'; give True or False"),
    ],
)
def test_parameters_that_make_no_sense(parameters, message):
    with pytest.raises(SchedulingError, match=message):
        hx.chunked(**parameters)


def test_numbers_of_numpy_are_numbers():
    """Limits often come from a table or a range of numpy's."""
    policy = hx.chunked(
        chunk_tokens=np.int64(96), max_decode_per_batch=np.int32(8), kv_reread_factor=np.float32(2)
    )
    assert policy == hx.chunked(chunk_tokens=96, max_decode_per_batch=8, kv_reread_factor=2.0)
    assert repr(policy) == repr(hx.chunked(chunk_tokens=96, max_decode_per_batch=8, kv_reread_factor=2.0))


# Chunks


def test_chunks_beyond_any_number_of_the_engine_are_whole_prompts():
    system, requests = alone(plain_profile()), burst([(300, 4)])
    whole = hx.simulate(*system, workload=requests)
    cut = hx.simulate(*system, workload=requests, execution=hx.Execution("uncut", chunk_tokens=10**30))
    pd.testing.assert_frame_equal(whole.iterations, cut.iterations)


@settings(max_examples=60)
@given(systems(), st.sampled_from(SCHEDULERS), st.lists(lengths, min_size=1, max_size=40), st.integers(0, 9))
def test_chunks_as_long_as_prompts_are_greedy(system, scheduler, requests, seed):
    """Without limits and costs of its own, chunked is greedy, event for event."""
    unlimited = hx.chunked(
        chunk_tokens=max(tokens for tokens, _ in requests),
        max_prompt_chunks_per_batch=None,
        max_decode_per_batch=None,
        memory_floor=False,
        kv_reread_factor=0,
    )
    workload = hx.offline(
        initial_requests=20,
        warmup_s=0,
        duration_s=10,
        rng=seed,
        requests=pd.DataFrame(requests, columns=["input_tokens", "output_tokens"]),
    )
    whole, cut = (
        hx.simulate(*system, scheduler=scheduler, workload=workload, execution=execution)
        for execution in ("greedy", unlimited)
    )
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(cut, name), check_exact=True)
    assert whole.summary["events"].item() == cut.summary["events"].item()


@settings(max_examples=60)
@given(
    systems(),
    st.sampled_from(SCHEDULERS),
    st.lists(lengths, min_size=1, max_size=40),
    st.sampled_from([*sorted(EXECUTIONS), 1, 7, 50]),
)
def test_nothing_is_lost(system, scheduler, requests, policy):
    """Whatever the policy: every request ends, every token counts once, caches are empty again."""
    execution = hx.chunked(chunk_tokens=policy) if isinstance(policy, int) else policy
    result = hx.simulate(
        *system, scheduler=scheduler, workload=burst(requests, every_s=0.2), execution=execution
    )
    summary = result.summary.iloc[0]
    assert summary["requests_finished"] == summary["requests_fed"] == len(requests)
    assert summary["total_tokens"] == sum(map(sum, requests))
    assert (result.nodes["kv_used_token_layers"] == 0).all()
    assert (result.node_timeline["kv_used_fraction"] >= 0).all()
    served = result.requests.sort_values("request")[["input_tokens", "output_tokens"]]
    np.testing.assert_array_equal(served, requests)
    finished = result.iterations.groupby("request").agg(n=("iteration", "size"), tokens=("tokens", "sum"))
    assert finished["tokens"].tolist() == [sum(request) for request in requests]
    assert finished["n"].tolist() == [1 + output for _, output in requests]


def test_what_a_prompt_costs():
    """One node, one layer: the time of a prompt by the formula of the docstring."""
    system = alone(plain_profile(), kv_bytes_per_token_layer=1e5, layer_bytes=1e9)
    free = {"memory_floor": False, "kv_reread_factor": 0, "max_prompt_chunks_per_batch": 1}
    whole_s = prompt_latency_s(system, "greedy", 1000)
    assert whole_s == pytest.approx(1.0, abs=0.02)  # and the links
    # Cut into ten, each adds its share, and the next is received while one runs.
    assert prompt_latency_s(system, hx.chunked(chunk_tokens=100, **free), 1000) == pytest.approx(
        1.0, abs=0.02
    )
    # The last chunk has one token, but a batch takes the floor of 10 ms.
    floored = hx.chunked(chunk_tokens=999, **free | {"memory_floor": True})
    assert prompt_latency_s(system, floored, 1000) - whole_s == pytest.approx(0.009, abs=1e-3)
    # Chunk i reads i * 100 tokens of 1e5 bytes again, at 1e9 bytes in 10 ms.
    reread = hx.chunked(chunk_tokens=100, **free | {"kv_reread_factor": 1})
    expected_s = sum(range(10)) * 100 * 1e5 / (1e9 / 0.01)
    cut_s = prompt_latency_s(system, hx.chunked(chunk_tokens=100, **free), 1000)
    assert prompt_latency_s(system, reread, 1000) - cut_s == pytest.approx(expected_s, rel=1e-6)
    dearer = hx.chunked(chunk_tokens=1000, **free | {"prompt_cost_factor": 1.3})
    assert prompt_latency_s(system, dearer, 1000) - whole_s == pytest.approx(0.3, rel=1e-6)


def test_a_prompt_longer_than_a_batch_is_served_in_chunks():
    system = alone(plain_profile())
    requests = burst([(9000, 2)])
    assert hx.simulate(*system, workload=requests).requests["outcome"].item() == "refused"
    assert (
        hx.simulate(*system, workload=requests, execution="chunked").requests["outcome"].item() == "finished"
    )


def test_a_full_cache_takes_prompts_one_after_the_other():
    """The first chunk reserves for its whole prompt, so that two prompts cannot block each other."""
    cluster, model, placement = alone(plain_profile())
    tight = replace(placement, kv_capacity_token_layers={0: 500})
    result = hx.simulate(
        cluster,
        model,
        tight,
        scheduler="swarm",
        workload=burst([(400, 20)] * 6),
        execution=hx.chunked(chunk_tokens=50),
    )
    assert (result.requests["outcome"] == "finished").all()
    assert result.summary["prompts_waited_for_kv"].item() > 0
    assert (result.nodes["kv_used_token_layers"] == 0).all()
    assert result.node_timeline["kv_used_fraction"].max() <= 1


def test_the_cache_in_the_middle_of_a_prompt():
    """The stored tokens grow chunk by chunk, though all are reserved at once."""
    cluster, model, placement = alone(plain_profile())
    stored = []
    for end_s in (0.35, 0.55, 0.95):
        workload = hx.offline(
            initial_requests=1,
            warmup_s=0,
            duration_s=end_s,
            requests=pd.DataFrame({"input_tokens": [1000], "output_tokens": [5]}),
        )
        result = hx.simulate(
            cluster,
            model,
            placement,
            scheduler="random",
            workload=workload,
            execution=hx.chunked(chunk_tokens=100, kv_reread_factor=0),
        )
        stored.append(result.nodes["kv_used_token_layers"].item())
    assert stored == [300, 500, 900]


# Batches


def test_limits_split_batches():
    requests = burst([(10, 60)] * 40)
    for most in (1, 8, 40):
        execution = hx.Execution("micro-batches", max_decode_per_batch=most)
        result = hx.simulate(*alone(plain_profile()), workload=requests, execution=execution)
        decodes = result.iterations.query("iteration > 0")
        together = decodes.groupby("end_s").size()
        assert together.max() <= most
        assert result.nodes["batches"].item() >= len(decodes) / most


@pytest.mark.parametrize(
    ("policy", "slower"), [("decode-first", "prompt"), ("prompt-first", "decode"), ("greedy", None)]
)
def test_who_goes_first(policy, slower):
    """Under load, the phase that goes first is served quicker than under the other policy."""
    requests = hx.offline(initial_requests=60, warmup_s=0, duration_s=60, rng=1)
    runs = {
        name: hx.simulate(*alone(plain_profile()), scheduler="random", workload=requests, execution=name)
        for name in ("decode-first", "prompt-first", "greedy")
    }
    if slower is None:
        assert runs["greedy"].nodes["batches"].item() < runs["decode-first"].nodes["batches"].item()
        return
    other = {"decode-first": "prompt-first", "prompt-first": "decode-first"}[policy]
    column = f"{slower}_latency_mean_s"
    assert runs[policy].summary[column].item() > runs[other].summary[column].item()


def test_phases_that_do_not_mix():
    def mixed(node, request):
        return fits_limits(node, request)

    workload = hx.offline(initial_requests=30, warmup_s=0, duration_s=30)
    own, greedy, apart = (
        hx.simulate(*alone(plain_profile()), scheduler="random", workload=workload, execution=execution)
        for execution in (hx.Execution("own", mixed), "greedy", "one-phase")
    )
    pd.testing.assert_frame_equal(own.iterations, greedy.iterations)
    assert apart.nodes["batches"].item() > greedy.nodes["batches"].item()


# What it does


def test_the_cure():
    """Chunks and small batches nearly double the throughput of the published cluster, at lower latency."""
    workload = hx.offline(warmup_s=900, duration_s=300, rng=0)
    greedy, cured = (
        hx.simulate(*SINGLE24, workload=workload, execution=execution).summary.iloc[0]
        for execution in ("greedy", "chunked")
    )
    assert cured["decode_tokens_per_s"] > 1.6 * greedy["decode_tokens_per_s"]
    assert cured["decode_latency_mean_s"] < 0.65 * greedy["decode_latency_mean_s"]


def test_provenance_states_the_parameters():
    result = hx.simulate(
        *SINGLE24, workload=hx.offline(warmup_s=0, duration_s=1), execution=hx.chunked(chunk_tokens=96)
    )
    stated = result.provenance["execution"]
    assert stated["name"] == "chunked"
    assert stated["parameters"]["chunk_tokens"] == 96
    assert stated["parameters"]["max_decode_per_batch"] == 32


@every_policy
def test_published_figures_need_greedy(policy):
    """The default is greedy, and the others differ from it."""
    workload = hx.offline(warmup_s=5, duration_s=20)
    default = hx.simulate(*SINGLE24, workload=workload)
    assert default.summary["execution"].item() == "greedy"
    other = hx.simulate(*SINGLE24, workload=workload, execution=policy)
    assert other.iterations.equals(default.iterations) == (policy == "greedy")
