"""A message that was sent again from its letter, and has no journal to say so, reports its success itself."""

from __future__ import annotations

from typing import Any

from celery import signals

from dlq.capture import on_resolved
from dlq.rawmessage import REPLAY_HEADER


def connect() -> None:
    """Called once per process, when the app is ready."""
    signals.task_success.connect(_resolve, dispatch_uid="dlq.resolution")


def _resolve(sender: Any = None, **_: Any) -> None:
    key = sender.request.get(REPLAY_HEADER)
    if key:
        on_resolved(key)
