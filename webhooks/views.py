"""Incoming: the payment gateway tells us what happened. Verify, store once, answer; a task does the work."""

import json
from http import HTTPStatus
from typing import Any

import stripe
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import DataError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

import outbox
from webhooks.models import IncomingEvent

MAX_BODY_BYTES = 256 * 1024  # The gateway's largest events are a tenth of this.
TOLERANCE_SECONDS = 300  # Older signatures are replays; the gateway signs each of its own retries anew.
_MAX_NAME = 255


class BadEvent(ValueError):
    """The body is signed but is not an event that can be stored; the text says why."""


@csrf_exempt  # The signature is the proof of origin; the gateway has no session to forge.
@require_POST
def gateway(request: HttpRequest) -> HttpResponse:
    """Accept one event: 200 when it is stored, now or before; only then may the gateway forget it.

    Storing it and enqueueing its processing are one transaction, unique on the event's id, so a repeat (the
    gateway delivers at least once) is answered 200 and does nothing. 400 for a bad signature or body, 413
    above the limit, 405 for another method. A database that is away is a 503, for which the gateway will come
    again.
    """
    try:
        if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BODY_BYTES:
            raise RequestDataTooBig
        body = request.body
    except RequestDataTooBig:
        return _problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes"
        )
    try:
        stripe.WebhookSignature.verify_header(
            body.decode(),
            request.headers.get("Stripe-Signature"),
            settings.STRIPE_WEBHOOK_SECRET,
            TOLERANCE_SECONDS,
        )
    except (stripe.SignatureVerificationError, UnicodeDecodeError, TypeError):
        # TypeError: the comparison refuses a signature that is not ASCII.
        return _problem(
            HTTPStatus.BAD_REQUEST, "the Stripe-Signature header does not match the body or is too old"
        )
    try:
        event = _parse(body)
        duplicate = not _store(event)
    except BadEvent as error:
        return _problem(HTTPStatus.BAD_REQUEST, str(error))
    return JsonResponse({"received": True, "duplicate": duplicate})


def _parse(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadEvent(f"the body is not JSON: {error}") from None
    if not isinstance(event, dict):
        raise BadEvent("the body is not a JSON object")
    for name in ("id", "type"):
        value = event.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
            raise BadEvent(f"{name!r} must be a text of 1 to {_MAX_NAME} printable characters")
    return event


def _store(event: dict[str, Any]) -> bool:
    """True when the event is new. Of two copies at once, the second waits on the unique index."""
    try:
        with transaction.atomic():
            _, created = IncomingEvent.objects.get_or_create(
                provider="gateway",
                event_id=event["id"],
                defaults={"event_type": event["type"], "payload": event},
            )
            if created:
                outbox.emit("gateway.event_received", event_id=event["id"])
    except DataError as error:
        # Valid JSON that PostgreSQL cannot hold: \u0000 in a text, NaN.
        raise BadEvent("the body contains a character or number that cannot be stored") from error
    except RecursionError as error:
        # What was read can still be too deep to be written: each way has its own limit.
        raise BadEvent("the body is nested too deeply to be stored") from error
    return created


def _problem(status: HTTPStatus, detail: str) -> HttpResponse:
    # Plain text, so that this app needs no format of its own: the site's middleware makes a problem document of it.
    return HttpResponse(detail, status=status, content_type="text/plain; charset=utf-8")
