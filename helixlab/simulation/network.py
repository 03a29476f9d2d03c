"""Links: each sends one request at a time, first come first served."""

from __future__ import annotations

from helixlab.jit import inlined
from helixlab.scheduling.state import NONE, view
from helixlab.simulation.heap import ARRIVE, LINK_FREE, push
from helixlab.simulation.held import take_back
from helixlab.simulation.marks import SEND, mark

__all__ = ["BAD_LINK", "link_free", "send", "to_outbox"]

BAD_LINK = 1
"""Error: a scheduler chose a link that is not the sender's, or one that is not free."""


@inlined
def to_outbox(state, node, query):  # type: ignore[no-untyped-def]
    """A request is ready to leave `node` on the next hop of its pipeline, which may not be chosen yet."""
    sender = state.nodes[node]
    request = state.requests[query]
    request.hop += 1
    request.kv_reserved = 0
    request.link = state.pipelines[query, request.hop] if request.hop < state.queries[query].hops else NONE
    request.next = NONE
    if sender.outbox_head == NONE:
        sender.outbox_head = query
    else:
        state.requests[sender.outbox_tail].next = query
    sender.outbox_tail = query
    mark(state, SEND, node)


@inlined
def send(state, node, choose):  # type: ignore[no-untyped-def]
    """Send what can be sent from a node's outbox, in the order it became ready."""
    sender = state.nodes[node]
    query = sender.outbox_head
    sender.outbox_head = NONE
    sender.outbox_tail = NONE
    while query != NONE:
        request = state.requests[query]
        following = request.next
        request.next = NONE
        if state.queries[query].evicted:
            take_back(state, query)
        elif not _send_one(state, node, query, choose):
            if sender.outbox_head == NONE:
                sender.outbox_head = query
            else:
                state.requests[sender.outbox_tail].next = query
            sender.outbox_tail = query
        query = following


@inlined
def _send_one(state, node, query, choose):  # type: ignore[no-untyped-def]
    """Send one request if its link can be chosen and is free; tell whether that was so."""
    run = state.run[0]
    request = state.requests[query]
    if request.link == NONE:
        row = choose(view(state), node, query)
        if row == NONE:
            return False
        if not belongs(state, node, row):
            return True
        request.link = row
        state.pipelines[query, request.hop] = row
        state.queries[query].hops = request.hop + 1
    link = state.links[request.link]
    size = request.tokens * link.bytes_per_token
    if run.fixed_rates:
        # The rate never changes, so when the link will be free is known at once.
        start_s = max(run.now_s, link.free_at_s)
    else:
        start_s = run.now_s
        if link.sending or not _take_rate(state, link):
            return False
        link.sending = 1
    seconds = size / link.rate_bytes_per_s
    link.free_at_s = start_s + seconds
    link.busy_s += seconds
    link.sent_tokens += request.tokens
    request.sent_s = start_s
    if not run.fixed_rates:
        push(state, link.free_at_s, run.now_s, LINK_FREE, request.link)
    push(state, start_s + (seconds + link.latency_s), start_s, ARRIVE, query)
    return True


@inlined
def belongs(state, node, row):  # type: ignore[no-untyped-def]
    """Whether a scheduler's choice is a link of that sender; notes an error if not."""
    sender = state.nodes[node]
    if sender.first_link <= row < sender.first_link + sender.links:
        return True
    state.run[0].error = BAD_LINK
    state.run[0].error_subject = node
    return False


@inlined
def _take_rate(state, link):  # type: ignore[no-untyped-def]
    """Give a free link its share of both network cards; false if the receiver's has nothing left."""
    sender = state.nodes[link.sender]
    receiver = state.nodes[link.receiver]
    rate = min(
        sender.nic_out_bytes_per_s / sender.links,
        link.bandwidth_bytes_per_s,
        sender.nic_out_bytes_per_s - sender.nic_out_used_bytes_per_s,
        receiver.nic_in_bytes_per_s - receiver.nic_in_used_bytes_per_s,
    )
    if rate < 1e-9 * link.bandwidth_bytes_per_s:
        receiver.senders_blocked = 1
        return False
    link.rate_bytes_per_s = rate
    sender.nic_out_used_bytes_per_s += rate
    receiver.nic_in_used_bytes_per_s += rate
    return True


@inlined
def link_free(state, row):  # type: ignore[no-untyped-def]
    """A link has sent its request: give the rate back, let its sender go on."""
    link = state.links[row]
    link.sending = 0
    state.nodes[link.sender].nic_out_used_bytes_per_s -= link.rate_bytes_per_s
    receiver = state.nodes[link.receiver]
    receiver.nic_in_used_bytes_per_s -= link.rate_bytes_per_s
    mark(state, SEND, link.sender)
    if receiver.senders_blocked:
        receiver.senders_blocked = 0
        for other in state.links:
            if other.receiver == link.receiver:
                mark(state, SEND, other.sender)
