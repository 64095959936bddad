"""The wrong way of docs/lessons/batch-import.md: one job places all orders of a file."""

from __future__ import annotations

from orders.models import ImportFile
from orders.services import place_order


def import_file(file_id: int) -> None:
    """A job that was killed at row 3 begins again at row 1."""
    for line in ImportFile.objects.get(pk=file_id).content.splitlines()[1:]:
        customer_id, currency, payment_method, items, _ = line.split(",")
        sku, quantity = items.split(":")
        place_order(
            customer_id=int(customer_id), currency=currency, payment_method=payment_method,
            lines=[(sku, int(quantity))],
        )  # fmt: skip
