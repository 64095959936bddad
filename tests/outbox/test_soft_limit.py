"""A soft time limit that rings while the database works: psycopg 3 hears it there, psycopg 2 only after the answer."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3

import outbox
from outbox.database import DatabaseUnavailable, patiently
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.support import effects

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean")]

#: A COMMIT that takes its time: a constraint is judged as late as that.
SLOW = """
CREATE FUNCTION wait_and_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(1.5); {end}; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON outbox_test_effect DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION wait_and_refuse()
"""


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """SIGUSR1 is the soft time limit, as Celery's pool has it."""

    def ring(*_: object) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, ring)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def slow_commit(request: pytest.FixtureRequest) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(SLOW.format(end=request.param))
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER slow ON outbox_test_effect; DROP FUNCTION wait_and_refuse()")


def ring_soon() -> None:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1)).start()


@shared_task(transactional=True)
def commits_slowly() -> None:
    effects.add("slow")
    ring_soon()


@shared_task(max_retries=0)
def asks_and_tidies_up() -> None:
    ring_soon()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1.5)")
    except SoftTimeLimitExceeded:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        raise


def write() -> None:
    ring_soon()
    with transaction.atomic():
        effects.add("slow")


@pytest.mark.parametrize("slow_commit", ["RETURN NULL"], indirect=True)
@pytest.mark.usefixtures("slow_commit")
def test_in_the_commit_of_a_settlement_it_is_an_outage() -> None:
    """The session can still be used."""
    with pytest.raises(DatabaseUnavailable, match="soft time limit"):
        patiently(write)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.parametrize("slow_commit", ["RAISE 'refused'"], indirect=True)
@pytest.mark.usefixtures("slow_commit")
def test_in_a_transactional_tasks_commit_its_dead_letter_says_so() -> None:
    message_id = outbox.enqueue(commits_slowly.s())
    drain()
    message = OutboxMessage.objects.get(message_id=message_id)
    assert message.status == "dead"
    # psycopg 2 has the server's answer before it looks for signals.
    assert ("SoftTimeLimitExceeded" if is_psycopg3 else "refused") in message.errors[-1]["error"]
    assert effects.count("slow") == 0


def test_in_a_statement_of_the_body_its_dead_letter_says_so() -> None:
    message_id = outbox.enqueue(asks_and_tidies_up.s())
    began = time.monotonic()
    drain()
    message = OutboxMessage.objects.get(message_id=message_id)
    assert (message.status, message.attempts) == ("dead", 1)
    assert "SoftTimeLimitExceeded" in message.errors[-1]["error"]
    assert time.monotonic() - began < 5
