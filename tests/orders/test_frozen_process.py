"""A process that is frozen, or whose machine is gone, while it holds the rows of the goods must not stop the shop."""

from __future__ import annotations

import psycopg2
import pytest
from django.db import connection

from orders.models import Product
from tests.support.processes import await_


@pytest.mark.django_db
def test_a_silent_transaction_of_any_connection_ends_after_thirty_seconds() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("30s",)


@pytest.mark.django_db(transaction=True)
def test_what_a_silent_holder_has_locked_is_free_again_after_that_time() -> None:
    product = Product.objects.create(sku="BOLT", name="Bolt", stock=1)
    options = connection.get_connection_params() | {"options": "-c idle_in_transaction_session_timeout=300"}
    for name in ("cursor_factory", "context"):
        options.pop(name, None)
    holder = psycopg2.connect(**options)
    try:
        holder.cursor().execute("SELECT FROM orders_product WHERE id = %s FOR UPDATE", [product.pk])

        def is_free() -> bool:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT id FROM orders_product WHERE id = %s FOR UPDATE SKIP LOCKED", [product.pk]
                )
                return cursor.fetchone() is not None

        assert not is_free()
        await_(is_free, "the lock of the silent holder is gone", timeout_s=20)
    finally:
        holder.close()
