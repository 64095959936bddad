"""Reports are read from the orders, so that they are exact and can be made again."""

import csv
from datetime import date
from unittest.mock import MagicMock

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from orders.models import Order, Report
from orders.services import OrderService, cancel_order
from orders.tasks import generate_report
from tests.orders.conftest import place


@pytest.mark.described("`generate_report` is made in the background")
def test_report_has_one_line_a_day_and_currency(shop: None, charge: MagicMock) -> None:
    done = [place(), place(), place(currency="eur")]
    for order in done:
        OrderService.process(order_id=order.id)
    cancel_order(order_id=place().id)
    today = timezone.now().date()
    report = Report.objects.create(first_day=today, last_day=today)
    assert generate_report(report.id)["status"] == "ready"
    report.refresh_from_db()
    lines = list(csv.DictReader(report.content.splitlines()))
    assert [(line["currency"], line["placed"], line["completed"], line["cancelled"]) for line in lines] == [
        ("eur", "1", "1", "0"),
        ("usd", "3", "2", "1"),
    ]
    assert lines[1]["revenue_cents"] == str(done[0].total_cents + done[1].total_cents)


def test_report_that_is_made_again_replaces_itself(shop: None) -> None:
    place()
    today = timezone.now().date()
    report = Report.objects.create(first_day=today, last_day=today)
    for _ in range(2):
        generate_report(report.id)
    report.refresh_from_db()
    assert len(report.content.splitlines()) == 2


def test_orders_of_other_days_are_left_out(shop: None) -> None:
    Order.objects.filter(pk=place().id).update(created_at="2020-01-01T23:59:59Z")
    Order.objects.filter(pk=place().id).update(created_at="2020-01-03T00:00:00Z")
    report = Report.objects.create(first_day=date(2020, 1, 2), last_day=date(2020, 1, 2))
    generate_report(report.id)
    report.refresh_from_db()
    assert len(report.content.splitlines()) == 1


def test_a_report_covers_its_days_from_their_first_moment_to_their_last(shop: None) -> None:
    for at in ("2020-01-01T23:59:59.999999Z", "2020-01-02T00:00:00Z", "2020-01-03T23:59:59.999999Z"):
        Order.objects.filter(pk=place().id).update(created_at=at)
    report = Report.objects.create(first_day=date(2020, 1, 2), last_day=date(2020, 1, 3))
    generate_report(report.id)
    report.refresh_from_db()
    assert [line.split(",")[0] for line in report.content.splitlines()[1:]] == ["2020-01-02", "2020-01-03"]


def test_a_report_can_cover_all_the_days_that_a_calendar_has(shop: None) -> None:
    place()
    report = Report.objects.create(first_day=date.min, last_day=date.max)
    generate_report(report.id)
    report.refresh_from_db()
    assert len(report.content.splitlines()) == 2


def test_report_whose_days_are_in_the_wrong_order_is_refused(db: None) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Report.objects.create(first_day=date(2020, 1, 2), last_day=date(2020, 1, 1))
