"""Mutations: for each guard of the product, the product without it, and the check that must then fail.

A mutation that no check notices means that a check is missing, not that the guard is superfluous.
"""

from __future__ import annotations

from lab.faultpoints.mutating import Mutation, Patch

_NO_TRANSACTION = "with __import__('contextlib').nullcontext():"
_MONEY = "one capture per completed order"
_STUCK = "nothing is stuck"
_FINAL = "every order is final"
_PLACE = "every failure has exactly one place"


def _mutation(name: str, scenario: str, strike: str, caught_by: str, *patches: tuple[str, str, str], without: tuple[tuple[str, str], ...] = ()) -> Mutation:  # fmt: skip
    return Mutation(name, tuple(Patch(*patch) for patch in patches), scenario, strike, caught_by, without)


_OUTBOX = (
    _mutation("a leased message is claimed again", "witness_runs", "duplicate", "witness_runs",
         ("outbox.claims", "          AND (lease_token IS NULL OR lease_until < clock_timestamp())\n        FOR UPDATE", "        FOR UPDATE")),
    _mutation("the row lock of a transactional claim is not taken", "witness_once", "duplicate", "witness_once",
         ("outbox.claims", "WHERE {LIVE} AND {_NAMED} AND deliveries < %(max)s AND lease_token IS NULL FOR UPDATE SKIP LOCKED", "WHERE message_id = %(id)s"),
         ("outbox.delivery", "    if not settled:", "    if False:")),
    _mutation("a late copy's generation is not checked", "witness_flaky", "kill", "witness_flaky",
         ("outbox.sql", 'LIVE = f"message_id = %(id)s AND generation = %(generation)s AND status', 'LIVE = f"message_id = %(id)s AND status')),
    _mutation("a retry keeps its generation", "witness_flaky", "kill", "each run has its generation",
         ("outbox.transitions", "SET status = {SCHEDULED}, generation = generation + 1, {ended}", "SET status = {SCHEDULED}, {ended}")),
    _mutation("a deferral counts as an attempt", "witness_deferred", "kill", "witness_deferred",
         ("outbox.transitions", 'error=reason, ended="deliveries = 0,")', 'error=reason, ended="attempts = attempts + 1, deliveries = 0,")')),
    _mutation("settled before the effect", "process_order", "kill", _FINAL,
         ("outbox.delivery", "            result = task.run_body(*claimed.args, **claimed.kwargs)", "            transitions.settle(claimed)\n            result = task.run_body(*claimed.args, **claimed.kwargs)")),
    _mutation("never settled", "witness_runs", "kill", "witness_runs",
         ("outbox.delivery", "settled = patiently(lambda: transitions.settle(claimed, children))", "settled = True")),
    _mutation("children are written outside of the settlement", "witness_parent", "kill", "witness_parent",
         ("outbox.enqueue", "if run is not None and not context.in_own_transaction():", "if False:")),
    _mutation("children are written after the settlement", "witness_parent", "kill", "witness_parent",
         ("outbox.delivery", "settled = patiently(lambda: transitions.settle(claimed, children))", "settled = transitions.settle(claimed)\n        __import__('outbox.rows').rows.insert(children)")),
    _mutation("published at once, before the commit", "post_order", "kill", _FINAL,
         ("outbox.enqueue", "        _insert(new)\n    return", "        import json\n        for row in new:\n            __import__('celery').Celery.send_task(current_app._get_current_object(), row.task, json.loads(row.args), json.loads(row.kwargs), queue=row.queue)\n    return")),
    _mutation("a transactional task is not", "import_row", "kill", "import_row",
         ("orders.tasks", '    queue=Priority.LOW.queue,\n    transactional=True,\n    autoretry_for=(SoftTimeLimitExceeded,),\n    permanent_errors', '    queue=Priority.LOW.queue,\n    autoretry_for=(SoftTimeLimitExceeded,),\n    permanent_errors'),
         ("orders.importer", "if row.status != ImportRow.Status.PENDING:", "if False:")),
    _mutation("the rescuer never offers what the broker lost", "relay", "kill", _STUCK,
         ("outbox.relay.rescuer", "        if queues:", "        if False:")),
    _mutation("the rescuer ignores leases that ran out", "process_order", "kill", _STUCK,
         ("outbox.relay.queries", "                lease_until < clock_timestamp()\n                OR", "                false\n                OR")),
    _mutation("the valve is removed", "relay", "kill", "relay",
         ("outbox.relay.loop", "min(self._batch, limit - depths[queue])", "self._batch")),
    _mutation("two heads of a group are promoted", "deliver", "kill", "a group has one head",
         ("outbox.groups", "a.status IN {ACTIVE} LIMIT 1", "a.status IN ('nothing') LIMIT 1"),
         without=(("DROP INDEX outbox_one_head_per_group", "CREATE UNIQUE INDEX outbox_one_head_per_group ON outbox_outboxmessage (ordering_key) WHERE status IN ('scheduled', 'pending', 'published') AND NOT ordering_key = ''"),)),
    _mutation("the messages of a group do not wait for each other", "deliver_in_order", "duplicate", "webhooks arrive as recorded",
         ("webhooks.tasks", 'ordering_key=f"webhook-{each.subscription_id}"', 'ordering_key=""')),
    _mutation("a customer's events are published side by side", "publish_in_order", "duplicate", "webhooks arrive as recorded",
         ("orders.events", 'f"customer-{customer_id}"', '""')),
    _mutation("scheduled messages are never promoted", "relay", "kill", _STUCK,
         ("outbox.relay.loop", "moved = queries.promote_due(self._batch) if last.due else 0", "moved = 0")),
    _mutation("a message of a paused task is published", "pause_task", "kill", "pause_task",
         ("outbox.relay.queries", """paused = "(SELECT task FROM outbox_pausedtask WHERE paused_by <> '')\"""", """paused = "(SELECT '' WHERE false)\"""")),
    _mutation("a resumed task's messages stay set aside", "resume_task", "kill", _STUCK,
         ("outbox.relay.loop", "released = queries.release(self._batch) if last.resumed else 0", "released = 0")),
    _mutation("a resume forgets the task before its messages", "resume_task", "kill", _STUCK,
         ("outbox.pausing", "UPDATE outbox_pausedtask SET paused_by = '' WHERE", "DELETE FROM outbox_pausedtask WHERE")),
    _mutation("a tick is enqueued outside of its cursor's transaction", "beat", "kill", "beat",
         ("outbox.scheduler", "        with transaction.atomic(), connection.cursor() as cursor:\n            cursor.execute(\"SELECT clock", "        with connection.cursor() as cursor:\n            cursor.execute(\"SELECT clock"),
         ("outbox.scheduler", 'dedup_key=f"beat:{name}:{moment.isoformat()}"', 'dedup_key=""')),
)  # fmt: skip

