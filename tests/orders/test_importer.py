"""A file of orders: one message a row, each row once, whatever is killed or run twice."""

from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from pytest_mock import MockerFixture

import outbox
from orders import importer
from orders.models import ImportFile, ImportRow, Order
from orders.selectors import import_progress, with_progress
from orders.tasks import import_row, process_large_file
from outbox.testing import clear, drain, staged

HEADING = "customer_id,currency,payment_method,items,receipt_email\n"


@pytest.fixture(autouse=True)
def _no_follow_up(mocker: MockerFixture) -> None:
    mocker.patch("orders.services.placing.announce")


def upload(*lines: str, heading: str = HEADING) -> ImportFile:
    return ImportFile.objects.create(
        name="orders.csv", content=heading + "".join(f"{line}\n" for line in lines)
    )


def good(count: int) -> list[str]:
    return [
        f"{number % 20 + 1},usd,pm_card_visa,WIDGET:1;GIZMO:2,a{number}@example.com"
        for number in range(count)
    ]


@pytest.mark.described("`enqueue_batch`: one job for each record")
def test_one_message_is_enqueued_for_each_record(shop: None) -> None:
    file = upload(*good(5))
    assert process_large_file(file.id) == {"status": "staged", "file_id": file.id, "rows": 5}
    rows = list(ImportRow.objects.order_by("number").values_list("pk", flat=True))
    messages = staged("orders.tasks.import_row")
    assert [message.args for message in messages] == [[row] for row in rows]
    assert {message.queue for message in messages} == {"low"}


@pytest.mark.described("all records of a batch are processed")
def test_all_records_become_orders(shop: None) -> None:
    file = upload(*good(3))
    process_large_file.delay(file.id)
    drain()
    file.refresh_from_db()
    assert file.status == "staged"
    assert import_progress(with_progress(ImportFile.objects.all()).get(pk=file.pk)) == {
        "staged": 3,
        "pending": 0,
        "imported": 3,
        "rejected": 0,
    }
    order = Order.objects.get(receipt_email="a1@example.com")
    assert (order.customer_id, order.items.count(), order.subtotal_cents) == (2, 2, 1999 + 2 * 999)


def test_file_of_several_batches_is_staged_whole(shop: None, mocker: MockerFixture) -> None:
    mocker.patch("orders.importer.BATCH_ROWS", 4)
    file = upload(*good(11))
    process_large_file(file.id)
    assert list(ImportRow.objects.order_by("number").values_list("number", flat=True)) == list(range(1, 12))
    assert len(staged("orders.tasks.import_row")) == 11


@pytest.mark.promise(
    "P3",
    "an import is killed between two batches",
    "the next run goes on at its cursor; no row is staged twice",
)
def test_import_that_was_killed_continues_where_it_stopped(shop: None, mocker: MockerFixture) -> None:
    mocker.patch("orders.importer.BATCH_ROWS", 4)
    file = upload(*good(11))
    kill = mocker.patch("outbox.enqueue_many", side_effect=dying_at(3))

    with pytest.raises(KeyboardInterrupt):
        process_large_file(file.id)
    assert importer.rows_staged(file_id=file.id) == ImportRow.objects.count() == len(staged()) == 8

    mocker.stop(kill)
    process_large_file(file.id)
    process_large_file(file.id)

    assert ImportRow.objects.count() == len(staged()) == 11


@pytest.mark.promise("P3", "two workers import one file at once", "one of them stops; no row is staged twice")
def test_of_two_imports_of_one_file_at_once_one_stops(shop: None, mocker: MockerFixture) -> None:
    mocker.patch("orders.importer.BATCH_ROWS", 4)
    file = upload(*good(8))
    stage = importer._stage

    def overtaken(file_id: int, already: int, batch: list[dict[str, Any]]) -> bool:
        mocker.stop(patched)
        process_large_file(file_id)  # the other one does it all before our first batch
        return stage(file_id, already, batch)

    patched = mocker.patch("orders.importer._stage", side_effect=overtaken)
    assert process_large_file(file.id)["status"] == "in_progress"

    assert ImportRow.objects.count() == 8


