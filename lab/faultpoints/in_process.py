"""Relay, rescuer and worker in this process, against the real broker, and a clock that can be pushed.

The worker does what Celery's does, in its order: reserve the message, run the task, record a bad ending as the
worker's parent would, acknowledge. That it is one process instead of two makes each of these steps a crash point.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import redis
from celery.exceptions import Ignore, Retry
from django.apps import apps
from django.conf import settings
from django.db import connection
from kombu import Connection

from config.celery import app
from dlq.message import RawMessage
from dlq.models import Cause
from dlq.worker.failure import Ending
from outbox.broker import publisher_for
from outbox.broker.publisher import Publisher
from outbox.relay import loop as relay_module
from outbox.relay import rescuer
from outbox.relay.queue_faults import Faults

#: Rounds of "an hour passes, everything is offered and run again" after which something is stuck. The most that a
#: scenario needs is one per retry of a task that is told to fail a few times.
MAX_ROUNDS = 40


class NeverQuiet(AssertionError):
    """Messages are still open after MAX_ROUNDS: something is stuck, or runs for ever."""


class _Relay(relay_module.Relay):
    """Looks for heads of groups in every pass. A relay that found none rests from it for nine times as long as that took:
    on a busy machine a start would not be what it is on a quiet one, and a group would wait for no reason of its own.
    """

    def run_once(self) -> int:
        self._heads_at = 0.0
        return super().run_once()


class Processes:
    """One relay, one rescuer and one worker on the broker of the settings."""

    def __init__(self) -> None:
        self._connection: Connection = app.connection_for_read()
        self._channel: Any = self._connection.channel()
        self.two_heads: set[str] = set()
        self._redis = redis.Redis.from_url(settings.CELERY_BROKER_URL)
        self._locks = redis.Redis.from_url(settings.REDIS_URL)
        self.begin()

    def begin(self) -> None:
        """A relay, a rescuer and a worker that have done nothing yet, also in a forked child: of the fork the pools of
        redis-py take notice by themselves, and open connections of their own.
        """
        self.publisher: Publisher = publisher_for(app)
        self.relay: relay_module.Relay = _Relay(app, publisher=self.publisher)
        self.rescuer = rescuer.Rescuer(self.publisher, Faults())
        self._channel._size("critical")  # Connects now, so that the handshake is not part of every trace.

    def take(self, queue: str, *, copies: int = 1) -> bool:
        """Take one message of the queue, run it and acknowledge it, `copies` times. False when there is none."""
        message = self._channel.basic_get(queue)
        if message is None:
            return False
        self._run(message, queue)
        for _ in range(copies - 1):
            self.put(queue, message._raw)
            self._run(self._channel.basic_get(queue), queue)
        return True

    def peek(self, queue: str) -> dict[str, Any] | None:
        """The next message of the queue as it lies in the broker."""
        next_one = self._redis.lrange(queue, -1, -1)
        return json.loads(next_one[0]) if next_one else None

    def put(self, queue: str, raw: dict[str, Any]) -> None:
        """One more copy of a message, to be taken next."""
        copy = json.loads(json.dumps(raw))
        copy["properties"]["delivery_tag"] = str(uuid.uuid4())
        self._redis.rpush(queue, json.dumps(copy))

    def _run(self, message: Any, queue: str) -> None:
        args, kwargs, _ = message.decode()
        task = app.tasks[message.headers["task"]]
        delivery_info = {**message.delivery_info, "routing_key": queue}
        task.push_request(
            **{**message.headers, "args": args, "kwargs": kwargs},
            called_directly=False,
            delivery_info=delivery_info,
        )
        try:
            task(*args, **kwargs)
        except (Retry, Ignore):
            pass
        except Exception as error:
            self._end(message, error, task, args, kwargs)
        finally:
            task.pop_request()
        message.ack()

    def _end(self, message: Any, error: Exception, task: Any, args: Any, kwargs: Any) -> None:
        """What dlq.worker.request.Request does in the worker's parent."""
        Ending(
            raw=RawMessage.of(message), fields=message.headers, exception=error, error=str(error),
            cause=Cause.FAILED, task=task.name, args=args, kwargs=kwargs,
        ).record()  # fmt: skip

    def restore(self) -> None:
        """What a dead worker had reserved goes back to its queue, as after the visibility timeout."""
        for tag in self._redis.hkeys("unacked"):
            self._channel.qos.restore_by_tag(tag.decode(), self._redis)

    def forget_everything(self) -> None:
        """FLUSHALL: the broker loses all that it holds."""
        self._redis.flushdb()

    def forget_locks(self) -> None:
        """FLUSHALL on the other Redis: locks, rate limits, cache."""
        self._locks.flushdb()

    def contents(self) -> list[dict[bytes, tuple[bytes, int]]]:
        """All that the broker and the other Redis hold: key -> dump and milliseconds to live, 0 for ever."""
        return [
            {key: (store.dump(key), max(0, store.pttl(key))) for key in store.scan_iter()}
            for store in (self._redis, self._locks)
        ]

    def fill(self, contents: list[dict[bytes, tuple[bytes, int]]]) -> None:
        """What `contents` returned, and nothing else."""
        for store, held in zip((self._redis, self._locks), contents, strict=True):
            pipeline = store.pipeline(transaction=False).flushdb()
            for key, (dump, lives_ms) in held.items():
                pipeline.restore(key, lives_ms, dump)
            pipeline.execute()

    def round(self, *, copies: int = 1) -> int:
        """An hour passes; rescue, relay, and work off every queue. Returns how many messages were run."""
        an_hour_passes()
        self.forget_locks()
        self.restore()
        self.rescuer.run_once()
        while self.relay.run_once():
            self.two_heads |= groups_with_two_heads()
        # Counted first: to take from an empty queue costs kombu a look for each priority.
        depths = self.publisher.depths(settings.OUTBOX_QUEUES)
        return sum(self.take(queue, copies=copies) for queue, depth in depths.items() for _ in range(depth))

    def until_quiet(self, *, copies: int = 2) -> None:
        """Rounds until no message is open; in the first, what is struck included, each message comes in `copies`.

        Raises NeverQuiet, with what still is open.
        """
        for number in range(MAX_ROUNDS):
            self.round(copies=copies if number == 0 else 1)
            if not open_messages():
                return
        raise NeverQuiet(f"after {MAX_ROUNDS} rounds: {'; '.join(open_messages())}")


