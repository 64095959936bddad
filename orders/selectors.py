"""Reading orders: what other apps and the API may ask."""

import random
from datetime import date, datetime, timedelta

from django.db.models import (
    BigIntegerField,
    Case,
    Count,
    Max,
    Min,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
    Subquery,
    TextField,
    Value,
    When,
)  # fmt: skip
from django.db.models.functions import Cast, Concat, Substr
from django.utils import timezone

from common.clock import ClockTimestamp
from orders.events import correlation_id
from orders.models import UNSOLD, Customer, ImportFile, ImportRow, Order, OrderItem
from outbox.trouble import first_in_trouble, in_trouble


def get_order(order_id: int) -> Order:
    """The order with its customer; raises Order.DoesNotExist."""
    return Order.objects.select_related("customer").get(pk=order_id)


def customer_exists(customer_id: int) -> bool:
    """Whether there is a customer with this id."""
    return Customer.objects.filter(pk=customer_id).exists()


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


def intents_in_processing(*, before: datetime, limit: int) -> list[tuple[int, str]]:
    """Order and payment of up to `limit` orders placed before that are being processed, or should be.

    Where there are more, another part of them each time.
    """
    return _part(Order.objects.filter(status=Order.Status.PROCESSING), before=before, limit=limit)


def intents_without_sale(*, before: datetime, limit: int) -> list[tuple[int, str]]:
    """The same of orders that were cancelled or failed."""
    ended = Order.objects.filter(status__in=UNSOLD)
    return _part(ended, before=before, limit=limit)


def _part(orders: QuerySet[Order], *, before: datetime, limit: int) -> list[tuple[int, str]]:
    # From a random one on, and round the end: no position of the last call has to be stored, and what stands
    # still at the front cannot hide the rest for ever.
    orders = orders.filter(created_at__lt=before).exclude(payment_intent_id="").order_by("pk")
    ends = orders.aggregate(first=Min("pk"), last=Max("pk"))
    if ends["first"] is None:
        return []
    start = random.randint(ends["first"], ends["last"])
    rows = orders.values_list("pk", "payment_intent_id")
    found = list(rows.filter(pk__gte=start)[:limit])
    return found + list(rows.filter(pk__lt=start)[: limit - len(found)])


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
    orders = Order.objects.order_by("-pk").prefetch_related(lines())
    if before_id is not None:
        orders = orders.filter(pk__lt=before_id)
    if status is not None:
        orders = orders.filter(status=status)
    if customer_id is not None:
        orders = orders.filter(customer_id=customer_id)
    return list(orders[:limit])


def lines() -> Prefetch:
    """The lines of orders, as they were given, with their products: one statement for any number of both."""
    return Prefetch("items", OrderItem.objects.select_related("product").order_by("pk"))


def with_trouble(orders: QuerySet[Order]) -> QuerySet[Order]:
    """The orders, each with the worst `trouble` of its messages: "dead", "late", "paused", or None; see `outbox.trouble`.

    It is looked up for the orders that are read, by an index, and costs no statement of its own.
    """
    its = Concat(Value(correlation_id("")), Cast(OuterRef("pk"), TextField()))
    troubles = in_trouble().filter(correlation_id=its).order_by("trouble")
    return orders.annotate(trouble=Subquery(troubles.values("trouble")[:1]))


def in_trouble_only(orders: QuerySet[Order], trouble: str) -> QuerySet[Order]:
    """Of these orders those that have a message with this trouble, one of the first `outbox.trouble.FOUND` of its state."""
    begin = correlation_id("")
    # A correlation id may be any text: the condition stands inside of the CASE, which is evaluated in this order. So does the
    # trouble, which is judged for the messages that were found, and not for all that the index has.
    number = Case(
        When(
            trouble=trouble,
            correlation_id__regex=f"^{begin}[0-9]{{1,18}}$",
            then=Cast(Substr("correlation_id", len(begin) + 1), BigIntegerField()),
        )
    )
    found = first_in_trouble(trouble, ~Q(correlation_id=""))
    first, *others = (messages.annotate(order=number).values("order") for messages in found)
    return orders.filter(pk__in=first.union(*others, all=True))


def with_progress(files: QuerySet[ImportFile]) -> QuerySet[ImportFile]:
    """The imports, each with what `import_progress` reads of it: one statement for a list of any length."""
    return files.annotate(
        **{status: Count("rows", filter=Q(rows__status=status)) for status in ImportRow.Status.values}
    )


def import_progress(file: ImportFile) -> dict[str, int]:
    """How many rows of an import are staged, and how many of them are pending, imported and rejected.

    `file` comes from `with_progress`.
    """
    return {
        "staged": file.rows_staged,
        **{status: getattr(file, status) for status in ImportRow.Status.values},
    }


def import_errors(file: ImportFile, *, limit: int) -> list[str]:
    """Why the first `limit` rejected rows of an import were rejected; each names its line."""
    rejected = ImportRow.objects.filter(file=file, status=ImportRow.Status.REJECTED).order_by("number")
    return list(rejected.values_list("error", flat=True)[:limit])


#: Orders that are looked at for the ones of the last minute: orders have no index on their time.
NEWEST = 5_000


def series() -> dict[str, float]:
    """For the charts of the control room: orders placed in the last minute, counted up to `NEWEST`."""
    newest = Order.objects.order_by("-pk").values("pk")[:NEWEST]
    placed = Order.objects.filter(pk__in=newest, created_at__gt=ClockTimestamp() - timedelta(minutes=1))
    return {"orders_a_minute": placed.count()}


def stats() -> dict[str, float | str | None]:
    """For the alert on orders that are stuck: `oldest_age_s` and name (`oldest`) of the order that has been pending or in
    processing for longest; None and "" without one. Two looks into the index of the open orders.
    """
    # By id, which the index has: orders get their ids in the order of their times, but for the moment of a transaction.
    of_each = [
        Order.objects.filter(status=status).order_by("status", "pk").values_list("pk", "created_at").first()
        for status in (Order.Status.PENDING, Order.Status.PROCESSING)
    ]
    oldest = min((found for found in of_each if found), default=None)
    if oldest is None:
        return {"oldest_age_s": None, "oldest": ""}
    number, placed_at = oldest
    return {"oldest_age_s": (timezone.now() - placed_at).total_seconds(), "oldest": f"order {number}"}