@pytest.mark.described("`process_large_file` is asked to stop after 300 s and killed after 360 s")
@pytest.mark.promise(
    "P4",
    "a long import reaches its soft time limit",
    "what is staged stays, and the rest follows in another run; no attempt is spent",
)
def test_asked_to_stop_it_defers_what_is_left_and_finishes_later(shop: None, mocker: MockerFixture) -> None:
    mocker.patch("orders.importer.BATCH_ROWS", 4)
    file = upload(*good(11))
    stop = mocker.patch("outbox.enqueue_many", side_effect=dying_at(3, SoftTimeLimitExceeded()))

    with pytest.raises(outbox.Defer, match="8 rows staged"):
        process_large_file(file.id)

    mocker.stop(stop)
    assert process_large_file(file.id)["rows"] == 11


def test_run_without_any_progress_is_a_failure(shop: None, mocker: MockerFixture) -> None:
    file = upload(*good(3))
    mocker.patch("outbox.enqueue_many", side_effect=SoftTimeLimitExceeded())
    with pytest.raises(SoftTimeLimitExceeded):
        process_large_file(file.id)


@pytest.mark.promise("P3", "the message of an imported row is delivered again", "one order")
def test_row_is_imported_once_however_often_its_message_comes(shop: None) -> None:
    process_large_file(upload(*good(1)).id)
    clear()
    row = ImportRow.objects.get()

    assert import_row(row.pk)["status"] == "imported"
    assert import_row(row.pk)["status"] == "imported"

    assert Order.objects.count() == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,usd,pm_card_visa,WIDGET:1,", "customer_id: Input should be a valid integer"),
        (",usd,pm_card_visa,WIDGET:1,", "customer_id: Field required"),
        ("1.0,usd,pm_card_visa,WIDGET:1,", "customer_id: Input should be a valid integer"),
        ("0,usd,pm_card_visa,WIDGET:1,", "customer_id: Input should be greater than or equal to 1"),
        ("999,usd,pm_card_visa,WIDGET:1,", "customer_id: There is no customer 999."),
        ("1,,pm_card_visa,WIDGET:1,", "currency: Field required"),
        ("1,USD,pm_card_visa,WIDGET:1,", "currency: String should match pattern"),
        ("1, usd,pm_card_visa,WIDGET:1,", "currency: String should match pattern"),
        ("1,usd,,WIDGET:1,", "payment_method: Field required"),
        ("1,usd, ,WIDGET:1,", "payment_method: String should match pattern"),
        ("1,usd,pm card,WIDGET:1,", "payment_method: String should match pattern"),
        ("1,usd,pm_card_visa,,", "items: Field required"),
        ("1,usd,pm_card_visa,NOTHING:1,", "items[0].sku: There is no product NOTHING."),
        ("1,usd,pm_card_visa,WIDGET,", "items[0].quantity: Field required"),
        ("1,usd,pm_card_visa,WIDGET:,", "items[0].quantity: Field required"),
        ("1,usd,pm_card_visa,WIDGET:1.0,", "items[0].quantity: Input should be a valid integer"),
        ("1,usd,pm_card_visa,WIDGET: 1,", "items[0].quantity: Input should be a valid integer"),
        ("1,usd,pm_card_visa,WIDGET:+1,", "items[0].quantity: Input should be a valid integer"),
        ("1,usd,pm_card_visa,WIDGET:1_0,", "items[0].quantity: Input should be a valid integer"),
        ("1,usd,pm_card_visa,WIDGET:\u0663,", "items[0].quantity: Input should be a valid integer"),
        ("1,usd,pm_card_visa,WIDGET:01,", "items[0].quantity: Input should be a valid integer"),
        ("1,usd,pm_card_visa,WIDGET:0,", "items[0].quantity: Input should be greater than or equal to 1"),
        (
            "1,usd,pm_card_visa,WIDGET:10001,",
            "items[0].quantity: Input should be less than or equal to 10000",
        ),
        ("1,usd,pm_card_visa,WIDGET:" + "9" * 40 + ",", "items[0].quantity: Input should be less than"),
        (
            "1,usd,pm_card_visa,WIDGET:" + "9" * 5000 + ",",
            "items[0].quantity: Input should be a valid integer",
        ),
        ("1,usd,pm_card_visa,WIDGET:1;,", "items[1].sku: String should match pattern"),
        ("1,usd,pm_card_visa,WIDGET:1:2,", "items[0].quantity: Input should be a valid integer"),
        ("1,usd,pm_card_visa,WIDGET:1;WIDGET:1,", "items[1].sku: WIDGET is listed twice"),
        ("1,usd,pm_card_visa,WIDGET:1,nobody", "receipt_email: Value error, must be an email address"),
        ("1", "1 field, the heading has 5"),
        ("1,usd,pm_card_visa,WIDGET:1", "4 fields, the heading has 5"),
        ("1,usd,pm_card_visa,WIDGET:1,,2", "6 fields, the heading has 5"),
        ("1,usd,pm_card_visa,WIDGET:1,a@example.com,", "6 fields, the heading has 5"),
    ],
)
def test_bad_row_is_rejected_with_its_reason_and_the_others_are_imported(
    shop: None, line: str, reason: str
) -> None:
    file = upload(line, *good(1))
    process_large_file.delay(file.id)
    drain()
    bad, fine = ImportRow.objects.order_by("number")
    assert bad.status == "rejected"
    assert bad.error.startswith(f"line 2: {reason}")
    assert fine.status == "imported"
    assert Order.objects.count() == 1


