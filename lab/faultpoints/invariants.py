"""What must hold once all is quiet, besides `lab.invariants`: told by our own tables, row by row.

Each invariant returns what breaks it, '' if nothing does. A scenario may waive one by its name, with its reason beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from lab.collect import dead_letter_lines, message_lines, read_ledgers
from lab.faultpoints.environment import Environment
from lab.faultpoints.in_process import open_messages
from lab.invariants import check, messages
from lab.invariants.records import FINAL

#: Asked for again on purpose when a charge becomes known: the refund itself is what happens once.
_MAY_REPEAT = ("payments.tasks.refund_order",)


def nothing_is_enqueued_twice(environment: Environment) -> str:
    counted = Counter(
        (row.task, str(row.args), str(row.kwargs))
        for row in environment.rows("outbox.OutboxMessage")
        if row.task not in _MAY_REPEAT
    )
    return "; ".join(f"{times} x {' '.join(key)}" for key, times in counted.items() if times > 1)


def an_order_ends_once(environment: Environment) -> str:
    ends = Counter(
        (row.order_id, row.to_status)
        for row in environment.rows("orders.OrderTransition")
        if row.to_status in FINAL
    )
    return "; ".join(
        f"order {order} became {status} {times} times" for (order, status), times in ends.items() if times > 1
    )


def no_replay_is_under_way(environment: Environment) -> str:
    return ", ".join(row.message_id for row in environment.rows("dlq.DeadLetter") if row.state == "replaying")


def refunds_are_the_gateways(environment: Environment) -> str:
    ours = {
        (row.order_id, row.amount_cents)
        for row in environment.rows("payments.Refund")
        if row.status == "succeeded"
    }
    theirs = Counter(
        (int(entry["order_id"]), entry["amount"]) for entry in environment.sandbox.ledger("refunds")
    )
    return "" if Counter(ours) == theirs else f"ours {ours}, the gateway's {dict(theirs)}"


def only_the_committed_intent_is_captured(environment: Environment) -> str:
    known = {row.pk: row.payment_intent_id for row in environment.rows("orders.Order")}
    return "; ".join(
        f"order {entry['order_id']}: {entry['payment_intent']} was captured, {known.get(int(entry['order_id']))!r} is committed"
        for entry in environment.sandbox.ledger("charges")
        if known.get(int(entry["order_id"])) != entry["payment_intent"]
    )


def one_mail_per_reason(environment: Environment) -> str:
    ours = {row.message_id: row.status for row in environment.rows("notifications.EmailLog")}
    theirs = {entry["message_id"] for entry in environment.sandbox.ledger("mail")}
    unsent = [key for key, status in ours.items() if status != "sent"]
    return "" if not unsent and set(ours) == theirs else f"log {ours}, mail server {theirs}"


def every_order_is_confirmed(environment: Environment) -> str:
    orders = {row.pk for row in environment.rows("orders.Order")}
    mailed = {
        int(entry["message_id"].split("-")[2].split("@")[0])
        for entry in environment.sandbox.ledger("mail")
        if entry["message_id"].startswith("<confirmation-order-")
    }
    return "" if orders == mailed else f"orders {orders}, confirmations {mailed}"


def nothing_is_held(environment: Environment) -> str:
    held = []
    for label in ("webhooks.Delivery", "notifications.EmailLog", "orders.Order", "outbox.OutboxMessage"):
        if count := sum(row.lease_until is not None for row in environment.rows(label)):
            held.append(f"{count} leases of {label}")
    return ", ".join(held)


def webhooks_arrive_as_recorded(environment: Environment) -> str:
    """What is `sent` arrived and nothing else did, in the order of the transition logs: here no transactions overlap.

    `lab.invariants.effects.webhooks_arrive_in_order` holds for overlapping ones too, and so says less.
    """
    wrong = []
    customers = {row.pk: str(row.customer_id) for row in environment.rows("webhooks.Subscription")}
    for merchant in ("1", "2"):
        ours = [
            row.event_id
            for row in environment.rows("webhooks.Delivery")
            if row.status == "sent" and customers[row.subscription_id] == merchant
        ]
        theirs = [
            entry["webhook_id"]
            for entry in environment.sandbox.ledger("webhooks")
            if entry["merchant"] == merchant
        ]
        if ours != theirs:
            wrong.append(f"merchant {merchant}: sent as {ours}, arrived as {theirs}")
        happened = _events_as_they_happened(environment, merchant)
        if [event for event in theirs if event in happened] != [
            event for event in happened if event in theirs
        ]:
            wrong.append(f"merchant {merchant}: happened as {happened}, arrived as {theirs}")
    return "; ".join(wrong)


def _events_as_they_happened(environment: Environment, merchant: str) -> list[str]:
    """The ids of the customer's events, by the transition logs of its orders."""
    known = {
        (row.order_id, row.event_type): row.event_id
        for row in environment.rows("webhooks.Event")
        if str(row.customer_id) == merchant
    }
    log = [(row.order_id, f"order.{row.to_status}") for row in environment.rows("orders.OrderTransition")]
    return [known[end] for end in log if end in known]


