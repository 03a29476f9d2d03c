"""Links: each sends one request at a time, first come first served."""

from __future__ import annotations

from helixlab.jit import inlined
from helixlab.scheduling.state import NONE, view
from helixlab.simulation.heap import ARRIVE, LINK_FREE, push
from helixlab.simulation.held import take_back
from helixlab.simulation.marks import SEND, mark

__all__ = ["BAD_LINK", "get_ready", "link_free", "send"]

BAD_LINK = 1
"""Error: a scheduler chose a link that is not the sender's, or one that the flow it follows leaves empty."""


@inlined
def get_ready(state, node, query):
    """A request is ready to leave `node` on the next hop of its pipeline, which may not be chosen yet."""
    run = state.run[0]
    request = state.requests[query]
    request.hop += 1
    request.kv_reserved = 0
    request.next = NONE
    request.ready_order = run.next_ready_order
    run.next_ready_order += 1
    request.link = state.pipelines[query, request.hop] if request.hop < state.queries[query].hops else NONE
    if request.link == NONE or run.fixed_rates:
        _to_outbox(state, node, query)
    else:
        _wait_for_link(state, query)
    mark(state, SEND, node)


@inlined
def _to_outbox(state, node, query):
    sender = state.nodes[node]
    if sender.outbox_head == NONE:
        sender.outbox_head = query
    else:
        state.requests[sender.outbox_tail].next = query
    sender.outbox_tail = query


@inlined
def _wait_for_link(state, query):
    """Queue a request at its link, in order of readiness."""
    request = state.requests[query]
    link = state.links[request.link]
    before = NONE
    after = link.waiting_head
    if after != NONE and state.requests[link.waiting_tail].ready_order < request.ready_order:
        before = link.waiting_tail
        after = NONE
    while after != NONE and state.requests[after].ready_order < request.ready_order:
        before = after
        after = state.requests[after].next
    request.next = after
    if before == NONE:
        link.waiting_head = query
    else:
        state.requests[before].next = query
    if after == NONE:
        link.waiting_tail = query


@inlined
def send(state, node, choose):
    """Let a node choose links for its prompts, then let its links send."""
    run = state.run[0]
    sender = state.nodes[node]
    query = sender.outbox_head
    sender.outbox_head = NONE
    while query != NONE:
        request = state.requests[query]
        following = request.next
        request.next = NONE
        if state.queries[query].evicted:
            take_back(state, query)
        else:
            if request.link == NONE:
                if run.picks_free_links:
                    _send_ready(state, node, request.ready_order)
                _choose_link(state, node, query, choose)
            if request.link == NONE:
                _to_outbox(state, node, query)
            elif run.fixed_rates:
                # The rate never changes, so it is known at once when the link will be free.
                _transmit(state, query, max(run.now_s, state.links[request.link].free_at_s))
            else:
                _wait_for_link(state, query)
                if run.picks_free_links:
                    _send_from(state, request.link)
        query = following
    if run.picks_free_links:
        _send_ready(state, node, run.next_ready_order)
    elif not run.fixed_rates:
        for row in range(sender.first_link, sender.first_link + sender.links):
            _send_from(state, row)


@inlined
def _choose_link(state, node, query, choose):
    row = choose(view(state), node, query)
    if row != NONE and belongs(state, node, row):
        request = state.requests[query]
        request.link = row
        state.pipelines[query, request.hop] = row
        state.queries[query].hops = request.hop + 1


@inlined
def _send_ready(state, node, before):
    """Let free links send requests that got ready earlier than `before`, in that order."""
    sender = state.nodes[node]
    while True:
        first = NONE
        for row in range(sender.first_link, sender.first_link + sender.links):
            link = state.links[row]
            if link.waiting_head == NONE or link.sending:
                continue
            order = state.requests[link.waiting_head].ready_order
            if order < before and (first == NONE or order < state.requests[first].ready_order):
                first = link.waiting_head
        if first == NONE or not _send_from(state, state.requests[first].link):
            return


@inlined
def _send_from(state, row):
    """Let a link send what waits for it, if it is free; tell whether it took anything."""
    link = state.links[row]
    took = False
    while link.waiting_head != NONE and not link.sending:
        query = link.waiting_head
        request = state.requests[query]
        if state.queries[query].evicted:
            link.waiting_head = request.next
            take_back(state, query)
            took = True
            continue
        if not _take_rate(state, link):
            return took
        link.waiting_head = request.next
        request.next = NONE
        _transmit(state, query, state.run[0].now_s)
        took = True
    return took


@inlined
def _transmit(state, query, start_s):
    """Put a request on its link, which sends it from `start_s` on."""
    run = state.run[0]
    request = state.requests[query]
    link = state.links[request.link]
    seconds = request.tokens * link.bytes_per_token / link.rate_bytes_per_s
    link.free_at_s = start_s + seconds
    link.busy_s += seconds
    link.sent_tokens += request.tokens
    request.sent_s = start_s
    if not run.fixed_rates:
        link.sending = 1
        push(state, link.free_at_s, run.now_s, LINK_FREE, request.link)
    push(state, start_s + (seconds + link.latency_s), start_s, ARRIVE, query)


@inlined
def belongs(state, node, row):
    """Whether a scheduler's choice is a link of that sender that can send; notes an error if not."""
    sender = state.nodes[node]
    run = state.run[0]
    own = sender.first_link <= row < sender.first_link + sender.links
    if own and (not run.fixed_rates or state.links[row].rate_bytes_per_s > 0):
        return True
    run.error = BAD_LINK
    run.error_subject = node
    return False


@inlined
def _take_rate(state, link):
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
def link_free(state, row):
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
