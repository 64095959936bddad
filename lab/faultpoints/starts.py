"""States that the scenarios of tasks start from, and what must hold when their system is quiet again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models.functions import Now

import outbox
from config.celery import app
from lab.faultpoints.environment import Environment, model
from lab.faultpoints.scenario import State, drop_fan_out, place, processed, publish_only, run, staged


def first(task: str, **arguments: Any) -> Callable[[Environment], Any]:
    def stage(environment: Environment) -> Any:
        place(**arguments)
        return staged(task)

    return stage


def last(task: str) -> Callable[[Environment], Any]:
    """The first message of this task, when everything else about its order is done."""

    def stage(environment: Environment) -> Any:
        place()
        message_id = staged(task)
        messages = model("outbox.OutboxMessage").objects.filter(message_id=message_id)
        messages.update(status="cancelled", done_at=Now())
        environment.processes.until_quiet(copies=1)
        messages.update(status="pending", done_at=None)
        return message_id

    return stage


def following(task: str) -> Callable[[Environment], Any]:
    def stage(environment: Environment) -> Any:
        processed(environment)
        drop_fan_out(but=task)
        return staged(task)

    return stage


def twice(stage: Callable[[Environment], Any]) -> Callable[[Environment], Any]:
    """The message of `stage`, and a second one that asks for the same: it runs after it, and must find it done."""

    def stage_both(environment: Environment) -> Any:
        message_id = stage(environment)
        message = model("outbox.OutboxMessage").objects.get(message_id=message_id)
        outbox.enqueue(app.tasks[message.task].signature(message.args, message.kwargs), queue=message.queue)
        return message_id

    return stage_both


def two_receipts(environment: Environment) -> State:
    for _ in range(2):
        processed(environment)
    drop_fan_out(but="orders.tasks.send_receipt")
    for _ in range(2):
        queue = publish_only(environment, staged("orders.tasks.send_receipt", published_at=None))
    return {"queue": queue}


def send_both(environment: Environment, state: State) -> None:
    """The second one in the conversation with the mail server that the first one kept."""
    for _ in range(2):
        environment.processes.take(state["queue"])


def cancelled_before_its_turn(environment: Environment) -> Any:
    from orders.services import cancel_order

    order = place()
    cancel_order(order_id=order.pk)
    return staged("orders.tasks.process_order")


def two_deliveries(environment: Environment) -> Any:
    for _ in range(2):
        processed(environment)
    for _ in range(2):
        run(environment, "webhooks.tasks.publish_event")
    drop_fan_out()
    return staged("webhooks.tasks.deliver")


def cancelled_after_completion(environment: Environment) -> Any:
    from orders.services import cancel_order

    order = processed(environment)
    drop_fan_out()
    cancel_order(order_id=order.pk)
    drop_fan_out()  # The event of the cancellation.
    return staged("payments.tasks.refund_order")


def event_of_a_cancelled_order(environment: Environment) -> Any:
    cancelled_after_completion(environment)
    order = model("orders.Order").objects.get()
    event_id = "evt_of_the_crashpoints"
    model("webhooks_incoming.IncomingEvent").objects.create(
        event_id=event_id,
        event_type="payment_intent.succeeded",
        payload={
            "id": event_id,
            "type": "payment_intent.succeeded",
            "data": {"object": {"id": order.payment_intent_id}},
        },
    )
    outbox.emit("gateway.event_received", event_id=event_id)
    return staged("payments.tasks.apply_gateway_event")


def cancelled_and_disputed(environment: Environment) -> Any:
    message_id = cancelled_after_completion(environment)
    environment.sandbox.dispute(model("orders.Order").objects.get().payment_intent_id)
    return message_id


def dispute_is_seen(environment: Environment, state: State) -> str:
    refunds = [row.status for row in model("payments.Refund").objects.all()]
    disputes = [row.state for row in model("payments.Dispute").objects.all()]
    findings = [row.kind for row in model("payments.Finding").objects.filter(resolved_at=None)]
    seen = (refunds, disputes, findings) == (["disputed"], ["open"], ["disputed"])
    return "" if seen else f"refunds {refunds}, disputes {disputes}, findings {findings}"


def dispute_that_was_won(environment: Environment) -> Any:
    from payments.gateway import transport

    refund = cancelled_and_disputed(environment)
    environment.processes.take(publish_only(environment, refund))
    dispute_id = model("payments.Dispute").objects.get().dispute_id
    won = transport.client().v1.disputes.update(
        dispute_id, {"evidence": {"uncategorized_text": "winning_evidence"}}
    )
    event_id = "evt_of_a_dispute"
    kind = "charge.dispute.closed"
    model("webhooks_incoming.IncomingEvent").objects.create(
        event_id=event_id,
        event_type=kind,
        payload={"id": event_id, "type": kind, "created": won.created, "data": {"object": won.to_dict()}},
    )
    outbox.emit("gateway.event_received", event_id=event_id)
    return staged("payments.tasks.apply_gateway_event")


def refunded_after_all(environment: Environment, state: State) -> str:
    findings = model("payments.Finding").objects.filter(resolved_at=None).count()
    return refunded(environment, state) or (f"{findings} findings are open" if findings else "")


def bill(environment: Environment) -> Any:
    from payments.tasks import bill_customer

    order = processed(environment)
    drop_fan_out(but="payments.tasks.create_invoice")
    month_ago = order.completed_at.replace(day=1) - timedelta(days=3)
    model("orders.Order").objects.filter(pk=order.pk).update(completed_at=month_ago)
    return outbox.enqueue(bill_customer.s(1, f"{month_ago:%Y-%m}"))


def one_bill(environment: Environment, state: State) -> str:
    totals = list(model("payments.CustomerBillTotal").objects.values_list("total_cents", flat=True))
    orders = [order.total_cents for order in model("orders.Order").objects.all()]
    return "" if totals == orders else f"bills over {totals}, orders over {orders}"


def capture_without_refund(environment: Environment) -> Any:
    from payments import reconcile, tasks

    # A fresh difference counts as being worked on for ten minutes; here it is old enough.
    assert reconcile.reconcile.__kwdefaults__ is not None
    reconcile.reconcile.__kwdefaults__["grace"] = timedelta(0)
    cancelled_after_completion(environment)
    model("outbox.OutboxMessage").objects.filter(task="payments.tasks.refund_order").delete()
    return outbox.enqueue(tasks.reconcile.s())


def refunded(environment: Environment, state: State) -> str:
    return (
        ""
        if len(environment.sandbox.ledger("refunds")) == 1
        else "the difference was not mended by one refund"
    )


_HEADING = "customer_id,currency,payment_method,items,receipt_email"
#: Its card is declined: what follows from an order that is paid has scenarios of its own.
_ROW = "1,usd,pm_card_visa_chargeDeclined,WIDGET:1,"


def file(environment: Environment) -> Any:
    from orders import importer, tasks

    importer.BATCH_ROWS = 2  # Three rows are two batches: there is a point between them.
    content = "\n".join([_HEADING, _ROW, _ROW, _ROW])
    file = model("orders.ImportFile").objects.create(name="orders.csv", content=content)
    return outbox.enqueue(tasks.process_large_file.s(file.pk)), {"rows": 3}


def row(environment: Environment) -> Any:
    from orders import tasks

    file = model("orders.ImportFile").objects.create(name="orders.csv", content="", rows_staged=1)
    record = dict(zip(_HEADING.split(","), _ROW.split(","), strict=True))
    row = model("orders.ImportRow").objects.create(file=file, number=1, record=record)
    return outbox.enqueue(tasks.import_row.s(row.pk)), {"rows": 1}


def each_row_is_one_order(environment: Environment, state: State) -> str:
    imported = model("orders.ImportRow").objects.filter(status="imported").count()
    orders = model("orders.Order").objects.count()
    return (
        ""
        if imported == orders == state["rows"]
        else f"{imported} rows imported, {orders} orders, {state['rows']} rows"
    )


def report(environment: Environment) -> Any:
    from orders import tasks

    day = processed(environment).created_at.date()
    drop_fan_out()
    report = model("orders.Report").objects.create(first_day=day, last_day=day)
    return outbox.enqueue(tasks.generate_report.s(report.pk))


def report_is_ready(environment: Environment, state: State) -> str:
    report = model("orders.Report").objects.get()
    return (
        ""
        if report.status == "ready" and ",usd,1," in report.content
        else f"{report.status}: {report.content}"
    )


def notification(environment: Environment) -> Any:
    from notifications.tasks import send_notification

    context = {"order_id": 1, "customer_name": "Ada", "total": "1.00 USD"}
    return outbox.enqueue(
        send_notification.s(model("auth.User").objects.get(username="ada").pk, "receipt", context)
    )


def password_reset(environment: Environment) -> Any:
    from notifications.tasks import send_password_reset

    return outbox.enqueue(send_password_reset.s("ada@example.com"))


def prune(environment: Environment) -> Any:
    from outbox.retention import prune

    processed(environment)
    drop_fan_out()
    model("outbox.OutboxMessage").objects.filter(status="done").update(done_at="2001-01-01T00:00:00Z")
    return outbox.enqueue(prune.s()), {}


def collect(environment: Environment) -> Any:
    from dlq.undeliverable import collect

    # Redis gives nothing up; what it does on RabbitMQ is proven in tests/dlq against a real one.
    return outbox.enqueue(collect.s())


def pruned(environment: Environment, state: State) -> str:
    old = model("outbox.OutboxMessage").objects.filter(done_at__lt="2002-01-01T00:00:00Z").count()
    return f"{old} old messages are left" if old else ""
