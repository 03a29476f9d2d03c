"""Conservation under every policy: tokens, KV cache and the books of schedulers are right to the token."""

from importlib import import_module
from unittest.mock import patch

import numpy as np
import pandas as pd
from hypothesis import given, settings, strategies as st
from test_agreement import SCHEDULERS, lengths, systems

import helixlab as hx
from helixlab.engine.state import NONE
from helixlab.execution import EXECUTIONS
from helixlab.simulation.driver import drive

simulation = import_module("helixlab.simulation.simulate")  # the package has a function of this name

policies = st.one_of(
    st.sampled_from(sorted(EXECUTIONS)),
    st.builds(
        hx.chunked,
        chunk_tokens=st.integers(1, 120),
        max_prompt_chunks_per_batch=st.none() | st.integers(1, 3),
        max_decode_per_batch=st.none() | st.integers(1, 12),
    ),
)
bursts = st.lists(lengths, min_size=1, max_size=40)


def simulate(*system, **how):
    """The result, and the tables of the engine as the run left them."""
    kept = []

    def keep(*arguments, **options):
        kept.append(drive(*arguments, **options))
        return kept[0]

    with patch.object(simulation, "drive", keep):
        result = hx.simulate(*system, **how)
    return result, kept[0].state


@settings(max_examples=80)
@given(systems(), bursts, policies, st.sampled_from([0.0, 0.05, 0.4]))
def test_the_books_of_the_helix_scheduler(system, requests, policy, every_s):
    """The load of a link is what went over it, each prompt and decode once; no expected KV cache is left."""
    table = pd.DataFrame(requests, columns=["input_tokens", "output_tokens"])
    table.insert(0, "arrival_s", np.arange(len(table)) * every_s)
    workload = hx.online(requests=table, duration_s=100)
    result, state = simulate(*system, workload=workload, execution=policy)
    assert (result.requests["outcome"] == "finished").all()
    links = state.links[state.links["flow_tokens_per_s"] > 0]
    np.testing.assert_allclose(
        links["load"] * links["flow_tokens_per_s"], links["sent_tokens"], rtol=1e-9, atol=1e-6
    )
    assert links["sent_tokens"].sum() == state.links["sent_tokens"].sum() > 0
    assert (state.nodes["kv_expected_token_layers"] == 0).all()
    assert (state.nodes["kv_used_token_layers"] == 0).all()
    assert (state.queues["length"] == 0).all()
    # Every token enters the first nodes once and leaves the last nodes once.
    tokens = int(table[["input_tokens", "output_tokens"]].sum(axis=None))
    for end in ("sender", "receiver"):
        assert state.links["sent_tokens"][state.links[end] == len(state.nodes) - 1].sum() == tokens


@settings(max_examples=80)
@given(systems(), st.sampled_from(SCHEDULERS), bursts, policies, st.floats(0.02, 6), st.integers(0, 9))
def test_the_caches_at_any_moment(system, scheduler, requests, policy, duration_s, seed):
    """Stored are the tokens of all finished iterations, and of the current one no more than its tokens."""
    workload = hx.offline(
        initial_requests=12,
        warmup_s=0,
        duration_s=duration_s,
        rng=seed,
        requests=pd.DataFrame(requests, columns=["input_tokens", "output_tokens"]),
    )
    result, state = simulate(*system, scheduler=scheduler, workload=workload, execution=policy)
    done, most, reserved = (np.zeros(len(state.nodes), np.int64) for _ in range(3))
    for request in np.flatnonzero((state.requests["in_use"] == 1) & (state.requests["queued"] == 0)):
        entry = state.requests[request]
        for hop in range(entry["hops"]):
            link = state.links[state.pipelines[request, hop]]
            if link["queue"] != NONE:
                node = link["receiver"]
                done[node] += entry["kv_tokens"] * link["layers"]
                most[node] += (entry["kv_tokens"] + entry["iteration_tokens"]) * link["layers"]
                reserved[node] += state.kv_tokens[request, hop] * link["layers"]
    np.testing.assert_array_equal(state.nodes["kv_used_token_layers"], reserved)
    stored = result.nodes.sort_values("node")["kv_used_token_layers"].to_numpy()
    assert (done[:-1] <= stored).all()
    assert (stored <= reserved[:-1]).all()
    assert (reserved <= most).all()
    assert (stored <= result.nodes.sort_values("node")["kv_capacity_token_layers"].to_numpy()).all()
