"""Monthly bills: never two jobs at a time for one customer, and never two bills for one month."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Count, Sum

from common import clock
from orders import selectors as orders
from payments.invoices import create_invoice_for_order
from payments.models import CustomerBill, CustomerBillTotal, Invoice
from resilience.locks import task_lock

#: An order's `completed_at` is written before its transaction commits. Anything that is not cut off commits within
#: minutes (lease, time limit, the database's limit for idle transactions); after an hour the month is whole.
CLOSES_AFTER = timedelta(hours=1)
#: Longer than the task's time limit, so that the lease cannot run out under a job that is still alive.
LOCK_SECONDS = 150.0


class PeriodStillOpen(ValueError):
    """The month has not ended: a bill made now would miss what is still to come, and there is only one.
    Permanent, unless `closes_in_s` says that it is over and only waits for the last commits.
    """

    def __init__(self, message: str, closes_in_s: float) -> None:
        super().__init__(message)
        self.closes_in_s = closes_in_s


def bill_customer(customer_id: int, billing_period: str) -> CustomerBill:
    """The customer's bill for a month (`YYYY-MM`, UTC): a new one, or the one that is already there.

    Runs under the lock `lock:user_id:<customer_id>`. The lock saves the second job its work; what makes the
    bill one is the unique constraint, since a lock with a lease can be held by two when its holder is frozen.
    Raises `resilience.locks.LockHeld`, PeriodStillOpen, or ValueError for a period that is no month and for a
    customer that there is not.
    """
    _, end = month(billing_period)
    wait = end + CLOSES_AFTER - clock.now()
    if wait > timedelta(0):
        raise PeriodStillOpen(
            f"{billing_period} can be billed from {end + CLOSES_AFTER:%Y-%m-%d %H:%M} UTC on",
            wait.total_seconds(),
        )
    # The foreign key is checked at the commit, too late to be told from the lost race below.
    if not orders.customer_exists(customer_id):
        raise ValueError(f"there is no customer {customer_id} to bill")
    with task_lock("user_id", customer_id, ttl=LOCK_SECONDS):
        try:
            with transaction.atomic():
                return _bill(customer_id, billing_period)
        except IntegrityError:
            return CustomerBill.objects.get(customer_id=customer_id, billing_period=billing_period)


def month(billing_period: str) -> tuple[datetime, datetime]:
    """The first moment of the month and of the next one, in UTC. Raises ValueError unless it is `YYYY-MM`."""
    if not re.fullmatch(r"[1-8][0-9]{3}-(0[1-9]|1[0-2])", billing_period):
        raise ValueError(f"a billing period is a month such as 2026-11, not {billing_period!r}")
    year, number = int(billing_period[:4]), int(billing_period[5:])
    following = (year + 1, 1) if number == 12 else (year, number + 1)
    return datetime(year, number, 1, tzinfo=UTC), datetime(*following, 1, tzinfo=UTC)


def _bill(customer_id: int, billing_period: str) -> CustomerBill:
    bill, created = CustomerBill.objects.get_or_create(customer_id=customer_id, billing_period=billing_period)
    if not created:
        return bill
    order_ids = [order.pk for order in orders.orders_of(customer_id, billing_period)]
    for order_id in order_ids:
        # An order completed in the last minute may have its invoice task still in a queue: the bill does not
        # wait.
        create_invoice_for_order(order_id, billing_period)
    sums = (
        Invoice.objects.filter(order_id__in=order_ids, billing_period=billing_period)
        .values("currency")
        .annotate(invoices=Count("pk"), total_cents=Sum("total_cents"))
    )
    CustomerBillTotal.objects.bulk_create(CustomerBillTotal(bill=bill, **row) for row in sums)
    return bill
