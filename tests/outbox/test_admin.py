"""The admin's list of messages: it opens as fast on a table of millions as on an empty one."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from pytest_mock import MockerFixture

import outbox
from outbox import groups, pausing, transitions
from outbox.admin import MAX_COUNTED
from outbox.models import OutboxMessage
from outbox.relay import queries
from outbox.status import PAUSED_UNTIL
from outbox.testing import drain
from tests.outbox.test_plans import rows_read
from tests.support import tasks

pytestmark = pytest.mark.django_db

URL = "/admin/outbox/outboxmessage/"


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def fill(rows: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbox_outboxmessage (message_id, task, queue, status, done_at)"
            " SELECT gen_random_uuid(), %s, 'default', 'done', clock_timestamp() FROM generate_series(1, %s)",
            [tasks.note.name, rows],
        )
        cursor.execute("ANALYZE outbox_outboxmessage")


@pytest.mark.parametrize("query", ["", "?queue=default", f"?task={tasks.note.name}", "?status__exact=done"])
def test_the_list_reads_no_more_rows_than_it_shows_or_counts(admin: Client, query: str) -> None:
    fill(MAX_COUNTED + 500)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        answer = admin.get(URL + query)
    assert answer.status_code == 200
    assert answer.context["cl"].result_count == (MAX_COUNTED if query else MAX_COUNTED + 500)
    asked = [q["sql"] for q in queries if 'FROM "outbox_outboxmessage"' in q["sql"]]
    assert len(asked) == 2
    assert all("LIMIT" in sql and "DISTINCT" not in sql for sql in asked), asked


def test_a_message_is_shown_with_all_that_it_carries_but_its_secrets(admin: Client) -> None:
    message_id = outbox.enqueue(tasks.note.s({"password": "hunter2", "city": "Paris"}))
    message = OutboxMessage.objects.get(message_id=message_id)
    page = admin.get(f"{URL}{message.pk}/change/").content.decode()
    assert "Paris" in page
    assert "password" in page
    assert "hunter2" not in page


def test_the_filters_offer_every_queue_and_task_and_find_their_messages(admin: Client) -> None:
    outbox.enqueue(tasks.note.s("a"), queue="low")
    outbox.enqueue(tasks.note_once.s("a"))
    page = admin.get(URL).content.decode()
    assert "?queue=critical" in page
    assert f"?task={tasks.slow.name}" in page
    assert admin.get(URL + "?queue=low").context["cl"].result_count == 1
    assert admin.get(f"{URL}?task={tasks.note_once.name}&queue=default").context["cl"].result_count == 1
    assert admin.get(URL + "?queue=critical").context["cl"].result_count == 0


def test_what_waits_for_a_resume_is_found_and_says_why(admin: Client) -> None:
    """Itself, and behind the head of its group; without the time for which it is set aside."""
    pausing.pause_task(tasks.note.name, actor="alice", reason="moved, password=hunter2")
    pausing.pause("low", actor="bob")
    aside, behind = (outbox.enqueue(tasks.note.s("a"), ordering_key="g") for _ in range(2))
    cancelled = outbox.enqueue(tasks.note.s("b"))
    late, queued = outbox.enqueue(tasks.note_once.s("c")), outbox.enqueue(tasks.note_once.s("d"), queue="low")
    assert groups.promote_heads() == 1
    queries.take({"default": 2})
    transitions.cancel(cancelled, reason="not needed")
    OutboxMessage.objects.filter(message_id=late).update(
        status="pending", deliver_at="2020-01-01T00:00:00Z", created_at="2020-01-01T00:00:00Z"
    )

    def found(trouble: str) -> set[uuid.UUID]:
        return {each.message_id for each in admin.get(f"{URL}?trouble={trouble}").context["cl"].result_list}

    assert found("paused") == {aside, behind, queued}
    assert found("late") == {late}
    assert admin.get(f"{URL}?trouble=paused").content.decode().count('class="field-state">paused<') == 3
    said = {
        aside: "set aside; waits until",
        behind: " and the head of its group has run",
        cancelled: "set aside",
    }
    for message_id, text in said.items():
        message = OutboxMessage.objects.get(message_id=message_id)
        page = admin.get(f"{URL}{message.pk}/change/").content.decode()
        assert text in page
        assert "9000" not in page
        assert "hunter2" not in page
        resume = f"?verb=resume&amp;target=task+{tasks.note.name}"
        assert (resume in page) == ("moved, password=" in page) == (message_id != cancelled)


def test_a_million_paused_messages_do_not_slow_their_list(admin: Client, mocker: MockerFixture) -> None:
    mocker.patch("outbox.trouble.FOUND", 20)
    fill(5_000)
    pausing.pause("default", actor="alice")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbox_outboxmessage (message_id, task, queue, status, deliver_at) SELECT gen_random_uuid(), %s,"
            " 'default', status, at FROM (VALUES ('pending', clock_timestamp()), ('scheduled', %s)) AS kinds (status, at),"
            " generate_series(1, 5000)",
            [tasks.note.name, PAUSED_UNTIL],
        )
        cursor.execute("ANALYZE outbox_outboxmessage")
    # Forty are found, and twenty of them counted and shown.
    assert rows_read(lambda: admin.get(f"{URL}?trouble=paused")) <= 40 + 2 * 20 + 10


def test_without_a_desk_the_list_runs_dead_messages_again(admin: Client, settings: Settings) -> None:
    message_id = outbox.enqueue(tasks.wrong_until_told.s("a"))
    drain()
    message = OutboxMessage.objects.get(message_id=message_id)
    assert message.status == "dead"
    chosen = {"action": "replay_selected", "_selected_action": [message.pk]}
    assert "No action selected" in admin.post(URL, chosen, follow=True).content.decode()
    settings.OUTBOX_DEAD_LETTERS = None
    assert "1 of 1 dead messages run again" in admin.post(URL, chosen, follow=True).content.decode()
    message.refresh_from_db()
    assert (message.status, message.generation) == ("pending", 2)
