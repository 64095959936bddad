"""The view that takes a provider's events: verify, store once, answer; what follows is done later."""

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import DataError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from . import conf
from .errors import BadEvent
from .models import IncomingEvent

MAX_BODY_BYTES = 256 * 1024  # Stripe's largest events are a tenth of this.
_MAX_NAME = 255

Verify = Callable[[HttpRequest], None]
Identify = Callable[[HttpRequest, dict[str, Any]], tuple[Any, Any]]


def id_and_type(request: HttpRequest, event: dict[str, Any]) -> tuple[Any, Any]:
    """The id and the type of an event that carries them as `id` and `type`, as Stripe's do."""
    return event.get("id"), event.get("type")


def receiver(
    *, provider: str, verify: Verify, identify: Identify = id_and_type
) -> Callable[[HttpRequest], HttpResponse]:
    """A view that accepts one event: 200 when it is stored, now or before; only then may the provider forget it.

    `provider`: its name, up to 50 characters; ids are unique within it.
    `verify`: called with the request, whose body is JSON of at most 256 KiB; raises BadEvent unless the provider sent it.
    `identify`: returns (id, type), texts of 1 to 255 printable characters; by default the body's `id` and `type`.

    Storing the event and calling `INCOMING_ON_EVENT` are one transaction, unique on the event's id, so a repeat (a provider
    delivers at least once) is answered 200 and does nothing. 400 for a bad signature or body, 413 above the limit, 405 for
    another method, each with its reason as plain text. What `INCOMING_ON_EVENT` raises is passed on, and nothing is stored:
    the provider will come again.
    """

    @csrf_exempt  # The signature is the proof of origin; a provider has no session to forge.
    @require_POST
    def receive(request: HttpRequest) -> HttpResponse:
        try:
            if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BODY_BYTES:
                raise RequestDataTooBig
            body = request.body
        except RequestDataTooBig:
            return _refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes"
            )
        try:
            verify(request)
            payload = _parse(body)
            event_id, event_type = map(_checked, ("id", "type"), identify(request, payload))
            created = _store(provider, event_id, event_type, payload)
        except BadEvent as error:
            return _refusal(HTTPStatus.BAD_REQUEST, str(error))
        return JsonResponse({"received": True, "duplicate": not created})

    return receive


def _parse(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadEvent(f"the body is not JSON: {error}") from None
    if not isinstance(event, dict):
        raise BadEvent("the body is not a JSON object")
    return event


def _checked(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
        raise BadEvent(f"{name!r} must be a text of 1 to {_MAX_NAME} printable characters")
    return value


def _store(provider: str, event_id: str, event_type: str, payload: dict[str, Any]) -> bool:
    """Whether the event is new. Of two copies at once, the second waits on the unique index."""
    with transaction.atomic():
        try:
            _, created = IncomingEvent.objects.get_or_create(
                provider=provider,
                event_id=event_id,
                defaults={"event_type": event_type, "payload": payload},
            )
        except DataError as error:
            # Valid JSON that PostgreSQL cannot hold: \u0000 in a text, NaN.
            raise BadEvent("the body contains a character or number that cannot be stored") from error
        except RecursionError as error:
            # What was read can still be too deep to be written: each way has its own limit.
            raise BadEvent("the body is nested too deeply to be stored") from error
        if created and (on_event := conf.on_event()):
            on_event(f"{provider}.event_received", event_id=event_id)
    return created


def _refusal(status: HTTPStatus, reason: str) -> HttpResponse:
    # Plain text, so that this app needs no format of its own: the site's middleware may make a problem document of it.
    return HttpResponse(reason, status=status, content_type="text/plain; charset=utf-8")
