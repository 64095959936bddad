"""The task that delivers an event: what is tried again, what waits, what ends it."""

from datetime import timedelta

import pytest
from django.utils import timezone

import outbox
from dlq.models import DeadLetter
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.webhooks.conftest import URL, publish
from webhooks import tasks
from webhooks.models import Delivery, Event
from webhooks.transport import Response

pytestmark = pytest.mark.django_db


def test_a_delivery_whose_event_is_missing_posts_nothing_and_fails(order, subscription, mocker):
    post = mocker.patch("webhooks.transport.post", return_value=Response(200))
    delivery = Delivery.objects.create(event_id="evt_lost", endpoint=URL, subscription=subscription)
    with pytest.raises(Event.DoesNotExist, match="evt_lost"):
        tasks.deliver(delivery.pk)
    assert post.call_count == 0
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts) == ("open", 0)


def test_a_failing_endpoint_is_tried_again_with_the_same_bytes(order, subscription, mocker):
    """And with the same event id."""
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


def test_a_429_for_days_ends_in_a_dead_letter_too(order, subscription, mocker):
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
