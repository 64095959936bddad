"""Behind PgBouncer in transaction mode a cursor of the server is another client's with the next transaction."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from dlq import selectors
from dlq.models import DeadLetter
from dlq.queue import DeadLetterQueue
from lab.stack.pgbouncer import PgBouncer
from tests.support.pooler_fixture import through

pytestmark = pytest.mark.django_db(transaction=True)


def test_rows_that_are_read_a_few_at_a_time_are_all_read(pooler: PgBouncer, mocker: MockerFixture) -> None:
    mocker.patch.object(selectors, "EXPORT_PAGE", 2)
    with through(pooler):
        for n in range(5):
            DeadLetterQueue.add(f"job-{n}", "orders", {"n": n}, "it failed")
        expected = [f"job-{n}" for n in reversed(range(5))]
        assert [letter["message_id"] for letter in selectors.exported(DeadLetter.objects.all())] == expected
        assert [letter["job_id"] for letter in DeadLetterQueue.all()] == expected
        # As Django's own forms do for the choices of a foreign key.
        assert [letter.message_id for letter in DeadLetter.objects.iterator(chunk_size=1)] == expected
