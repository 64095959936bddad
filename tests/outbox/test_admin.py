"""The admin's list of messages: it opens as fast on a table of millions as on an empty one."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

import outbox
from outbox.admin import MAX_COUNTED
from outbox.models import OutboxMessage
from outbox.testing import drain
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
