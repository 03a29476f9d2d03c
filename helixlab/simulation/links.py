"""A link: requests wait for it in order, it sends them at a rate, they arrive a latency later."""

from __future__ import annotations

from helixlab.jit import inlined
from helixlab.scheduling.state import NONE
from helixlab.simulation.breakdown import LINK_WAIT, SENDING, put_down
from helixlab.simulation.followups import ARRIVED, SEND, follow
from helixlab.simulation.heap import ARRIVE, SENT, push

__all__ = ["BAD_LINK", "belongs", "offer_rate", "send_at_shared_rate", "sent", "transmit", "wait_for_link"]

BAD_LINK = 1
"""Error: a scheduler chose a link that is not the sender's, or one that the flow it follows leaves empty."""
LEAST_RATE_BYTES_PER_S = 10.0
"""A link with less to give is not free."""


@inlined
def wait_for_link(nodes, links, requests, row, chosen):
    """Join the queue of a link; links with a queue are listed at their sender, in their order."""
    link = links[chosen]
    if link.waiting_head == NONE:
        link.waiting_head = row
        sender = nodes[link.sender]
        before = NONE
        after = sender.first_waiting_link
        while after != NONE and after < chosen:
            before = after
            after = links[after].next_waiting_link
        link.next_waiting_link = after
        if before == NONE:
            sender.first_waiting_link = chosen
        else:
            links[before].next_waiting_link = chosen
    else:
        requests[link.waiting_tail].next = row
    link.waiting_tail = row


@inlined
def offer_rate(nodes, links, row):
    """What a link could send with now: its share of both network cards, 0 if it is not free."""
    link = links[row]
    sender = nodes[link.sender]
    receiver = nodes[link.receiver]
    rate = min(
        sender.nic_out_bytes_per_s / sender.links - link.used_bytes_per_s,
        link.bandwidth_bytes_per_s - link.used_bytes_per_s,
        sender.nic_out_bytes_per_s - sender.nic_out_used_bytes_per_s,
        receiver.nic_in_bytes_per_s - receiver.nic_in_used_bytes_per_s,
    )
    link.free_rate_bytes_per_s = rate if rate > LEAST_RATE_BYTES_PER_S else 0.0


@inlined
def send_at_shared_rate(state, row, chosen):
    """Send at what the network cards have left, and tell when that is done."""
    link = state.links[chosen]
    request = state.requests[row]
    rate = link.free_rate_bytes_per_s
    link.free_rate_bytes_per_s = 0.0
    request.rate_bytes_per_s = rate
    link.used_bytes_per_s += rate
    state.nodes[link.sender].nic_out_used_bytes_per_s += rate
    state.nodes[link.receiver].nic_in_used_bytes_per_s += rate
    now_s = state.run[0].now_s
    sent_s = transmit(state, row, chosen, now_s, rate)
    push(state.run, state.events, sent_s, now_s, SENT, row)


@inlined
def transmit(state, row, chosen, start_s, rate_bytes_per_s):
    """Put a request on its link, which sends it from `start_s` on; gives when it is sent."""
    request = state.requests[row]
    link = state.links[chosen]
    request.hop += 1
    request.link = chosen
    request.sent_s = start_s
    request.next = NONE
    # Added and taken away in the reference's order, to be equal to the last digit.
    sent_s = start_s + (link.latency_s + request.tokens * link.bytes_per_token / rate_bytes_per_s)
    sent_s -= link.latency_s
    if state.run[0].keep_breakdown:
        link.wait_s += put_down(state.spent, row, LINK_WAIT, start_s)
        put_down(state.spent, row, SENDING, sent_s)
    link.busy_s += max(sent_s - max(start_s, link.free_at_s), 0.0)
    link.free_at_s = max(link.free_at_s, sent_s)
    link.sent_tokens += request.tokens
    return sent_s


@inlined
def sent(state, row):
    """A request has left its sender: give the rate back, let the sender go on."""
    request = state.requests[row]
    link = state.links[request.link]
    rate = request.rate_bytes_per_s
    link.used_bytes_per_s -= rate
    state.nodes[link.sender].nic_out_used_bytes_per_s -= rate
    state.nodes[link.receiver].nic_in_used_bytes_per_s -= rate
    follow(state.run, state.followups, SEND, link.sender)
    now_s = state.run[0].now_s
    if link.latency_s > 0:
        push(state.run, state.events, now_s + link.latency_s, now_s, ARRIVE, row)
    else:
        follow(state.run, state.followups, ARRIVED, row)


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
