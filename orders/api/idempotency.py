"""One order for one Idempotency-Key of a customer, whatever is repeated, raced or killed.

The key belongs to the customer and not to the API key: a client that rotates its API key in the middle of a retry
repeats the request, and must get the order that there is.

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
from django.db.models import Q
from pydantic import BaseModel

from orders.api.problems import Problem, busy
from orders.models import ApiKey, IdempotencyRecord, Order


@dataclass(frozen=True)
class Answer:
    """The body (JSON) of the 202, and whether it had been given before."""

    order_id: int
    body: str
    replayed: bool


@dataclass(frozen=True)
class Asked:
    """What makes two requests the same one. `api_key` may place orders of this customer: the caller has checked it."""

    api_key: ApiKey
    customer_id: int
    key: str
    body_hash: str

    @property
    def quoted(self) -> str:
        """What an earlier release stored for a key that was sent as a quoted string."""
        return '"{}"'.format(self.key.replace("\\", "\\\\").replace('"', '\\"'))


def fingerprint(body: BaseModel) -> str:
    """What makes two bodies the same: their values, not their spaces, the order of their keys, or whether a default is
    written out.
    """
    # Defaults left out: a release that adds an optional field must not make another body of each that is repeated.
    values = body.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def earlier_answer(asked: Asked) -> Answer | None:
    """The answer this key was given before, None if there was none; raises a 422 problem for another body."""
    records = IdempotencyRecord.objects.filter(
        Q(api_key=asked.api_key) | Q(customer_id=asked.customer_id), key__in=[asked.key, asked.quoted]
    )
    # Two only where two API keys of one customer were answered in an earlier release: each keeps its own answer.
    record = min(records, key=lambda each: each.api_key_id != asked.api_key.pk, default=None)
    if record is None:
        return None
    if record.body_hash != asked.body_hash:
        raise Problem(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request.",
            errors=[{"field": "Idempotency-Key", "message": "was used with another body"}],
        )
    return Answer(record.order_id, record.answer, replayed=True)


def answer_once(asked: Asked, place: Callable[[], tuple[Order, str]]) -> Answer:
    """The earlier answer, or the one that `place` makes now, committed together with the order.

    Raises a 409 problem while another request with this key is in flight, and whatever `place` raises; then
    nothing is stored, and the key may be used again.
    """
    with transaction.atomic():
        if not _only_one_in_flight(asked):
            raise busy(409, "request_in_flight", "This request is still being processed.", retry_after_s=1)
        # Read only after the lock is held: whoever held it before has committed, so its record is seen.
        if earlier := earlier_answer(asked):
            return earlier
        order, body = place()
        IdempotencyRecord.objects.create(**vars(asked), order=order, answer=body)
        return Answer(order.pk, body, replayed=False)


def _only_one_in_flight(asked: Asked) -> bool:
    # Both, as `earlier_answer` looks for both. The API key's is also the one that the release before takes.
    locks = [_lock(f"{asked.api_key.pk}:{asked.key}"), _lock(f"customer-{asked.customer_id}:{asked.key}")]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s) AND pg_try_advisory_xact_lock(%s)", locks)
        return bool(cursor.fetchone()[0])


def _lock(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
