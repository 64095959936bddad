"""Beat: a cursor row per schedule and one message per slot, so that two beats do a slot once and none is skipped.

Celery's own beat advances its entry before it publishes (an outage loses ticks) and knows no second beat (every
message twice). Here the cursor moves in the transaction that writes the message.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.beat import Scheduler as CelerySchedulerBase
from celery.schedules import BaseSchedule, schedule
from django.db import DatabaseError, InterfaceError, connection, transaction

from outbox.database import is_lost_connection
from outbox.producer import enqueue

log = logging.getLogger(__name__)

#: Slots of one schedule that are made up for at once. A long outage must not flood the queue; what is older
#: is passed over, with a line in the log.
MAX_CATCH_UP = 10
#: Longest sleep between two looks at the schedules.
MAX_SLEEP_S = 1.0


class Scheduler(CelerySchedulerBase):
    """For `celery beat`: enqueues a message, unique on (schedule, slot), for every slot that has come."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """One pass; returns seconds until the next. Waits out the loss of the database."""
        try:
            self.run_once()
        except (DatabaseError, InterfaceError) as error:
            if not is_lost_connection(error):
                raise
            log.warning("Database away (%s)", str(error).strip().split("\n")[0])
            connection.close()
        return MAX_SLEEP_S

    def run_once(self, at: datetime | None = None) -> int:
        """Enqueue every slot up to now (or `at`); returns how many."""
        return sum(self._advance(name, entry, at) for name, entry in self.schedule.items())

    def _advance(self, name: str, entry: Any, at: datetime | None) -> int:
        spec = repr(entry.schedule)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            now: datetime = at or cursor.fetchone()[0]
            cursor.execute(
                "INSERT INTO outbox_schedule (name, next_at, spec) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                [name, next_slot(entry.schedule, now), spec],
            )
            # SKIP LOCKED: another beat is at it, and will do what is due.
            cursor.execute(
                "SELECT next_at, spec FROM outbox_schedule WHERE name = %s FOR UPDATE SKIP LOCKED", [name]
            )
            row = cursor.fetchone()
            if row is None:
                return 0
            slot, known_spec = row
            if known_spec != spec:
                slot = next_slot(entry.schedule, now)
            due: list[datetime] = []
            passed_over = 0
            while slot <= now:
                due.append(slot)
                if len(due) > MAX_CATCH_UP:
                    due.pop(0)
                    passed_over += 1
                slot = next_slot(entry.schedule, slot)
            for moment in due:
                signature = self.app.signature(entry.task, args=entry.args, kwargs=entry.kwargs)
                enqueue(
                    signature, queue=entry.options.get("queue"), dedup_key=f"beat:{name}:{moment.isoformat()}"
                )
            if due or known_spec != spec:
                cursor.execute(
                    "UPDATE outbox_schedule SET next_at = %s, spec = %s WHERE name = %s", [slot, spec, name]
                )
        if passed_over:
            log.warning(
                "%s: %d slots older than the last %d were passed over", name, passed_over, MAX_CATCH_UP
            )
        return len(due)


def next_slot(when: BaseSchedule, after: datetime) -> datetime:
    """The first slot after a moment: multiples of an interval since the epoch, or what the crontab says.

    A slot depends on the schedule alone, not on when a beat was started: two beats agree on it.
    """
    if isinstance(when, schedule) and type(when) is schedule:
        every = max(when.run_every.total_seconds(), 1.0)
        return datetime.fromtimestamp((after.timestamp() // every + 1) * every, tz=UTC)
    last, delta, _ = when.remaining_delta(after)
    slot = (last + delta).astimezone(UTC)
    return slot if slot > after else slot + timedelta(minutes=1)
