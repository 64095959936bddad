"""What must hold once all is quiet, besides `lab.invariants`: told by our own tables, row by row.

Each law returns what breaks it, '' if nothing does. A scenario may waive one by its name, with its reason beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from django.db import connection

from lab.books import read_books
from lab.crashpoints.floor import open_messages
from lab.crashpoints.world import World, model
from lab.invariants import check

#: Asked for again on purpose when a charge becomes known: the refund itself is what happens once.
_MAY_REPEAT = ("payments.tasks.refund_order",)


def nothing_is_enqueued_twice(world: World) -> str:
    rows = model("outbox.OutboxMessage").objects.exclude(task__in=_MAY_REPEAT)
    counted = Counter(
        (task, str(args), str(kwargs)) for task, args, kwargs in rows.values_list("task", "args", "kwargs")
    )
    return "; ".join(f"{times} x {' '.join(key)}" for key, times in counted.items() if times > 1)


def an_order_ends_once(world: World) -> str:
    final = ("completed", "failed", "cancelled")
    ends = Counter(
        model("orders.OrderTransition")
        .objects.filter(to_status__in=final)
        .values_list("order_id", "to_status")
    )
    return "; ".join(
        f"order {order} became {status} {times} times" for (order, status), times in ends.items() if times > 1
    )


def every_failure_has_one_place(world: World) -> str:
    dead = set(
        map(
            str,
            model("outbox.OutboxMessage").objects.filter(status="dead").values_list("message_id", flat=True),
        )
    )
    letters = set(
        model("dlq.DeadLetter")
        .objects.filter(state="open", generation__isnull=False)
        .values_list("message_id", flat=True)
    )
    waiting = model("dlq.DeadLetter").objects.filter(state="replaying").count()
    return (
        "" if dead == letters and not waiting else f"dead {dead}, open letters {letters}, replaying {waiting}"
    )


def refunds_are_the_gateways(world: World) -> str:
    ours = {
        (order, cents)
        for order, cents in model("payments.Refund")
        .objects.filter(status="succeeded")
        .values_list("order_id", "amount_cents")
    }
    theirs = Counter((int(entry["order_id"]), entry["amount"]) for entry in world.sandbox.ledger("refunds"))
    return "" if Counter(ours) == theirs else f"ours {ours}, the gateway's {dict(theirs)}"


def only_the_committed_intent_is_captured(world: World) -> str:
    known = dict(model("orders.Order").objects.values_list("id", "payment_intent_id"))
    return "; ".join(
        f"order {entry['order_id']}: {entry['payment_intent']} was captured, {known.get(int(entry['order_id']))!r} is committed"
        for entry in world.sandbox.ledger("charges")
        if known.get(int(entry["order_id"])) != entry["payment_intent"]
    )


def one_mail_per_reason(world: World) -> str:
    ours = dict(model("notifications.EmailLog").objects.values_list("message_id", "status"))
    theirs = {entry["message_id"] for entry in world.sandbox.ledger("mail")}
    unsent = [key for key, status in ours.items() if status != "sent"]
    return "" if not unsent and set(ours) == theirs else f"log {ours}, mail server {theirs}"


def every_order_is_confirmed(world: World) -> str:
    orders = set(model("orders.Order").objects.values_list("id", flat=True))
    mailed = {
        int(entry["message_id"].split("-")[2].split("@")[0])
        for entry in world.sandbox.ledger("mail")
        if entry["message_id"].startswith("<confirmation-order-")
    }
    return "" if orders == mailed else f"orders {orders}, confirmations {mailed}"


def nothing_is_held(world: World) -> str:
    held = []
    with connection.cursor() as cursor:
        for table in ("webhooks_delivery", "notifications_emaillog", "orders_order", "outbox_outboxmessage"):
            cursor.execute(f"SELECT count(*) FROM {table} WHERE lease_until IS NOT NULL")
            if count := cursor.fetchone()[0]:
                held.append(f"{count} leases of {table}")
    return ", ".join(held)


def webhooks_arrive_in_order(world: World) -> str:
    wrong = []
    for merchant in ("1", "2"):
        sent = model("webhooks.Delivery").objects.filter(status="sent", subscription__customer_id=merchant)
        ours = list(sent.order_by("id").values_list("event_id", flat=True))
        theirs = [
            entry["webhook_id"] for entry in world.sandbox.ledger("webhooks") if entry["merchant"] == merchant
        ]
        if ours != theirs:
            wrong.append(f"merchant {merchant}: sent as {ours}, arrived as {theirs}")
        happened = _events_as_they_happened(merchant)
        if [event for event in theirs if event in happened] != [
            event for event in happened if event in theirs
        ]:
            wrong.append(f"merchant {merchant}: happened as {happened}, arrived as {theirs}")
    return "; ".join(wrong)


def _events_as_they_happened(merchant: str) -> list[str]:
    """The ids of the customer's events, by the transition logs of its orders; here no two transactions overlap."""
    events = model("webhooks.Event").objects.filter(customer_id=merchant)
    known = {
        (order, kind): event
        for order, kind, event in events.values_list("order_id", "event_type", "event_id")
    }
    log = model("orders.OrderTransition").objects.order_by("id").values_list("order_id", "to_status")
    return [known[order, f"order.{status}"] for order, status in log if (order, f"order.{status}") in known]


