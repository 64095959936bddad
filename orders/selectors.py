"""Reading orders: what other apps and the API may ask."""

from datetime import date, datetime, timedelta

from django.db.models import Count, Q, QuerySet

from orders.clock import ClockTimestamp
from orders.models import ImportFile, ImportRow, Order


def get_order(order_id: int) -> Order:
    """The order with its customer; raises Order.DoesNotExist."""
    return Order.objects.select_related("customer").get(pk=order_id)


def completed_within(order_id: int, age: timedelta) -> bool:
    """Whether the order was completed no longer ago than that."""
    return Order.objects.filter(pk=order_id, completed_at__gt=ClockTimestamp() - age).exists()


def order_by_payment_intent(payment_intent_id: str) -> Order | None:
    """The order that a payment belongs to, None when it is none of ours."""
    if not payment_intent_id:
        return None
    return Order.objects.filter(
        Q(payment_intent_id=payment_intent_id) | Q(payment_id=payment_intent_id)
    ).first()


def charged_orders(*, since: datetime | None = None) -> QuerySet[Order]:
    """Orders with a known charge, oldest first; `since` compares with the time the order was placed."""
    orders = Order.objects.exclude(payment_id="").order_by("pk")
    return orders.filter(created_at__gte=since) if since else orders


def orders_of(customer_id: int, period: str) -> QuerySet[Order]:
    """The customer's completed orders of one billing period, `YYYY-MM` (UTC). Raises ValueError for another
    form.
    """
    first = date.fromisoformat(f"{period}-01")
    return Order.objects.filter(
        customer_id=customer_id,
        status=Order.Status.COMPLETED,
        completed_at__year=first.year,
        completed_at__month=first.month,
    ).order_by("pk")


def order_page(
    *,
    limit: int,
    before_id: int | None = None,
    status: str | None = None,
    customer_id: int | None = None,
) -> list[Order]:
    """Up to `limit` orders, newest first, older than `before_id`: pages stay stable meanwhile."""
    orders = Order.objects.order_by("-pk").prefetch_related("items__product")
    if before_id is not None:
        orders = orders.filter(pk__lt=before_id)
    if status is not None:
        orders = orders.filter(status=status)
    if customer_id is not None:
        orders = orders.filter(customer_id=customer_id)
    return list(orders[:limit])


def import_progress(file: ImportFile) -> dict[str, int]:
    """How many rows of an import are staged, and how many of them are pending, imported and rejected."""
    found = ImportRow.objects.filter(file=file).values_list("status").annotate(Count("pk"))
    return {"staged": file.rows_staged, **dict.fromkeys(ImportRow.Status.values, 0), **dict(found)}
