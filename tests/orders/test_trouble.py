"""The orders' list says which of them have messages that are dead, late or paused, and finds them, beside a million of such."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import Value
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from pytest_mock import MockerFixture

from orders.models import Order
from orders.selectors import in_trouble_only
from outbox import pausing
from outbox.models import OutboxMessage
from outbox.status import PAUSED_UNTIL
from tests.orders.conftest import place
from tests.outbox.test_plans import rows_read

HOUR_AGO = Now() - Value(timedelta(hours=1))


@pytest.fixture
def operator(shop: None, admin_client: Client) -> Client:
    return admin_client


def shown(operator: Client, **query: str) -> dict[int, str]:
    answer = operator.get(reverse("admin:orders_order_changelist"), query)
    return {order.pk: order.trouble or "" for order in answer.context["cl"].result_list}


def test_the_list_finds_orders_with_dead_or_late_messages(operator: Client) -> None:
    """And shows that they have them."""
    dead, late, well = place(), place(), place()
    messages = OutboxMessage.objects
    messages.filter(correlation_id=f"order-{late.pk}").update(created_at=HOUR_AGO, deliver_at=HOUR_AGO)
    of_dead = messages.filter(correlation_id=f"order-{dead.pk}")
    of_dead.update(
        created_at=HOUR_AGO, deliver_at=HOUR_AGO
    )  # its other message is late: dead is what is shown
    of_dead.filter(task="orders.tasks.process_order").update(status="dead", done_at=HOUR_AGO)
    for number, correlation_id in enumerate(("order-", "order-x", f"order-{'9' * 30}", f"order-{well.pk}-x")):
        messages.create(
            task="t",
            queue="low",
            status="dead",
            done_at=HOUR_AGO,
            dedup_key=str(number),
            correlation_id=correlation_id,
        )

    assert shown(operator) == {dead.pk: "dead", late.pk: "late", well.pk: ""}
    assert shown(operator, trouble="dead") == {dead.pk: "dead"}
    assert shown(operator, trouble="late") == {dead.pk: "dead", late.pk: "late"}
    assert shown(operator, trouble="other").keys() == shown(operator).keys()
    page = operator.get(reverse("admin:orders_order_changelist")).content.decode()
    assert "<strong>dead</strong>" in page
    assert f'href="/orders/{well.pk}/"' in page


def test_the_trouble_filter_reads_a_bounded_number_of_messages(
    operator: Client, mocker: MockerFixture
) -> None:
    mocker.patch("outbox.trouble.FOUND", 20)
    order = place()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbox_outboxmessage (message_id, task, queue, status, correlation_id, created_at, deliver_at)"
            " SELECT gen_random_uuid(), 'note', 'low', 'pending', 'order-' || %s, t, t"
            " FROM generate_series(1, 20000), (SELECT clock_timestamp() - interval '1 hour' AS t) hour_ago",
            [order.pk],
        )
        cursor.execute("ANALYZE outbox_outboxmessage")
    assert rows_read(lambda: list(in_trouble_only(Order.objects.order_by("-pk"), "late"))) <= 20 + 10
    page = operator.get(reverse("admin:orders_order_changelist"), {"trouble": "late"})
    assert [each.pk for each in page.context["cl"].result_list] == [order.pk]


def test_orders_that_wait_for_a_resume_are_paused_and_not_late(operator: Client) -> None:
    """Those of a paused queue, of a paused task, and those behind them in an ordered group."""
    of_queue, of_task, behind_queue, behind_task, late = (place() for _ in range(5))
    pausing.pause("low", actor="alice")
    groups = {of_queue: "a", of_task: "b", behind_queue: "a", behind_task: "b", late: "c"}
    for order, group in groups.items():
        OutboxMessage.objects.filter(correlation_id=f"order-{order.pk}").exclude(
            task="orders.tasks.process_order"
        ).delete()
        OutboxMessage.objects.filter(correlation_id=f"order-{order.pk}").update(
            queue="low" if order == of_queue else "default",
            status={of_queue: "pending", of_task: "scheduled", late: "pending"}.get(order, "blocked"),
            ordering_key=group,
            created_at=HOUR_AGO,
            deliver_at=PAUSED_UNTIL if order == of_task else HOUR_AGO,
        )

    paused = dict.fromkeys((of_queue.pk, of_task.pk, behind_queue.pk, behind_task.pk), "paused")
    assert shown(operator) == {late.pk: "late", **paused}
    assert shown(operator, trouble="late") == {late.pk: "late"}
    assert shown(operator, trouble="paused") == paused
    pausing.resume("low")
    assert shown(operator, trouble="late").keys() == {late.pk, of_queue.pk, behind_queue.pk}


@pytest.mark.parametrize("trouble", ["late", "paused"])
def test_many_paused_messages_do_not_slow_the_trouble_filter(
    operator: Client, mocker: MockerFixture, trouble: str
) -> None:
    mocker.patch("outbox.trouble.FOUND", 20)
    pausing.pause("default", actor="alice")
    orders = {"paused": place(), "late": place()}
    OutboxMessage.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbox_outboxmessage"
            " (message_id, task, queue, status, correlation_id, ordering_key, created_at, deliver_at)"
            " SELECT gen_random_uuid(), 'note', queue, status, correlation_id, key, t, coalesce(until + n * '1 us'::interval, t)"
            " FROM (SELECT clock_timestamp() - interval '1 hour' AS t) hour_ago, (VALUES"
            "   ('default', 'pending', %(paused)s, '', NULL, 5000), ('default', 'pending', '', 'group', NULL, 1),"
            "   ('default', 'blocked', %(paused)s, 'group', NULL, 5000), ('low', 'pending', %(late)s, '', NULL, 1),"
            "   ('low', 'scheduled', %(paused)s, '', %(until)s, 5000)"
            " ) AS kinds (queue, status, correlation_id, key, until, count), generate_series(1, count) n",
            {**{name: f"order-{order.pk}" for name, order in orders.items()}, "until": PAUSED_UNTIL},
        )
        cursor.execute("ANALYZE outbox_outboxmessage")
    found: list[Order] = []
    read = rows_read(lambda: found.extend(in_trouble_only(Order.objects.order_by("-pk"), trouble)))
    assert found == [orders[trouble]]
    # Three states with 20 each, and for each that is blocked the head of its group.
    assert read <= 4 * 20 + 10
