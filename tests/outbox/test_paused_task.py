"""Nothing of a paused task is published, wherever it comes from, and all of it after the resume; the others flow."""

from __future__ import annotations

import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from pytest_mock import MockerFixture

import outbox
from config.celery import app
from monitoring.alerts import evaluate
from monitoring.snapshot import QueueMonitor, Snapshot
from outbox import pausing, run_now, transitions
from outbox.models import OutboxMessage, PausedTask, RelayProcess
from outbox.relay import queries
from outbox.relay.declaration import notified
from outbox.relay.loop import PAUSE_S, Relay
from outbox.status import PAUSED_UNTIL
from outbox.testing import drain, run_here
from outbox.trouble import in_trouble
from tests.support import settling_tasks, tasks
from tests.support.locks import wait_until_blocked
from tests.support.messages import claim, elsewhere, row
from tests.support.processes import await_

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]
NOTE = tasks.note.name


def notes(*names: str, **options: Any) -> list[uuid.UUID]:
    return [outbox.enqueue(tasks.note.s(name), **options) for name in names]


def states(message_ids: list[uuid.UUID]) -> list[str]:
    return [row(each).status for each in message_ids]


def set_aside() -> int:
    return OutboxMessage.objects.filter(status="scheduled", deliver_at__gte=PAUSED_UNTIL).count()


def snapshot() -> Snapshot:
    return QueueMonitor().snapshot()


def test_nothing_of_a_paused_task_is_published_until_it_is_resumed() -> None:
    relay = Relay(app, batch=2)
    (before,) = notes("before")
    relay.run_once()
    assert pausing.pause_task(NOTE, actor="alice", reason="the printer is replaced")
    assert not pausing.pause_task(NOTE, actor="bob"), "it is paused already"
    paused = notes("a", "b", "c", "d", "e")
    others = [outbox.enqueue(tasks.note_once.s(name)) for name in ("f", "g")]
    published = [relay.run_once() for _ in range(4)]
    assert sum(published) == 2
    assert states([before, *others]) == ["published"] * 3
    assert (states(paused), set_aside()) == (["scheduled"] * 5, 5)
    assert pausing.resume_task(NOTE)
    assert not pausing.resume_task(NOTE)
    assert sum(relay.run_once() for _ in range(5)) == 5
    assert states(paused) == ["published"] * 5
    found = OutboxMessage.objects.filter(message_id__in=paused).order_by("published_at")
    assert list(found.values_list("message_id", flat=True)) == paused, "in the order of their enqueueing"
    assert set(found.values_list("publish_count", "generation", "attempts")) == {(1, 1, 0)}


def test_two_operators_can_pause_two_tasks_at_the_same_moment() -> None:
    paused = threading.Event()

    def second() -> None:
        assert paused.wait(10)
        assert pausing.pause_task(tasks.note_once.name, actor="bob")

    with elsewhere(second), transaction.atomic():
        assert pausing.pause_task(NOTE, actor="alice")
        paused.set()
        wait_until_blocked(1)

    assert PausedTask.objects.values("until").distinct().count() == 2


def test_retries_children_replays_and_what_the_broker_lost_stay_paused_too() -> None:
    relay, child = Relay(app), uuid.uuid4()
    outbox.enqueue(settling_tasks.parent_of.s(str(child)), queue="low")
    (parent,) = queries.mark("low", 1)
    retried, lost, dead = notes("retried", "lost", "dead")
    relay.run_once()
    (delayed,) = notes("delayed", delay=0.01)
    pausing.pause_task(NOTE, actor="alice")
    with transaction.atomic():
        assert transitions.retry(claim(retried), delay_s=0, error="down")
    OutboxMessage.objects.filter(message_id=dead).update(status="dead", done_at=timezone.now())
    assert transitions.replay(dead)
    OutboxMessage.objects.filter(message_id=lost).update(published_at=timezone.now() - timedelta(hours=1))
    assert queries.requeue_unstarted("default", seen_empty=True, margin_s=15) == 1
    run_here(parent.message_id, wire=parent.identity(), task=parent.task, queue="low")
    every = [retried, lost, dead, delayed, child]

    def passes_until(number: int) -> bool:
        relay.run_once()
        return set_aside() == number

    await_(lambda: passes_until(5), "all five are set aside")
    assert all(row(each).is_paused for each in every)
    pausing.resume_task(NOTE)
    await_(lambda: passes_until(0), "none is set aside")
    assert states(every) == ["published"] * 5


def test_the_head_of_a_group_keeps_its_place() -> None:
    relay = Relay(app)
    pausing.pause_task(NOTE, actor="alice")
    group = notes("a", "b", ordering_key="group")
    last = outbox.enqueue(tasks.note_once.s("c"), ordering_key="group")
    for _ in range(2):
        relay.run_once()
    assert states([*group, last]) == ["scheduled", "blocked", "blocked"]
    pausing.resume_task(NOTE)
    relay.run_once()
    assert states([*group, last]) == ["published", "blocked", "blocked"]