_DEAD_LETTERS = (
    _mutation("dead without a dead letter", "witness_wrong", "kill", _PLACE,
         ("outbox.dead_lettering", '        tell(\n            "on_dead",', '        (lambda *args, **kwargs: None)(\n            "on_dead",')),
    _mutation("dead and recorded in two transactions", "witness_wrong", "kill", _PLACE,
         ("outbox.dead_lettering", "    with transaction.atomic():\n        row = one(\n            f\"\"\"\n            UPDATE outbox_outboxmessage\n            SET status = {DEAD}", f"    {_NO_TRANSACTION}\n        row = one(\n            f\"\"\"\n            UPDATE outbox_outboxmessage\n            SET status = {{DEAD}}")),
    _mutation("a dead letter is replayed without a claim", "replay", "duplicate", "replay",
         ("dlq.replay", "    if not claimed:", "    if False:"),
         ("dlq.resend", "        if new_id is None:", "        new_id = new_id or dead_letter.message_id\n        if new_id is None:")),
    _mutation("a dead letter is claimed and its message armed in two transactions", "replay", "kill", _FINAL,
         ("dlq.replay", "    with transaction.atomic():\n        claimed = claim(", f"    {_NO_TRANSACTION}\n        claimed = claim(")),
    _mutation("an edit changes the original", "edit", "kill", "edit",
         ("outbox.edited", "SET status = {CANCELLED}, done_at", "SET status = {CANCELLED}, args = %(args)s::jsonb, kwargs = %(kwargs)s::jsonb, done_at")),
    _mutation("a dead letter is edited without a claim", "edit", "duplicate", "edit",
         ("dlq.replay", "    if not claimed:", "    if False:"),
         ("outbox.edited", "            WHERE message_id = %(id)s AND status = {DEAD}\n", "            WHERE message_id = %(id)s\n")),
    _mutation("an operation's item and its dead letter change in two transactions", "operation", "kill", "operation",
         ("dlq.operations.step", "    with transaction.atomic():\n        with connection.cursor() as cursor:\n            cursor.execute(_NEXT", f"    {_NO_TRANSACTION}\n        with connection.cursor() as cursor:\n            cursor.execute(_NEXT"),
         ("dlq.operations.step", "            with transaction.atomic():\n                if operation.kind", f"            {_NO_TRANSACTION}\n                if operation.kind")),
    _mutation("a replay that succeeds does not close its dead letter", "replay", "kill", _PLACE,
         ("outbox.transitions", "        if claimed.replays:", "        if False:")),
    _mutation("a discarded message keeps its group waiting", "discard", "kill", _STUCK,
         ("outbox.dlq_hooks", '    if known is None or transitions.cancel(known, reason="dead letter discarded"):\n        return\n', "    return\n")),
)  # fmt: skip

