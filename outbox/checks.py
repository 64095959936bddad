"""System checks: a setting that would break a promise is found at start, not at night."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connection


@register(Tags.compatibility)
def check_settings(**_: Any) -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    if settings.OUTBOX_DEPTH_LIMIT < 1 or settings.OUTBOX_BATCH < 1:
        problems.append(Error("OUTBOX_DEPTH_LIMIT and OUTBOX_BATCH must be at least 1", id="outbox.E001"))
    visibility = settings.CELERY_BROKER_TRANSPORT_OPTIONS.get("visibility_timeout")
    if visibility is not None and visibility <= settings.CELERY_TASK_TIME_LIMIT:
        problems.append(
            Error(
                f"VISIBILITY_TIMEOUT ({visibility:g} s) must be longer than the hard time limit of a task"
                f" ({settings.CELERY_TASK_TIME_LIMIT} s): Redis would hand out messages that are still running",
                id="outbox.E002",
            )
        )
    if not settings.CELERY_TASK_ACKS_LATE:
        problems.append(
            Error("CELERY_TASK_ACKS_LATE must be on: a killed worker would lose work", id="outbox.E003")
        )
    return problems


@register(Tags.database, deploy=True)
def check_connections(**_: Any) -> list[CheckMessage]:
    """Worker processes, their parents, web threads, relays and beat must fit into `max_connections`."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int"
            )
            limit, reserved = cursor.fetchone()
    except Exception as error:  # The check is about a number; that the database is away is another's to say.
        return [Warning(f"max_connections could not be read: {error}", id="outbox.W001")]
    needed = settings.DATABASE_CONNECTIONS
    if needed > limit - reserved:
        return [
            Error(
                f"The processes may need {needed} database connections (DATABASE_CONNECTIONS), and PostgreSQL gives"
                f" {limit - reserved} (max_connections {limit} less {reserved} reserved). Raise max_connections,"
                " or run fewer worker processes or web threads",
                id="outbox.E004",
            )
        ]
    return []
