"""The figures of the real sources, as this project wires them."""

import uuid
from datetime import timedelta

import pytest
from django.conf import settings as configured
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import outbox
from dlq import replay
from dlq.models import DeadLetter
from monitoring.alerts import evaluate
from monitoring.snapshot import QueueMonitor
from outbox import groups, stats, totals
from outbox.models import OutboxMessage, Worker
from outbox.relay import queries
from outbox.testing import drain, run_here
from payments.models import Finding
from tests.support.retrying_tasks import deferred_until
from tests.support.tasks import note, permanently_wrong

SOURCES = configured.MONITORING_SOURCES


def alert_names() -> list[str]:
    return [alert.name for alert in evaluate(QueueMonitor().snapshot())]


def age_all(**ago: int) -> None:
    by = timedelta(**ago)
    OutboxMessage.objects.update(created_at=F("created_at") - by, deliver_at=F("deliver_at") - by)


@pytest.fixture(autouse=True)
def sources(settings) -> None:
    settings.MONITORING_SOURCES = SOURCES


@pytest.mark.described(
    "`QueueMonitor.snapshot()`: `depth`, `processing`, `throughput_per_sec`, `avg_latency_ms`, `error_rate`, `dead_letter_count`"
)
@pytest.mark.django_db
def test_what_is_enqueued_completed_and_dead_shows_in_the_snapshot() -> None:
    outbox.enqueue_many([note.s("a"), note.s("b")], queue="high")
    outbox.enqueue(note.s("later"), queue="high", delay=3600)
    waiting = QueueMonitor().snapshot()
    assert (waiting.depth, waiting.queues["high"].depth, waiting.scheduled) == (2, 2, 1)

    outbox.enqueue(permanently_wrong.s("c"), queue="low")
    drain()
    settled = QueueMonitor().snapshot()
    assert (settled.depth, settled.scheduled) == (0, 0)
    assert settled.queues["high"].done_last_minute == 3
    assert settled.throughput_per_sec == 3 / 60
    assert settled.avg_latency_ms > 0
    assert settled.error_rate == 1 / 4
    assert settled.dead_letter_count == 1
    assert settled.oldest_dead_letter_age_s >= 0


@pytest.mark.promise(
    "P8",
    "a service that is called is down for days, and its messages are deferred",
    "the alert `repeated_age`",
)
@pytest.mark.django_db
def test_a_message_deferred_for_ever_raises_an_alert() -> None:
    """Although it is no backlog."""
    outbox.enqueue(deferred_until.s("put off", 99), queue="critical")
    outbox.enqueue(note.s("never run, and due in a week"), queue="low", delay=7 * 86_400)
    age_all(hours=1, minutes=1)
    assert "repeated_age" not in alert_names(), "it was not run yet"

    groups.promote_heads()
    (message,) = queries.mark("critical", 1)
    run_here(message.message_id, wire=message.identity(), task=message.task, queue=message.queue)

    snapshot = QueueMonitor().snapshot()
    assert snapshot.oldest_pending_age_s == 0
    assert snapshot.queues["critical"].oldest_repeated_age_s > 3600
    assert snapshot.queues["low"].oldest_repeated_age_s == 0
    assert alert_names() == ["repeated_age"]


@pytest.mark.django_db
def test_what_was_not_due_before_has_not_waited() -> None:
    failed = outbox.enqueue(permanently_wrong.s("replayed"), queue="high")
    drain()
    outbox.enqueue(note.s("delayed"), queue="low", delay=3 * 3600)
    outbox.enqueue_many([note.s("head"), note.s("behind it")], queue="default", ordering_key="g")
    age_all(hours=3)
    replay.replay(DeadLetter.objects.get(message_id=failed).pk)
    assert queries.promote_due(1) == groups.promote_heads() == 1
    assert oldest_of(waiting=4) < 60
    (head,) = queries.mark("default", 1)
    run_here(head.message_id, wire=head.identity(), task=head.task, queue=head.queue)
    assert oldest_of(waiting=3) < 60
    age_all(hours=1)
    assert oldest_of(waiting=3) > 3600
    assert "pending_age" in alert_names()


