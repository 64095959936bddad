"""Lesson "batch import": the process is killed in the middle of a file, and its message runs again."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from lab.lessons import batch_import
from orders.models import ImportFile, Order
from orders.services import place_order
from orders.tasks import process_large_file
from outbox.testing import drain
from tests.orders.test_importer import dying_at, upload

ROWS = 7


class Killed(BaseException):
    """What no `except Exception` catches, as little as it does SIGKILL."""


@pytest.fixture
def file(shop: None) -> ImportFile:
    return upload(*(f"{number},usd,pm_card_visa,WIDGET:1," for number in range(1, ROWS + 1)))


def test_wrong_a_run_that_begins_again_places_the_first_orders_twice(
    file: ImportFile, mocker: MockerFixture
) -> None:
    killed = mocker.patch("lab.lessons.batch_import.place_order", wraps=place_order)
    killed.side_effect = [*[mocker.DEFAULT] * 2, Killed]

    with pytest.raises(Killed):
        batch_import.import_file(file.pk)
    mocker.stop(killed)
    batch_import.import_file(file.pk)

    assert Order.objects.count() == 2 + ROWS


def test_right_a_run_that_begins_again_goes_on_at_its_cursor(file: ImportFile, mocker: MockerFixture) -> None:
    mocker.patch("orders.importer.BATCH_ROWS", 2)
    killed = mocker.patch("outbox.enqueue_many", side_effect=dying_at(2, Killed()))

    with pytest.raises(Killed):
        process_large_file(file.pk)
    mocker.stop(killed)
    assert process_large_file(file.pk)["rows"] == ROWS
    drain("orders.tasks.import_row")

    assert Order.objects.count() == ROWS
