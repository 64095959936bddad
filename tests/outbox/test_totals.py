"""Totals for monitoring: they count every message once, and outlive its row."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, transaction

import outbox
from outbox import heartbeat, stats, totals
from outbox.models import OutboxMessage
from outbox.retention import prune
from outbox.testing import drain, staged
from tests.support.database import another_session
from tests.support.processes import await_
from tests.support.tasks import note, permanently_wrong


def counted(queue: str) -> tuple[int, int]:
    found: dict[str, Any] = stats.stats()["totals"][queue]
    return found["enqueued"], found["done"]


@pytest.mark.django_db
def test_totals_count_each_message_once(settings: Any) -> None:
    """Whether it waits, has ended or is pruned."""
    assert counted("low") == (0, 0)
    outbox.enqueue_many([note.s("a"), note.s("b")], queue="low")
    outbox.enqueue(permanently_wrong.s("c"), queue="low")
    assert counted("low") == (3, 0)
    drain()
    assert counted("low") == (3, 2)
    for _ in range(2):
        totals.count_once()
        assert counted("low") == (3, 2)
    settings.OUTBOX_RETENTION = 0
    assert prune() == 2
    assert counted("low") == (3, 2)
    outbox.enqueue(note.s("d"), queue="low")
    drain()
    assert counted("low") == (4, 3)
    assert prune() == 1, "it is counted before it goes"
    assert counted("low") == (4, 3)
    assert counted("high") == (0, 0)


@pytest.mark.django_db
def test_the_distribution_of_latencies_is_cumulative_and_kept() -> None:
    for seconds in (0.3, 3, 100_000):
        outbox.enqueue(note.s("x"), queue="low")
        drain()
        newest = OutboxMessage.objects.order_by("id").last()
        assert newest
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE outbox_outboxmessage SET created_at = done_at - %s * interval '1 second' WHERE id = %s",
                [seconds, newest.pk],
            )
        totals.count_once()
    found = stats.stats()["totals"]["low"]
    assert found["latency_s"] == pytest.approx(100_003.3, abs=0.1)
    buckets = found["buckets"]
    assert [buckets[bound] for bound in (0.25, 0.5, 2.5, 5.0, 86_400.0)] == [0, 1, 1, 2, 2]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_a_message_is_counted_when_its_end_is_committed() -> None:
    outbox.enqueue_many([note.s("slow"), note.s("fast")], queue="low")
    slow, fast = staged()
    ended, go_on = threading.Event(), threading.Event()

    def end_slowly() -> None:
        with transaction.atomic():
            end(slow)
            ended.set()
            go_on.wait(30)
        connection.close()

    thread = threading.Thread(target=end_slowly)
    thread.start()
    assert ended.wait(30)
    end(fast)
    totals.count_once()
    assert counted("low") == (2, 1)
    go_on.set()
    thread.join(30)
    assert counted("low") == (2, 2)
    totals.count_once()
    assert counted("low") == (2, 2)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_a_message_that_ends_during_the_count_is_counted() -> None:
    """While the count reads which sessions are at work."""
    outbox.enqueue_many([note.s("early"), note.s("late")], queue="low")
    early, late = staged()
    end(early)
    there, ended, go_on = threading.Event(), threading.Event(), threading.Event()
    with connection.cursor() as cursor:
        # The list of the sessions is made first, and then takes its time to be read.
        cursor.execute(
            "CREATE TEMP VIEW pg_stat_activity AS"
            " SELECT * FROM pg_catalog.pg_stat_activity"
            " WHERE CASE WHEN backend_type = 'client backend' THEN pg_sleep(0.5) IS NOT NULL END;"
            " SET search_path = pg_temp, public, pg_catalog"
        )

    def end_meanwhile() -> None:
        connection.ensure_connection()
        there.set()
        await_(looking, "the count to look at the sessions")
        with transaction.atomic():
            end(late)
            ended.set()
            go_on.wait(30)
        connection.close()

    thread = threading.Thread(target=end_meanwhile)
    thread.start()
    assert there.wait(30)
    totals.count_once()
    assert ended.is_set(), "it ended after the count"
    go_on.set()
    thread.join(30)
    assert counted("low") == (2, 2)
    connection.close()


def looking() -> bool:
    """Asked in another database: a session of this one would itself be one of those at work."""
    with another_session(dbname="postgres") as elsewhere, elsewhere.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')")
        return bool(cursor.fetchone()[0])


def end(message: OutboxMessage) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET status = 'done', done_at = clock_timestamp() WHERE id = %s",
            [message.pk],
        )


def test_a_worker_knows_what_memory_it_holds() -> None:
    assert heartbeat._memory_bytes(None) > 10_000_000
