"""A message that was sent again from its dead letter, edited or not, and has no journal reports its success itself."""

from __future__ import annotations

from typing import Any

from celery import signals

from dlq import journal
from dlq.message import EDIT_HEADER, REPLAY_HEADER
from dlq.record import on_copy_ended, on_resolved


def connect() -> None:
    """Called once per process, when the app is ready."""
    signals.task_success.connect(_resolve, dispatch_uid="dlq.worker.success")


def _resolve(sender: Any = None, **_: Any) -> None:
    fields = vars(sender.request)
    key = fields.get(REPLAY_HEADER)
    # What became a row on its way is resolved in the transaction that settles the row.
    original = fields.get(EDIT_HEADER)
    if (key or original) and journal.generation(fields) is None:
        on_resolved(key or fields["id"])
        if original:
            on_copy_ended(original, fields["id"])
