"""Links and the nodes that send over them: who takes which link, at what rate, and when it arrives."""

from __future__ import annotations

from helixlab._jit import inlined
from helixlab.engine.queues import ARRIVE, ARRIVED, SEND, SENT, follow, push
from helixlab.engine.recording import LINK_WAIT, SENDING, attribute
from helixlab.engine.requests import discard, is_preempted
from helixlab.engine.state import NONE, view

__all__ = [
    "BAD_LINK",
    "belongs",
    "get_ready",
    "offer_rate",
    "send",
    "send_at_shared_rate",
    "sent",
    "transmit",
    "wait_for_link",
]


BAD_LINK = 1
"""Error: a scheduler chose a link that is not the sender's, or one that the flow it follows leaves empty."""
LEAST_RATE_BYTES_PER_S = 10.0
"""A link with less to give is not free."""


@inlined
def wait_for_link(nodes, links, work_items, row, chosen):
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
        work_items[link.waiting_tail].next = row
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
    item = state.work_items[row]
    rate = link.free_rate_bytes_per_s
    link.free_rate_bytes_per_s = 0.0
    item.rate_bytes_per_s = rate
    link.used_bytes_per_s += rate
    state.nodes[link.sender].nic_out_used_bytes_per_s += rate
    state.nodes[link.receiver].nic_in_used_bytes_per_s += rate
    now_s = state.run[0].now_s
    sent_s = transmit(state, row, chosen, now_s, rate)
    push(state.run, state.events, sent_s, now_s, SENT, row)


@inlined
def transmit(state, row, chosen, start_s, rate_bytes_per_s):
    """Put a work item on its link, which sends it from `start_s` on; gives when it is sent."""
    item = state.work_items[row]
    link = state.links[chosen]
    item.hop += 1
    item.link = chosen
    item.sent_s = start_s
    item.next = NONE
    # Added and taken away in the reference's order, to be equal to the last digit.
    sent_s = start_s + (link.latency_s + item.tokens * link.bytes_per_token / rate_bytes_per_s)
    sent_s -= link.latency_s
    if state.run[0].keep_breakdown:
        link.wait_s += attribute(state.spent, row, LINK_WAIT, start_s)
        attribute(state.spent, row, SENDING, sent_s)
    link.busy_s += max(sent_s - max(start_s, link.free_at_s), 0.0)
    link.free_at_s = max(link.free_at_s, sent_s)
    link.sent_tokens += item.tokens
    return sent_s


@inlined
def sent(state, row):
    """A work item has left its sender: give the rate back, let the sender go on."""
    item = state.work_items[row]
    link = state.links[item.link]
    rate = item.rate_bytes_per_s
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


@inlined
def get_ready(runs, nodes, work_items, node, row):
    """A work item is ready to leave `node`; the next hop of its pipeline may not be chosen yet."""
    item = work_items[row]
    run = runs[0]
    item.kv_reserved = 0
    item.reported = 0
    item.ready_order = run.next_ready_order
    run.next_ready_order += 1
    _to_outbox(nodes, work_items, node, row)


@inlined
def _to_outbox(nodes, work_items, node, row):
    sender = nodes[node]
    work_items[row].next = NONE
    if sender.outbox_head == NONE:
        sender.outbox_head = row
    else:
        work_items[sender.outbox_tail].next = row
    sender.outbox_tail = row


@inlined
def send(state, node, choose, on_ready):
    """Let a node choose links for what is ready, and its links send."""
    run = state.run[0]
    if run.fixed_rates:
        _send_at_fixed_rates(state, node, choose, on_ready)
    elif run.picks_free_links:
        _send_on_free_links(state, node, choose, on_ready)
    else:
        _send_by_queue(state, node, choose, on_ready)


@inlined
def _first_ready(state, node, on_ready):
    """Take the first work item out of the outbox, NONE if it is empty, and tell the scheduler of it."""
    sender = state.nodes[node]
    row = sender.outbox_head
    if row == NONE:
        return NONE
    item = state.work_items[row]
    sender.outbox_head = item.next
    item.next = NONE
    if item.hop != NONE and item.reported == 0:
        on_ready(state.links[item.link], state.run[0].now_s - item.sent_s)
        item.reported = 1
    return row


@inlined
def _next_link(state, node, row, choose):
    """The link of a work item's next hop: chosen before, or by the scheduler now, or NONE."""
    item = state.work_items[row]
    request = item.request
    hop = item.hop + 1
    if not item.is_prompt:
        return state.pipelines[request, hop]
    entry = state.requests[request]
    if hop < entry.hops:
        return state.pipelines[request, hop]
    chosen = choose(view(state), node, request)
    if chosen == NONE or not belongs(state, node, chosen):
        return NONE
    state.pipelines[request, hop] = chosen
    entry.hops = hop + 1
    return chosen


