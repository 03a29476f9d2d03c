"""Links and their senders: the choice of a link, the rate of sending, and the time of arrival."""

from __future__ import annotations

from helixlab._jit import inlined
from helixlab.engine.constants import EngineError, EventKind, FollowUp, Part
from helixlab.engine.queues import add_followup, append_row, push_event
from helixlab.engine.recording import attribute_time
from helixlab.engine.requests import discard_work_item, is_preempted
from helixlab.engine.state import NONE, view

__all__ = [
    "finish_sending",
    "queue_for_link",
    "release_work_item",
    "send_at_shared_rate",
    "send_work_items",
    "transmit_work_item",
    "update_free_rate",
    "validate_choice",
]


LEAST_RATE_BYTES_PER_S = 10.0
"""Least rate of a free link."""


@inlined
def queue_for_link(nodes, links, work_items, row, chosen):
    """Queue a work item for a link; a sender lists its links with a queue, in the order of their rows."""
    link = links[chosen]
    if link.waiting_head == NONE:
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
    link.waiting_head = append_row(work_items, link.waiting_head, link.waiting_tail, row)
    link.waiting_tail = row


@inlined
def update_free_rate(nodes, links, row):
    """Update the rate at which a link could send now: its share of both network cards, 0 if not free."""
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
    """Send a work item at the rate that the network cards have left, until the event SENT."""
    link = state.links[chosen]
    item = state.work_items[row]
    rate = link.free_rate_bytes_per_s
    link.free_rate_bytes_per_s = 0.0
    item.rate_bytes_per_s = rate
    link.used_bytes_per_s += rate
    state.nodes[link.sender].nic_out_used_bytes_per_s += rate
    state.nodes[link.receiver].nic_in_used_bytes_per_s += rate
    now_s = state.run[0].now_s
    sent_s = transmit_work_item(state, row, chosen, now_s, rate)
    push_event(state.run, state.events, sent_s, now_s, EventKind.SENT, row)


@inlined
def transmit_work_item(state, row, chosen, start_s, rate_bytes_per_s):
    """Put a work item on its link, which sends it from `start_s` on; return the time when it is sent."""
    item = state.work_items[row]
    link = state.links[chosen]
    item.hop += 1
    item.link = chosen
    item.sent_s = start_s
    item.next = NONE
    # Added and subtracted in the order of the reference, to be equal to the last digit.
    sent_s = start_s + (link.latency_s + item.tokens * link.bytes_per_token / rate_bytes_per_s)
    sent_s -= link.latency_s
    if state.run[0].keep_breakdown:
        link.wait_s += attribute_time(state.spent, row, Part.LINK_WAIT, start_s)
        attribute_time(state.spent, row, Part.SENDING, sent_s)
    link.busy_s += max(sent_s - max(start_s, link.free_at_s), 0.0)
    link.free_at_s = max(link.free_at_s, sent_s)
    link.sent_tokens += item.tokens
    return sent_s


@inlined
def finish_sending(state, row):
    """Finish sending a work item: free the rate of its link, and let the sender go on."""
    item = state.work_items[row]
    link = state.links[item.link]
    rate = item.rate_bytes_per_s
    link.used_bytes_per_s -= rate
    state.nodes[link.sender].nic_out_used_bytes_per_s -= rate
    state.nodes[link.receiver].nic_in_used_bytes_per_s -= rate
    add_followup(state.run, state.followups, FollowUp.SEND, link.sender)
    now_s = state.run[0].now_s
    if link.latency_s > 0:
        push_event(state.run, state.events, now_s + link.latency_s, now_s, EventKind.ARRIVE, row)
    else:
        add_followup(state.run, state.followups, FollowUp.ARRIVED, row)


@inlined
def validate_choice(state, node, row):
    """Tell whether a scheduler has chosen a link of the sender that can send; if not, set an error."""
    sender = state.nodes[node]
    run = state.run[0]
    own = sender.first_link <= row < sender.first_link + sender.links
    if own and (not run.fixed_rates or state.links[row].rate_bytes_per_s > 0):
        return True
    run.error = EngineError.BAD_LINK
    run.error_subject = node
    return False


@inlined
def release_work_item(runs, nodes, work_items, node, row):
    """Release a work item to the outbox of `node`; the next hop of its pipeline may not be chosen yet."""
    item = work_items[row]
    run = runs[0]
    item.kv_reserved = 0
    item.reported = 0
    item.ready_order = run.next_ready_order
    run.next_ready_order += 1
    _append_to_outbox(nodes, work_items, node, row)


@inlined
def _append_to_outbox(nodes, work_items, node, row):
    sender = nodes[node]
    sender.outbox_head = append_row(work_items, sender.outbox_head, sender.outbox_tail, row)
    sender.outbox_tail = row


@inlined
def send_work_items(state, node, choose, on_ready):
    """Choose links for the work items in the outbox of a node, and let its links send."""
    run = state.run[0]
    if run.fixed_rates:
        _send_at_fixed_rates(state, node, choose, on_ready)
    elif run.picks_free_links:
        _send_on_free_links(state, node, choose, on_ready)
    else:
        _send_by_queue(state, node, choose, on_ready)


