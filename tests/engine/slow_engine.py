"""A plain and slow engine, to check the fast one against.

It has one event for every layer of every batch, every sending and every arrival, in ordinary Python objects,
and uses nothing of `helixlab.engine`, `helixlab.simulation` or `helixlab.scheduling`. A follow-up at the
instant of an event is another event, and events of one instant run in the order of their creation.

Left out: full KV caches (the fast engine's work items then wait, which the reference does not know).
"""

import heapq
import math
from dataclasses import dataclass, field

MASK = 2**64 - 1
MIN_FREE_BYTES_PER_S = 10


class Randomness:
    """splitmix64, so that both engines draw the same numbers."""

    def __init__(self, state):
        self.state = state

    def uniform(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        bits = self.state
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
        return ((bits ^ (bits >> 31)) >> 11) * 2.0**-53


@dataclass(eq=False)
class Request:
    number: int
    input_tokens: int
    output_tokens: int
    arrival_s: float = 0.0
    iteration: int = 0
    path: list = field(default_factory=list)
    booked: bool = False


@dataclass(eq=False)
class WorkItem:
    """One iteration of a request."""

    request: Request
    tokens: int
    is_prompt: bool
    context_tokens: int
    start_s: float
    hop: int = -1
    sent_s: float = 0.0

    @property
    def link(self):
        return self.request.path[self.hop] if 0 <= self.hop < len(self.request.path) else None


@dataclass(eq=False)
class Link:
    sender: "Node"
    receiver: "Node"
    bandwidth_bytes_per_s: float
    latency_s: float
    bytes_per_token: int
    flow: float
    entry_layer: int
    rate: float = 0.0
    used: float = 0.0
    sending: int = 0
    waiting: list = field(default_factory=list)
    load: float = 0.0
    priority: float = 0.05
    service_s: float = 0.05

    @property
    def layers(self):
        return self.receiver.end_layer - self.entry_layer if self.receiver.layers else 0


@dataclass(eq=False)
class Node:
    name: object
    first_layer: int = 0
    layers: int = 0
    nic_in: float = 0.0
    nic_out: float = 0.0
    nic_in_used: float = 0.0
    nic_out_used: float = 0.0
    out: list = field(default_factory=list)
    ready: list = field(default_factory=list)
    queues: dict = field(default_factory=dict)
    layer: int = 0
    batch: list = field(default_factory=list)
    received_tokens: int = 0
    kv_capacity: int = 0
    kv_used: int = 0
    kv_expected: int = 0
    limits: object = None
    prompt_s: list = field(default_factory=list)
    decode_s: list = field(default_factory=list)

    @property
    def end_layer(self):
        return self.first_layer + self.layers

    def next_waiting(self):
        """Find the next layer with a work item waiting, in a circle; the current one if there is none."""
        for step in range(1, self.layers):
            layer = self.first_layer + (self.layer - self.first_layer + step) % self.layers
            if self.queues[layer]:
                return layer
        return self.layer


class SlowEngine:
    """Runs a workload; afterwards `iterations`, `dropped`, `in_flight` and the nodes tell what happened.

    Parameters
    ----------
    flow : dict or None
        Flow of each link in tokens/s, for the helix scheduler.
    requests : list of (input_tokens, output_tokens) or of (arrival_s, input_tokens, output_tokens)
        Offline and online.
    """

    def __init__(
        self, cluster, model, placement, scheduler, flow, requests, *,
        start_s, warmup_s=0.0, duration_s, initial_requests=None, high_water_mark, output_ratio,
        random_state=0,
    ):  # fmt: skip
        self.scheduler = scheduler
        self.online = initial_requests is None
        self.end_s = start_s + warmup_s + duration_s
        self.high_water_mark, self.output_ratio = high_water_mark, output_ratio
        self.activation_bytes = model.activation_bytes
        self.random = Randomness(random_state)
        self.requests = iter(requests)
        self.now_s = start_s
        self.events, self.created = [], 0
        self.iterations, self.dropped, self.finished, self.in_flight, self.fed = [], 0, 0, 0, 0
        self._build(cluster, model, placement, flow)
        self.gathered = []
        if self.online:
            for number, (arrival_s, *lengths) in enumerate(requests):
                self.at(start_s + arrival_s, self.feed, Request(number, *lengths))
        else:
            for position in range(initial_requests):
                self.draw(start_s + 0.1 * position)

    def _build(self, cluster, model, placement, flow):
        coordinator = cluster.coordinator
        self.source = Node("source", nic_out=coordinator.nic_out_bytes_per_s)
        self.sink = Node("sink", nic_in=coordinator.nic_in_bytes_per_s)
        self.nodes = {}
        for queued in placement.layers:
            machine = cluster.machine_of(queued.node)
            profile = model.profile(machine.name)
            self.nodes[queued.node] = Node(
                queued.node,
                queued.first_layer,
                queued.count,
                machine.nic_in_bytes_per_s,
                machine.nic_out_bytes_per_s,
                queues={queued.first_layer + step: [] for step in range(queued.count)},
                layer=queued.first_layer,
                kv_capacity=placement.kv_capacity(cluster, model, queued.node),
                limits=profile.batch_limits(queued.count),
                prompt_s=profile.prompt_table_s.tolist(),
                decode_s=profile.decode_table_s.tolist(),
            )
        everybody = {"source": self.source, "sink": self.sink, **self.nodes}
        for sender_name, receiver_name in placement.links:
            sender, receiver = everybody[sender_name], everybody[receiver_name]
            wire = cluster.link(sender_name, receiver_name)
            at_coordinator = sender is self.source or receiver is self.sink
            sender.out.append(
                Link(
                    sender,
                    receiver,
                    wire.bandwidth_bytes_per_s,
                    wire.latency_s,
                    model.token_bytes + (0 if at_coordinator else model.activation_bytes),
                    flow[sender_name, receiver_name] if flow else 0.0,
                    0 if sender is self.source else sender.end_layer,
                )
            )
        links = [link for node in everybody.values() for link in node.out]
        for link in links if flow else ():
            # Shares of the network cards are shares of the bytes that the flow sends.
            out = sum(other.flow * other.bytes_per_token for other in link.sender.out)
            into = sum(
                other.flow * other.bytes_per_token for other in links if other.receiver is link.receiver
            )
            own = link.flow * link.bytes_per_token
            if own > 0:
                rate = min(link.bandwidth_bytes_per_s, link.sender.nic_out * own / out,
                           link.receiver.nic_in * own / into)  # fmt: skip
                link.rate = math.floor(rate)

    # Events

    def at(self, time_s, handler, *subjects):
        heapq.heappush(self.events, (time_s, self.created, handler, subjects))
        self.created += 1

    def soon(self, handler, *subjects):
        """At this instant, after everything that is due by now."""
        self.at(self.now_s, handler, *subjects)

    def run(self, until_s=math.inf):
        while True:
            while self.events and self.events[0][0] < until_s:
                self.now_s, _, handler, subjects = heapq.heappop(self.events)
                handler(*subjects)
            if self.events or not self.in_flight:
                return
            # A sender whose link had nothing to give looks again only when something happens to it, and
            # nothing does any more. The reference would stand still here.
            for node in (*self.nodes.values(), self.source):
                self.send(node)

    # The coordinator

    def draw(self, time_s):
        """Lengths are drawn when it is decided that a request will come, not when it comes."""
        lengths = next(self.requests, None)
        if lengths is not None:
            self.at(time_s, self.feed, Request(self.fed, *lengths))
            self.fed += 1

    def feed(self, request):
        request.arrival_s = self.now_s
        if self.scheduler == "helix" and not self.plan(request):
            self.dropped += 1
            return
        self.in_flight += 1
        self.start_iteration(request)

    def start_iteration(self, request):
        is_prompt = request.iteration == 0
        item = WorkItem(
            request,
            tokens=request.input_tokens if is_prompt else 1,
            is_prompt=is_prompt,
            context_tokens=0 if is_prompt else request.input_tokens + request.iteration - 1,
            start_s=self.now_s,
        )
        if self.scheduler == "helix" and not is_prompt:
            for link in request.path:
                link.load += 1 / link.flow
        self.source.ready.append(item)
        self.soon(self.send, self.source)

    def arrive_at_sink(self, item):
        self.gathered.append(item)
        self.soon(self.gather)

    def gather(self):
        for item in self.gathered:
            request = item.request
            self.iterations.append((request.number, request.iteration, item.tokens, item.start_s, self.now_s))
            finished = request.iteration == request.output_tokens
            if finished:
                self.in_flight -= 1
                self.finished += 1
                self.forget(request)
            else:
                request.iteration += 1
                self.soon(self.start_iteration, request)
            self.feed_on(finished, item.is_prompt)
        self.gathered = []

    def feed_on(self, request_finished, prompt_finished):
        """Offline: feed one more request, now that a request or prompt has ended, if the rules allow it."""
        if self.online or self.now_s > self.end_s:
            return
        if self.scheduler == "helix":
            lets_in = (request_finished or prompt_finished) and self.fullest() <= 0.8
        else:
            lets_in = request_finished
        if lets_in:
            self.draw(self.now_s + 0.1)

    def forget(self, request):
        for link in request.path:
            node = link.receiver
            node.kv_used -= (request.input_tokens + request.output_tokens) * link.layers
            if request.booked:
                node.kv_expected -= self.expected_tokens(request) * link.layers

    # Schedulers

    def expected_tokens(self, request):
        return int(request.input_tokens + self.output_ratio * 240)

    def plan(self, request):
        """Helix: choose the whole pipeline; false if some node has no next one that fits."""
        expected = self.expected_tokens(request)
        node = self.source
        while node is not self.sink:
            candidates = [
                link for link in node.out
                if link.flow > 0
                and link.flow >= 0.05 * sum(other.flow for other in node.out)
                and (
                    link.receiver is self.sink
                    or (
                        request.input_tokens <= link.receiver.limits.prompt_tokens
                        and link.receiver.kv_capacity - link.receiver.kv_expected
                        - expected * link.receiver.layers
                        >= (1 - self.high_water_mark) * link.receiver.kv_capacity
                    )
                )
            ]  # fmt: skip
            if not candidates:
                # The loads go back by subtraction, which may leave a last digit behind.
                for link in request.path:
                    link.load -= request.input_tokens / link.flow
                return False
            chosen = min(candidates, key=lambda link: link.load + request.input_tokens / link.flow)
            chosen.load += request.input_tokens / chosen.flow
            request.path.append(chosen)
            node = chosen.receiver
        request.booked = True
        for link in request.path:
            link.receiver.kv_expected += expected * link.layers
        return True

    def fullest(self):
        """Expected KV use of the fullest layer, every node's cache spread evenly over its layers."""
        total, free = {}, {}
        for node in self.nodes.values():
            for layer in range(node.first_layer, node.end_layer):
                total[layer] = total.get(layer, 0) + node.kv_capacity / node.layers
                free[layer] = free.get(layer, 0) + (node.kv_capacity - node.kv_expected) / node.layers
        return max(1 - free[layer] / total[layer] for layer in total)

    def choose_swarm(self, node):
        best = min(node.out, key=lambda link: link.priority)
        best.priority += best.service_s
        return best

    def choose_drawing(self, free):
        """A uniform choice among the free links, or those whose receivers have the shortest queue."""
        picked, found, fewest = None, 0, 0
        for link in free:
            length = 0
            if self.scheduler == "shortest-queue":
                length = len(link.receiver.queues[link.receiver.first_layer]) if link.receiver.layers else -1
            if found and length > fewest:
                continue
            if not found or length < fewest:
                fewest, found = length, 0
            found += 1
            if self.random.uniform() * found < 1:
                picked = link
        return picked

    # Links

    def free_rate(self, link):
        """What a link may send with now, for schedulers without a flow to follow."""
        return min(
            link.sender.nic_out / len(link.sender.out) - link.used,
            link.bandwidth_bytes_per_s - link.used,
            link.sender.nic_out - link.sender.nic_out_used,
            link.receiver.nic_in - link.receiver.nic_in_used,
        )

    def send(self, node):
        """Start sending whatever can be sent from a node."""
        if self.scheduler == "helix":
            self._send_along_flow(node)
        elif self.scheduler == "swarm":
            self._send_from_queues(node)
        else:
            self._send_over_free_links(node)

    def _send_along_flow(self, node):
        kept, asked = [], set()
        for item in node.ready:
            link = item.request.path[item.hop + 1]
            if link in asked or link.sending:
                kept.append(item)
            else:
                self.transmit(link, item, link.rate)
            asked.add(link)
        node.ready = kept

    def _send_from_queues(self, node):
        for item in node.ready:
            arrived_by = item.link
            if arrived_by is not None:
                elapsed_s = self.now_s - item.sent_s
                arrived_by.service_s = 0.8 * elapsed_s + (1 - 0.8) * arrived_by.service_s
                self.soon(self.send, arrived_by.sender)
        for item in node.ready:
            if item.is_prompt:
                item.request.path.append(self.choose_swarm(node))
            item.request.path[item.hop + 1].waiting.append(item)
        node.ready = []
        rates = {link: self.free_rate(link) for link in node.out}
        for link, rate in rates.items():
            if rate > MIN_FREE_BYTES_PER_S and link.waiting:
                self.transmit(link, link.waiting.pop(0), rate)

    def _send_over_free_links(self, node):
        rates = {link: self.free_rate(link) for link in node.out}
        free = [link for link in node.out if rates[link] > MIN_FREE_BYTES_PER_S]
        taken, kept = {}, []
        for item in node.ready:
            if item.is_prompt:
                link = self.choose_drawing([link for link in free if link not in taken])
                if link is not None:
                    item.request.path.append(link)
            else:
                link = item.request.path[item.hop + 1]
            if link is None or link not in free or link in taken:
                kept.append(item)
            else:
                taken[link] = item
        node.ready = kept
        for link in free:
            if link in taken:
                self.transmit(link, taken[link], rates[link])

    def transmit(self, link, item, rate):
        item.hop += 1
        item.sent_s = self.now_s
        link.sending += 1
        link.used += rate
        link.sender.nic_out_used += rate
        link.receiver.nic_in_used += rate
        duration_s = link.latency_s + item.tokens * link.bytes_per_token / rate
        self.at(self.now_s + duration_s - link.latency_s, self.finish_sending, link, item, rate)

    def finish_sending(self, link, item, rate):
        link.sending -= 1
        link.used -= rate
        link.sender.nic_out_used -= rate
        link.receiver.nic_in_used -= rate
        self.soon(self.send, link.sender)
        self.at(self.now_s + link.latency_s, self.arrive, link, item)

    def arrive(self, link, item):
        node = link.receiver
        if node is self.sink:
            self.arrive_at_sink(item)
            return
        node.queues[link.entry_layer].append(item)
        node.received_tokens += item.tokens
        self.soon(self.start_batch, node)

    # Nodes

    def start_batch(self, node):
        if node.batch:
            return
        if not node.queues[node.layer]:
            node.layer = node.next_waiting()
        prompts = prompt_tokens = decodes = context_tokens = 0
        kept = []
        for item in node.queues[node.layer]:
            if item.is_prompt:
                fits = (
                    prompts + 1 <= node.limits.prompt_requests
                    and prompt_tokens + item.tokens <= node.limits.prompt_tokens
                )
            else:
                fits = (
                    decodes + 1 <= node.limits.decode_tokens
                    and context_tokens + item.context_tokens <= node.limits.decode_context_tokens
                )
            if not fits:
                kept.append(item)
                continue
            node.batch.append(item)
            if item.is_prompt:
                prompts += 1
                prompt_tokens += item.tokens
            else:
                decodes += 1
                context_tokens += item.context_tokens
        node.queues[node.layer] = kept
        if not node.batch:
            return
        duration_s = node.prompt_s[prompt_tokens] + node.decode_s[decodes]
        if node.layer == node.first_layer:
            received_bytes = node.received_tokens * self.activation_bytes
            duration_s += received_bytes / 4e9 + received_bytes / 5e9
            node.received_tokens = 0
        self.at(self.now_s + duration_s, self.finish_layer, node)

    def finish_layer(self, node):
        for item in node.batch:
            node.kv_used += item.tokens
            if node.layer + 1 < node.end_layer:
                node.queues[node.layer + 1].append(item)
            else:
                node.ready.append(item)
        if node.layer + 1 == node.end_layer:
            self.soon(self.send, node)
        node.batch = []
        node.layer = node.next_waiting()
        self.soon(self.start_batch, node)
