"""What happens to an order, a small task each: ids in, fresh data read inside, safe to run again.

Time limits: `soft` is where a task is asked to stop and is retried, `time_limit` where it is killed and
counted as a lost delivery. Both stay under what the task holds (an order's lease, a claim) and over the sum
of its own timeouts.
"""

from datetime import timedelta
from typing import Any

import requests
from celery import Task, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from circuitbreaker import CircuitBreakerError

import outbox
from common.clock import scaled
from common.priority import Priority
from notifications.services import EmailService, MailNotSent, PermanentMailError
from orders import crm, effects, importer, reports, warehouse
from orders.events import correlation_id
from orders.lifecycle import lease_left_s
from orders.models import ImportRow, Order, Report
from orders.outbound import NotConfigured, RateLimited, Refused
from orders.selectors import completed_within, get_order
from orders.services import OrderService
from orders.services.processing import Outcome
from payments.gateway import GatewayBusy, GatewayUnavailable, InvalidRequest
from resilience.breaker import retry_after
from resilience.ratelimit import RateLimitExceeded

#: Wait when a neighbour says "later" without saying when.
LATER_S = 60.0
#: An order that another run holds is looked at again after its lease, and never in a tight loop.
SHORTEST_WAIT_S = 0.1

#: A call to a neighbour: its own timeouts are 3 s for the connection and 3 s for each wait for bytes.
#: Thirteen attempts take about half an hour, and at three failures in ten lose one message in six million.
_CALL: dict[str, Any] = {
    "autoretry_for": (requests.RequestException, OSError, SoftTimeLimitExceeded),
    "max_retries": 12,
    "retry_backoff": 1,
    "retry_backoff_max": 300,
    "soft_time_limit": 20,
    "time_limit": 30,
}
#: An email takes several answers of the server, each with a timeout of its own (settings.EMAIL_TIMEOUT). No person waits
#: for it at a screen, and it may arrive hours later: seventeen attempts, in the end up to an hour apart, outlast a mail
#: server that is down for a few hours.
_MAIL: dict[str, Any] = {
    "autoretry_for": (MailNotSent, SoftTimeLimitExceeded),
    "permanent_errors": (PermanentMailError, Order.DoesNotExist),
    "max_retries": 16,
    "retry_backoff": 1,
    "retry_backoff_max": 3600,
    "soft_time_limit": 75,
    "time_limit": 85,
    "last_write_settles": True,
}


@shared_task(
    bind=True,
    queue=Priority.CRITICAL.queue,
    autoretry_for=(GatewayUnavailable, SoftTimeLimitExceeded),
    permanent_errors=(InvalidRequest, Order.DoesNotExist),
    max_retries=12,
    retry_backoff=1,
    retry_backoff_max=300,
    # A charge makes up to three calls of 15 s; the hard limit is below the order's lease of 60 s.
    soft_time_limit=50,
    time_limit=55,
    circuit="payment-gateway",
    last_write_settles=True,
)
def process_order(self: Task, order_id: int) -> Outcome:
    """Charge and complete one order; what follows from it is enqueued in the completing transaction.

    Returns OrderService.process' outcome. Inside a message, an order that another run holds is waited for.
    """
    try:
        outcome = OrderService.process(order_id=order_id)
    except CircuitBreakerError as error:
        raise outbox.Defer(retry_after(error), "the gateway's circuit is open") from error
    except GatewayBusy as error:
        wait_s = scaled(LATER_S) if error.retry_after is None else error.retry_after
        raise outbox.Defer(wait_s, "the gateway is busy") from error
    except GatewayUnavailable as error:
        if error.retry_after is None or outbox.current() is None:
            raise
        raise self.retry(exc=error, countdown=error.retry_after) from error
    if outcome["status"] == "in_progress" and outbox.current() is not None:
        # The other run may still die: this message must outlast it, and ends only with the order.
        raise outbox.Defer(max(lease_left_s(order_id), SHORTEST_WAIT_S), "another run holds the order")
    return outcome


@shared_task(queue=Priority.HIGH.queue, **_MAIL)
def send_confirmation(order_id: int) -> dict[str, str]:
    """Send the email that the order has arrived."""
    return EmailService.send_confirmation(get_order(order_id))


@shared_task(queue=Priority.HIGH.queue, **_MAIL)
def send_receipt(order_id: int, event: str | None = None) -> dict[str, str]:
    """Send the email that the order is paid; also when it was cancelled since, because the money did change hands."""
    return EmailService.send_receipt(get_order(order_id))


# Two UPDATEs, of the order and of its products; what takes longer than this waits for a lock that was never released.
@shared_task(
    queue=Priority.NORMAL.queue,
    transactional=True,
    last_write_settles=True,
    autoretry_for=(SoftTimeLimitExceeded,),
    max_retries=5,
    soft_time_limit=20,
    time_limit=30,
)
def update_inventory(order_id: int, event: str | None = None) -> dict[str, Any]:
    """Move the order's reserved units to shipped, exactly once: guard, effect and settlement are one
    transaction. Whichever runs first, this or `notify_warehouse`, moves them.
    """
    return {"status": "shipped" if effects.ship_stock(order_id=order_id) else "skipped", "order_id": order_id}


