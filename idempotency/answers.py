"""One effect and one answer for one key, whatever is repeated, sent at once or killed.

The record of the answer is a row of the transaction of the effect, so there is no state "key taken, effect missing"
that would have to heal after a crash. An advisory lock tells a second caller that the first is still in flight, which
needs no committed record: PostgreSQL drops the lock with the transaction or with the connection.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.http import HttpResponse

from idempotency.errors import InFlight, KeyReused
from idempotency.models import Record

#: Marks an answer that was given before. Stripe's name.
REPLAYED = "Idempotent-Replayed"


@dataclass(frozen=True)
class Asked:
    """What makes two requests the same one. The caller has checked that the request may act in `scope`.

    `scope`: whose key it is, such as "customer-7". Not the credential where that can be rotated: a client that does so in
    the middle of a retry repeats the request, and must get the answer that there is.
    `client`: what sent it, such as "api-key-3", if it may act in several scopes: a key that it used in one scope is no key
    for another. Default: none.
    `body_hash`: `fingerprint` of the request, 64 characters at most.
    """

    scope: str
    key: str
    body_hash: str
    client: str = ""


def fingerprint(values: Any) -> str:
    """What makes two bodies the same: their values, not their spaces or the order of their keys. `values` is JSON's."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def earlier_answer(asked: Asked) -> HttpResponse | None:
    """The answer that this key was given before, None if there was none; raises KeyReused for another body."""
    same = Q(scope=asked.scope)
    if asked.client:
        same |= Q(client=asked.client)
    records = Record.objects.filter(same, key=asked.key)
    # There are two only where one client used the key in another scope, too: its own record comes first.
    record = min(records, key=lambda each: each.client != asked.client, default=None)
    if record is None:
        return None
    # A scope that is the client's own stands for any of its scopes.
    if record.body_hash != asked.body_hash or record.scope not in (asked.scope, asked.client):
        raise KeyReused("This Idempotency-Key was used for another request.")
    return HttpResponse(record.body, status=record.status, headers={**record.headers, REPLAYED: "true"})


def answer_once(
    asked: Asked, answer: Callable[[], HttpResponse], *, last: Callable[[], None] = lambda: None
) -> HttpResponse:
    """The earlier answer, or the one that `answer` makes now, committed together with what it does in the database.

    An answer of 400 or above is not kept: it is returned, what was done for it is rolled back, and the key may be
    used again. So it is when `answer` raises, which this passes on. `last` is called when the answer is recorded, right before
    the commit: for a statement whose locks other requests wait for. What it raises has the same end. Raises InFlight while
    another request with this key is being processed, KeyReused, and TypeError for an answer that is streamed.
    """
    with transaction.atomic():
        is_only_one = _only_one_in_flight(asked)
        # Read only after the lock is held: its previous holder has committed, so that record is seen. And read
        # without it, too: what was answered is never in flight, however often it is repeated.
        if earlier := earlier_answer(asked):
            return earlier
        if not is_only_one:
            raise InFlight("This request is still being processed.")
        response = answer()
        if response.status_code >= 400:
            transaction.set_rollback(True)
            return response
        _keep(asked, response)
        last()
        return response


def _keep(asked: Asked, response: HttpResponse) -> None:
    if response.streaming:
        raise TypeError("a streamed answer cannot be stored")
    if not getattr(response, "is_rendered", True):
        response.render()  # type: ignore[attr-defined]  # a TemplateResponse, else rendered after its view
    Record.objects.create(
        **vars(asked),
        status=response.status_code,
        # Those that the view set; a cookie is not among them, and is not set again.
        headers=dict(response.items()),
        body=response.content.decode(response.charset),
    )


def _only_one_in_flight(asked: Asked) -> bool:
    # For both, as `earlier_answer` looks for both.
    names = [f"{owner}:{asked.key}" for owner in (asked.scope, asked.client) if owner]
    tries = " AND ".join(["pg_try_advisory_xact_lock(%s)"] * len(names))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {tries}", [_lock(name) for name in names])
        return bool(cursor.fetchone()[0])


def _lock(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
