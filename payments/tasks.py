"""The money's messages. Each takes ids, reads fresh data, and may be run again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from circuitbreaker import CircuitBreakerError

import outbox
from common.clock import scaled
from common.priority import Priority
from orders import selectors as orders
from payments import billing, events, invoices, refunds
from payments import reconcile as reconciliation
from payments.gateway.errors import GatewayBusy, GatewayUnavailable, InvalidRequest
from resilience import breaker
from resilience.locks import LockHeld

logger = logging.getLogger(__name__)

#: Where the gateway says "not now" without saying when.
BUSY_SECONDS = 60.0


@shared_task(
    queue=Priority.LOW.queue,
    transactional=True,
    autoretry_for=(SoftTimeLimitExceeded,),
    max_retries=3,
    retry_backoff=5,
    retry_jitter=True,
    # Drawing takes milliseconds. What takes longer than this hangs, or the machine is overloaded: later is
    # better.
    soft_time_limit=30,
    time_limit=60,
)
def create_invoice(order_id: int, event: str | None = None) -> None:
    """Invoice the order, with its PDF, in the month of its completion."""
    order = orders.get_order(order_id)
    invoices.create_invoice_for_order(order_id, invoices.billing_period_of(order), order=order)


@shared_task(
    queue=Priority.CRITICAL.queue,
    autoretry_for=(GatewayUnavailable, SoftTimeLimitExceeded),
    permanent_errors=(InvalidRequest, refunds.RefundRefused, refunds.RefundFailed),
    max_retries=12,
    retry_backoff=1,
    retry_backoff_max=300,
    retry_jitter=True,
    soft_time_limit=75,
    time_limit=90,
    circuit="payment-gateway",
)
def refund_order(order_id: int, event: str | None = None) -> None:
    """Give back what the order's payment captured, once."""
    with _not_now():
        refunds.refund_order(order_id)


@shared_task(
    queue=Priority.HIGH.queue,
    transactional=True,
    autoretry_for=(SoftTimeLimitExceeded,),
    max_retries=3,
    retry_backoff=5,
    retry_jitter=True,
    soft_time_limit=30,
    time_limit=60,
)
def apply_gateway_event(event_id: str) -> None:
    """Apply one stored event of the gateway."""
    events.apply_event(event_id)


@shared_task(
    queue=Priority.LOW.queue,
    permanent_errors=(ValueError,),
    autoretry_for=(SoftTimeLimitExceeded,),
    max_retries=3,
    retry_backoff=10,
    retry_jitter=True,
    soft_time_limit=100,
    time_limit=120,
)
def bill_customer(customer_id: int, billing_period: str) -> None:
    """Bill the customer's month. While another job bills this customer, this one is deferred."""
    try:
        billing.bill_customer(customer_id, billing_period)
    except LockHeld as held:
        raise outbox.Defer(held.retry_after, f"customer {customer_id} is being billed") from None
    except billing.PeriodStillOpen as early:
        if early.closes_in_s > billing.CLOSES_AFTER.total_seconds():
            raise  # The month itself is not over: its bill was asked for by mistake.
        raise outbox.Defer(early.closes_in_s, str(early)) from None


@shared_task(
    queue=Priority.LOW.queue,
    autoretry_for=(GatewayUnavailable, SoftTimeLimitExceeded),
    permanent_errors=(InvalidRequest,),
    max_retries=5,
    retry_backoff=5,
    retry_backoff_max=300,
    retry_jitter=True,
    soft_time_limit=300,
    time_limit=360,
    circuit="payment-gateway",
)
def reconcile() -> None:
    """Compare the gateway's ledger with the orders, and start what mends the differences."""
    with _not_now():
        run = reconciliation.reconcile()
    log = logger.warning if run.differences else logger.info
    for line in run.lines():
        log("reconciliation: %s", line)


@contextmanager
def _not_now() -> Iterator[None]:
    """A gateway that is overloaded, or known to be down, costs a message time but no attempt."""
    try:
        yield
    except CircuitBreakerError as error:
        raise outbox.Defer(breaker.retry_after(error), "the gateway's circuit is open") from None
    except GatewayBusy as error:
        wait = scaled(BUSY_SECONDS) if error.retry_after is None else error.retry_after
        raise outbox.Defer(wait, str(error)) from None