def groups_with_two_heads() -> set[str]:
    """Ordered groups of which more than one message may run now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT ordering_key FROM outbox_outboxmessage WHERE ordering_key <> ''"
            " AND status IN ('scheduled', 'pending', 'published') GROUP BY ordering_key HAVING count(*) > 1"
        )
        return {key for (key,) in cursor.fetchall()}


def open_messages() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT task || ' ' || args || kwargs || ' ' || status || ' ' || coalesce(errors -> -1 ->> 'error', '')"
            " FROM outbox_outboxmessage WHERE status IN ('scheduled', 'blocked', 'pending', 'published') LIMIT 5"
        )
        return [text for (text,) in cursor.fetchall()]


def an_hour_passes() -> None:
    """Every lease runs out, every delay is over, every copy is late.

    Whatever a lease is called for, a column of this name is one: new code is covered.
    """
    aged = [
        (model._meta.db_table, "lease_until = lease_until - interval '1 hour'", "lease_until IS NOT NULL")
        for model in apps.get_models()
        if any(field.name == "lease_until" for field in model._meta.fields)
    ]
    aged += [
        (
            "outbox_outboxmessage",
            "published_at = published_at - interval '1 hour', started_at = started_at - interval '1 hour'",
            "status = 'published'",
        ),
        (
            "outbox_outboxmessage",
            "deliver_at = clock_timestamp()",
            # Not what is set aside, since its task is paused.
            "status IN ('scheduled', 'blocked') AND deliver_at < '9000-01-01'",
        ),
        ("outbox_worker", "beat_at = beat_at - interval '1 hour'", "true"),
    ]
    # A frozen process may hold rows: time passes for the others, which do not wait for it.
    updates = [
        f"UPDATE {table} SET {older} WHERE ctid = ANY(ARRAY("
        f"SELECT ctid FROM {table} WHERE {which} FOR NO KEY UPDATE SKIP LOCKED))"
        for table, older, which in aged
    ]
    with connection.cursor() as cursor:
        cursor.execute("; ".join(updates))