@pytest.mark.parametrize(
    ("heading", "reason"),
    [
        ("customer,currency\n", "unknown column 'customer'"),
        ("customer_id,currency\n", "lacks payment_method, items, receipt_email"),
        ("", "unknown column '1'"),
        ("\n", "lacks customer_id"),
        ('"\n', "line 1: "),
        (HEADING.replace("receipt_email", "currency"), "'currency' appears twice"),
        (HEADING.replace("currency", "currency,currency"), "'currency' appears twice"),
        (HEADING.replace("receipt_email", "receipt_email,discount"), "unknown column 'discount'"),
        (HEADING.replace("receipt_email", "receipt_email,"), "unknown column ''"),
        (HEADING.replace("currency", "Currency"), "unknown column 'Currency'"),
        (HEADING.replace("currency", " currency"), "unknown column ' currency'"),
        ("\ufeff" + HEADING, "unknown column '\\ufeffcustomer_id'"),
        (HEADING.replace(",", ";"), "unknown column 'customer_id;currency;"),
    ],
)
def test_file_that_is_no_list_of_orders_is_rejected_whole(shop: None, heading: str, reason: str) -> None:
    file = upload("1,usd", heading=heading)
    assert process_large_file(file.id)["status"] == "rejected"
    file.refresh_from_db()
    assert file.status == "rejected"
    assert reason in file.error
    assert not ImportRow.objects.exists()


def test_columns_may_stand_in_any_order(shop: None) -> None:
    file = upload(
        "WIDGET:2,,pm_card_visa,eur,3", heading="items,receipt_email,payment_method,currency,customer_id\n"
    )
    process_large_file.delay(file.id)
    drain()
    order = Order.objects.get()
    assert (order.customer_id, order.currency, order.receipt_email) == (3, "eur", "customer3@example.com")


def test_row_is_named_by_the_line_that_it_begins_in(shop: None) -> None:
    file = upload("", '1,usd,"pm\ncard",WIDGET:1,', "1,usd,,WIDGET:1,")
    process_large_file.delay(file.id)
    drain()
    errors = ImportRow.objects.order_by("number").values_list("error", flat=True)
    assert [error.partition(":")[0] for error in errors] == ["line 3", "line 5"]


def test_row_that_an_earlier_release_staged_without_a_payment_method_is_rejected(shop: None) -> None:
    file = upload()
    record = {
        "customer_id": "1",
        "currency": "usd",
        "payment_method": "",
        "items": "WIDGET:1",
        "receipt_email": "",
    }
    row = ImportRow.objects.create(file=file, number=1, record=record)
    assert import_row(row.pk)["status"] == "rejected"
    row.refresh_from_db()
    assert row.error == "row 1: payment_method: Field required"
    assert not Order.objects.exists()


def test_file_that_breaks_after_its_first_batch_is_rejected_whole(shop: None, mocker: MockerFixture) -> None:
    mocker.patch("orders.importer.BATCH_ROWS", 4)
    file = upload(*good(9), '1,usd,pm_card_visa,"WIDGET:1,')
    assert process_large_file(file.id)["status"] == "rejected"
    file.refresh_from_db()
    assert (file.status, file.rows_staged) == ("rejected", 0)
    assert not ImportRow.objects.exists()
    assert not staged()


def dying_at(call: int, error: BaseException | None = None) -> Any:
    """A stand-in for outbox.enqueue_many that works until its nth call."""
    real, calls = outbox.enqueue_many, 0

    def enqueue_many(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error or KeyboardInterrupt
        return real(*args, **kwargs)

    return enqueue_many
