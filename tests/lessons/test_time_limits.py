"""Lesson "time limits": the soft time limit rings in the middle of a long file."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from pytest_mock import MockerFixture

import outbox
from lab.lessons.time_limits import import_rows
from orders.models import ImportFile, ImportRow
from orders.tasks import process_large_file, process_order
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.orders.test_importer import dying_at, good, upload


def test_wrong_a_limit_that_is_caught_with_all_errors_stops_nothing() -> None:
    place = MagicMock(side_effect=[None, SoftTimeLimitExceeded(), *[None] * 8])
    import_rows([f"row {number}" for number in range(10)], place)
    assert place.call_count == 10


@pytest.mark.django_db
def test_right_the_run_stops_with_what_it_has_and_another_goes_on(mocker: MockerFixture) -> None:
    mocker.patch("orders.importer.BATCH_ROWS", 4)
    file = upload(*good(11))
    runs = mocker.spy(process_large_file, "run")
    mocker.patch("outbox.enqueue_many", side_effect=dying_at(3, SoftTimeLimitExceeded()))
    message_id = outbox.enqueue(process_large_file.s(file.pk))

    drain("orders.tasks.process_large_file")

    message = OutboxMessage.objects.get(message_id=message_id)
    assert (message.status, message.attempts, runs.call_count) == ("done", 1, 2)
    assert ImportRow.objects.count() == ImportFile.objects.get().rows_staged == 11


def test_right_a_claim_outlives_the_hard_limit_of_its_run() -> None:
    assert process_order.soft_time_limit < process_order.time_limit < process_order.lease_s()
