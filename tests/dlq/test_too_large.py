"""A message that is too large, as received or once it is inflated, is recorded reduced, and costs the others nothing."""

from __future__ import annotations

import bz2
import hashlib
import json
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from django.conf import settings

from config.queues import is_rabbitmq
from dlq import conf, stats
from dlq.message import PREFIX_BYTES
from dlq.models import Cause, DeadLetter
from dlq.replay import NotReplayable, replay
from outbox.payload import MAX_HEADERS_BYTES, MAX_PAYLOAD_BYTES
from tests.dlq.corpus import TASK
from tests.dlq.preflight import obstacle
from tests.support import effects, rawpublish
from tests.support.brokers import on_both_brokers
from tests.support.pool import assert_every_process_works
from tests.support.processes import Process, await_, worker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean"), on_both_brokers]

MEGABYTE = 1024 * 1024
HUGE = 100 * MEGABYTE
#: On the wire: reading 100 MB would itself take half of the second that others may wait.
LARGE = 32 * MEGABYTE
#: Compression -> what 100 MB of zeros are on the wire.
BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
    "xz": lambda body: lzma.compress(body, preset=0),
}


def peak_mb(process: Process) -> float:
    """The most memory that the worker's parent has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def assert_it_costs_others_less_than_a_second(process: Process, since_cpu_s: float, name: str) -> None:
    """What the worker's parent has computed is what the message behind it waited for, on a machine with nothing else to do.

    The time that it waited would also count what other tests did meanwhile.
    """
    rawpublish.send(TASK, name)
    await_(lambda: effects.count(name) == 1, "the message behind it runs")
    spent_s = process.cpu_s() - since_cpu_s
    assert spent_s < 1, f"{name}: the worker's parent computed for {spent_s:.2f} s"
    assert process.alive()


@pytest.mark.promise(
    "P5",
    "a message is too large, or inflates to more than `DLQ_MAX_MESSAGE_BYTES`",
    "a dead letter with its size, its digest and its first bytes; the next message starts in less than a second",
    celery="unpacks it whole, in the worker's parent",
)
def test_a_compressed_body_is_inflated_no_further_than_the_limit() -> None:
    zeros = bytes(HUGE)

    with worker() as process:
        rawpublish.send(TASK, "first")
        await_(lambda: effects.count("first") == 1, "it works")
        before_mb = peak_mb(process)

        for number, (compression, compress) in enumerate(BOMBS.items(), start=1):
            bomb = compress(zeros)
            assert len(bomb) < MEGABYTE / 2

            headers = rawpublish.task_headers(TASK, compression=compression)
            since = process.cpu_s()
            rawpublish.publish(bomb, headers)
            assert_it_costs_others_less_than_a_second(process, since, compression)
            await_(lambda number=number: DeadLetter.objects.count() == number, "it is recorded", 5)

            dead_letter = DeadLetter.objects.latest("id")
            assert (dead_letter.message_id, dead_letter.cause) == (headers["id"], Cause.UNDECODABLE)
            assert "inflate to more than DLQ_MAX_MESSAGE_BYTES (1048576)" in dead_letter.error
            assert dead_letter.message is not None
            # Small as it is, it is kept whole.
            assert dead_letter.message.body == bomb
            assert not dead_letter.message.missing

        assert peak_mb(process) - before_mb < 64
        assert_every_process_works(process)
        assert "database is unavailable" not in process.output()
        assert "TooLarge" in process.output()


def test_a_text_encoding_of_pythons_that_inflates_is_none() -> None:
    with worker() as process:
        bomb = zlib.compress(bytes(HUGE))
        since = process.cpu_s()
        rawpublish.publish(
            bomb, rawpublish.task_headers(TASK), content_type="application/data", content_encoding="zlib"
        )
        assert_it_costs_others_less_than_a_second(process, since, "behind")
        await_(DeadLetter.objects.exists, "it is recorded", 5)
        assert peak_mb(process) < 300
    assert DeadLetter.objects.get().cause == Cause.MALFORMED


def test_a_body_that_was_compressed_and_is_small_runs() -> None:
    body = zlib.compress(json.dumps([["small"], {}, None]).encode())
    with worker():
        rawpublish.publish(body, rawpublish.task_headers(TASK, compression="application/x-gzip"))
        await_(lambda: effects.count("small") == 1, "it runs")
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'[["' + b"x" * LARGE + b'"], {}, null]', id="long"),
        pytest.param(b"[[" + b"[],{}," * (LARGE // 6) + b"0], {}, null]", id="wide"),
        pytest.param(b"[" * LARGE, id="deep"),
    ],
)
def test_a_body_that_is_too_large_is_recorded_in_short(body: bytes) -> None:
    """With its size, its digest and its beginning."""
    with worker() as process:
        rawpublish.send(TASK, "first")
        await_(lambda: effects.count("first") == 1, "it works")
        since = process.cpu_s()
        rawpublish.publish(body, rawpublish.task_headers(TASK))
        assert_it_costs_others_less_than_a_second(process, since, "behind")
        await_(DeadLetter.objects.exists, "it is recorded", 5)
        # While it is read redis-py holds it three times, and there it is a third longer, for base64.
        assert peak_mb(process) < 4 * LARGE / MEGABYTE + 150
        assert_every_process_works(process)
        assert "database is unavailable" not in process.output()
    dead_letter = DeadLetter.objects.get()
    assert dead_letter.cause == Cause.UNDECODABLE
    assert dead_letter.exception == "dlq.worker.inflate.TooLarge"
    assert dead_letter.message is not None
    assert len(dead_letter.message.body) == PREFIX_BYTES
    assert len(dead_letter.raw or b"") < 3 * PREFIX_BYTES
    assert re.search(r"\d{8} bytes, sha256 [0-9a-f]{64}", dead_letter.error)
    if is_rabbitmq(settings.CELERY_BROKER_URL):
        assert f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()}" in dead_letter.error
        assert dead_letter.message.body == body[:PREFIX_BYTES]
    for force in (False, True):
        with pytest.raises(NotReplayable, match="its body is not here, it was too large"):
            replay(dead_letter.pk, force=force)
    assert "its body is not here" in obstacle(dead_letter)
    assert stats.detail(dead_letter)["raw_bytes"] == PREFIX_BYTES
    assert rawpublish.depth() == 0


def test_whatever_the_outbox_takes_the_worker_takes(broker: str) -> None:
    assert conf.max_message_bytes() / 2 > 2 * MAX_PAYLOAD_BYTES + MAX_HEADERS_BYTES


def test_what_is_within_the_limit_is_kept_whole(broker: str) -> None:
    body = b"x" * conf.max_message_bytes()
    with worker() as process:
        since = process.cpu_s()
        rawpublish.publish(body, rawpublish.task_headers(TASK))
        assert_it_costs_others_less_than_a_second(process, since, "behind")
        await_(DeadLetter.objects.exists, "it is recorded", 5)
    message = DeadLetter.objects.get().message
    assert message is not None
    assert message.body == body
    if not is_rabbitmq(settings.CELERY_BROKER_URL):
        with redis.Redis.from_url(settings.CELERY_BROKER_URL) as client:
            assert not client.exists("unacked")