def test_what_is_set_aside_during_a_resume_is_published() -> None:
    """A relay whose statement began before the resume commits after it, and after another relay's pass."""
    (late,) = notes("late")
    pausing.pause_task(NOTE, actor="alice")
    pausing.resume_task(NOTE)
    Relay(app).run_once()
    OutboxMessage.objects.filter(message_id=late).update(
        status="scheduled", deliver_at=PausedTask.objects.get().until
    )
    assert Relay(app).run_once() == 1
    assert states([late]) == ["published"]


def test_what_is_set_aside_can_be_cancelled_but_not_run_now() -> None:
    pausing.pause_task(NOTE, actor="alice")
    first, second = notes("a", "b")
    Relay(app).run_once()
    assert run_now.run_now(task=NOTE, delayed=True) == 0
    chosen = OutboxMessage.objects.filter(message_id=first).values_list("id", "generation")
    assert run_now.make_due(list(chosen)) == 0
    assert transitions.cancel(second, reason="not needed")
    assert states([first, second]) == ["scheduled", "cancelled"]


def test_drain_leaves_a_paused_task_alone_until_it_is_resumed() -> None:
    pausing.pause_task(NOTE, actor="alice")
    (paused,) = notes("paused")
    outbox.enqueue(tasks.note_once.s("other"))
    assert drain() == 1
    assert row(paused).is_paused
    pausing.resume_task(NOTE)
    assert drain() == 1
    assert states([paused]) == ["done"]


def test_an_idle_relay_is_woken_by_a_resume() -> None:
    notes("a")
    pausing.pause_task(NOTE, actor="alice")
    Relay(app).run_once()
    RelayProcess.objects.create(incarnation=uuid.uuid4(), idle=True)
    with connection.cursor() as cursor:
        cursor.execute("LISTEN outbox")
        assert pausing.resume_task(NOTE)
        assert notified(1.0)
        cursor.execute("UNLISTEN outbox")


def test_a_relay_does_not_sleep_while_messages_are_set_aside_or_released(mocker: MockerFixture) -> None:
    relay = Relay(app, batch=2)
    pausing.pause_task(NOTE, actor="alice")
    notes(*"abcdefgh")
    for step in (lambda: None, lambda: pausing.resume_task(NOTE)):
        step()
        stop = mocker.Mock()
        relay.run_once()
        relay._rest(0, stop, until=time.monotonic() + 60)
        stop.wait.assert_called_once_with(PAUSE_S)


def test_a_paused_task_is_named_and_no_relay_is_blamed() -> None:
    notes("a", "b", correlation_id="c-1")
    long_ago = timezone.now() - timedelta(days=9)
    OutboxMessage.objects.update(created_at=long_ago, deliver_at=long_ago, generation=2)
    pausing.pause_task(NOTE, actor="alice", reason="the printer is replaced")
    Relay(app).run_once()
    seen = snapshot()
    names = {alert.name: alert.text for alert in evaluate(seen)}
    said = f"{NOTE} for 0 s (paused by alice: the printer is replaced), 2 messages wait"
    assert names == {"task_paused": f"Nothing is published of: {said}"}
    assert (seen.oldest_pending_age_s, seen.relays.expected, seen.queues["default"].paused) == (0, False, 2)
    assert set(in_trouble().values_list("trouble", flat=True)) == {"paused"}, "and not late"
    page = Client().get("/metrics").content.decode()
    assert 'holdfast_jobs_paused{queue="default"} 2.0' in page
    assert 'holdfast_alert_firing{alert="task_paused"} 1.0' in page
    pausing.resume_task(NOTE)
    Relay(app).run_once()
    resumed = snapshot()
    assert resumed.oldest_pending_age_s < 60, "since the resume"
    assert "task_paused" not in {alert.name for alert in evaluate(resumed)}


def test_what_waits_in_a_paused_queue_blames_neither_relay_nor_worker() -> None:
    notes("a", queue="low")
    long_ago = timezone.now() - timedelta(days=9)
    OutboxMessage.objects.update(created_at=long_ago, deliver_at=long_ago, generation=2)
    pausing.pause("low", actor="alice")
    seen = snapshot()
    assert (seen.oldest_pending_age_s, seen.relays.expected) == (0, False)
    assert {alert.name for alert in evaluate(seen)} == {"queue_unusable", "workers_gone"}
    pausing.resume("low")
    assert {"pending_age", "repeated_age", "relay_lost"} <= {alert.name for alert in evaluate(snapshot())}


def test_the_terminal_pauses_lists_and_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("outbox_task", "pause", NOTE, "--reason", "moved")
    notes("a")
    Relay(app).run_once()
    capsys.readouterr()
    call_command("outbox_task", "list")
    listed = capsys.readouterr().out
    assert listed.startswith(f"{NOTE} is paused by ")
    assert listed.endswith(": moved (1 messages set aside)\n")
    call_command("outbox_status")
    assert listed in capsys.readouterr().out
    for wrong, why in (
        (NOTE, "paused already"),
        ("orders.nothing", "there is no task 'orders.nothing'; the tasks are"),
    ):
        with pytest.raises(CommandError, match=why):
            call_command("outbox_task", "pause", wrong)
    call_command("outbox_task", "resume", NOTE)
    with pytest.raises(CommandError, match="is not paused"):
        call_command("outbox_task", "resume", NOTE)
    assert PausedTask.objects.get().paused_by == ""
