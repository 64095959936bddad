"""For tests: what is staged, run it all in this process, or wait for real workers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from celery import current_app
from celery.exceptions import Ignore, Retry

from outbox import delivery, groups
from outbox.models import ClockTimestamp, OutboxMessage
from outbox.relay import queries
from outbox.status import OPEN, PAUSED_UNTIL, Status

#: Runs after which `drain` gives up: a task that enqueues another message at every run is a bug of the test or the task.
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


def drain(*tasks: str, seconds_per_message: float = 10.0) -> int:
    """Run every open message in this process, time included; returns how many runs it took.

    Delays are skipped, retries run, what fails for good becomes a dead letter: as with workers, without waiting.
    Afterwards nothing is open but what waits behind a dead head of its group, and what is paused with its task.

    `tasks`: run the messages of these tasks only, by name. What a test does not look at stays staged, and needs no
    external service. `seconds_per_message`: the real time that the runs of one message may take together. What has
    not settled by then, such as a message that is deferred while a service is unreachable, is run no more; the others
    are run first, then AssertionError names each task and its last reason.

    Raises AssertionError also for messages that were handed to a broker or begun elsewhere, since it cannot know their
    end, and after MAX_RUNS runs.
    """
    runs = 0
    spent_s: dict[str, float] = {}
    while True:
        over = [message_id for message_id, spent in spent_s.items() if spent > seconds_per_message]
        _let_time_pass(tasks, over)
        promoted = groups.promote_heads()
        _put_off_others(tasks)
        queues = (
            OutboxMessage.objects.filter(status=Status.PENDING)
            .order_by("id")
            .values_list("queue", flat=True)[:1]
        )
        if not queues and (promoted or queries.release(MAX_RUNS)):
            continue  # The new head has a delay of its own, or is of another task; or a task was resumed.
        if not queues:
            _assert_none_is_published()
            left = list(OutboxMessage.objects.filter(message_id__in=over, status__in=OPEN).order_by("id"))
            assert not left, (
                f"{len(left)} messages did not settle in {seconds_per_message:g} s of runs each "
                "(stub what they wait for, or name the tasks to run: drain('app.tasks.name')):\n"
                + _described(left)
            )
            return runs
        for message in queries.mark(queues[0], 1):
            runs += 1
            assert runs <= MAX_RUNS, f"{message.task} and others did not end in {MAX_RUNS} runs"
            began = time.monotonic()
            run_here(message.message_id, wire=message.identity(), task=message.task, queue=message.queue)
            spent_s[message.message_id] = spent_s.get(message.message_id, 0.0) + time.monotonic() - began


def _let_time_pass(tasks: tuple[str, ...], over: list[str]) -> None:
    """Without anything pending, the earliest scheduled message is due now; never one that has had its time."""
    messages = OutboxMessage.objects.filter(task__in=tasks) if tasks else OutboxMessage.objects.all()
    scheduled = messages.filter(status=Status.SCHEDULED, deliver_at__lt=PAUSED_UNTIL)
    scheduled = scheduled.exclude(message_id__in=over)
    if not messages.filter(status=Status.PENDING).exists():
        earliest = scheduled.order_by("deliver_at", "id").values_list("pk", flat=True)[:1]
        OutboxMessage.objects.filter(pk__in=list(earliest), status=Status.SCHEDULED).update(
            status=Status.PENDING, deliver_at=ClockTimestamp()
        )


def _put_off_others(tasks: tuple[str, ...]) -> None:
    """Messages of other tasks are scheduled for now: due for any relay, and not pending here."""
    if tasks:
        OutboxMessage.objects.filter(status=Status.PENDING).exclude(task__in=tasks).update(
            status=Status.SCHEDULED
        )


def _assert_none_is_published() -> None:
    left = list(OutboxMessage.objects.filter(status=Status.PUBLISHED).order_by("id"))
    assert not left, f"{len(left)} messages are published already, and not run here:\n" + _described(left)


def _described(messages: list[OutboxMessage]) -> str:
    return "\n".join(
        f"{m.task} {m.message_id} {m.status} attempts={m.attempts} {m.errors[-1:]}" for m in messages[:10]
    )


def run_here(
    message_id: str, *, wire: Mapping[str, Any], task: str, queue: str, redelivered: bool = False
) -> Any:
    """Deliver one copy in this process, as a worker would; returns the task's result, None if it failed.

    For a copy that is not to run it returns `outbox.delivery.SKIPPED`.
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
        return delivery.SKIPPED
    except Exception:
        # The journal has it: the row is dead, and the dead letter says why.
        if OutboxMessage.objects.filter(message_id=message_id, status=Status.DEAD).exists():
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