@shared_task(
    queue=Priority.NORMAL.queue,
    permanent_errors=(NotConfigured, Refused, Order.DoesNotExist),
    circuit="warehouse",
    **_CALL,
)
def notify_warehouse(order_id: int, event: str | None = None) -> dict[str, Any]:
    """Have the warehouse ship the order, once: the key makes a repeated request the same shipment.

    While the circuit is open this message comes back by itself; called as a function, it leaves a message
    behind that does, and returns `{'status': 'queued_for_retry', 'retry_after': seconds}`.
    """
    # Before the warehouse can hear of it, so that a cancellation which comes from now on puts nothing on the shelf
    # that is being shipped; and before the order is read, so that one which came first is seen.
    effects.ship_stock(order_id=order_id)
    order = get_order(order_id)
    if order.status == Order.Status.CANCELLED:
        return {"status": "skipped", "order_id": order_id}
    try:
        answer = warehouse.call_external_api(
            warehouse.shipment_of(order), idempotency_key=f"shipment-order-{order_id}"
        )
    except CircuitBreakerError as error:
        wait_s = warehouse.retry_after_s(error)
        if outbox.current() is not None:
            raise outbox.Defer(wait_s, "the warehouse's circuit is open") from error
        outbox.enqueue(notify_warehouse.s(order_id), delay=wait_s, correlation_id=correlation_id(order_id))
        return {"status": "queued_for_retry", "retry_after": wait_s, "order_id": order_id}
    except (RateLimited, RateLimitExceeded) as error:
        wait_s = scaled(LATER_S) if error.retry_after is None else error.retry_after
        raise outbox.Defer(wait_s, f"the warehouse accepts no more calls now: {error}") from error
    return {"status": "notified", "order_id": order_id, "answer": answer}


#: So long after an order's completion a CRM that is down costs no attempt; then a person has to look.
CRM_PATIENCE = timedelta(days=1)


@shared_task(
    bind=True,
    queue=Priority.NORMAL.queue,
    autoretry_for=(Exception,),
    permanent_errors=(NotConfigured, Order.DoesNotExist),
    retry_schedule=(60, 300, 1800, 7200, 28800),
    soft_time_limit=20,
    time_limit=30,
)
def sync_to_crm(self: Task, order_id: int, event: str | None = None) -> dict[str, Any]:
    """Copy the order into the CRM.

    Down, or too slow: again in 60 s, or when the CRM asked for; inside a message this spends no attempt for
    `CRM_PATIENCE`. Data that it refuses: logged for a person and done, because the same data will be refused
    again. Anything else, such as a key that the CRM does not know any more, is raised and retried by the schedule:
    1 min, 5 min, 30 min, 2 h, 8 h.
    """
    try:
        crm.SyncService.sync("order", order_id)
    except (crm.ServiceUnavailable, SoftTimeLimitExceeded) as error:
        asked = getattr(error, "retry_after", None)
        wait_s = scaled(LATER_S) if asked is None else asked
        if outbox.current() is not None:
            if not completed_within(order_id, CRM_PATIENCE):
                raise
            raise outbox.Defer(wait_s, f"the CRM is down: {error}") from error
        # `retry` raises; what follows is reached only in a test that patches it.
        self.retry(exc=error, countdown=wait_s)
        return {"status": "retry_scheduled", "order_id": order_id}
    except crm.InvalidDataError as error:
        effects.log_refused_data(entity_type="order", entity_id=order_id, error=str(error))
        return {"status": "invalid", "order_id": order_id}
    return {"status": "synced", "order_id": order_id}


@shared_task(
    queue=Priority.LOW.queue, max_retries=0, soft_time_limit=20, time_limit=30, last_write_settles=True
)
def track_analytics(order_id: int, event: str | None = None) -> dict[str, Any]:
    """Count the order in its day's totals, at most once: the counter-example, see
    effects.count_in_daily_totals.
    """
    counted = effects.count_in_daily_totals(order_id=order_id)
    return {"status": "counted" if counted else "skipped", "order_id": order_id}


# A long file is asked to stop after 5 minutes and killed after 6; what it has staged stays.
@shared_task(
    queue=Priority.LOW.queue,
    permanent_errors=(importer.ImportFile.DoesNotExist,),
    soft_time_limit=300,
    time_limit=360,
)
def process_large_file(file_id: int) -> dict[str, Any]:
    """Turn an uploaded CSV into one message a row; continues where an earlier run stopped or was killed."""
    staged_before = importer.rows_staged(file_id=file_id)
    try:
        return importer.stage_file(file_id=file_id)
    except SoftTimeLimitExceeded:
        staged = importer.rows_staged(file_id=file_id)
        if staged == staged_before:
            raise  # five minutes without one batch: another five would bring no more
        raise outbox.Defer(0, f"{staged} rows staged, more to come") from None


@shared_task(
    queue=Priority.LOW.queue,
    transactional=True,
    autoretry_for=(SoftTimeLimitExceeded,),
    permanent_errors=(ImportRow.DoesNotExist,),
    max_retries=5,
    soft_time_limit=20,
    time_limit=30,
)
def import_row(row_id: int) -> dict[str, Any]:
    """Place the order of one row, or note why it cannot be placed; both in the transaction that settles the
    row.
    """
    return importer.import_row(row_id=row_id)


# A report reads every order of its days; a month of a large shop takes seconds. Run again, it is made anew.
@shared_task(
    queue=Priority.LOW.queue,
    autoretry_for=(SoftTimeLimitExceeded,),
    permanent_errors=(Report.DoesNotExist,),
    max_retries=2,
    soft_time_limit=120,
    time_limit=150,
)
def generate_report(report_id: int) -> dict[str, Any]:
    """Write the report's CSV."""
    reports.generate(report_id=report_id)
    return {"status": Report.Status.READY.value, "report_id": report_id}