@inlined
def _take_from_outbox(state, node, on_ready):
    """Take the first work item out of the outbox, NONE if it is empty, and report it to the scheduler."""
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
def _choose_next_link(state, node, row, choose):
    """Choose the link of a work item's next hop: that of its pipeline, else the scheduler's, maybe NONE."""
    item = state.work_items[row]
    request = item.request
    hop = item.hop + 1
    if not item.is_prompt:
        return state.pipelines[request, hop]
    entry = state.requests[request]
    if hop < entry.hops:
        return state.pipelines[request, hop]
    chosen = choose(view(state), node, request)
    if chosen == NONE or not validate_choice(state, node, chosen):
        return NONE
    state.pipelines[request, hop] = chosen
    entry.hops = hop + 1
    return chosen


@inlined
def _send_at_fixed_rates(state, node, choose, on_ready):
    """Send everything in the outbox; as rates never change, it is known when each link will be free."""
    while True:
        row = _take_from_outbox(state, node, on_ready)
        if row == NONE:
            return
        if is_preempted(state.run, state.requests, state.work_items[row].request):
            discard_work_item(state, row)
            continue
        chosen = _choose_next_link(state, node, row, choose)
        if chosen == NONE:
            return  # the scheduler plans ahead, so this is an error, stored in the run
        link = state.links[chosen]
        start_s = max(state.run[0].now_s, link.free_at_s)
        sent_s = transmit_work_item(state, row, chosen, start_s, link.rate_bytes_per_s)
        created_s = sent_s if link.latency_s > 0 else start_s
        push_event(state.run, state.events, sent_s + link.latency_s, created_s, EventKind.ARRIVE, row)


@inlined
def _send_by_queue(state, node, choose, on_ready):
    """Queue everything in the outbox for its link; then let each free link send its first work item."""
    sender = state.nodes[node]
    last = sender.outbox_tail if sender.outbox_head != NONE else NONE
    last_sender = NONE
    row = NONE
    while row != last:
        row = _take_from_outbox(state, node, on_ready)
        item = state.work_items[row]
        if item.hop != NONE:
            # Its departure changes what the links of its last sender look like.
            before = state.links[item.link].sender
            if before != last_sender:
                add_followup(state.run, state.followups, FollowUp.SEND, before)
                last_sender = before
        if is_preempted(state.run, state.requests, item.request):
            discard_work_item(state, row)
            continue
        chosen = _choose_next_link(state, node, row, choose)
        if chosen == NONE:
            _append_to_outbox(state.nodes, state.work_items, node, row)
        else:
            queue_for_link(state.nodes, state.links, state.work_items, row, chosen)
    _send_waiting(state, node)


@inlined
def _send_waiting(state, node):
    """Let each free link send the first work item of its queue, at the rates before any of them sends."""
    sender = state.nodes[node]
    chosen = sender.first_waiting_link
    while chosen != NONE:
        update_free_rate(state.nodes, state.links, chosen)
        chosen = state.links[chosen].next_waiting_link
    chosen = sender.first_waiting_link
    before = NONE
    while chosen != NONE:
        link = state.links[chosen]
        while link.waiting_head != NONE and link.free_rate_bytes_per_s > 0:
            row = link.waiting_head
            link.waiting_head = state.work_items[row].next
            if is_preempted(state.run, state.requests, state.work_items[row].request):
                discard_work_item(state, row)
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
    """Send work items in the order they got ready: on their link if it is chosen, else on a free one."""
    sender = state.nodes[node]
    undecided = NONE
    tail = NONE
    while sender.outbox_head != NONE:
        row = _take_from_outbox(state, node, on_ready)
        item = state.work_items[row]
        if is_preempted(state.run, state.requests, item.request):
            discard_work_item(state, row)
        elif item.hop + 1 < state.requests[item.request].hops:
            queue_for_link(
                state.nodes, state.links, state.work_items, row, _choose_next_link(state, node, row, choose)
            )
        else:
            undecided = append_row(state.work_items, undecided, tail, row)
            tail = row
    if undecided != NONE:
        _choose_free_links(state, node, undecided, choose)
    _send_waiting(state, node)


@inlined
def _choose_free_links(state, node, row, choose):
    """Choose free links for a list of work items; those without one stay in the outbox."""
    sender = state.nodes[node]
    for chosen in range(sender.first_link, sender.first_link + sender.links):
        update_free_rate(state.nodes, state.links, chosen)
        state.links[chosen].taken = 0
    while row != NONE:
        item = state.work_items[row]
        following = item.next
        item.next = NONE
        # Free links with an older work item in their queue will send that one.
        chosen = sender.first_waiting_link
        while chosen != NONE:
            link = state.links[chosen]
            if state.work_items[link.waiting_head].ready_order < item.ready_order:
                link.taken = 1
            chosen = link.next_waiting_link
        chosen = _choose_next_link(state, node, row, choose)
        if chosen == NONE:
            _append_to_outbox(state.nodes, state.work_items, node, row)
        else:
            link = state.links[chosen]
            link.taken = 1
            ahead = link.waiting_head
            if ahead == NONE or state.work_items[ahead].ready_order < item.ready_order:
                queue_for_link(state.nodes, state.links, state.work_items, row, chosen)
            else:
                link.waiting_head = row
                item.next = ahead
        row = following
