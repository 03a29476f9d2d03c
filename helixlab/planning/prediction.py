"""Prediction of the throughput of a placement, in a millisecond where a simulation takes a second.

`predict` prepares the arrays of the queueing model in `helixlab.planning.queueing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

import numpy as np

from helixlab.cluster import SOURCE, Cluster
from helixlab.engine.node import CONCAT_BYTES_PER_S, TRANSFER_BYTES_PER_S
from helixlab.errors import PlacementError
from helixlab.execution import Execution, get_execution
from helixlab.flow import Flow, max_flow
from helixlab.flow.small_links import RELATIVE, ROUNDING, check_rule
from helixlab.model import Model
from helixlab.placement import Placement, check_placement
from helixlab.placement.io import shown_name
from helixlab.placement.placement import End
from helixlab.planning.flow_kernel import Network, flow_workspace, network_of
from helixlab.planning.layout import layout_of
from helixlab.planning.queueing import (
    CONSTANTS,
    DECODE,
    IN_FLIGHT,
    PROMPT,
    THROUGHPUT,
    Serving,
    stations_of,
    steady_state_throughput,
)
from helixlab.scheduling.helix import EXPECTED_OUTPUT_TOKENS
from helixlab.simulation.driver import FEED_KV_LIMIT
from helixlab.simulation.simulate import KV_RULES, leave_links_out
from helixlab.workload.traces import trace_lengths

__all__ = ["Prediction", "predict", "serving_of"]

UNLIMITED: Final = 1e12
"""Capacity that stands for no limit."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted metrics of a placement in steady state, offline.

    Parameters
    ----------
    decode_tokens_per_s : float
        Throughput.
    requests_in_flight : float
        Mean number of requests that the KV caches admit.
    prompt_latency_s, decode_latency_s : float
        Mean latencies.
    """

    decode_tokens_per_s: float
    requests_in_flight: float
    prompt_latency_s: float
    decode_latency_s: float


def predict(
    cluster: Cluster,
    model: Model,
    placement: Placement,
    *,
    execution: str | Execution = "greedy",
    trace: str = "azure-conv",
    flow: Flow | None = None,
    small_links: str = RELATIVE,
) -> Prediction:
    """Predict the metrics of a simulation with the Helix scheduler, offline and in steady state.

    Parameters
    ----------
    cluster, model, placement
        As for `simulate`.
    execution : str or Execution
        Policy by which nodes form batches. The prediction ignores an admission rule of the policy, and a
        batch always takes at least the time of reading the layer (as with ``memory_floor=True``).
    trace : str
        Name of the trace from which the lengths of the requests are drawn.
    flow : Flow, optional
        Maximum flow of the placement, if it is known already.
    small_links : str
        Rule for leaving out links that carry too little flow, as for `simulate`.

    Returns
    -------
    Prediction

    Raises
    ------
    PlacementError
        The placement cannot serve the model, or states KV capacities of its own.
    SchedulingError
        Without the links that are left out, no path from source to sink remains.
    UnknownNameError
        There is no rule `small_links`.

    Notes
    -----
    The KV caches bound the requests in flight. Their number is the largest flow of requests from source to
    sink in which every node passes those that fit into its cache, and at most the number that the scheduler
    feeds. Each request makes one round for every token. A round takes the waits, service times,
    transmission times and latencies at the nodes and links that carry the maximum flow. By Little's law, the
    requests in flight are the product of the tokens/s and the time of a round.

    A node takes all waiting work items into a batch, so that the time of a batch and the number of decodes
    in it determine each other. A whole prompt delays the decodes it meets, and these travel behind it to the
    last node: the fraction of delayed decodes grows from node to node by the chance to meet a prompt. A link
    sends prompts one by one (an M/G/1 queue).

    Parts of the flow that share no node each fill their own caches. Where a part admits requests that later
    reach nodes without free KV cache, these are queued and all others wait behind them: every part then
    serves in proportion to its flow, and no more than the part with such dead ends allows. Where links are
    left out, a node distributes what it receives over the other links in proportion to their flow.

    The prediction leaves out that the scheduler avoids full nodes within a part. Of the lengths of requests
    it uses the means, and the variance of prompts at links.

    Examples
    --------
    >>> import helixlab as hx
    >>> system = (hx.load_cluster("small10"), hx.load_model("llama-1-30b"),
    ...           hx.load_placement("small10/llama-1-30b/helix"))
    >>> predicted = predict(*system)
    >>> result = hx.simulate(*system, workload=hx.offline(warmup_s=300, duration_s=300))
    >>> print(round(predicted.decode_tokens_per_s / result.metrics["decode_tokens_per_s"], 1))
    0.9
    """
    check_rule(small_links)
    if placement.kv_capacity_token_layers:
        raise PlacementError(
            f"placement {placement.name!r} states KV capacities of its own, for which there are no measured"
            " speeds to predict with; simulate it"
        )
    check_placement(placement, cluster, model)
    if flow is None:
        flow = max_flow(cluster, model, placement)
    elif not isinstance(flow, Flow) or flow.placement != shown_name(placement):
        raise PlacementError(f"flow is {flow!r}; give that of placement {shown_name(placement)!r}, or None")
    cluster = placement.on(cluster)
    size = len(cluster.nodes)
    workspace = flow_workspace(size)
    for (sender, receiver), tokens_per_s in _sent(placement, flow, small_links).items():
        if isinstance(receiver, str):
            workspace.to_sink[int(sender)] = tokens_per_s
        elif isinstance(sender, str):
            workspace.from_source[receiver] = tokens_per_s
        else:
            workspace.on_link[sender, receiver] = tokens_per_s
    workspace.through_node[:] = workspace.from_source + workspace.on_link.sum(axis=0)
    serving = serving_of(cluster, model, execution, trace=trace)
    network = serving.cache_network
    used = network._replace(
        link=network.link * (workspace.on_link > 0),
        from_source=network.from_source * (workspace.from_source > 0),
        to_sink=network.to_sink * (workspace.to_sink > 0),
    )
    serving = serving._replace(cache_network=used)
    predicted = np.zeros(4)
    start, end = layout_of(placement, size).arrays
    steady_state_throughput(
        serving, start, end, model.layers, workspace, flow_workspace(size), stations_of(size), predicted
    )
    return Prediction(*(float(predicted[entry]) for entry in (THROUGHPUT, IN_FLIGHT, PROMPT, DECODE)))


def _sent(placement: Placement, flow: Flow, small_links: str) -> Mapping[tuple[End, End], float]:
    """Return the flow on every link after links with little flow are left out."""
    if not flow.value_tokens_per_s > 0:
        return flow.on_link
    left_out = leave_links_out(flow, small_links)
    # A rounding error of the flow is no path: nothing leads on from where it ends.
    least = ROUNDING * flow.value_tokens_per_s
    on_link = {link: tokens if tokens > least else 0.0 for link, tokens in flow.on_link.items()}
    if not any(on_link[link] for link in left_out):
        return on_link
    return _redistributed(placement, on_link, left_out)


def _redistributed(
    placement: Placement, on_link: Mapping[tuple[End, End], float], left_out: Set[tuple[End, End]]
) -> dict[tuple[End, End], float]:
    """Send the flow of the source over the links that are not left out, in proportion to their flow."""
    used: dict[End, list[tuple[End, End]]] = {}
    for link in on_link:
        if link not in left_out:
            used.setdefault(link[0], []).append(link)
    sent = dict.fromkeys(on_link, 0.0)
    arrived: dict[End, float] = dict.fromkeys((held.node for held in placement.layers), 0.0)
    arrived[SOURCE] = sum(flow for (sender, _), flow in on_link.items() if sender == SOURCE)
    # Every link leads to a node with a later last layer.
    order: list[End] = [held.node for held in sorted(placement.layers, key=lambda held: held.end_layer)]
    for sender in [SOURCE, *order]:
        links = used.get(sender, [])
        whole = sum(on_link[link] for link in links)
        for link in links:
            sent[link] = arrived[sender] * on_link[link] / whole
            arrived[link[1]] = arrived.get(link[1], 0.0) + sent[link]
    return sent


def serving_of(
    cluster: Cluster, model: Model, execution: str | Execution, *, trace: str = "azure-conv"
) -> Serving:
    """Prepare the arrays of the queueing model for all placements of a model on a cluster."""
    policy = get_execution(execution)
    lengths = trace_lengths(trace)
    inputs, outputs = lengths["input_tokens"].to_numpy(float), lengths["output_tokens"].to_numpy(float)
    piece = float(min(policy.chunk_tokens or np.inf, inputs.mean()))
    kinds = list(cluster.machine_counts())
    profiles = [model.profile(kind) for kind in kinds]
    size, most = len(cluster.nodes), max(profile.max_layers for profile in profiles)
    longest = max(len(profile.decode_table_s) for profile in profiles)
    decode_s = np.zeros((len(kinds), longest))
    prompt_s = np.zeros(len(kinds))
    for row, profile in enumerate(profiles):
        read_layer_s = profile.decode_table_s[2]
        table = np.pad(profile.decode_table_s, (0, longest - len(profile.decode_table_s)), mode="edge")
        decode_s[row] = np.maximum(table, read_layer_s)
        prompt_s[row] = policy.prompt_cost_factor * profile.prompt_time_s(piece)
        if policy.chunk_tokens:
            # On average, half of the prompt was computed before the chunk.
            reread_s = policy.kv_reread_factor * read_layer_s * (model.kv_bytes_per_token_layer or 0)
            prompt_s[row] += reread_s / model.layer_bytes * inputs.mean() / 2
    kind = np.array([kinds.index(node.machine) for node in cluster.nodes])
    mark, ratio = KV_RULES["offline"]
    # Requests with long outputs stay longer, so that their prompts weigh more among those in flight.
    in_flight_tokens = float((inputs * outputs).sum() / outputs.sum()) + ratio * EXPECTED_OUTPUT_TOKENS
    cache, decode_limit = np.zeros((size, most + 1)), np.ones((size, most + 1))
    for node in cluster.nodes:
        profile = profiles[kind[node.index]]
        for layers in range(1, profile.max_layers + 1):
            cache[node.index, layers] = profile.kv_capacity_token_layers(layers) / layers / in_flight_tokens
            limit = profile.batch_limits(layers).decode_tokens
            decode_limit[node.index, layers] = min(limit, policy.max_decode_per_batch or limit)
    bandwidth, latency_s = np.zeros((2, size + 1, size + 1))
    for link in cluster.links:
        sender, receiver = (size if isinstance(end, str) else end for end in (link.sender, link.receiver))
        bandwidth[sender, receiver] = link.bandwidth_bytes_per_s
        latency_s[sender, receiver] = link.latency_s
    machines = [cluster.machine_of(node.index) for node in cluster.nodes]
    constants = {
        "input_tokens": inputs.mean(),
        "output_tokens": outputs.mean(),
        "input_tokens_squared": (inputs**2).mean(),
        "piece_tokens": piece,
        "is_chunked": policy.chunk_tokens is not None,
        "feed_limit": FEED_KV_LIMIT,
        "token_bytes": model.token_bytes,
        "activation_bytes": model.activation_bytes,
        "overhead_s_per_token": model.activation_bytes * (1 / CONCAT_BYTES_PER_S + 1 / TRANSFER_BYTES_PER_S),
    }
    return Serving(
        decode_s=decode_s,
        prompt_s=prompt_s,
        kind=kind,
        decode_limit=decode_limit,
        cache=cache,
        cache_network=_unlimited_links(network_of(cluster, model), mark * cache),
        bandwidth=bandwidth,
        latency_s=latency_s,
        card=np.array(
            [
                [*(m.nic_in_bytes_per_s for m in machines), cluster.coordinator.nic_in_bytes_per_s],
                [*(m.nic_out_bytes_per_s for m in machines), cluster.coordinator.nic_out_bytes_per_s],
            ]
        ),
        constants=np.array([float(constants[name]) for name in CONSTANTS]),
    )


def _unlimited_links(network: Network, speed: np.ndarray) -> Network:
    """Replace the speeds of the nodes, and let links and network cards carry any flow."""
    return network._replace(
        speed=speed,
        link=np.where(network.link > 0, UNLIMITED, 0.0),
        from_source=np.where(network.from_source > 0, UNLIMITED, 0.0),
        to_sink=np.where(network.to_sink > 0, UNLIMITED, 0.0),
        card=np.full_like(network.card, UNLIMITED),
        coordinator=np.full_like(network.coordinator, UNLIMITED),
    )
