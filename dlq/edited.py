"""The ways in which an edited copy of a dead letter's message is sent: they are those of `dlq.resend`, with other arguments.

A copy has an id of its own, and its failure a dead letter of its own, in place of the original's.
"""

from __future__ import annotations

import json
import traceback
import uuid
from dataclasses import dataclass, field
from typing import Any

from celery import current_app
from django.db import transaction
from kombu.serialization import dumps
from kombu.utils.json import loads

from dlq import journal, record, resend
from dlq.arguments import Changed
from dlq.message import EDIT_HEADER
from dlq.models import DeadLetter, Happened
from dlq.resend import NotReplayable, Way


@dataclass(frozen=True)
class Copy:
    """What an operator wants to run instead; `copy_id` is the id that it runs under."""

    changed: Changed
    copy_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def call(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as a task gets them: JSON of Celery's has objects in it."""
        args, kwargs = loads(json.dumps([self.changed.args, self.changed.kwargs]))
        return args, kwargs


def way_of(dead_letter: DeadLetter, copy: Copy) -> Way:
    """How this copy is sent. Raises `NotReplayable`."""
    if dead_letter.generation is not None:
        return _Journalled(copy)
    # Also what could not be read: the copy can.
    way = resend.way_of(dead_letter, force=True)
    return _Handler(copy) if isinstance(way, resend.Handler) else _Raw(copy)


class _Journalled(resend.Journalled):
    """The copy takes the place of the journal's dead message, which will never run."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy

    def arm(self, hooks: Any, dead_letter: DeadLetter, retries: int | None) -> str | None:
        args, kwargs = self.copy.call
        copy_id = self.copy.copy_id
        replaced = hooks.replace(
            dead_letter.message_id, copy_id=copy_id, args=args, kwargs=kwargs, retries=retries
        )
        return copy_id if replaced else None


class _Raw:
    """A message of the same task: the journal takes it as one of its own, or it is published."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy

    def claim(self, dead_letter: DeadLetter, retries: int | None) -> str | None:
        resend.refuse_follow_ups(dead_letter)
        hooks = journal.hooks()
        if hooks is None:
            return None
        args, kwargs = self.copy.call
        copy_id = self.copy.copy_id
        return resend.adopt(hooks, dead_letter, retries, args=args, kwargs=kwargs, copy_id=copy_id)

    def send(self, dead_letter: DeadLetter, retries: int | None) -> str:
        """Publish a new message, with nothing of the received one but its task and queue: its headers may be what was wrong."""
        copy_id = self.copy.copy_id
        args, kwargs = self.copy.call
        message = current_app.amqp.as_task_v2(copy_id, dead_letter.task, tuple(args), kwargs)
        content_type, content_encoding, body = dumps(message.body, serializer="json")
        headers = {
            **message.headers,
            "retries": resend.spent(dead_letter, retries),
            EDIT_HEADER: dead_letter.message_id,
        }
        resend.publish(dead_letter, copy_id, body, content_type, content_encoding, headers=headers)
        return copy_id


class _Handler(resend.Handler):
    """The handler of the queue is called with the copy's arguments."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy

    def send(self, dead_letter: DeadLetter, retries: int | None) -> str:
        copy_id = self.copy.copy_id
        args, kwargs = self.copy.call
        attempts, error = resend.run_handler(dead_letter.queue, args, kwargs, retries)
        if error is None:
            record.on_copy_ended(dead_letter.message_id, copy_id)
            return copy_id
        with transaction.atomic():
            values = record.added(
                queue=dead_letter.queue,
                args=self.copy.changed.args,
                kwargs=self.copy.changed.kwargs,
                error=str(error),
                exception=error,
                traceback="".join(traceback.format_exception(error)),
                attempts=attempts,
            )
            values["headers"] = {EDIT_HEADER: dead_letter.message_id}
            failed = DeadLetter.objects.create(message_id=copy_id, **values)
            failed.happened(Happened.FAILED, note=failed.error, attempts=attempts)
            record.on_copy_ended(dead_letter.message_id, copy_id, note=f"its edited copy {copy_id} failed")
        raise NotReplayable(f"{copy_id} failed: {type(error).__name__}: {error}") from error
