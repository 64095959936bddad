"""Sources with figures that a test can set: what `MONITORING_SOURCES` names in these tests."""

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


def circuits() -> dict[str, Any]:
    return {"open": {"payment-gateway": 0, "warehouse": 0}}


def orders() -> dict[str, Any]:
    return {"oldest_age_s": 30.0, "oldest": "order 7"}


def webhooks() -> dict[str, Any]:
    return {"deliveries": {"open": 2, "sent": 7}}


def unavailable() -> dict[str, Any]:
    raise ConnectionError("the database is unavailable")
