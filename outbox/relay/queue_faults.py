"""Queues that the broker takes nothing for, while it takes messages for others: what a relay remembers of them.

The messages of such a queue wait as rows and spend nothing. The row in `UnusableQueue` is how the monitoring, which lives
in another process, can name the queue and the reason; it goes when the queue takes messages again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import connection

from outbox import audit

log = logging.getLogger(__name__)

#: The longest wait between two tries of one queue.
MAX_BACKOFF_S = 15.0
#: Of the time, what tries of a queue that answers slowly may take from the others.
SHARE = 10
#: A row that its relay did not refresh for this long belongs to one that is gone; another one looks after the queue.
ABANDONED_S = 600.0
ADOPT_EVERY_S = 30.0


@dataclass
class _Wait:
    seconds: float
    until: float


class Faults:
    """One relay's view of the unusable queues: when to try each again. Every change is also written to the database."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}
        self._adopt_at = 0.0

    def waits(self, queue: str) -> bool:
        """Whether this queue is not to be tried now."""
        wait = self._waits.get(queue)
        return wait is not None and time.monotonic() < wait.until

    def due(self) -> list[str]:
        """The unusable queues that are to be tried now."""
        return [queue for queue in self._waits if not self.waits(queue)]

    def note(self, queue: str, reason: str, *, took_s: float = 0.0, progress: bool = False) -> None:
        """The queue is unusable: try it again after a capped, jittered backoff.

        `took_s`: what finding that out has cost, and cost the other queues; at most a tenth of the time goes into it.
        `progress`: it took some of the messages, so that the backoff begins anew.
        """
        # It quotes the broker, and is printed by commands and alerts.
        reason = audit.as_shown(reason)
        known = self._waits.get(queue)
        seconds = min(MAX_BACKOFF_S, known.seconds * 2) if known and not progress else 0.25
        seconds = max(seconds, min((SHARE - 1) * took_s, ABANDONED_S / 2))
        if known is None:
            log.error("Queue %s is unusable, the others go on: %s", queue, reason)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO outbox_unusablequeue (queue, reason) VALUES (%s, %s) ON CONFLICT (queue) DO UPDATE"
                " SET reason = excluded.reason, seen_at = clock_timestamp()"
                # What an operator has paused stays paused, whatever the broker says.
                " WHERE outbox_unusablequeue.paused_by = ''",
                [queue, reason],
            )
        until = time.monotonic() + seconds * random.uniform(0.5, 1.0)
        self._waits[queue] = _Wait(seconds, until)

    def mended(self, queues: Iterable[str]) -> None:
        """These queues take messages; costs nothing for those that always did."""
        for queue in [queue for queue in queues if queue in self._waits]:
            with connection.cursor() as cursor:
                cursor.execute(
                    "DELETE FROM outbox_unusablequeue WHERE queue = %s AND paused_by = ''", [queue]
                )
            del self._waits[queue]
            log.warning("Queue %s accepts messages again", queue)

    def begin(self, queues: Sequence[str]) -> None:
        """A relay starts with what was left behind; what is not one of its `queues` (any more) is forgotten."""
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM outbox_unusablequeue WHERE queue <> ALL(%s)", [list(queues)])
        self.adopt(older_than_s=0)

    def adopt(self, *, older_than_s: float = ABANDONED_S) -> None:
        """Look after the queues of a relay that is gone: only a relay that tries a queue sees that it is mended.

        May be called often: it asks the database every ADOPT_EVERY_S.
        """
        if time.monotonic() < self._adopt_at:
            return
        self._adopt_at = time.monotonic() + ADOPT_EVERY_S
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT queue FROM outbox_unusablequeue"
                " WHERE seen_at <= clock_timestamp() - %s * interval '1 second' AND paused_by = ''",
                [older_than_s],
            )
            for (queue,) in cursor.fetchall():
                self._waits.setdefault(queue, _Wait(0.25, 0.0))
