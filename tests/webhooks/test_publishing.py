"""An event of an order becomes one row, and one ordered delivery for each subscription that asked for it."""

import json
from typing import Any

import pytest
from django.db import OperationalError

from dlq.models import DeadLetter
from orders import lifecycle
from orders.models import Order
from orders.services import cancel_order
from outbox import groups
from outbox.models import OutboxMessage
from outbox.relay import queries
from outbox.testing import drain, run_here, staged
from tests.lab.sandbox_fixture import RunningSandbox
from tests.webhooks.conftest import URL, publish
from webhooks import tasks
from webhooks.models import Delivery, Event, Subscription
from webhooks.payload import order_payload
from webhooks.seed import seed_demo
from webhooks.transport import Response

pytestmark = pytest.mark.django_db


def test_each_subscription_gets_one_message_with_its_own_ordering_key(order, subscription):
    other = Subscription.objects.create(customer_id=order.customer_id, url=f"{URL}/2")
    Subscription.objects.create(customer_id=order.customer_id + 1, url=URL)

    tasks.publish_event("order.completed", order.pk)

    assert [(m.args, m.ordering_key, m.queue) for m in staged("webhooks.tasks.deliver")] == [
        ([Delivery.objects.get(subscription=sub).pk], f"webhook-{sub.pk}", "default")
        for sub in (subscription, other)
    ]


def test_a_message_carries_an_id_and_never_the_signing_secret(order, subscription):
    tasks.publish_event("order.completed", order.pk)
    (message,) = staged("webhooks.tasks.deliver")
    assert subscription.secret not in f"{message.args}{message.kwargs}{message.headers}"


def test_an_event_that_is_published_twice_is_delivered_once(order, subscription, mocker):
    post = mocker.patch("webhooks.transport.post", return_value=Response(200))
    tasks.publish_event("order.completed", order.pk)
    tasks.publish_event("order.completed", order.pk)
    assert len(staged("webhooks.tasks.deliver")) == 1

    drain()

    assert post.call_count == 1
    assert Event.objects.count() == Delivery.objects.count() == 1


def test_the_payload_is_a_snapshot_without_private_data(order, subscription, mocker):
    post = mocker.patch("webhooks.transport.post", return_value=Response(500))
    tasks.publish_event("order.completed", order.pk)
    Order.objects.update(currency="eur")
    post.return_value = Response(200)

    drain()

    body = post.call_args.kwargs["data"].decode()
    assert '"currency":"usd"' in body
    assert f'"order_id":{order.pk}' in body
    assert '"total_cents":9999' in body
    assert "private@example.com" not in body


def complete_and_cancel(order: Order) -> None:
    claimed = lifecycle.claim(order_id=order.pk, owner="test")
    assert claimed
    assert lifecycle.complete(claimed, payment_id="pi_1")
    cancel_order(order_id=order.pk)
    OutboxMessage.objects.exclude(task="webhooks.tasks.publish_event").delete()


@pytest.mark.promise(
    "P7",
    "the run that publishes an event fails while a second worker is free",
    "the next event waits for its retry",
)
def test_a_customers_events_are_delivered_in_order_despite_a_retry(order, subscription, mocker):
    """The first of them is retried."""
    post = mocker.patch("webhooks.transport.post", return_value=Response(200))
    complete_and_cancel(order)
    # The first run loses the database's connection; what could run beside it would run before it.
    read = mocker.patch("webhooks.tasks.order_payload", side_effect=OperationalError("connection is lost"))
    groups.promote_heads()
    (head,) = queries.mark("default", 10)
    run_here(head.message_id, wire=head.identity(), task=head.task, queue=head.queue)
    read.side_effect = order_payload
    assert queries.mark("default", 10) == [], "the second event waits for the first"

    drain()

    bodies = [json.loads(call.kwargs["data"]) for call in post.call_args_list]
    assert [body["event"] for body in bodies] == ["order.completed", "order.cancelled"]


def test_a_payload_keeps_what_was_true_at_its_event(order, subscription, mocker):
    """Although the order has moved on."""
    post = mocker.patch("webhooks.transport.post", return_value=Response(200))
    complete_and_cancel(order)
    drain()
    data = [json.loads(call.kwargs["data"])["data"] for call in post.call_args_list]
    assert [(each["status"], each["cancelled_at"] is not None) for each in data] == [
        ("completed", False),
        ("cancelled", True),
    ]


def test_only_what_tells_the_customer_waits_for_its_turn(order):
    claimed = lifecycle.claim(order_id=order.pk, owner="test")
    assert claimed
    lifecycle.complete(claimed, payment_id="pi_1")
    assert {message.task: message.ordering_key for message in staged() if message.ordering_key} == {
        "webhooks.tasks.publish_event": f"customer-{order.customer_id}"
    }


def test_an_event_that_cannot_be_published_lets_the_next_one_pass(order, subscription, mocker):
    post = mocker.patch("webhooks.transport.post", return_value=Response(200))
    read = mocker.patch(
        "webhooks.tasks.order_payload", side_effect=[ValueError("a bug"), {"customer_id": order.customer_id}]
    )
    complete_and_cancel(order)
    drain()
    assert read.call_count == 2
    assert [json.loads(call.kwargs["data"])["event"] for call in post.call_args_list] == ["order.cancelled"]
    assert DeadLetter.objects.get().task == "webhooks.tasks.publish_event"


def test_only_events_that_were_asked_for_are_delivered(order, subscription):
    Subscription.objects.update(event_types=["order.failed"])
    tasks.publish_event("order.completed", order.pk)
    assert staged("webhooks.tasks.deliver") == []
    tasks.publish_event("order.failed", order.pk)
    assert len(staged("webhooks.tasks.deliver")) == 1


def test_seeding_twice_with_a_new_address_leaves_one_active_subscription_each():
    seed_demo("http://127.0.0.1:1/merchants/{customer_id}/webhooks")
    seed_demo("http://127.0.0.1:2/merchants/{customer_id}/webhooks")
    secrets = dict(Subscription.objects.filter(is_active=True).values_list("customer_id", "secret"))
    seed_demo("http://127.0.0.1:2/merchants/{customer_id}/webhooks")

    active = Subscription.objects.filter(is_active=True)
    assert active.count() == 20
    assert set(active.values_list("url", flat=True)) == {
        f"http://127.0.0.1:2/merchants/{n}/webhooks" for n in range(1, 21)
    }
    assert secrets == dict(active.values_list("customer_id", "secret"))


@pytest.mark.promise("P7", "a merchant's endpoint refuses some events", "events arrive in order nevertheless")
@pytest.mark.django_db(transaction=True)
def test_events_arrive_signed_and_in_order_despite_lost_answers(
    sandbox: RunningSandbox, hook: str, order: Order
) -> None:
    """A third of the answers are lost."""
    subscription = Subscription.objects.create(customer_id=order.customer_id, url=hook)
    sandbox.register_merchant(7, subscription.secret)
    sandbox.faults(merchants={"drop_reply_rate": 0.2, "error_rate": 0.2, "rate_limit_rate": 0.2}, seed=1)
    orders: list[Any] = [order]
    orders += [Order.objects.create(customer=order.customer, total_cents=n) for n in range(1, 11)]

    for each in orders:
        publish(each)
    drain()

    received = sandbox.ledger("webhooks")
    assert [entry["payload"]["data"]["order_id"] for entry in received] == [each.pk for each in orders]
    assert all(entry["verified"] for entry in received)
    assert sandbox.bitten("merchants", "drop_reply_rate") > 0
    assert set(Delivery.objects.values_list("status", flat=True)) == {"sent"}
