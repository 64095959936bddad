"""payments/invoices.py: one invoice per order and billing period."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, connection, transaction

from orders.models import Order, OrderItem, Product
from outbox.testing import drain
from payments import invoices
from payments.invoices import InvalidBillingPeriod, create_invoice_for_order
from payments.models import Invoice
from payments.tasks import create_invoice
from tests.payments.conftest import MakeOrder


@pytest.mark.described("`create_invoice_for_order`, called twice, returns the invoice that is there")
def test_create_invoice_twice_returns_the_first_one(make_order: MakeOrder) -> None:
    order = make_order()
    first = create_invoice_for_order(order.pk, "2026-10")
    again = create_invoice_for_order(order.pk, "2026-10")
    assert first == again
    assert Invoice.objects.count() == 1
    assert first.total_cents == 9999


@pytest.mark.parametrize("period", ["", "2026-10\x00", "\udcff", "x" * 33])
def test_a_text_that_names_no_period_is_refused(make_order: MakeOrder, period: str) -> None:
    """The transaction stays usable."""
    order = make_order()
    with pytest.raises(InvalidBillingPeriod, match="1 to 32 printable characters"):
        create_invoice_for_order(order.pk, period)
    assert not Invoice.objects.exists()


def test_another_period_is_another_invoice_with_another_number(make_order: MakeOrder) -> None:
    order = make_order()
    october, november = (create_invoice_for_order(order.pk, period) for period in ("2026-10", "2026-11"))
    assert october.number != november.number


def test_the_unique_constraint_and_not_the_check_before_it_keeps_it_one(make_order: MakeOrder) -> None:
    order = make_order()
    create_invoice_for_order(order.pk, "2026-10")
    with pytest.raises(IntegrityError), transaction.atomic():
        Invoice.objects.create(
            order=order,
            billing_period="2026-10",
            currency="usd",
            subtotal_cents=1,
            tax_cents=0,
            total_cents=1,
        )


@pytest.mark.django_db(transaction=True)
def test_the_slower_of_two_gets_the_firsts_invoice(make_order: MakeOrder, mocker: object) -> None:
    """Its own transaction goes on."""
    order, other = make_order(), make_order()
    inserted, go = threading.Event(), threading.Event()

    def winner() -> None:
        try:
            with transaction.atomic():
                create_invoice_for_order(order.pk, "2026-10")
                inserted.set()
                # The loser's check sees nothing, and its insert waits for this transaction.
                assert go.wait(10)
                _until_somebody_waits_for_us()
        finally:
            connection.close()

    thread = threading.Thread(target=winner)
    thread.start()
    assert inserted.wait(10)
    with transaction.atomic():
        go.set()
        invoice = create_invoice_for_order(order.pk, "2026-10")
        create_invoice_for_order(other.pk, "2026-10")
    thread.join()
    assert Invoice.objects.get(order=order) == invoice
    assert Invoice.objects.count() == 2


def _until_somebody_waits_for_us() -> None:
    for _ in range(10_000):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_sleep(0.001) FROM pg_stat_activity "
                "WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.rowcount:
                return
            cursor.execute("SELECT pg_stat_clear_snapshot()")
    raise AssertionError("no session waits: the race did not happen")


@pytest.mark.promise("P3", "five workers create one invoice at once", "one invoice")
@pytest.mark.django_db(transaction=True)
def test_five_threads_at_once_make_one_invoice(make_order: MakeOrder) -> None:
    order = make_order()
    barrier = threading.Barrier(5)
    numbers: list[str] = []

    def run() -> None:
        try:
            barrier.wait()
            numbers.append(create_invoice_for_order(order.pk, "2026-10").number)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers) == 5
    assert len(set(numbers)) == 1


def test_an_unknown_order_has_no_invoice(db: None) -> None:
    with pytest.raises(Order.DoesNotExist):
        create_invoice_for_order(404, "2026-10")


def test_no_invoice_is_left_when_its_pdf_cannot_be_drawn(make_order: MakeOrder, mocker: object) -> None:
    order = make_order()
    mocker.patch.object(invoices.pdf, "render", side_effect=RuntimeError("no font"))  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        create_invoice_for_order(order.pk, "2026-10")
    assert not Invoice.objects.exists()


@pytest.mark.described("invoices are drawn as PDF in the background")
def test_the_pdf_lists_what_was_bought(make_order: MakeOrder) -> None:
    order = make_order(total_cents=3998)
    product = Product.objects.create(sku="WIDGET", name="Widget", stock=1)
    OrderItem.objects.create(order=order, product=product, quantity=2, unit_price_cents=1999)
    assert bytes(create_invoice_for_order(order.pk, "2026-10").pdf).startswith(b"%PDF-")


def test_the_task_invoices_in_the_month_of_completion_whenever_it_runs(make_order: MakeOrder) -> None:
    order = make_order(status="completed", completed_at=datetime(2026, 9, 30, 23, 59, tzinfo=UTC))
    create_invoice.delay(order.pk, event="order.completed")
    create_invoice.delay(order.pk, event="order.completed")
    drain()
    assert Invoice.objects.get().billing_period == "2026-09"
