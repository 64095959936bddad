"""Arguments are kept as Celery's own JSON says them, and arrive in the task as Celery would deliver them."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from django.utils.translation import gettext_lazy
from kombu.utils.json import dumps, loads

import outbox
from outbox import payload
from outbox.errors import EnqueueError
from outbox.testing import drain, staged, wait_until_settled
from tests.support import effects, idioms, tasks
from tests.support.messages import row
from tests.support.processes import relay, worker

ARGUMENTS: dict[str, Any] = {
    "uuid": uuid.UUID("8c7f7b0e-0000-4000-8000-000000000042"),
    "decimal": Decimal("19.990"),
    "datetime": datetime(2026, 11, 28, 21, 30, tzinfo=UTC),
    "naive": datetime(2026, 11, 28, 21, 30),
    "date": date(2026, 11, 28),
    "time": time(21, 30),
    "lazy": gettext_lazy("Order"),
    "bytes": b"\x00\xff",
    "tuple": (1, (2, 3)),
    "within": {"a": [{"b": Decimal("0.1")}], "__type__": 1},
}
each = pytest.mark.parametrize("value", ARGUMENTS.values(), ids=ARGUMENTS)


@each
@pytest.mark.django_db
def test_an_argument_arrives_as_celery_delivers_it(value: Any) -> None:
    idioms.takes.delay(value, name=value)
    drain()
    arrived = loads(dumps(value))
    assert effects.names() == [repr(((arrived,), {"name": arrived}))]


@pytest.mark.django_db(transaction=True)
def test_arguments_arrive_from_a_real_worker(clean: None) -> None:
    with relay(), worker():
        idioms.takes.delay(*ARGUMENTS.values())
        wait_until_settled()
    assert effects.names() == [repr((tuple(loads(dumps(list(ARGUMENTS.values())))), {}))]


@pytest.mark.django_db
def test_a_retry_has_the_same_arguments() -> None:
    result = idioms.own_base_unavailable.delay(ARGUMENTS["uuid"])
    drain()
    assert effects.count(str(ARGUMENTS["uuid"])) == 2
    assert row(result.id).attempts == 2


@pytest.mark.parametrize("kind", ["datetime", "of ours"])
@pytest.mark.django_db
def test_a_mapping_by_hand_beside_an_object_is_refused(kind: str) -> None:
    by_hand = {"__type__": kind, "__value__": "2026-01-01"}
    with pytest.raises(EnqueueError, match="holds the keys __type__ and __value__"):
        idioms.takes.delay(uuid.uuid4(), by_hand)
    assert staged() == []


@pytest.mark.django_db
def test_headers_say_only_what_every_broker_can() -> None:
    with pytest.raises(EnqueueError, match="headers must be JSON"):
        tasks.note.apply_async(["a"], headers={"at": datetime.now(UTC)})


@pytest.mark.django_db
def test_an_id_that_is_no_uuid_stands_for_one() -> None:
    result = tasks.note.apply_async(["a"], task_id="order-42")
    message = row(result.id)
    assert message.message_id == payload.as_uuid("order-42")
    with pytest.raises(EnqueueError, match=f"there is a message {message.message_id} already"):
        tasks.note.apply_async(["a"], task_id="order-42")


@pytest.mark.django_db
def test_an_id_that_is_no_text_is_refused() -> None:
    for wrong in (42, "a" * 256, "a\x00b", "\ud800"):
        with pytest.raises(EnqueueError, match="task_id must be text"):
            outbox.enqueue(tasks.note.s("a").set(task_id=wrong))