def oldest_of(*, waiting: int) -> float:
    snapshot = QueueMonitor().snapshot()
    assert snapshot.depth == waiting
    return snapshot.oldest_pending_age_s


@pytest.mark.django_db
def test_the_figures_cost_nothing_for_rows_that_are_done() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbox_outboxmessage (message_id, task, queue, status, done_at)"
            " SELECT gen_random_uuid(), 't', 'low', 'done', clock_timestamp() - interval '1 day'"
            " FROM generate_series(1, 20000)"
        )
        cursor.execute("ANALYZE outbox_outboxmessage")
    totals.count_once()
    with CaptureQueriesContext(connection) as captured:
        stats.stats()
        stats.backlog(1000)
    asked = [query["sql"] for query in captured if "outbox_outboxmessage" in query["sql"]]
    with connection.cursor() as cursor:
        for sql in asked:
            cursor.execute(f"EXPLAIN {sql}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "Seq Scan on outbox_outboxmessage" not in plan, plan


@pytest.mark.promise(
    "P8",
    "one worker of several is down",
    "the alert `workers_lost`, until one takes its place or ten minutes have passed",
)
@pytest.mark.django_db
def test_a_worker_that_disappears_is_reported_missing() -> None:
    """One that is replaced, or that ended properly, is not."""

    def worker(*, began: int, last_seen: int) -> None:
        now = timezone.now()
        Worker.objects.create(
            incarnation=uuid.uuid4(), hostname="h", pid=1,
            started_at=now - timedelta(seconds=began), beat_at=now - timedelta(seconds=last_seen),
        )  # fmt: skip

    worker(began=86_400, last_seen=0)
    worker(began=86_400, last_seen=60)
    worker(began=57, last_seen=0)  # its replacement
    queries.forget_processes(worker_timeout_s=configured.OUTBOX_WORKER_TIMEOUT)

    snapshot = QueueMonitor().snapshot()
    assert (snapshot.workers, snapshot.workers_lately) == (2, 2)
    assert alert_names() == []

    worker(began=3600, last_seen=30)
    assert alert_names() == ["workers_lost"]

    Worker.objects.filter(beat_at__lt=timezone.now() - timedelta(seconds=20)).delete()  # as if ended in order
    assert alert_names() == []


@pytest.mark.promise(
    "P8",
    "only a person can mend what reconciliation found",
    "the alert `findings`, and `holdfast_findings_open` by kind",
)
@pytest.mark.django_db
def test_a_finding_that_needs_a_person_raises_an_alert(
    client,
) -> None:
    """One that is being repaired is only counted."""

    def found(kind: str, action: str, resolved_at=None) -> None:
        now = timezone.now()
        Finding.objects.create(
            kind=kind, subject=f"pi_{Finding.objects.count()}", detail="-", action=action,
            last_seen_at=now, resolved_at=resolved_at,
        )  # fmt: skip

    found("refund_overdue", "refund_requested")
    found("captured_twice", "needs_a_person", resolved_at=timezone.now())
    assert alert_names() == []

    found("captured_twice", "needs_a_person")
    assert alert_names() == ["findings"]

    page = client.get("/metrics").content.decode()
    assert 'holdfast_findings_open{kind="captured_twice"} 1.0' in page
    assert 'holdfast_findings_open{kind="refund_overdue"} 1.0' in page
    assert 'holdfast_findings_open{kind="amount_differs"} 0.0' in page, (
        "a series that is not there cannot rise"
    )
    assert 'holdfast_findings_for_a_person{kind="refund_overdue"} 0.0' in page
    assert 'holdfast_alert_firing{alert="findings"} 1.0' in page


@pytest.mark.django_db
def test_every_source_answers_the_scrape(client) -> None:
    outbox.enqueue(permanently_wrong.s("c"), queue="low")
    drain()
    page = client.get("/metrics").content.decode()
    assert 'holdfast_source_up{source="outbox"} 1.0' in page
    assert 'holdfast_source_up{source="dlq"} 1.0' in page
    assert 'holdfast_source_up{source="findings"} 1.0' in page
    assert (
        'holdfast_dlq_messages{queue="low",state="open",task="tests.support.tasks.permanently_wrong"} 1.0'
        in page
    )