_ORDERS = (
    _mutation("an order is claimed without compare-and-swap", "process_order", "frozen", "every completed order was completed once",
         ("orders.lifecycle", "f\"status = '{Status.PENDING}' OR status = '{Status.PROCESSING}' AND\"\n        \" (lease_until IS NULL OR lease_until <= clock_timestamp() OR lease_owner = %(owner)s)\"", "'true'")),
    _mutation("a zombie's completion is not fenced off", "process_order", "frozen", "every completed order was completed once",
         ("orders.lifecycle", "return Order.objects.filter(pk=order.pk, status=Status.PROCESSING, fence=order.fence)", "return Order.objects.filter(pk=order.pk)"),
         ("orders.lifecycle", "_HELD = f\"status = '{Status.PROCESSING}' AND fence = %(fence)s\"", "_HELD = 'true'")),
    _mutation("completed and announced in two transactions", "process_order", "kill", "one receipt",
         ("orders.lifecycle", "    with outbox.settling() as settle:\n        won = _transition(\n            order.pk,\n            Status.COMPLETED", "    with __import__('contextlib').nullcontext(lambda: None) as settle:\n        won = _transition(\n            order.pk,\n            Status.COMPLETED")),
    _mutation("failed without freeing the stock", "process_order_declined", "kill", "units shipped, none still reserved",
         ("orders.lifecycle", "            stock.release(order)\n", "")),
    _mutation("placed without its messages", "post_order", "kill", _FINAL,
         ("orders.services.placing", '    announce("order.placed", order.pk)\n', "")),
    _mutation("stock is read, computed and written back", "post_two_orders", "duplicate", "stock + reserved + shipped",
         ("orders.stock", '    _move(order_id, origin="stock", goal="reserved")\n', '    from django.db.models import F\n    for each in Order.objects.get(pk=order_id).items.select_related("product"):\n        left = each.product.stock - each.quantity\n        type(each.product).objects.filter(pk=each.product_id).update(stock=left, reserved=F("reserved") + each.quantity)\n')),
    _mutation("an Idempotency-Key is not looked up", "post_order", "kill", "post_order",
         ("idempotency.answers", "if earlier := earlier_answer(asked):", "if earlier := None:"),
         ("idempotency.answers", "        _keep(asked, response)\n", "")),
    _mutation("a cancelled order is cancelled again", "cancel_pending", "kill", "cancel_pending",
         ("orders.services.cancelling", "    if before == Status.CANCELLED:", "    if False:")),
    _mutation("a charge of a cancelled order is kept", "cancel_completed", "kill", _MONEY,
         ("orders.services.cancelling", "        lifecycle.request_refund(order_id=order_id)", "        pass")),
    _mutation("a completion that loses to a cancellation keeps the money", "process_while_cancelled", "duplicate", _MONEY,
         ("orders.services.processing", "        lifecycle.request_refund(order_id=order_id, payment_id=payment.id)", "        pass"),
         ("orders.services.processing", "            lifecycle.request_refund(order_id=order_id)\n", "            pass\n")),
    _mutation("an import's cursor moves before its rows exist", "process_large_file", "kill", "process_large_file",
         ("orders.importer", "@transaction.atomic\ndef _stage(", "def _stage(")),
    _mutation("stock is shipped without a mark", "update_inventory", "kill", "no dead letter",
         ("orders.effects", "status=Order.Status.COMPLETED, stock_shipped_at__isnull=True\n", "status=Order.Status.COMPLETED\n"),
         ("orders.tasks", '    queue=Priority.NORMAL.queue,\n    transactional=True,\n    last_write_settles=True,\n', '    queue=Priority.NORMAL.queue,\n')),
    _mutation("analytics counts without a mark", "track_analytics", "kill", "totals never count twice",
         ("orders.effects", "completed.filter(counted_at__isnull=True).update(", "completed.update(")),
    _mutation("a shipment has no idempotency key", "notify_warehouse", "kill", "one shipment per completed order",
         ("orders.tasks", 'idempotency_key=f"shipment-order-{order_id}"', 'idempotency_key=""')),
)  # fmt: skip

