"""Post one event to one endpoint, once.

That it was sent is a row (webhooks.models.Delivery, unique on event and endpoint) and not a key in a cache, so that it
survives an evicted key and a flushed Redis, and two senders at once post
once: the second finds the first one's lease.

What is left: a sender that dies after the receiver acted and before `mark_sent`, an answer that is lost on
the way back, and a sender that is frozen past its lease, are each followed by one more post of the same
event. It carries the same `webhook-id`, by which receivers are told to drop repeats (standardwebhooks.com,
"Webhook id"). No sender can do better over HTTP.
"""

import http.client
import json
import re
from datetime import UTC, datetime
from typing import Any

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

import outbox
from common.request_id import HEADER, TRACEPARENT, is_well_formed, trace_context
from outbox.database import patiently
from resilience.retry_after import parse_retry_after
from webhooks import transport
from webhooks.errors import (
    DeliveryInFlight,
    EndpointGone,
    EndpointRefused,
    EndpointUnreachable,
    WebhookDeliveryError,
)
from webhooks.models import MAX_EVENT_TYPE_LENGTH, Delivery

__all__ = [
    "DeliveryInFlight",
    "EndpointGone",
    "EndpointRefused",
    "EndpointUnreachable",
    "WebhookDeliveryError",
    "send_webhook",
]

RETRY_AFTER_DEFAULT_SECONDS = 60.0  # A 429 that does not say how long.
# Goes into a header; no dots: the signed text is joined with them.
_EVENT_ID = re.compile(r"[A-Za-z0-9_:-]{1,255}")


def send_webhook(
    endpoint_url: str, event_type: str, payload: Any, event_id: str, *, secret: str = ""
) -> dict[str, Any]:
    """Post `{"id", "event", "data"}` to the endpoint unless this event was delivered there before.

    Returns `{'status': 'sent', 'http_status', 'idempotency_key'}`, or `{'status': 'already_sent',
    'idempotency_key'}` without a call. Any 2xx counts as delivered; redirects are not followed. Signed as
    Standard Webhooks says when a `secret` is given (`whsec_…`), unsigned without.

    Raises WebhookDeliveryError (with `.status` and `.retry_after` in seconds) when it was not taken:
    DeliveryInFlight while another sender has it, EndpointUnreachable without an answer, EndpointGone for 410,
    EndpointRefused for an address that we do not call. Raises ValueError for an unusable event id, event type,
    payload or secret, before anything is stored, and RuntimeError inside a transaction.
    """
    if not _EVENT_ID.fullmatch(event_id):
        raise ValueError(f"event_id must be 1 to 255 characters of A-Z a-z 0-9 _ : -, not {event_id!r}")
    if len(event_type) > MAX_EVENT_TYPE_LENGTH or not event_type.isprintable():
        raise ValueError(
            f"event_type must be up to {MAX_EVENT_TYPE_LENGTH} printable characters, not {event_type!r:.200}"
        )
    transport.check_url(endpoint_url)
    signer = _signer(secret)
    key = f"webhook:{event_id}:{endpoint_url}"
    # Nothing in it depends on the attempt, so that a receiver may compare a repeat with what it stored.
    content = {"id": event_id, "event": event_type, "data": payload}
    try:
        body = json.dumps(content, separators=(",", ":"), allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"payload must be JSON: {error}") from error

    delivery = Delivery.claim(event_id=event_id, endpoint=endpoint_url, event_type=event_type)
    if delivery.status == Delivery.Status.SENT:
        return {"status": "already_sent", "idempotency_key": key}
    try:
        http_status = _post(endpoint_url, event_id, body, signer)
    except Exception as error:
        delivery.release(error=str(error) or repr(error), http_status=getattr(error, "status", None))
        raise
    # If the database restarts meanwhile, try again: this process knows that the event was posted, and nothing else
    # does.
    patiently(lambda: delivery.mark_sent(http_status=http_status))
    return {"status": Delivery.Status.SENT.value, "http_status": http_status, "idempotency_key": key}


def _post(url: str, event_id: str, body: str, signer: Webhook | None) -> int:
    """The status of a 2xx answer; every other ending is a WebhookDeliveryError."""
    try:
        response = transport.post(url, data=body.encode(), headers=_headers(event_id, body, signer))
    except (OSError, http.client.HTTPException) as error:
        raise EndpointUnreachable(f"{type(error).__name__}: {error}") from error
    status = response.status_code
    if 200 <= status < 300:
        return status
    text = f": {response.text[:200]}" if response.text else ""
    if status == 410:
        raise EndpointGone(f"HTTP {status}{text}", status=status)
    retry_after = None
    if status in (429, 503) and ("Retry-After" in response.headers or status == 429):
        retry_after = parse_retry_after(
            response.headers.get("Retry-After"),
            date=response.headers.get("Date"),
            default=RETRY_AFTER_DEFAULT_SECONDS,
        )
    raise WebhookDeliveryError(f"HTTP {status}{text}", status=status, retry_after=retry_after)


def _signer(secret: str) -> Webhook | None:
    if not secret:
        return None
    try:
        return Webhook(secret)
    except (ValueError, EmptyWebhookSecretError):
        # Without the cause, whose text may have the secret in it.
        raise ValueError("secret must be whsec_ and base64") from None


def _headers(event_id: str, body: str, signer: Webhook | None) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Holdfast-Webhooks/1",
        "X-Webhook-ID": event_id,
        "webhook-id": event_id,
    }
    message = outbox.current()
    if message and is_well_formed(message.request_id):  # a producer may have written anything into its header
        headers[HEADER] = message.request_id
    if trace := trace_context(outbox.traceparent()):
        headers[TRACEPARENT] = trace
    if signer is not None:
        # Signed anew at every attempt: receivers refuse a timestamp that is older than five minutes.
        now = datetime.now(UTC)
        headers["webhook-timestamp"] = str(int(now.timestamp()))
        headers["webhook-signature"] = signer.sign(event_id, now, body)
    return headers
