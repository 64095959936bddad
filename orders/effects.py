"""Effects of a completed order inside our own tables: stock is shipped, the day's totals grow, and what the CRM
refused is written down.
"""

from django.db import connection

import outbox
from common.clock import ClockTimestamp
from orders import stock
from orders.models import Order, SyncErrorLog


def ship_stock(*, order_id: int) -> bool:
    """Move the order's reserved units to shipped, once; False when it was done before, or the order was
    cancelled.

    The mark on the order and the units change in one transaction, the caller's if there is one, so that neither can be seen
    without the other. The mark comes first: a second call waits for the first one's, and then finds nothing to do.
    """
    with outbox.settling() as settle:
        marked = Order.objects.filter(
            pk=order_id, status=Order.Status.COMPLETED, stock_shipped_at__isnull=True
        ).update(stock_shipped_at=ClockTimestamp())
        if marked:
            # Before the units: the lock on a product is what other orders of it wait for, until the commit.
            settle()
            stock.ship(order_id)
    return bool(marked)


def count_in_daily_totals(*, order_id: int) -> bool:
    """Add the order to its day's totals, at most once; False when it was tried before.

    The mark is committed before the effect. A crash between the two loses this order's count for good, and no
    retry repairs it: that is at-most-once, the right trade only for figures by which no accounts are settled.
    """
    completed = Order.objects.filter(pk=order_id, completed_at__isnull=False)
    if not completed.filter(counted_at__isnull=True).update(counted_at=ClockTimestamp()):
        return False
    with outbox.settling() as settle:
        add_to_totals(order_id)
        settle()
    return True


def add_to_totals(order_id: int) -> None:
    """Add the order to its day's totals, in one statement: read, add and write in Python would lose what
    another worker adds in between.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO orders_dailytotals AS totals (date, currency, orders, revenue_cents)
            SELECT (completed_at AT TIME ZONE 'UTC')::date, currency, 1, total_cents
            FROM orders_order WHERE id = %s
            ON CONFLICT (date, currency) DO UPDATE SET
                orders = totals.orders + 1, revenue_cents = totals.revenue_cents + excluded.revenue_cents
            """,
            [order_id],
        )


def log_refused_data(*, entity_type: str, entity_id: int, error: str) -> None:
    """Tell a person what another system refused; once a message, also when it runs again after a crash."""
    message = outbox.current()
    row = SyncErrorLog(
        entity_type=entity_type,
        entity_id=entity_id,
        error=error,
        message_id=message.message_id if message else None,
    )
    SyncErrorLog.objects.bulk_create([row], ignore_conflicts=True)
