"""Runs whose diagnosis is known."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

import helixlab as hx
from helixlab.cluster import SINK, SOURCE
from helixlab.placement import usable_links
from helixlab.scheduling import Scheduler

LAYERS = 4
LLAMA = hx.load_model("llama-1-30b")


def profile(machine, token_s=0.001, batch_s=0.0, kv_blocks=20_000, prompts=4, most_layers=LAYERS):
    """Make a profile with the same time per layer for prompt and decode tokens, and one for each batch."""
    return replace(
        LLAMA.profile("L4"),
        machine=machine,
        prompt_batch_tokens=(0, 20_000),
        prompt_layer_s=(0.0, 20_000 * token_s),
        decode_batch_tokens=(0, 1, 2, 2000),
        decode_layer_s=(0.0, (batch_s + 2 * token_s) / 2, batch_s + 2 * token_s, batch_s + 2000 * token_s),
        kv_blocks=(kv_blocks,) * most_layers,
        max_prompt_requests=(prompts,) * most_layers,
        max_decode_tokens=(500,) * most_layers,
        typical_layers=min(2, most_layers),
        typical_layers_when_tight=min(2, most_layers),
    )


def system(*spans, links=None, latency_s=1e-4, bandwidth_bytes_per_s=1e9, nic_bytes_per_s=1e9, **model):
    """Make nodes, each ``(profile, first layer, end layer)``, or a profile alone for one without layers."""
    spans = [span if isinstance(span, tuple) else (span, None, None) for span in spans]
    profiles = {each.machine: each for each, *_ in spans}
    model = replace(LLAMA, layers=LAYERS, profiles=profiles, **model)
    machines = [hx.Machine(name, 240e9, nic_bytes_per_s, nic_bytes_per_s, 2e9) for name in profiles]
    counts = {name: sum(each.machine == name for each, *_ in spans) for name in profiles}
    cluster = hx.single_region(
        counts,
        latency_s=latency_s,
        bandwidth_bytes_per_s=bandwidth_bytes_per_s,
        machines=machines,
        name="few",
    )
    free = {name: [node.index for node in cluster.nodes if node.machine == name] for name in profiles}
    layers = []
    for each, first, end in spans:
        node = free[each.machine].pop(0)
        if first is not None:
            layers.append(hx.NodeLayers(node, first, end))
    if links is None:
        links = usable_links(cluster, tuple(layers), LAYERS)
    return cluster, model, hx.Placement("drawn", "few", model.name, "by hand", tuple(layers), tuple(links))


def requests(input_tokens, output_tokens, arrival_s=None):
    table = pd.DataFrame({"input_tokens": input_tokens, "output_tokens": output_tokens})
    if arrival_s is not None:
        table.insert(0, "arrival_s", arrival_s)
    return table


def offline(count=20, input_tokens=750, output_tokens=240, number=3000, **changes):
    table = requests([input_tokens] * number, [output_tokens] * number)
    changes = {"warmup_s": 200, "duration_s": 400, "rng": 0, **changes}
    return hx.offline(initial_requests=count, requests=table, **changes)


def run(case, **how):
    return hx.simulate(*case, **{"scheduler": "swarm", "keep_breakdown": True, **how})


A = profile("A")


def no_layers():
    return run(system((A, 0, 4), A, A), workload=offline())


def no_path():
    links = [(SOURCE, 0), (0, SINK)]
    return run(system((A, 0, 4), (A, 2, 4), links=links), workload=offline())


def no_flow():
    # With four layers it has no KV cache left for a batch.
    full = replace(profile("F"), kv_blocks=(20_000, 20_000, 20_000, 30))
    return run(system((A, 0, 4), (full, 0, 4)), scheduler="helix", workload=offline())


def below_the_share():
    quick, slow = profile("Q", token_s=0.001), profile("S", token_s=0.013)
    case = system((quick, 0, 4), *[(slow, 0, 4)] * 14)
    with pytest.warns(UserWarning, match="leaves out 14 links"):
        return run(case, scheduler="helix", small_links="paper", workload=offline(60))


def kv_masked():
    tight = profile("T", kv_blocks=180)  # 2880 tokens
    case = system((A, 0, 4), (tight, 0, 4))
    return run(case, scheduler="helix", workload=offline(60, input_tokens=2600, output_tokens=500))


def batch_too_small():
    narrow = profile("N", prompts=1)  # 2048 tokens
    case = system((A, 0, 4), (narrow, 0, 4))
    return run(case, scheduler="helix", workload=offline(60, input_tokens=2600, output_tokens=800))


def send_to_the_first(state, sender, request):
    return state.nodes[sender].first_link


def never_chosen():
    return run(
        system((A, 0, 4), (A, 0, 4)), scheduler=Scheduler("first", send_to_the_first), workload=offline(60)
    )


def little_asked_for():
    rng = np.random.default_rng(0)
    table = requests([300] * 20, [100] * 20, np.sort(rng.uniform(0, 400, 20)))
    return run(system((A, 0, 4)), workload=hx.online(requests=table, duration_s=400))


def requests_ran_out():
    return run(system((A, 0, 4)), workload=offline(5, 100, 50, number=200, warmup_s=0, duration_s=5000))


def placement():
    slow = profile("S", token_s=0.004)
    return run(system((A, 0, 1), (slow, 1, 4)), workload=offline(60))


def filling_up():
    # Plenty of prompts at the start, and no decode of theirs has ended yet.
    case = system((A, 0, 4))
    return run(case, workload=offline(200, output_tokens=800, warmup_s=0, duration_s=600))


def nothing_ended():
    # The first prompt takes three seconds.
    return run(system((A, 0, 4)), workload=offline(3, warmup_s=0, duration_s=2))


def rejected():
    case = system((A, 0, 4))
    case = (*case[:2], replace(case[2], kv_capacity_token_layers={0: 4 * 6000}))
    workload = offline(20, warmup_s=0, input_tokens=1500, output_tokens=100)
    return run(case, scheduler="helix", on_full="drop", workload=workload)


def costly_batches():
    fixed = profile("F", token_s=1e-5, batch_s=0.02)
    return run(system((fixed, 0, 4)), workload=offline(2, input_tokens=50))


def overhead():
    # 400 kB of activations a token take longer to bring together than the layers to run.
    quick = profile("Q", token_s=1e-5)
    case = system((quick, 0, 4), activation_bytes=400_000)
    return run(case, workload=offline(60))


def full_kv_caches():
    # KV cache for two requests at a time, on four nodes.
    case = system((A, 0, 1), (A, 1, 2), (A, 2, 3), (A, 3, 4))
    case = (*case[:2], replace(case[2], kv_capacity_token_layers=dict.fromkeys(range(4), 2400)))
    return run(case, workload=offline(20, input_tokens=1000, output_tokens=200))


def preemption():
    case = system((A, 0, 4))
    case = (*case[:2], replace(case[2], kv_capacity_token_layers={0: 4 * 2000}))
    return run(case, workload=offline(30, input_tokens=20, output_tokens=1200))


def busy_links():
    # Two links share a card half and half, and one of them has nine tenths of the requests.
    slow = profile("S", token_s=0.01)
    case = system((A, 0, 2), (A, 2, 4), (slow, 2, 4), nic_bytes_per_s=520 * (LLAMA.activation_bytes + 2))
    return run(case, scheduler=Scheduler("nine to one", send_nine_to_one), workload=offline(40))


def send_nine_to_one(state, sender, request):
    node = state.nodes[sender]
    return node.first_link + (node.links > 1 and state.requests[request].id % 10 == 0)


def sending():
    # A token takes 4 ms to compute, and nearly as long on either side to be sent.
    return run(system((A, 0, 4), bandwidth_bytes_per_s=2 * 260), workload=offline(1))


def link_latency():
    quick = profile("Q", token_s=1e-5, batch_s=1e-4)
    return run(system((quick, 0, 2), (quick, 2, 4), latency_s=0.2), workload=offline(5))


def imbalance():
    # Requests are split evenly over a quick node and a slow one.
    quick, slow = profile("Q", token_s=0.001), profile("S", token_s=0.008)
    case = system((quick, 0, 4), (slow, 0, 4))
    return run(case, scheduler=Scheduler("in turn", send_in_turn), workload=offline(20, 50, 20))


def send_in_turn(state, sender, request):
    return state.nodes[sender].first_link + state.requests[request].id % state.nodes[sender].links


def bubbles():
    # Whole prompts hold up the decodes behind them, and the nodes ahead have nothing to do.
    case = system((A, 0, 1), (A, 1, 2), (A, 2, 3), (A, 3, 4))
    return run(case, workload=offline(20))


def few_requests():
    case = system((A, 0, 1), (A, 1, 2), (A, 2, 3), (A, 3, 4))
    return run(case, workload=offline(1))


def waiting():
    return hx.simulate(*FEW, scheduler="swarm", workload=offline(1))


FEW = system((A, 0, 1), (A, 1, 2), (A, 2, 3), (A, 3, 4))


def unsteady():
    # Five times as many requests in the second half.
    rng = np.random.default_rng(0)
    arrival_s = np.sort(np.concatenate([rng.uniform(0, 500, 60), rng.uniform(500, 1000, 300)]))
    table = requests([200] * 360, [50] * 360, arrival_s)
    return run(system((A, 0, 4)), workload=hx.online(requests=table, duration_s=1000))


def saturated():
    rng = np.random.default_rng(0)
    count = 600
    table = requests([300] * count, [100] * count, np.sort(rng.uniform(0, 200, count)))
    return run(system((A, 0, 4)), workload=hx.online(requests=table, duration_s=200))


def outside_the_window():
    # Nearly all of them come after the window, at a rate that is served.
    table = requests([300] * 100, [50] * 100, np.linspace(0, 1000, 100))
    return run(system((A, 0, 4)), workload=hx.online(requests=table, duration_s=60))


def nothing_sent():
    # The prompts come in the warm-up, and the first one takes longer than the window.
    return run(system((A, 0, 4), (A, 0, 4)), workload=offline(1, 2000, 50, warmup_s=2, duration_s=2))


def nothing_upstream():
    return run(FEW, workload=offline(3, warmup_s=0, duration_s=0.5))


def stopped_early():
    times_s = np.sort(np.random.default_rng(0).uniform(0, 300, 900))
    return stopped(arriving(times_s, 300), 150)


CASES = {
    "no layers": cache(no_layers),
    "no path": cache(no_path),
    "no flow": cache(no_flow),
    "below the share": cache(below_the_share),
    "KV cache masked": cache(kv_masked),
    "batch too small": cache(batch_too_small),
    "never chosen": cache(never_chosen),
    "little asked for": cache(little_asked_for),
    "requests ran out": cache(requests_ran_out),
    "placement": cache(placement),
    "filling up": cache(filling_up),
    "nothing ended": cache(nothing_ended),
    "rejected": cache(rejected),
    "costly batches": cache(costly_batches),
    "overhead": cache(overhead),
    "full KV caches": cache(full_kv_caches),
    "preemption": cache(preemption),
    "busy links": cache(busy_links),
    "sending": cache(sending),
    "link latency": cache(link_latency),
    "imbalance": cache(imbalance),
    "bubbles": cache(bubbles),
    "few requests": cache(few_requests),
    "waiting": cache(waiting),
    "unsteady": cache(unsteady),
    "saturated": cache(saturated),
    "outside the window": cache(outside_the_window),
}
"""Runs in which the cause is the truth, so that diagnose names it first."""
MORE_CASES = {
    "nothing upstream": cache(nothing_upstream),
    "nothing sent": cache(nothing_sent),
    "stopped early": cache(stopped_early),
}
"""Runs in which the cause is found, after others."""


# Runs on a bundled cluster

SMALL10 = (
    hx.load_cluster("small10"),
    LLAMA,
    hx.load_placement("small10/llama-1-30b/helix"),
)


@cache
def small10(workload, **how):
    return hx.simulate(*SMALL10, workload=workload, **{"keep_breakdown": True, **how})


def given(*spans):
    """Make offline requests: for each span a count, and their input tokens."""
    tokens = np.concatenate([[tokens] * count for count, tokens in spans])
    table = pd.DataFrame({"input_tokens": tokens, "output_tokens": 5})
    return hx.offline(requests=table, warmup_s=10, duration_s=60)


def offered(rate, duration_s=1800, **how):
    return small10(hx.online(rate_tokens_per_s=rate, duration_s=duration_s, rng=0), **how)


def at_mark(mark):
    return small10(hx.offline(warmup_s=60, duration_s=600, rng=0), kv_high_water_mark=mark)


def warmed_up(**how):
    return small10(hx.offline(warmup_s=60, duration_s=300, rng=0), **how)


def two_requests():
    return small10(hx.offline(initial_requests=2, warmup_s=60, duration_s=300, rng=0), scheduler="swarm")


def arriving(times_s, duration_s, warmup_s=0.0):
    table = pd.DataFrame({"arrival_s": times_s, "input_tokens": 300, "output_tokens": 100})
    workload = hx.online(requests=table, duration_s=duration_s, warmup_s=warmup_s)
    return small10(workload, sample_step_s=1)


def stopped(result, at_s):
    """Return the run as if Ctrl-C had stopped it then, all that ended later left out."""
    end_s = result.metrics["start_s"] + at_s
    requests = result.requests[result.requests["end_s"] <= end_s]
    arrived = result.requests["arrival_s"] <= end_s
    summary = result.summary.assign(
        partial=True, window_end_s=end_s, requests_in_flight=int(arrived.sum()) - len(requests)
    )
    iterations = result.iterations[result.iterations["end_s"] <= end_s]
    return replace(result, summary=summary, requests=requests, iterations=iterations)
