"""Two sources with figures that a test can set: what `MONITORING_SOURCES` names in these tests."""

from typing import Any

OUTBOX: dict[str, Any] = {}
DLQ: dict[str, Any] = {}


def outbox() -> dict[str, Any]:
    return OUTBOX


def dlq() -> dict[str, Any]:
    return DLQ


def away() -> dict[str, Any]:
    raise ConnectionError("the database is away")
