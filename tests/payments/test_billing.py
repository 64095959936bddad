"""payments/billing.py: never two jobs at a time for one customer, never two bills for one month."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from pytest_mock import MockerFixture

import outbox
from dlq.models import DeadLetter
from orders.models import Customer, Order
from outbox.testing import drain, staged
from payments.billing import PeriodStillOpen, bill_customer, month
from payments.models import CustomerBill, Invoice
from payments.tasks import bill_customer as bill_task
from resilience.locks import LockHeld, task_lock
from tests.payments.conftest import MakeOrder


@pytest.fixture
def customer(make_order: MakeOrder) -> Customer:
    """Two orders in dollars and one in euros in September, beside three that are not to be billed."""
    customer = Customer.objects.create(name="Grace", email="grace@example.com")
    september = datetime(2026, 9, 30, 23, 59, 59, tzinfo=UTC)
    common = {"customer": customer, "status": "completed", "completed_at": september}
    make_order(**common, total_cents=1000)
    make_order(**common, total_cents=500)
    make_order(**common, total_cents=700, currency="eur")
    make_order(**common | {"completed_at": datetime(2026, 10, 1, tzinfo=UTC)})
    make_order(customer=customer, status="cancelled", completed_at=september)
    make_order(status="completed", completed_at=september)
    return customer


def totals(bill: CustomerBill) -> dict[str, tuple[int, int]]:
    return {row.currency: (row.invoices, row.total_cents) for row in bill.totals.all()}


def test_a_bill_adds_up_the_months_invoices_by_currency(customer: Customer) -> None:
    bill = bill_customer(customer.pk, "2026-09")
    assert totals(bill) == {"usd": (2, 1500), "eur": (1, 700)}


def test_billing_twice_returns_the_first_bill(customer: Customer) -> None:
    first = bill_customer(customer.pk, "2026-09")
    assert bill_customer(customer.pk, "2026-09") == first
    assert totals(first) == {"usd": (2, 1500), "eur": (1, 700)}


def test_an_order_whose_invoice_is_still_in_a_queue_is_billed(customer: Customer) -> None:
    assert not Invoice.objects.exists()
    bill_customer(customer.pk, "2026-09")
    assert Invoice.objects.count() == 3


def test_a_customer_without_orders_gets_an_empty_bill(customer: Customer) -> None:
    assert totals(bill_customer(customer.pk, "2026-08")) == {}


@pytest.mark.described("`lock:user_id:X`: two billing jobs of one customer do not run at once")
def test_a_customer_who_is_being_billed_is_not_billed_beside(customer: Customer) -> None:
    with task_lock("user_id", customer.pk), pytest.raises(LockHeld):
        bill_customer(customer.pk, "2026-09")
    assert not CustomerBill.objects.exists()
    bill_customer(customer.pk, "2026-09")


def test_other_customers_are_billed_beside(customer: Customer) -> None:
    other = Customer.objects.create(name="Alan", email="alan@example.com")
    with task_lock("user_id", other.pk):
        bill_customer(customer.pk, "2026-09")


def test_the_unique_constraint_makes_one_bill_even_when_two_hold_the_lock(
    customer: Customer, mocker: object
) -> None:
    first = bill_customer(customer.pk, "2026-09")
    # The lease ran out under a frozen holder, and it goes on as if it were the first.
    create = CustomerBill.objects.create
    mocker.patch.object(  # type: ignore[attr-defined]
        CustomerBill.objects, "get_or_create", side_effect=lambda **values: (create(**values), True)
    )
    assert bill_customer(customer.pk, "2026-09") == first


def test_the_current_month_cannot_be_billed_yet(customer: Customer) -> None:
    with pytest.raises(PeriodStillOpen):
        bill_customer(customer.pk, f"{timezone.now():%Y-%m}")


def test_a_worker_whose_clock_is_ahead_bills_no_month_early(
    customer: Customer, mocker: MockerFixture
) -> None:
    this_month = f"{timezone.now():%Y-%m}"
    mocker.patch("django.utils.timezone.now", return_value=timezone.now() + timedelta(days=62))
    with pytest.raises(PeriodStillOpen):
        bill_customer(customer.pk, this_month)


def test_a_month_is_billed_an_hour_after_its_end(customer: Customer, mocker: MockerFixture) -> None:
    """It waits for the last commits of the month."""
    clock = mocker.patch("common.clock.now", return_value=datetime(2026, 10, 1, 0, 59, 59, tzinfo=UTC))
    with pytest.raises(outbox.Defer) as caught:
        bill_task(customer.pk, "2026-09")
    assert caught.value.seconds == 1
    clock.return_value = datetime(2026, 10, 1, 1, 0, tzinfo=UTC)
    bill_task(customer.pk, "2026-09")
    assert CustomerBill.objects.count() == 1


def test_a_month_that_is_not_over_is_a_dead_letter_at_once(customer: Customer) -> None:
    bill_task.delay(customer.pk, f"{timezone.now():%Y-%m}")
    assert drain() == 1
    assert "can be billed from" in DeadLetter.objects.get().error


@pytest.mark.parametrize(
    "period", ["2026-13", "2026-1", "2026-00", "202609", "", "0000-01", "9999-12", "\uff12026-09"]
)
def test_what_is_no_month_is_refused(period: str) -> None:
    with pytest.raises(ValueError, match="a billing period is a month"):
        month(period)


def test_december_ends_with_the_year() -> None:
    assert month("2026-12") == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.described("a job that does not get its lock goes back into its queue")
def test_the_task_defers_while_the_lock_is_held(customer: Customer) -> None:
    """It spends no attempt."""
    with task_lock("user_id", customer.pk), pytest.raises(outbox.Defer):
        bill_task(customer.pk, "2026-09")
    bill_task.delay(customer.pk, "2026-09")
    assert [message.queue for message in staged("payments.tasks.bill_customer")] == ["low"]
    drain()
    assert CustomerBill.objects.get().customer_id == customer.pk
    assert Order.objects.filter(customer=customer).count() == 5


def test_a_period_that_is_no_month_is_a_dead_letter_at_once(customer: Customer) -> None:
    bill_task.delay(customer.pk, "September")
    assert drain() == 1
    assert "a billing period is a month" in DeadLetter.objects.get().error


@pytest.mark.django_db(transaction=True)  # The foreign key is checked at a real commit.
def test_an_unknown_customer_is_a_dead_letter_that_names_it() -> None:
    bill_task.delay(999_999, "2026-09")
    assert drain() == 1
    assert "there is no customer 999999 to bill" in DeadLetter.objects.get().error
