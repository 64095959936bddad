"""An event of an order becomes one row, and one ordered delivery for each subscription that asked for it."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, transaction
from django.utils import timezone

import outbox
from dlq.models import DeadLetter
from orders import lifecycle
from orders.models import Customer, Order
from orders.services import cancel_order
from outbox import groups
from outbox.models import OutboxMessage
from outbox.relay import queries
from outbox.testing import drain, run_here, staged
from tests.lab.sandbox_fixture import RunningSandbox
from webhooks import tasks
from webhooks.models import Delivery, Event, Subscription
from webhooks.payload import order_payload
from webhooks.seed import seed_demo
from webhooks.transport import Response

pytestmark = pytest.mark.django_db

URL = "https://example.com/hook"


@pytest.fixture
def order() -> Order:
    customer = Customer.objects.create(name="Ann", email="ann@example.com")
    return Order.objects.create(customer=customer, total_cents=9999, receipt_email="private@example.com")


@pytest.fixture
def subscription(order: Order) -> Subscription:
    return Subscription.objects.create(customer_id=order.customer_id, url=URL)


def publish(order: Order, event: str = "order.completed") -> None:
    with transaction.atomic():
        outbox.enqueue(tasks.publish_event.s(event=event, order_id=order.pk))


def test_each_subscription_of_the_customer_gets_one_message_with_its_own_ordering_key(order, subscription):
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
def test_a_customers_events_are_delivered_in_the_order_in_which_they_happened_although_the_first_is_retried(
    order, subscription, mocker
):
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


def test_a_payload_says_what_its_event_says_although_the_order_has_moved_on(order, subscription, mocker):
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


def test_a_delivery_whose_event_is_missing_posts_nothing_and_fails(order, subscription, mocker):
    post = mocker.patch("webhooks.transport.post", return_value=Response(200))
    delivery = Delivery.objects.create(event_id="evt_lost", endpoint=URL, subscription=subscription)
    with pytest.raises(Event.DoesNotExist, match="evt_lost"):
        tasks.deliver(delivery.pk)
    assert post.call_count == 0
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts) == ("open", 0)


def test_a_failing_endpoint_is_tried_again_with_the_same_id_and_the_same_bytes(order, subscription, mocker):
    answers = [Response(500), ConnectionResetError("reset"), Response(302), Response(200)]
    post = mocker.patch("webhooks.transport.post", side_effect=answers)
    publish(order)

    drain()

    assert post.call_count == 4
    assert len({call.kwargs["headers"]["webhook-id"] for call in post.call_args_list}) == 1
    assert len({call.kwargs["data"] for call in post.call_args_list}) == 1
    assert Delivery.objects.get().status == "sent"


def test_an_endpoint_that_never_recovers_ends_in_a_dead_letter(order, subscription, mocker):
    post = mocker.patch("webhooks.transport.post", return_value=Response(500, text="on fire"))
    publish(order)

    drain()

    assert post.call_count == 1 + len(tasks.RETRY_SCHEDULE)
    dead_letter = DeadLetter.objects.get()
    assert dead_letter.task == "webhooks.tasks.deliver"
    assert "HTTP 500: on fire" in Delivery.objects.get().last_error


def test_a_dead_delivery_lets_the_next_event_pass(order, subscription, mocker):
    post = mocker.patch("webhooks.transport.post", return_value=Response(500))
    publish(order, "order.completed")
    drain()
    post.return_value = Response(200)

    publish(order, "order.cancelled")
    drain()

    assert {d.event_type: d.status for d in Delivery.objects.all()} == {
        "order.completed": "open",
        "order.cancelled": "sent",
    }


def test_429_waits_and_spends_no_attempt(order, subscription, mocker):
    patience = [Response(429, {"Retry-After": "7"})] * 30
    post = mocker.patch("webhooks.transport.post", side_effect=[*patience, Response(200)])
    publish(order)

    drain()

    assert post.call_count == 31
    assert Delivery.objects.get().status == "sent"


@pytest.mark.parametrize("header", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_receiver_cannot_ask_for_a_loop_without_a_pause(order, subscription, mocker, header):
    mocker.patch("webhooks.transport.post", return_value=Response(429, {"Retry-After": header}))
    tasks.publish_event("order.completed", order.pk)

    with pytest.raises(outbox.Defer) as caught:
        tasks.deliver(Delivery.objects.get().pk)

    assert caught.value.seconds >= 1.0


def test_a_receiver_that_says_429_for_days_ends_in_a_dead_letter_too(order, subscription, mocker):
    mocker.patch("webhooks.transport.post", return_value=Response(429))
    tasks.publish_event("order.completed", order.pk)
    Delivery.objects.update(created_at=timezone.now() - tasks.PATIENCE - timedelta(minutes=1))

    drain()

    assert DeadLetter.objects.count() == 1


def test_410_switches_the_subscription_off_and_cancels_what_waits_for_it(order, subscription, mocker):
    post = mocker.patch("webhooks.transport.post", return_value=Response(410))
    publish(order, "order.completed")
    publish(order, "order.cancelled")

    drain()

    subscription.refresh_from_db()
    assert not subscription.is_active
    assert "410" in subscription.disabled_reason
    assert post.call_count == 1
    assert set(Delivery.objects.values_list("status", flat=True)) == {"cancelled"}
    assert not DeadLetter.objects.exists()


def test_an_address_that_turned_private_is_a_dead_letter_at_once(order, subscription, settings, mocker):
    settings.WEBHOOKS_ALLOW_PRIVATE = False
    mocker.patch("socket.getaddrinfo", return_value=[(2, 1, 6, "", ("10.0.0.1", 443))])
    publish(order)

    drain()

    message = OutboxMessage.objects.get(task="webhooks.tasks.deliver")
    assert message.status == "dead"
    assert Delivery.objects.get().attempts == 1


def test_a_delivery_that_another_worker_has_is_deferred(order, subscription):
    tasks.publish_event("order.completed", order.pk)
    delivery = Delivery.objects.get()
    Delivery.claim(event_id=delivery.event_id, endpoint=URL, event_type="order.completed")

    with pytest.raises(outbox.Defer) as caught:
        tasks.deliver(delivery.pk)

    assert 0 < caught.value.seconds <= 60


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
def test_events_arrive_signed_and_in_order_while_a_third_of_the_answers_are_lost(
    sandbox: RunningSandbox, hook: str, order: Order
) -> None:
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
