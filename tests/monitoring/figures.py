"""Three sources with figures that a test can set: what `MONITORING_SOURCES` names in these tests."""

from typing import Any

OUTBOX: dict[str, Any] = {}
DLQ: dict[str, Any] = {}
FINDINGS: dict[str, Any] = {}


def outbox() -> dict[str, Any]:
    return OUTBOX


def dlq() -> dict[str, Any]:
    return DLQ


def findings() -> dict[str, Any]:
    return FINDINGS


def away() -> dict[str, Any]:
    raise ConnectionError("the database is away")