def no_delivery_is_open(environment: Environment) -> str:
    return ", ".join(str(row) for row in environment.rows("webhooks.Delivery") if row.status == "open")


def totals_never_count_twice(environment: Environment) -> str:
    counted = sum(row.orders for row in environment.rows("orders.DailyTotals"))
    orders = sum(row.completed_at is not None for row in environment.rows("orders.Order"))
    return f"{counted} counted, {orders} completed" if counted > orders else ""


def every_event_of_the_gateway_is_applied_once(environment: Environment) -> str:
    events = [row.event_id for row in environment.rows("webhooks_incoming.IncomingEvent")]
    applied = [
        row.kwargs["event_id"]
        for row in environment.rows("outbox.OutboxMessage")
        if row.task == "payments.tasks.apply_gateway_event"
    ]
    return "" if Counter(events) == Counter(applied) else f"events {events}, messages {applied}"


def each_run_has_its_generation(environment: Environment) -> str:
    return "; ".join(
        f"{row}: {row.attempts} runs in generation {row.generation}"
        for row in environment.rows("outbox.OutboxMessage")
        if row.attempts > row.generation
    )


def nothing_is_sent_without_a_claim(environment: Environment) -> str:
    claims = {row.message_id: row.attempts for row in environment.rows("notifications.EmailLog")}
    claims |= {row.event_id: row.attempts for row in environment.rows("webhooks.Delivery")}
    sent = {entry["message_id"]: entry["copies"] for entry in environment.sandbox.ledger("mail")}
    sent |= {entry["webhook_id"]: entry["deliveries"] for entry in environment.sandbox.ledger("webhooks")}
    return "; ".join(
        f"{key}: sent {n} times, claimed {claims.get(key, 0)}"
        for key, n in sent.items()
        if n > claims.get(key, 0)
    )


def a_group_has_one_head(environment: Environment) -> str:
    return ", ".join(environment.processes.two_heads)


INVARIANTS: tuple[Callable[[Environment], str], ...] = (
    nothing_is_enqueued_twice,
    an_order_ends_once,
    no_replay_is_under_way,
    refunds_are_the_gateways,
    only_the_committed_intent_is_captured,
    one_mail_per_reason,
    every_order_is_confirmed,
    nothing_is_held,
    webhooks_arrive_as_recorded,
    no_delivery_is_open,
    totals_never_count_twice,
    every_event_of_the_gateway_is_applied_once,
    each_run_has_its_generation,
    nothing_is_sent_without_a_claim,
    a_group_has_one_head,
)


def violations(environment: Environment, *, accepted: list[int], waived: frozenset[str]) -> list[str]:
    """Everything that does not hold, each as `name: what differs`."""
    environment.forget_books()
    ledgers = replace(
        read_ledgers(environment.sandbox, accepted=accepted, at_start=environment.at_start()),
        messages=message_lines(),
        dead_letters=dead_letter_lines(),
    )
    found = [
        f"{finding.promise}: {finding.database} / {finding.outside} {finding.difference}"
        for finding in (*check(ledgers), messages.every_failure_has_one_place(ledgers))
        if not finding.holds and finding.promise not in waived
    ]
    for invariant in INVARIANTS:
        name = invariant.__name__.replace("_", " ")
        if name not in waived and (difference := invariant(environment)):
            found.append(f"{name}: {difference}")
    if any(violation.startswith("no dead letter") for violation in found):
        found += [
            f"dead letter of {dead_letter.task}: {dead_letter.error}"
            for dead_letter in environment.rows("dlq.DeadLetter")[:3]
        ]
    if stuck := open_messages():
        found.append(f"nothing is stuck: {stuck}")
    return found