@inlined
def _send_at_fixed_rates(state, node, choose, on_ready):
    """The rates never change, so it is known at once when a link will be free for each work item."""
    while True:
        row = _first_ready(state, node, on_ready)
        if row == NONE:
            return
        if is_preempted(state.run, state.requests, state.work_items[row].request):
            discard(state, row)
            continue
        chosen = _next_link(state, node, row, choose)
        if chosen == NONE:
            return  # the scheduler plans ahead, so this is an error, noted in the run
        link = state.links[chosen]
        start_s = max(state.run[0].now_s, link.free_at_s)
        sent_s = transmit(state, row, chosen, start_s, link.rate_bytes_per_s)
        created_s = sent_s if link.latency_s > 0 else start_s
        push(state.run, state.events, sent_s + link.latency_s, created_s, ARRIVE, row)


@inlined
def _send_by_queue(state, node, choose, on_ready):
    """Every work item joins the queue of its link at once; then each free link sends its first."""
    sender = state.nodes[node]
    last = sender.outbox_tail if sender.outbox_head != NONE else NONE
    last_sender = NONE
    row = NONE
    while row != last:
        row = _first_ready(state, node, on_ready)
        item = state.work_items[row]
        if item.hop != NONE:
            # Where it came from the links look different now.
            before = state.links[item.link].sender
            if before != last_sender:
                follow(state.run, state.followups, SEND, before)
                last_sender = before
        if is_preempted(state.run, state.requests, item.request):
            discard(state, row)
            continue
        chosen = _next_link(state, node, row, choose)
        if chosen == NONE:
            _to_outbox(state.nodes, state.work_items, node, row)
        else:
            wait_for_link(state.nodes, state.links, state.work_items, row, chosen)
    _send_waiting(state, node)


@inlined
def _send_waiting(state, node):
    """Each free link with work items in its queue sends the first, at the rates there are before any does."""
    sender = state.nodes[node]
    chosen = sender.first_waiting_link
    while chosen != NONE:
        offer_rate(state.nodes, state.links, chosen)
        chosen = state.links[chosen].next_waiting_link
    chosen = sender.first_waiting_link
    before = NONE
    while chosen != NONE:
        link = state.links[chosen]
        while link.waiting_head != NONE and link.free_rate_bytes_per_s > 0:
            row = link.waiting_head
            link.waiting_head = state.work_items[row].next
            if is_preempted(state.run, state.requests, state.work_items[row].request):
                discard(state, row)
            else:
                send_at_shared_rate(state, row, chosen)
        if link.waiting_head != NONE:
            before = chosen
        elif before == NONE:
            sender.first_waiting_link = link.next_waiting_link
        else:
            state.links[before].next_waiting_link = link.next_waiting_link
        chosen = link.next_waiting_link


@inlined
def _send_on_free_links(state, node, choose, on_ready):
    """Work items, in the order they got ready, take their link if it is free, or have a free one chosen."""
    sender = state.nodes[node]
    undecided = NONE
    tail = NONE
    while sender.outbox_head != NONE:
        row = _first_ready(state, node, on_ready)
        item = state.work_items[row]
        if is_preempted(state.run, state.requests, item.request):
            discard(state, row)
        elif item.hop + 1 < state.requests[item.request].hops:
            wait_for_link(
                state.nodes, state.links, state.work_items, row, _next_link(state, node, row, choose)
            )
        else:
            if undecided == NONE:
                undecided = row
            else:
                state.work_items[tail].next = row
            tail = row
    if undecided != NONE:
        _choose_free_links(state, node, undecided, choose)
    _send_waiting(state, node)


@inlined
def _choose_free_links(state, node, row, choose):
    """Go through a list of undecided work items; those without a free link stay in the outbox."""
    sender = state.nodes[node]
    for chosen in range(sender.first_link, sender.first_link + sender.links):
        offer_rate(state.nodes, state.links, chosen)
        state.links[chosen].taken = 0
    while row != NONE:
        item = state.work_items[row]
        following = item.next
        item.next = NONE
        # Free links on which something older waits will send that.
        chosen = sender.first_waiting_link
        while chosen != NONE:
            link = state.links[chosen]
            if state.work_items[link.waiting_head].ready_order < item.ready_order:
                link.taken = 1
            chosen = link.next_waiting_link
        chosen = _next_link(state, node, row, choose)
        if chosen == NONE:
            _to_outbox(state.nodes, state.work_items, node, row)
        else:
            link = state.links[chosen]
            link.taken = 1
            ahead = link.waiting_head
            if ahead == NONE or state.work_items[ahead].ready_order < item.ready_order:
                wait_for_link(state.nodes, state.links, state.work_items, row, chosen)
            else:
                link.waiting_head = row
                item.next = ahead
        row = following
