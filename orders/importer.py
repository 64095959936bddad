"""Orders from a CSV file: first every row becomes a record with a message, then each message places one
order.

Columns, in any order: customer_id, currency, payment_method, items, receipt_email (may be empty). `items` is SKU:quantity,
several separated by semicolons, for example `WIDGET:2;GADGET:1`. A row is read by the API's own schema: what a request may
not say or leave out, a row may not either.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from celery import signature
from django.db import transaction
from django.db.models import F

import outbox
from orders.models import ImportFile, ImportRow
from orders.services import PlacementError, place_order

COLUMNS = ("customer_id", "currency", "payment_method", "items", "receipt_email")
#: As in JSON, of which the longest that Python reads has 4300 digits.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,99}")
#: The task that places the order of one row, by its name: the tasks import this module.
IMPORT_ROW = "orders.tasks.import_row"
#: Rows staged in one transaction: large enough that a file of 100,000 takes 200 commits, small enough that a
#: kill repeats little and that no transaction lasts.
BATCH_ROWS = 500


class BadFile(ValueError):
    """The file is no CSV of orders; the text says why, to the uploader."""


class BadRow(ValueError):
    """The row is no order; the text names the fields."""


def rows_staged(*, file_id: int) -> int:
    """How far an import has come; raises ImportFile.DoesNotExist."""
    return ImportFile.objects.values_list("rows_staged", flat=True).get(pk=file_id)


def stage_file(*, file_id: int) -> dict[str, Any]:
    """Give every row of the file a record and a message, batch by batch, and return how many there are.

    Each batch moves the file's cursor by compare-and-swap in the transaction that stages it. So a killed run
    repeats no row, and of two runs at once one stops at its next batch. A file that is no CSV of orders is
    rejected whole, wherever it breaks: it is read to its end before the first row is staged.
    """
    file = ImportFile.objects.get(pk=file_id)
    staged = file.rows_staged
    try:
        if not staged:
            # What is staged will be ordered: a file that breaks below its first batch must not get that far.
            deque(_records(file.content), maxlen=0)
        records = islice(_records(file.content), staged, None)
        while batch := list(islice(records, BATCH_ROWS)):
            if not _stage(file_id, staged, batch):
                return {"status": "in_progress", "file_id": file_id}
            staged += len(batch)
    except BadFile as error:
        ImportFile.objects.filter(pk=file_id).update(
            status=ImportFile.Status.REJECTED, error=str(error)[:500]
        )
        return {"status": ImportFile.Status.REJECTED.value, "file_id": file_id}
    ImportFile.objects.filter(pk=file_id).update(status=ImportFile.Status.STAGED)
    return {"status": ImportFile.Status.STAGED.value, "file_id": file_id, "rows": staged}


@transaction.atomic
def import_row(*, row_id: int) -> dict[str, Any]:
    """Place the order of one row, once; a row that cannot be an order is rejected with the reason."""
    row = ImportRow.objects.select_for_update().get(pk=row_id)
    if row.status != ImportRow.Status.PENDING:
        return {"status": row.status, "row_id": row_id}
    try:
        # What a refusal leaves behind is rolled back; the row is kept, with the reason.
        with transaction.atomic():
            row.order = place_order(**_arguments(row.record))
        row.status = ImportRow.Status.IMPORTED
    except BadRow as error:
        row.status, row.error = ImportRow.Status.REJECTED, f"{_place(row)}: {error}"[:500]
    except PlacementError as error:
        row.status, row.error = ImportRow.Status.REJECTED, f"{_place(row)}: {error.field}: {error}"[:500]
    row.save(update_fields=["order", "status", "error"])
    return {"status": row.status, "row_id": row_id}


@transaction.atomic
def _stage(file_id: int, already: int, batch: list[ImportRow]) -> bool:
    moved = ImportFile.objects.filter(pk=file_id, rows_staged=already).update(
        rows_staged=F("rows_staged") + len(batch)
    )
    if not moved:
        return False
    for number, row in enumerate(batch, start=already + 1):
        row.file_id, row.number = file_id, number
    rows = ImportRow.objects.bulk_create(batch)
    pending = [row for row in rows if row.status == ImportRow.Status.PENDING]
    outbox.enqueue_many(
        [signature(IMPORT_ROW, (row.pk,)) for row in pending], correlation_id=f"import-{file_id}"
    )
    return True


def _records(text: str) -> Iterator[ImportRow]:
    """The file's rows, not yet saved; raises BadFile where it is no CSV of orders."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        heading = next(reader, [])
        _check_heading(heading)
        line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(heading):
                # A comma too many or too few moves each value after it into another column.
                count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
                error = f"line {line}: {count}, the heading has {len(heading)}"
                yield ImportRow(line=line, record=fields, status=ImportRow.Status.REJECTED, error=error)
            elif fields:
                yield ImportRow(line=line, record=dict(zip(heading, fields, strict=True)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadFile(f"line {line}: {error}") from error


def _check_heading(heading: list[str]) -> None:
    must = f"it must be {','.join(COLUMNS)}"
    for column in heading:
        if column not in COLUMNS:
            raise BadFile(f"The heading has an unknown column {column!r}; {must}.")
        if heading.count(column) > 1:
            raise BadFile(f"The heading is ambiguous: {column!r} appears twice; {must}.")
    missing = [column for column in COLUMNS if column not in heading]
    if missing:
        raise BadFile(f"The heading lacks {', '.join(missing)}; {must}.")


def _place(row: ImportRow) -> str:
    return f"line {row.line}" if row.line else f"row {row.number}"


def _arguments(record: dict[str, str]) -> dict[str, Any]:
    """What `place_order` is asked for by a body of the API with these values; raises BadRow.

    A field that is empty is not there, and none is guessed: the API's schema says which may be left out.
    """
    # pydantic takes a while to import, and most processes import no file.
    from pydantic import ValidationError

    from orders.schema import OrderIn, field_name

    body: dict[str, Any] = {column: text for column, text in record.items() if text}
    if "customer_id" in body:
        body["customer_id"] = _number(body["customer_id"])
    if "items" in body:
        body["items"] = [_item(part) for part in body["items"].split(";")]
    try:
        return OrderIn.model_validate(body).arguments()
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise BadRow("; ".join(f"{field_name(item['loc'])}: {item['msg']}" for item in found)) from None


def _item(text: str) -> dict[str, Any]:
    sku, _, quantity = text.partition(":")
    return {"sku": sku, "quantity": _number(quantity)} if quantity else {"sku": sku}


def _number(text: str) -> int | str:
    """The number that JSON would make of this; any other text stays one, for the schema to refuse."""
    return int(text) if _NUMBER.fullmatch(text) else text
