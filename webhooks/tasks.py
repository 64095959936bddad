"""Outgoing: one event row per thing that happened, one delivery row and one message per subscription."""

from datetime import timedelta
from typing import Any

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db.models import OuterRef, Subquery
from django.utils import timezone

import outbox
from common.priority import Priority
from webhooks.delivery import RETRY_AFTER_DEFAULT_SECONDS, send_webhook
from webhooks.errors import DeliveryInFlight, EndpointGone, EndpointRefused, WebhookDeliveryError
from webhooks.models import Delivery, Event, Subscription
from webhooks.payload import order_payload

# Seconds before each retry: quick ones for a lost packet or a restart, then three days in all for an endpoint
# that is down over a weekend (standardwebhooks.com recommends such a span).
RETRY_SCHEDULE = (1, 2, 5, 15, 60, 300, 1800, 7200, 18_000, 36_000, 72_000, 129_600)
# A receiver may ask for patience with 429 as often as it likes, but not for ever: after this the answer
# counts as a failed attempt like any other, and attempts end.
PATIENCE = timedelta(days=3)


# `ordered`: what is published first is delivered first, so a customer's events must be published in their order, too.
# One at a time for each customer costs nothing where it counts: it is one short transaction, and the posts that follow
# take longer and go one at a time as well. What takes longer than its limit waits for a lock that was never released.
@shared_task(
    queue=Priority.NORMAL.queue,
    transactional=True,
    ordered=True,
    # As with `deliver`: an event that cannot be published waits for an operator, and keeps no endpoint from later ones.
    passes_over_dead=True,
    autoretry_for=(SoftTimeLimitExceeded,),
    max_retries=5,
    soft_time_limit=20,
    time_limit=30,
)
def publish_event(event: str, order_id: int) -> dict[str, Any]:
    """Record that `event` happened to the order and stage one delivery to each subscription that asked for
    it.

    Runs in one transaction with its message. However often it is run, for however many copies of the event,
    there is one Event row (with the payload as it was the first time) and one delivery per subscription.
    """
    payload = order_payload(order_id, event)
    row = Event.record(event_type=event, order_id=order_id, payload=payload)
    # What is there already has its message, from another copy of the event.
    staged = Delivery.objects.filter(event_id=row.event_id).values("endpoint")
    subscriptions = Subscription.objects.filter(customer_id=row.customer_id, is_active=True)
    deliveries = Delivery.objects.bulk_create(
        Delivery(event_id=row.event_id, endpoint=each.url, event_type=event, subscription=each)
        for each in subscriptions.exclude(url__in=staged).order_by("pk")
        if each.wants(event)
    )
    # One key a subscription: its receiver sees events in the order in which they were committed.
    outbox.enqueue_many(
        [deliver.s(each.pk).set(ordering_key=f"webhook-{each.subscription_id}") for each in deliveries]
    )
    return {"status": "published", "event_id": row.event_id, "deliveries": len(deliveries)}


@shared_task(
    queue=Priority.NORMAL.queue,
    autoretry_for=(WebhookDeliveryError, SoftTimeLimitExceeded),
    permanent_errors=(EndpointRefused,),
    retry_schedule=RETRY_SCHEDULE,
    # Below the claim's lease, so that a live sender never outlives its claim.
    soft_time_limit=50,
    time_limit=70,
    last_write_settles=True,
    # An endpoint that missed one event for three days shall not miss all later ones too: its dead letter
    # waits for an operator, out of order by then, while the next event goes out.
    passes_over_dead=True,
)
def deliver(delivery_id: int) -> dict[str, Any]:
    """Post one delivery; every answer but 2xx is retried by `RETRY_SCHEDULE` and then becomes a dead letter.

    429 waits as long as it asks (at most an hour at a time) without spending an attempt; 410 switches the
    subscription off. A subscription that was switched off meanwhile cancels the delivery.
    """
    payload = Event.objects.filter(event_id=OuterRef("event_id")).values("payload")
    delivery = (
        Delivery.objects.select_related("subscription")
        .annotate(payload=Subquery(payload))
        .get(pk=delivery_id)
    )
    subscription = delivery.subscription
    if subscription is None or not subscription.is_active:
        delivery.cancel(reason="the subscription is switched off")
        return {"status": Delivery.Status.CANCELLED.value, "delivery_id": delivery_id}
    if delivery.payload is None:
        raise Event.DoesNotExist(f"there is no event {delivery.event_id}")
    try:
        return send_webhook(
            delivery.endpoint,
            delivery.event_type,
            delivery.payload,
            delivery.event_id,
            secret=subscription.secret,
        )
    except EndpointGone as error:
        subscription.disable(reason=f"the endpoint answered {error}")
        delivery.cancel(reason=str(error))
        return {"status": Delivery.Status.CANCELLED.value, "delivery_id": delivery_id}
    except DeliveryInFlight as error:
        raise outbox.Defer(error.retry_after or 1.0, str(error)) from error
    except WebhookDeliveryError as error:
        if error.status == 429 and timezone.now() - delivery.created_at < PATIENCE:
            raise outbox.Defer(error.retry_after or RETRY_AFTER_DEFAULT_SECONDS, str(error)) from error
        raise
