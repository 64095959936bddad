"""Behind PgBouncer in transaction mode: cursors of the server do not last, and timeouts do not arrive."""

from __future__ import annotations

import time

import pytest
from django.db import InterfaceError, OperationalError, connection
from pytest_mock import MockerFixture

from dlq import stats
from dlq.models import DeadLetter
from dlq.queue import DeadLetterQueue
from dlq.worker import pending_acks
from dlq.worker.pending_acks import impatient_connection
from lab.stack.pgbouncer import PgBouncer
from tests.support.pooler_fixture import through

pytestmark = pytest.mark.django_db(transaction=True)


def test_rows_that_are_read_a_few_at_a_time_are_all_read(pooler: PgBouncer, mocker: MockerFixture) -> None:
    mocker.patch.object(stats, "EXPORT_PAGE", 2)
    with through(pooler):
        for n in range(5):
            DeadLetterQueue.add(f"job-{n}", "orders", {"n": n}, "it failed")
        expected = [f"job-{n}" for n in reversed(range(5))]
        assert [
            dead_letter["message_id"] for dead_letter in stats.exported(DeadLetter.objects.all())
        ] == expected
        assert [dead_letter["job_id"] for dead_letter in DeadLetterQueue.all()] == expected
        # As Django's own forms do for the choices of a foreign key.
        assert [
            dead_letter.message_id for dead_letter in DeadLetter.objects.iterator(chunk_size=1)
        ] == expected


def test_a_record_that_the_pooler_holds_up_is_given_up(pooler: PgBouncer, mocker: MockerFixture) -> None:
    """The pooler drops the timeout of the statement; the deadline of the connection is left."""
    mocker.patch.object(pending_acks, "DEADLINE_S", 0.5)
    mocker.patch.object(pending_acks, "STATEMENT_TIMEOUT_MS", 50)
    with through(pooler):
        began = time.monotonic()
        with pytest.raises((OperationalError, InterfaceError)), impatient_connection():
            connection.cursor().execute("SELECT pg_sleep(2)")
        assert 0.5 <= time.monotonic() - began < 1.8
