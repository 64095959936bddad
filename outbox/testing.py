"""For tests: what is staged, run it all in this process, or wait for real workers."""

from __future__ import annotations

import time
import uuid
from typing import Any

from celery import current_app
from celery.exceptions import Ignore, Retry
from django.db import connection

from outbox import dispatch, execution
from outbox.models import OPEN, OutboxMessage

#: Runs after which `drain` gives up: a message that re-arms itself for ever is a bug of the test or the task.
MAX_RUNS = 20_000


def staged(task: str | None = None) -> list[OutboxMessage]:
    """The open messages, oldest first; of one task only, if named."""
    found = OutboxMessage.objects.filter(status__in=OPEN)
    if task is not None:
        found = found.filter(task=task)
    return list(found.order_by("id"))


def clear() -> None:
    """Forget every message."""
    OutboxMessage.objects.all().delete()


def drain() -> int:
    """Run every open message in this process, time included; returns how many runs it took.

    Delays are skipped, retries run, what fails for good becomes a dead letter: as with workers, without waiting.
    Afterwards nothing is open but what waits behind a dead head of its group. Raises AssertionError when it does
    not end, and for messages that were handed to a broker or begun elsewhere, since it cannot know their end.
    """
    runs = 0
    while True:
        with connection.cursor() as cursor:
            # Time passes: the earliest scheduled message is due now.
            cursor.execute(
                "UPDATE outbox_outboxmessage SET deliver_at = clock_timestamp() WHERE status = 'scheduled' AND id = "
                "(SELECT id FROM outbox_outboxmessage WHERE status = 'scheduled' ORDER BY deliver_at, id LIMIT 1)"
                " AND NOT EXISTS (SELECT FROM outbox_outboxmessage WHERE status = 'pending')"
            )
        dispatch.promote_due(limit=1)
        promoted = dispatch.promote_heads()
        queues = (
            OutboxMessage.objects.filter(status="pending").order_by("id").values_list("queue", flat=True)[:1]
        )
        if not queues and promoted:
            continue  # The new head has a delay of its own.
        if not queues:
            _assert_none_is_published()
            return runs
        for message in dispatch.mark(queues[0], 1):
            runs += 1
            assert runs <= MAX_RUNS, f"{message.task} and others did not end in {MAX_RUNS} runs"
            run_here(message.message_id, wire=message.identity(), task=message.task, queue=message.queue)


def _assert_none_is_published() -> None:
    left = list(OutboxMessage.objects.filter(status="published").order_by("id"))
    assert not left, f"{len(left)} messages are published already, and not run here:\n" + _described(left)


def _described(messages: list[OutboxMessage]) -> str:
    return "\n".join(
        f"{m.task} {m.message_id} {m.status} attempts={m.attempts} {m.errors[-1:]}" for m in messages[:10]
    )


def run_here(
    message_id: str, *, wire: dict[str, Any], task: str, queue: str, redelivered: bool = False
) -> Any:
    """Deliver one copy in this process, as a worker would; returns the task's result, None if it failed.

    For a copy that is not to run it returns `outbox.execution.SKIPPED`.
    """
    row = OutboxMessage.objects.get(message_id=uuid.UUID(str(message_id)))
    instance = current_app.tasks[task]
    instance.push_request(
        id=str(message_id),
        called_directly=False,
        outbox=wire,
        args=row.args,
        kwargs=row.kwargs,
        delivery_info={"routing_key": queue, "redelivered": redelivered},
    )
    try:
        return instance(*row.args, **row.kwargs)
    except Retry:
        return None
    except Ignore:
        return execution.SKIPPED
    except Exception:
        # The journal has it: the row is dead, and the dead letter says why.
        if OutboxMessage.objects.filter(message_id=message_id, status="dead").exists():
            return None
        raise
    finally:
        instance.pop_request()


def wait_until_settled(timeout_s: float = 30.0) -> None:
    """Wait for real workers until no message is open. Raises AssertionError that lists what still is."""
    deadline = time.monotonic() + timeout_s
    while left := staged():
        if time.monotonic() > deadline:
            raise AssertionError(f"{len(left)} messages are open after {timeout_s:g} s:\n" + _described(left))
        time.sleep(0.05)
