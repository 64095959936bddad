"""A paused queue is published nothing to, and is not forgotten; the others flow."""

from __future__ import annotations

import re

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

import outbox
from config.celery import app
from monitoring.alerts import evaluate
from monitoring.snapshot import QueueMonitor
from outbox import groups, pausing
from outbox.models import OperatorAction, OutboxMessage, UnusableQueue
from outbox.relay import queries
from outbox.relay.loop import Relay
from outbox.relay.queue_faults import Faults
from tests.outbox.test_unusable_queue import notes, statuses
from tests.support import tasks

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]


def alerts() -> list[str]:
    return [alert.text for alert in evaluate(QueueMonitor().snapshot()) if alert.name == "queue_unusable"]


def test_nothing_is_published_to_a_paused_queue_until_resumed() -> None:
    """The other queues go on."""
    relay = Relay(app)
    notes(1, "low", "before-")
    relay.run_once()
    assert pausing.pause("low", actor="alice", reason="the mail server is moved")
    assert not pausing.pause("low", actor="bob"), "it is paused already"
    notes(2, "low")
    notes(2, "critical")
    assert (relay.run_once(), relay.run_once()) == (2, 0)
    assert statuses("critical") == [("published", 1)] * 2
    assert statuses("low") == [("pending", 0)] * 2 + [("published", 1)]
    (text,) = alerts()
    assert "low for 0 s (paused by alice: the mail server is moved)" in text
    assert pausing.resume("low")
    assert not pausing.resume("low")
    assert relay.run_once() == 2
    assert alerts() == []


def test_a_pause_outlives_relays_and_what_they_find_out_about_the_broker() -> None:
    pausing.pause("low", actor="alice")
    faults = Faults()
    faults.begin(["low", "critical"])
    faults.note("low", "WRONGTYPE")
    faults.mended(["low"])
    assert pausing.paused() == [("low", "paused by alice")]
    UnusableQueue.objects.create(queue="critical", reason="WRONGTYPE")
    assert pausing.pause("critical", actor="alice"), "one that the broker refuses can be paused, too"


def test_the_reason_of_a_pause_is_shown_without_secrets_on_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command, name in (("outbox_queue", "low"), ("outbox_task", tasks.note.name)):
        call_command(command, "pause", name, "--reason", f"moved, password=hunter2\n\x1b[31m{'x' * 100_000}")
    capsys.readouterr()

    for command in ("outbox_queue", "outbox_task"):
        call_command(command, "list")
    call_command("outbox_status")

    shown = [
        *capsys.readouterr().out.splitlines(),
        *alerts(),
        *OperatorAction.objects.values_list("reason", flat=True),
    ]
    assert not [line for line in shown if "hunter2" in line or "\x1b" in line or len(line) > 3_000]
    assert len([line for line in shown if "moved, password=" in line]) >= 5


def test_the_reason_of_the_broker_is_shown_without_secrets_on_one_line(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Faults().note("low", f"WRONGTYPE\n2026-11-29 ERROR forged\x1b[31m password=hunter2 {'x' * 100_000}")
    call_command("outbox_status")
    with pytest.raises(SystemExit):
        call_command("alerts")
    lines = capsys.readouterr().out.splitlines()
    shown = [*lines, *alerts(), *UnusableQueue.objects.values_list("reason", flat=True), caplog.messages[0]]
    assert len([line for line in shown if "WRONGTYPE 2026-11-29 ERROR forged" in line]) == 5
    assert not [line for line in shown if "hunter2" in line or "\x1b" in line or len(line) > 3_000]


def test_a_paused_queue_is_said_to_be_paused_and_not_refused(
    capsys: pytest.CaptureFixture[str], client: Client
) -> None:
    pausing.pause("low", actor="alice", reason="moved")
    call_command("outbox_status")
    assert re.search(
        r"\n  nothing has been published to low for \d+ s: paused by alice: moved\n", capsys.readouterr().out
    )
    said = client.get("/metrics").content.decode()
    assert re.search(r"# HELP holdfast_queue_unusable .*, or an operator has paused it\n", said)
    assert 'holdfast_queue_unusable{queue="low"} 1.0' in said


def test_the_terminal_pauses_lists_and_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("outbox_queue", "pause", "low", "--reason", "moved")
    call_command("outbox_queue", "list")
    assert capsys.readouterr().out.endswith(": moved\n")
    for wrong, why in ((("pause", "low"), "paused already"), (("pause", "lwo"), "there is no queue 'lwo'")):
        with pytest.raises(CommandError, match=why):
            call_command("outbox_queue", *wrong)
    call_command("outbox_queue", "resume", "low")
    with pytest.raises(CommandError, match="is not paused"):
        call_command("outbox_queue", "resume", "low")
    assert not OutboxMessage.objects.exists()


def test_the_status_counts_what_is_blocked_behind_a_paused_head(capsys: pytest.CaptureFixture[str]) -> None:
    for group, queue, length in (("a", "low", 3), ("b", "default", 2), ("c", "high", 4)):
        for _ in range(length):
            outbox.enqueue(tasks.note.s("x"), queue=queue, ordering_key=group)
    assert groups.promote_heads() == 3
    pausing.pause("low", actor="alice")
    pausing.pause_task(tasks.note.name, actor="alice")
    queries.take({"default": 10})
    call_command("outbox_status")
    lines = [line for line in capsys.readouterr().out.splitlines() if "wait behind" in line]
    assert lines == [
        "2 messages of ordered groups wait behind those of queue low",
        f"1 messages of ordered groups wait behind those of task {tasks.note.name}",
    ]
