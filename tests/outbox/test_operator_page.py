"""Pause, resume and run now from the admin and a command: asked first, with numbers, refused with the reason, on record."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

import outbox
from outbox import pausing
from outbox.audit import terminal_user
from outbox.models import OperatorAction, OutboxMessage
from tests.outbox.test_run_now import put_off
from tests.support import effects, tasks

pytestmark = pytest.mark.django_db
URL = reverse("admin:outbox_operatoraction_add")
TASK = tasks.note.name


@pytest.fixture(autouse=True)
def no_effects(db: None) -> None:
    effects.clear()


def operator(*permissions: str) -> Client:
    user = User.objects.create_user("alice", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def asked_and_confirmed(client: Client, verb: str, target: str) -> tuple[str, str]:
    """What the page says beforehand, and afterwards."""
    wanted = {"verb": verb, "target": target, "reason": "the printer is replaced"}
    before = client.post(URL, wanted).content.decode()
    after = client.post(URL, {**wanted, "confirmed": ""}, follow=True).content.decode()
    return before, after


def on_record() -> list[tuple[str, str, str, int | None, str]]:
    found = OperatorAction.objects.order_by("id")
    return list(found.values_list("actor", "verb", "target", "messages", "reason"))


@pytest.mark.parametrize(("kind", "name"), [("task", TASK), ("queue", "low")])
def test_a_pause_and_its_end_are_asked_for_with_numbers(kind: str, name: str) -> None:
    for each in ("a", "b"):
        outbox.enqueue(tasks.note.s(each), queue="low")
    client, target = operator("add_operatoraction", "view_operatoraction"), f"{kind} {name}"
    wanted = {"verb": "pause", "target": target, "reason": "the printer is replaced"}
    assert "2 messages wait, as will all that come" in client.post(URL, wanted).content.decode()
    assert not on_record(), "nothing is done before it is confirmed"
    _, after = asked_and_confirmed(client, "pause", target)
    assert f"{target.capitalize()} is paused" in after
    again = client.post(URL, wanted).content.decode()
    since = r" is paused already, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: paused by alice: the printer is replaced"
    assert re.search(target.capitalize() + since, again)
    assert '<option value="resume" selected>' in again
    assert f'<option value="{target}" selected>' in again
    assert 'name="confirmed"' not in again
    assert re.search(target.capitalize() + since, asked_and_confirmed(client, "pause", target)[1])
    before, after = asked_and_confirmed(client, "resume", target)
    assert "2 messages wait, and are published when their time has come" in before
    assert f"{target.capitalize()} is resumed" in after
    assert (
        f"{target.capitalize()} is not paused"
        in client.post(URL, wanted | {"verb": "resume"}).content.decode()
    )
    assert on_record() == [
        ("alice", "pause", target, None, "the printer is replaced"),
        ("alice", "resume", target, None, "the printer is replaced"),
    ]


@pytest.mark.parametrize("name", ["celery.backend_cleanup", "celery.chord", "no.such.task", ""])
def test_what_no_message_names_is_refused_with_those_that_there_are(name: str) -> None:
    for command in (("outbox_task", "pause", name), ("outbox_run_now", "--task", name or "celery.group")):
        with pytest.raises(CommandError, match=rf"there is no task '.*'; the tasks are .*{TASK}"):
            call_command(*command)
    wanted = {"verb": "pause", "target": f"task {name}", "reason": "why", "confirmed": ""}
    assert "errorlist" in operator("add_operatoraction").post(URL, wanted).content.decode()
    assert not on_record()


def test_run_now_is_asked_for_with_its_number() -> None:
    put_off()
    client, target = (
        operator("add_operatoraction", "view_operatoraction"),
        f"task {tasks.always_unavailable.name}",
    )
    before, after = asked_and_confirmed(client, "run now", target)
    assert "1 messages that wait for their back-off become due now" in before
    assert f"1 messages of {target} run now" in after
    assert on_record() == [("alice", "run now", target, 1, "the printer is replaced")]


def test_without_the_permission_it_is_refused_with_the_reason() -> None:
    client = operator("view_operatoraction", "view_outboxmessage", "change_outboxmessage")
    wanted = {"verb": "pause", "target": f"task {TASK}", "reason": "no", "confirmed": ""}
    for answer in (client.get(URL), client.post(URL, wanted)):
        assert answer.status_code == 403
        assert "You lack the permission" in answer.content.decode()
    assert not on_record()
    assert pausing.pause_task(TASK, actor="bob"), "it was not paused"


@pytest.mark.parametrize(
    ("field", "value"), [("verb", "stop"), ("target", "task orders.nothing"), ("reason", "")]
)
def test_an_action_of_unknown_kind_or_without_a_reason_is_refused(field: str, value: str) -> None:
    wanted = {"verb": "pause", "target": f"task {TASK}", "reason": "why", "confirmed": "", field: value}
    assert "errorlist" in operator("add_operatoraction").post(URL, wanted).content.decode()
    assert not on_record()


def test_commands_and_the_action_of_the_list_are_on_record() -> None:
    put_off()
    call_command("outbox_queue", "pause", "low", "--reason", "moved")
    call_command("outbox_queue", "resume", "low", "--reason", "back")
    call_command("outbox_task", "pause", TASK)
    call_command("outbox_task", "resume", TASK)
    call_command("outbox_run_now", "--queue", "default", "--reason", "it is back")
    OutboxMessage.objects.update(deliver_at="2099-01-01T00:00:00Z")
    client = operator("view_outboxmessage", "change_outboxmessage")
    chosen = list(OutboxMessage.objects.values_list("pk", flat=True))
    client.post(
        reverse("admin:outbox_outboxmessage_changelist"),
        {"_selected_action": chosen, "action": "run_now_selected"},
    )
    user = terminal_user()
    assert on_record() == [
        (user, "pause", "queue low", None, "moved"),
        (user, "resume", "queue low", None, "back"),
        (user, "pause", f"task {TASK}", None, ""),
        (user, "resume", f"task {TASK}", None, ""),
        (user, "run now", "queue default", 1, "it is back"),
        ("alice", "run now", "selected messages", 1, ""),
    ]
