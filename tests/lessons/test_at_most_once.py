"""Lesson "at most once": the process is killed between the figure and its mark, and the job runs again."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from lab.lessons import at_most_once
from orders import effects
from orders.models import DailyTotals, Order

pytestmark = pytest.mark.django_db


class Killed(BaseException):
    """What no `except Exception` catches, as little as it does SIGKILL."""


def test_wrong_a_mark_that_comes_last_counts_an_order_twice(completed: Order, mocker: MockerFixture) -> None:
    killed = mocker.patch("django.db.models.query.QuerySet.update", side_effect=Killed)

    with pytest.raises(Killed):
        at_most_once.count(completed.pk)
    mocker.stop(killed)
    at_most_once.count(completed.pk)

    assert DailyTotals.objects.get().orders == 2


def test_right_a_mark_that_comes_first_counts_at_most_once(completed: Order, mocker: MockerFixture) -> None:
    killed = mocker.patch("orders.effects.add_to_totals", side_effect=Killed)

    with pytest.raises(Killed):
        effects.count_in_daily_totals(order_id=completed.pk)
    mocker.stop(killed)

    assert not effects.count_in_daily_totals(order_id=completed.pk)
    assert not DailyTotals.objects.exists()
