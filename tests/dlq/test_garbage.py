"""An item of a Redis queue that is no message is a dead letter with its bytes, and the worker goes on."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest
import redis
from django.conf import settings

from dlq.models import Cause, DeadLetter
from dlq.replay import NotReplayable, replay
from tests.dlq.corpus import GOOD_BODY, TASK
from tests.dlq.test_pending_acks import database_url
from tests.dlq.test_pending_acks import proxy as proxy  # the fixture
from tests.support import effects, rawpublish
from tests.support.pool import assert_every_process_works
from tests.support.processes import Process, await_, worker
from tests.support.proxy import Proxy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("clean"),
    pytest.mark.parametrize("broker", ["redis"], indirect=True),
]


def envelope(**changes: Any) -> dict[str, Any]:
    """What kombu puts into a list, with changes; a value of ... leaves the field out."""
    whole = {
        "body": base64.b64encode(GOOD_BODY.encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": rawpublish.task_headers(TASK),
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": "default"},
            "priority": 0,
        },
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def properties(**changes: Any) -> dict[str, Any]:
    whole = {**envelope()["properties"], **changes}
    return {"properties": {name: value for name, value in whole.items() if value is not ...}}


NO_JSON = [
    b"not json", b"\xff\xfe\x00", b"[1,2]", b'{"no":"body"}', b"5", b"null", b'"text"', b"{}", b"[]",
    b'{"properties": ', b"[" * 100_000, b"9" * 10_000, b"\x00", b"",
]  # fmt: skip
WRONG_SHAPE: list[dict[str, Any]] = [
    envelope(properties=...),
    envelope(properties=None),
    envelope(properties=[]),
    envelope(**properties(delivery_tag=...)),
    envelope(**properties(delivery_tag=5)),
    envelope(**properties(delivery_tag={})),
    envelope(**properties(delivery_tag="\ud800")),
    envelope(**properties(delivery_info=...)),
    envelope(**properties(delivery_info=None)),
    envelope(**properties(delivery_info=[])),
    envelope(**properties(delivery_info={"exchange": "x"})),
    envelope(**properties(delivery_info={"exchange": None, "routing_key": "default"})),
    envelope(**properties(delivery_info={"exchange": "", "routing_key": 5})),
    envelope(**properties(body_encoding="rot13")),
    envelope(**properties(body_encoding=5)),
    envelope(body="AAA", **properties()),
    envelope(body=...),
    envelope(body=None),
    envelope(body=5),
    envelope(body={"a": 1}, **properties(body_encoding=...)),
    envelope(headers=[]),
    envelope(headers=None),
    envelope(headers="x"),
    envelope(headers={"at": {"__type__": "datetime", "__value__": "soon"}}),
    envelope(headers={"x": json.loads("[" * 400 + "]" * 400)}),
]
GARBAGE = [*NO_JSON, *(json.dumps(each).encode() for each in WRONG_SHAPE)]


def push(*items: bytes, queue: str = "default") -> None:
    with redis.Redis.from_url(settings.CELERY_BROKER_URL) as client:
        client.lpush(queue, *items)


def assert_healthy(process: Process) -> None:
    assert process.alive()
    assert "Connection to broker lost" not in process.output()
    assert_every_process_works(process)


@pytest.mark.promise(
    "P5",
    "an item of a Redis queue is not a message of kombu",
    "a dead letter with its bytes; the next message runs",
    celery="loses the item, and most such items end the worker",
)
def test_each_item_that_is_no_envelope_is_a_dead_letter() -> None:
    """The dead letter has the item's bytes, and the next message runs."""
    with worker() as process:
        for number, item in enumerate(GARBAGE, start=1):
            push(item)
            await_(
                lambda number=number: DeadLetter.objects.count() >= number or not process.alive(),
                f"{item[:80]!r}: recorded",
                10,
            )
            assert process.alive(), f"{item[:80]!r}: ended the worker"

            dead_letter = DeadLetter.objects.latest("id")
            assert dead_letter.message is not None
            assert dead_letter.message.body == item
            assert (dead_letter.cause, dead_letter.queue) == (Cause.MALFORMED, "default")
            assert dead_letter.exception == "dlq.worker.transport.NoEnvelope"

        assert_healthy(process)

    assert DeadLetter.objects.count() == len(GARBAGE)
    with redis.Redis.from_url(settings.CELERY_BROKER_URL) as client:
        assert not client.exists("default", "unacked", "unacked_index")
    with pytest.raises(NotReplayable, match="sent again as it is"):
        replay(dead_letter.pk)


def test_garbage_that_cannot_be_recorded_survives_the_worker_that_holds_it(proxy: Proxy) -> None:
    with worker(env={"DATABASE_URL": database_url(proxy)}) as process:
        proxy.refuse()
        push(b"not json", b"\xff\xfe\x00")
        await_(lambda: "2 ended messages wait" in process.output(), "both are held")
        process.kill_group()
    assert not DeadLetter.objects.exists()
    with redis.Redis.from_url(settings.CELERY_BROKER_URL) as client:
        assert client.hlen("unacked") == 2
        for tag in client.hkeys("unacked"):
            client.zadd("unacked_index", {tag: 1})  # the visibility timeout passes
    with worker() as process:
        await_(lambda: DeadLetter.objects.count() == 2, "both are recorded")
        assert_healthy(process)
    kept = [dead_letter.message.body for dead_letter in DeadLetter.objects.all() if dead_letter.message]
    assert sorted(kept) == [b"not json", b"\xff\xfe\x00"]


def test_garbage_among_unacknowledged_messages_is_recorded() -> None:
    """What is behind it is redelivered."""
    good = envelope(body=json.dumps([["behind"], {}, None]), **properties(body_encoding=...))
    entries = {
        b"a": b"not json",
        b"\xff": b"[1, 2]",
        b"c": json.dumps([{"headers": None}, "", "default"]).encode(),
        b"d": json.dumps([envelope(headers=None), "", "default"]).encode(),
        b"good": json.dumps([good, "", "default"]).encode(),
    }
    with redis.Redis.from_url(settings.CELERY_BROKER_URL) as client:
        client.hset("unacked", mapping=entries)
        client.zadd("unacked_index", {tag: len(entries) - n for n, tag in enumerate(entries)})
    with worker() as process:
        await_(lambda: effects.count("behind") == 1, "the good one is redelivered")
        await_(lambda: DeadLetter.objects.count() == 4, "each other is a dead letter")
        assert_healthy(process)
    kept = {dead_letter.message.body for dead_letter in DeadLetter.objects.all() if dead_letter.message}
    assert kept == {item for tag, item in entries.items() if tag != b"good"}
