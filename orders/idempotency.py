"""One order for one Idempotency-Key, whatever is repeated, raced or killed.

The record of the answer is a row of the transaction that places the order, so there is no state "key taken,
order missing" that would have to heal after a crash. What a committed in-flight record would be for, telling
a second caller that the first is still at it, an advisory lock does: PostgreSQL drops it with the transaction
or with the connection.

Semantics: draft-ietf-httpapi-idempotency-key-header; brandur.org/idempotency-keys.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from django.db import connection, transaction
from pydantic import BaseModel

from orders.models import ApiKey, IdempotencyRecord, Order
from orders.problems import Problem, busy


@dataclass(frozen=True)
class Answer:
    """The body (JSON) of the 202, and whether it had been given before."""

    order_id: int
    body: str
    replayed: bool


def fingerprint(body: BaseModel) -> str:
    """What makes two bodies the same: their values, not their spaces, the order of their keys, or whether a default is
    written out.
    """
    # Defaults left out: a release that adds an optional field must not make another body of each that is repeated.
    values = body.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def earlier_answer(*, api_key: ApiKey, key: str, body_hash: str) -> Answer | None:
    """The answer this key was given before, None if there was none; raises a 422 problem for another body."""
    record = IdempotencyRecord.objects.filter(api_key=api_key, key=key).first()
    if record is None:
        return None
    if record.body_hash != body_hash:
        raise Problem(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request.",
            errors=[{"field": "Idempotency-Key", "message": "was used with another body"}],
        )
    return Answer(record.order_id, record.answer, replayed=True)


def answer_once(
    *, api_key: ApiKey, key: str, body_hash: str, place: Callable[[], tuple[Order, str]]
) -> Answer:
    """The earlier answer, or the one that `place` makes now, committed together with the order.

    Raises a 409 problem while another request with this key is in flight, and whatever `place` raises; then
    nothing is stored, and the key may be used again.
    """
    with transaction.atomic():
        if not _only_one_in_flight(api_key, key):
            raise busy(409, "request_in_flight", "This request is still being processed.", retry_after_s=1)
        # Read only after the lock is held: whoever held it before has committed, so its record is seen.
        if earlier := earlier_answer(api_key=api_key, key=key, body_hash=body_hash):
            return earlier
        order, body = place()
        IdempotencyRecord.objects.create(
            api_key=api_key, key=key, body_hash=body_hash, order=order, answer=body
        )
        return Answer(order.pk, body, replayed=False)


def _only_one_in_flight(api_key: ApiKey, key: str) -> bool:
    digest = hashlib.sha256(f"{api_key.pk}:{key}".encode()).digest()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [int.from_bytes(digest[:8], signed=True)])
        return bool(cursor.fetchone()[0])
