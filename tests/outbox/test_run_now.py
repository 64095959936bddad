"""After an outage an operator runs now what waits for its back-off, by task, queue or group; each once, and nothing else."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

import outbox
from outbox import groups
from outbox.models import OutboxMessage, RelayProcess
from outbox.relay import queries
from outbox.relay.declaration import notified
from outbox.run_now import make_due, run_now
from outbox.testing import run_here
from tests.support import effects, tasks

pytestmark = pytest.mark.django_db
URL = "/admin/outbox/outboxmessage/"


@pytest.fixture(autouse=True)
def no_effects(db: None) -> None:
    effects.clear()


def put_off(name: str = "a", **options: str) -> uuid.UUID:
    """A message whose first run failed, and that waits for its back-off."""
    message_id = outbox.enqueue(tasks.always_unavailable.s(name), **options)  # type: ignore[arg-type]
    relay_and_work()
    OutboxMessage.objects.filter(message_id=message_id).update(deliver_at="2099-01-01T00:00:00Z")
    return message_id


def relay_and_work() -> int:
    """One pass of the relay, and what a worker does with it; returns how many messages ran."""
    groups.promote_heads()
    queries.promote_due(100)
    ran = 0
    for queue in OutboxMessage.objects.filter(status="pending").values_list("queue", flat=True).distinct():
        for message in queries.mark(queue, 100):
            run_here(message.message_id, wire=message.identity(), task=message.task, queue=message.queue)
            ran += 1
    return ran


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"queue": "low"}, {"low"}),
        ({"task": tasks.always_unavailable.name}, {"low", "default", "group"}),
        ({"ordering_key": "group"}, {"group"}),
        ({"queue": "high"}, set()),
        ({"task": tasks.always_unavailable.name, "queue": "low"}, {"low"}),
    ],
)
def test_what_waits_for_its_back_off_runs_by_task_queue_or_group(
    chosen: dict[str, str], expected: set[str]
) -> None:
    put_off("low", queue="low")
    put_off("default")
    put_off("group", ordering_key="group")
    effects.clear()
    assert run_now(**chosen) == len(expected)  # type: ignore[arg-type]
    assert relay_and_work() == len(expected)
    assert set(effects.names()) == expected


def test_what_was_enqueued_with_a_delay_keeps_it_unless_asked() -> None:
    outbox.enqueue(tasks.note.s("reminder"), delay=86_400)
    assert run_now(task=tasks.note.name) == 0
    assert run_now(task=tasks.note.name, delayed=True) == 1
    assert relay_and_work() == 1


def test_a_message_that_failed_again_meanwhile_waits_for_its_new_back_off() -> None:
    message_id = put_off()
    (row,) = OutboxMessage.objects.filter(message_id=message_id).values_list("id", "generation")
    assert make_due([row]) == 1
    assert make_due([row]) == 0, "it is due already"
    relay_and_work()
    assert make_due([row]) == 0, "of another generation"
    assert OutboxMessage.objects.get(message_id=message_id).attempts == 2


@pytest.mark.django_db(transaction=True)
def test_an_idle_relay_is_woken() -> None:
    put_off()
    RelayProcess.objects.create(incarnation=uuid.uuid4(), idle=True)
    with connection.cursor() as cursor:
        cursor.execute("LISTEN outbox")
        assert run_now(task=tasks.always_unavailable.name) == 1
        assert notified(1.0)
        cursor.execute("UNLISTEN outbox")


def test_the_terminal_and_the_admin_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    put_off()
    with pytest.raises(CommandError, match="name a task, a queue or a group"):
        call_command("outbox_run_now")
    for wrong, why in (
        ("--queue", "there is no queue 'elsewhere'"),
        ("--task", "there is no task 'elsewhere'"),
    ):
        with pytest.raises(CommandError, match=why):
            call_command("outbox_run_now", wrong, "elsewhere")
    call_command("outbox_run_now", "--queue", "default")
    assert capsys.readouterr().out == "1 message run now\n"
    OutboxMessage.objects.update(deliver_at="2099-01-01T00:00:00Z")
    outbox.enqueue(tasks.note.s("reminder"), delay=86_400)
    operator = User.objects.create_user("operator", is_staff=True)
    operator.user_permissions.set(
        Permission.objects.filter(codename__in=("view_outboxmessage", "change_outboxmessage"))
    )
    client = Client()
    client.force_login(operator)
    every = {
        "_selected_action": list(OutboxMessage.objects.values_list("pk", flat=True)),
        "action": "run_now_selected",
    }
    answer = client.post(URL, {**every, "select_across": "1"}, follow=True).content.decode()
    assert "1 scheduled message run now" in answer
    assert "1 scheduled message run now" in client.post(URL, every, follow=True).content.decode(), (
        "the reminder"
    )
