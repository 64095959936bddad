"""The table: for each task, endpoint and pass, a state to start from and what is cut off.

Tasks are enumerated from Celery's registry and endpoints from the URL configuration; one without a scenario fails the
run with its name (`coverage.missing`).
"""

from __future__ import annotations

from lab.faultpoints import starts
from lab.faultpoints.desk import DESK
from lab.faultpoints.endpoints import ENDPOINTS
from lab.faultpoints.passes import PASSES
from lab.faultpoints.scenario import Scenario, message, waived_without
from lab.faultpoints.witness import WITNESSES

_O, _P, _N, _W = "orders.tasks", "payments.tasks", "notifications.tasks", "webhooks.tasks"

_TWICE = {"nothing is enqueued twice": "two messages about the same are the question"}

MESSAGES: tuple[Scenario, ...] = (
    message("process_order", f"{_O}.process_order", starts.first(f"{_O}.process_order")),
    message(
        "process_order_declined",
        f"{_O}.process_order",
        starts.first(f"{_O}.process_order", card="pm_card_visa_chargeDeclined"),
    ),
    message(
        "process_order_reply_lost",
        f"{_O}.process_order",
        starts.first(f"{_O}.process_order"),
        faults={"gateway": {"drop_reply_rate": 1.0}},
    ),
    message("process_order_cancelled", f"{_O}.process_order", starts.cancelled_before_its_turn),
    message("send_confirmation", f"{_O}.send_confirmation", starts.last(f"{_O}.send_confirmation")),
    *(
        message(
            name, f"{app}.{name}", starts.following(f"{app}.{name}"), waived=waived_without(f"{app}.{name}")
        )
        for app, name in (
            (_O, "update_inventory"),
            (_O, "notify_warehouse"),
            (_O, "sync_to_crm"),
            (_P, "create_invoice"),
            (_W, "publish_event"),
        )
    ),
    # Each settles with its last write: only another message about the same finds that write, and its own to be settled.
    *(
        message(
            name,
            f"{_O}.{name}",
            starts.twice(starts.following(f"{_O}.{name}")),
            waived=waived_without(f"{_O}.{name}") | _TWICE,
        )
        for name in ("send_receipt", "track_analytics")
    ),
    message(
        "deliver", f"{_W}.deliver", starts.twice(starts.two_deliveries), waived=waived_without() | _TWICE
    ),
    Scenario(
        "send_receipt_in_kept_conversation",
        f"{_O}.send_receipt",
        starts.two_receipts,
        starts.send_both,
        waived=waived_without(f"{_O}.send_receipt"),
    ),
    message(
        "notify_warehouse_reply_lost",
        f"{_O}.notify_warehouse",
        starts.following(f"{_O}.notify_warehouse"),
        faults={"warehouse": {"drop_reply_rate": 1.0}},
        waived=waived_without(f"{_O}.notify_warehouse"),
    ),
    message("refund_order", f"{_P}.refund_order", starts.cancelled_after_completion, waived=waived_without()),
    message(
        "apply_gateway_event",
        f"{_P}.apply_gateway_event",
        starts.event_of_a_cancelled_order,
        waived=waived_without(),
    ),
    message(
        "refund_order_disputed",
        f"{_P}.refund_order",
        starts.cancelled_and_disputed,
        proves=starts.dispute_is_seen,
        waived=waived_without()
        | {
            "one capture per completed order, none for others": "the bank has the money",
            "sum of completed orders = captured - refunded": "the bank has the money",
        },
    ),
    message(
        "apply_gateway_event_dispute_won",
        f"{_P}.apply_gateway_event",
        starts.dispute_that_was_won,
        proves=starts.refunded_after_all,
        waived=waived_without(),
    ),
    message(
        "bill_customer",
        f"{_P}.bill_customer",
        starts.bill,
        proves=starts.one_bill,
        waived=waived_without(f"{_P}.create_invoice"),
    ),
    message(
        "reconcile",
        f"{_P}.reconcile",
        starts.capture_without_refund,
        proves=starts.refunded,
        waived=waived_without(),
    ),
    message(
        "process_large_file", f"{_O}.process_large_file", starts.file, proves=starts.each_row_is_one_order
    ),
    message("import_row", f"{_O}.import_row", starts.row, proves=starts.each_row_is_one_order),
    message(
        "generate_report",
        f"{_O}.generate_report",
        starts.report,
        proves=starts.report_is_ready,
        waived=waived_without(),
    ),
    message("send_notification", f"{_N}.send_notification", starts.notification),
    message("send_password_reset", f"{_N}.send_password_reset", starts.password_reset),
    message("collect_undeliverable", "dlq.undeliverable.collect", starts.collect),
    message("prune", "outbox.retention.prune", starts.prune, proves=starts.pruned, waived=waived_without()),
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for scenario in (*MESSAGES, *WITNESSES, *ENDPOINTS, *PASSES, *DESK)
}
