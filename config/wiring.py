"""Which parts of the application are plugged into which: settings that are the same on every machine."""

OUTBOX_EVENTS = {
    "order.placed": ["orders.tasks.process_order", "orders.tasks.send_confirmation"],
    "order.completed": [
        "orders.tasks.send_receipt",
        "payments.tasks.create_invoice",
        "orders.tasks.update_inventory",
        "orders.tasks.notify_warehouse",
        "orders.tasks.sync_to_crm",
        "orders.tasks.track_analytics",
        "webhooks.tasks.publish_event",
    ],
    "order.failed": ["webhooks.tasks.publish_event"],
    "order.cancelled": ["webhooks.tasks.publish_event"],
    "order.process_due": ["orders.tasks.process_order"],
    "order.refund_due": ["payments.tasks.refund_order"],
    "gateway.event_received": ["payments.tasks.apply_gateway_event"],
}
# Each message of an order leads to the order's journey.
OUTBOX_LINKS = {"order-": "/orders/{}/"}
INCOMING_ON_EVENT = "outbox.emit"
INCOMING_MASKED = "dlq.masking.masked"
DLQ_CIRCUITS = "common.circuits.open_for"
DLQ_LINKS = {
    "order_id": "/orders/{}/",
    "correlation_id=order-": "/orders/{}/",
    "message_id": "/admin/outbox/outboxmessage/?q={}",
    "causation_id": "/admin/outbox/outboxmessage/?q={}",
    "correlation_id": "/admin/outbox/outboxmessage/?q={}",
}
DLQ_HANDLERS = {"orders": "orders.services.OrderService.process"}
# Longer than a message takes here that fails at every attempt: half an hour in `critical`, five hours for an email,
# minutes in `low`, whose large files are deferred once every five minutes. `default` has the webhooks.
MONITORING_THRESHOLDS = {
    "max_repeated_age_by_queue": {"critical": 3_600.0, "high": 28_800.0, "low": 86_400.0}
}
MONITORING_READY_CHECKS = {
    "database": "monitoring.health.check_database",
    "migrations": "monitoring.health.check_migrations",
    "broker": "monitoring.health.check_broker",
    "relay": "outbox.health.check_relay",
}
MONITORING_SOURCES = {
    "outbox": "outbox.stats.stats",
    "dlq": "dlq.stats.stats",
    "findings": "payments.selectors.stats",
    "circuits": "resilience.circuits.stats",
    "orders": "orders.selectors.stats",
    "webhooks": "webhooks.selectors.stats",
}
MONITORING_SERIES = {
    "outbox": "outbox.series.series",
    "dlq": "dlq.stats.series",
    "orders": "orders.selectors.series",
}
MONITORING_TABLES = {
    "Workers": "outbox.overview.workers",
    "Relays and beats": "outbox.overview.daemons",
    "Retries scheduled": "outbox.overview.retries",
}
MONITORING_INVARIANTS = (
    "outbox.invariants.invariants",
    "orders.invariants.invariants",
    "payments.selectors.invariants",
)
