"""Orders from a CSV file: first every row becomes a record with a message, then each message places one
order.

Columns: customer_id, currency, payment_method, items, receipt_email (may be empty). `items` is SKU:quantity,
several separated by semicolons, for example `WIDGET:2;GADGET:1`.
"""

import csv
import io
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.db import transaction
from django.db.models import F

import outbox
from orders.models import ImportFile, ImportRow
from orders.services import PlacementError, place_order

COLUMNS = ("customer_id", "currency", "payment_method", "items", "receipt_email")
#: Rows staged in one transaction: large enough that a file of 100,000 takes 200 commits, small enough that a
#: kill repeats little and that no transaction lasts.
BATCH_ROWS = 500


class BadFile(ValueError):
    """The file is no CSV of orders; the text says why, for whoever uploaded it."""


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
    except (BadFile, csv.Error) as error:
        ImportFile.objects.filter(pk=file_id).update(
            status=ImportFile.Status.REJECTED, error=str(error)[:500]
        )
        return {"status": "rejected", "file_id": file_id}
    ImportFile.objects.filter(pk=file_id).update(status=ImportFile.Status.STAGED)
    return {"status": "staged", "file_id": file_id, "rows": staged}


@transaction.atomic
def import_row(*, row_id: int) -> dict[str, Any]:
    """Place the order of one row, once; a row that cannot be an order is rejected with the reason."""
    row = ImportRow.objects.select_for_update().get(pk=row_id)
    if row.status != ImportRow.Status.PENDING:
        return {"status": row.status, "row_id": row_id}
    try:
        row.order = place_order(**_order_of(row.record))
        row.status = ImportRow.Status.IMPORTED
    except PlacementError as error:
        row.status, row.error = ImportRow.Status.REJECTED, f"{error.field}: {error}"[:500]
    row.save(update_fields=["order", "status", "error"])
    return {"status": row.status, "row_id": row_id}


@transaction.atomic
def _stage(file_id: int, already: int, batch: list[dict[str, Any]]) -> bool:
    from orders import tasks  # tasks call this module

    moved = ImportFile.objects.filter(pk=file_id, rows_staged=already).update(
        rows_staged=F("rows_staged") + len(batch)
    )
    if not moved:
        return False
    rows = ImportRow.objects.bulk_create(
        ImportRow(file_id=file_id, number=already + position, record=record)
        for position, record in enumerate(batch, start=1)
    )
    outbox.enqueue_many([tasks.import_row.s(row.pk) for row in rows], correlation_id=f"import-{file_id}")
    return True


def _records(text: str) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise BadFile(f"The heading lacks {', '.join(missing)}; it must be {', '.join(COLUMNS)}.")
    for record in reader:
        yield {column: record[column] or "" for column in COLUMNS}


def _order_of(record: dict[str, str]) -> dict[str, Any]:
    lines = []
    for part in record["items"].split(";"):
        sku, _, quantity = part.partition(":")
        lines.append((sku.strip(), _whole_number(quantity, "items")))
    return {
        "customer_id": _whole_number(record["customer_id"], "customer_id"),
        "currency": record["currency"].strip().lower(),
        "payment_method": record["payment_method"].strip() or "pm_card_visa",
        "lines": lines,
        "receipt_email": record["receipt_email"].strip(),
    }


def _whole_number(text: str, field: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise PlacementError("invalid_number", field, f"{text[:40]!r} is not a whole number.")
    return int(text)