def no_delivery_is_open(world: World) -> str:
    return ", ".join(map(str, model("webhooks.Delivery").objects.filter(status="open")))


def totals_never_count_twice(world: World) -> str:
    counted = sum(model("orders.DailyTotals").objects.values_list("orders", flat=True))
    orders = model("orders.Order").objects.filter(completed_at__isnull=False).count()
    return f"{counted} counted, {orders} completed" if counted > orders else ""


def every_event_of_the_gateway_is_applied_once(world: World) -> str:
    events = list(model("webhooks.IncomingEvent").objects.values_list("event_id", flat=True))
    applied = [
        kwargs["event_id"]
        for kwargs in model("outbox.OutboxMessage")
        .objects.filter(task="payments.tasks.apply_gateway_event")
        .values_list("kwargs", flat=True)
    ]
    return "" if Counter(events) == Counter(applied) else f"events {events}, messages {applied}"


def each_run_has_its_generation(world: World) -> str:
    rows = model("outbox.OutboxMessage").objects.all()
    return "; ".join(
        f"{row}: {row.attempts} runs in generation {row.generation}"
        for row in rows
        if row.attempts > row.generation
    )


def nothing_is_sent_without_a_claim(world: World) -> str:
    claims = dict(model("notifications.EmailLog").objects.values_list("message_id", "attempts"))
    claims |= dict(model("webhooks.Delivery").objects.values_list("event_id", "attempts"))
    sent = {entry["message_id"]: entry["copies"] for entry in world.sandbox.ledger("mail")}
    sent |= {entry["webhook_id"]: entry["deliveries"] for entry in world.sandbox.ledger("webhooks")}
    return "; ".join(
        f"{key}: sent {n} times, claimed {claims.get(key, 0)}"
        for key, n in sent.items()
        if n > claims.get(key, 0)
    )


def a_group_has_one_head(world: World) -> str:
    return ", ".join(world.floor.two_heads)


LAWS: tuple[Callable[[World], str], ...] = (
    nothing_is_enqueued_twice,
    an_order_ends_once,
    every_failure_has_one_place,
    refunds_are_the_gateways,
    only_the_committed_intent_is_captured,
    one_mail_per_reason,
    every_order_is_confirmed,
    nothing_is_held,
    webhooks_arrive_in_order,
    no_delivery_is_open,
    totals_never_count_twice,
    every_event_of_the_gateway_is_applied_once,
    each_run_has_its_generation,
    nothing_is_sent_without_a_claim,
    a_group_has_one_head,
)


def violations(world: World, *, accepted: list[int], waived: frozenset[str]) -> list[str]:
    """Everything that does not hold, each as `name: what differs`."""
    world.sandbox.forget()
    books = read_books(world.sandbox, accepted=accepted, at_start=world.at_start())
    found = [
        f"{finding.promise}: {finding.database} / {finding.outside} {finding.difference}"
        for finding in check(books)
        if not finding.holds and finding.promise not in waived
    ]
    for law in LAWS:
        name = law.__name__.replace("_", " ")
        if name not in waived and (difference := law(world)):
            found.append(f"{name}: {difference}")
    if any(violation.startswith("no dead letter") for violation in found):
        found += [
            f"dead letter of {letter.task}: {letter.error}"
            for letter in model("dlq.DeadLetter").objects.all()[:3]
        ]
    if stuck := open_messages():
        found.append(f"nothing is stuck: {stuck}")
    return found