_MONEY_AND_MAIL = (
    _mutation("a refund that a dispute stopped is not asked for again", "apply_gateway_event_dispute_won", "kill", _MONEY,
         ("payments.disputes", "    if waiting.update(status=Refund.Status.PENDING):", "    if False:")),
    _mutation("an intent is confirmed before its id is committed", "process_order", "kill", "only the committed intent is captured",
         ("payments.gateway.client", "        if not payment_intent_id and on_created is not None:", "        if False:")),
    _mutation("neither a committed intent nor an idempotency key", "process_order", "kill", _MONEY,
         ("payments.gateway.client", "        if not payment_intent_id and on_created is not None:", "        if False:"),
         ("payments.gateway.client", "            key, lambda client, options: answers.intent(client.v1.payment_intents.create(params, options))", "            f'{key}-{uuid.uuid4()}', lambda client, options: answers.intent(client.v1.payment_intents.create(params, options))")),
    _mutation("a refund does not look at what was given back", "refund_order", "kill", _STUCK,
         ("payments.gateway.client", "        refunds = cls._refunds_of(intent_id)", "        refunds = []"),
         ("payments.gateway.client", 'key = f"{idempotency_key}-{left_cents}-after-{failed}"', "key = str(uuid.uuid4())")),
    _mutation("an invoice is made without a look or a constraint", "bill_customer", "kill", "one invoice per completed order",
         ("payments.invoices", "    if existing is not None:", "    if False:"),
         without=(("ALTER TABLE payments_invoice DROP CONSTRAINT payments_invoice_one_per_period", "ALTER TABLE payments_invoice ADD CONSTRAINT payments_invoice_one_per_period UNIQUE (order_id, billing_period)"),)),
    _mutation("a bill is made without a look or a constraint", "bill_customer", "kill", "bill_customer",
         ("payments.billing", "    if not created:\n        return bill\n", ""),
         ("payments.billing", "    bill, created = CustomerBill.objects.get_or_create(", "    bill = CustomerBill.objects.create("),
         without=(("ALTER TABLE payments_customerbill DROP CONSTRAINT payments_bill_one_per_period", "ALTER TABLE payments_customerbill ADD CONSTRAINT payments_bill_one_per_period UNIQUE (customer_id, billing_period)"),)),
    _mutation("an event of the gateway is not deduplicated", "post_event", "kill", "post_event",
         ("webhooks.incoming.views", "                provider=provider,", "                provider=f\"{provider}-{__import__('time').time()}\",")),
    _mutation("a webhook is posted without looking whether it was", "deliver", "kill", "nothing is sent without a claim",
         ("webhooks.delivery", "    if delivery.status == Delivery.Status.SENT:", "    if False:")),
    _mutation("an event is published in pieces", "publish_event", "kill", "no delivery is open",
         ("webhooks.tasks", '    transactional=True,\n', '')),
    _mutation("a mail is sent without looking whether it was", "send_receipt", "kill", "nothing is sent without a claim",
         ("notifications.mailer", "    if log.status == EmailLog.Status.SENT:", "    if False:")),
)  # fmt: skip

MUTATIONS: dict[str, Mutation] = {
    each.name: each for each in (*_OUTBOX, *_DEAD_LETTERS, *_ORDERS, *_MONEY_AND_MAIL)
}
