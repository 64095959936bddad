"""The naive shop's one table, and its prices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2

PRICES = {"WIDGET": 1999, "GADGET": 4950, "GIZMO": 999}
TAX = 0.19

TABLE = """
CREATE TABLE IF NOT EXISTS naive_order (
    id bigserial PRIMARY KEY,
    tag text NOT NULL,
    currency text NOT NULL,
    subtotal_cents bigint NOT NULL,
    total_cents bigint NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    payment_id text NOT NULL DEFAULT '',
    completed_at timestamptz
)
"""


@contextmanager
def cursor() -> Iterator[Any]:
    """One transaction on a connection of its own, as Django opens one for a request without `conn_max_age`."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=5)
    try:
        with connection, connection.cursor() as opened:
            yield opened
    finally:
        connection.close()
