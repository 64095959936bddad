"""AsyncResult over the journal: the state of a message is that of its row; a value is where the task keeps one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import celery.result
from celery import states
from celery.backends.base import DisabledBackend
from celery.exceptions import TaskRevokedError, TimeoutError
from celery.result import assert_will_not_block  # type: ignore[attr-defined]
from django.db import connection

from outbox import payload
from outbox.errors import ResultNotKept
from outbox.status import Status

if TYPE_CHECKING:
    from outbox.models import OutboxMessage

#: A worker stores the value right after it has settled the message. What is not there by then was not stored, or has
#: expired.
STORED_WITHIN_S = 10.0
_ENDED = {Status.DONE: states.SUCCESS, Status.DEAD: states.FAILURE, Status.CANCELLED: states.REVOKED}


#: Its stub leaves out what is overridden here.
_CelerysResult: Any = celery.result.AsyncResult


class AsyncResult(_CelerysResult):
    """What sending a task returns, and `app.AsyncResult(id)`.

    `state`, `ready()`, `successful()`, `failed()` and `result` ask the journal, whatever the result backend. A message
    without a row, of another producer or pruned, has the state that the backend knows.
    """

    _cache: Any

    def __init__(self, id: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(id if id is None else str(payload.as_uuid(str(id))), *args, **kwargs)

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Any = None,
        disable_sync_subtasks: bool = True,
        **_: Any,
    ) -> Any:
        """Wait until the message has ended, at most `timeout` seconds, and return its value or raise its error.

        Raises ResultNotKept at once where no value will ever be there, and inside of a transaction, which hides the
        message from the workers. Looks every `interval` seconds.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        give_up_at = time.monotonic() + (float("inf") if timeout is None else timeout)
        self._refuse_without_a_value()
        while not self.ready():
            if connection.in_atomic_block:
                raise ResultNotKept(f"{self.id}: no worker sees the message before this transaction commits")
            if time.monotonic() >= give_up_at:
                raise TimeoutError("The operation timed out.")
            time.sleep(min(interval, max(0.0, give_up_at - time.monotonic())))
        stored_by = min(give_up_at, time.monotonic() + STORED_WITHIN_S)
        while self.state == states.SUCCESS and not self.exists():
            if time.monotonic() >= stored_by:
                raise ResultNotKept(f"{self.id} has succeeded, and its value is not in the result backend")
            time.sleep(min(interval, 0.1))
            self._cache = None
        return self.maybe_throw(propagate=propagate, callback=callback)

    def _refuse_without_a_value(self) -> None:
        if isinstance(self.backend, DisabledBackend):
            raise ResultNotKept("there is no result backend: read what the task wrote, or `.state`")
        message = self._row()
        task = self.app.tasks.get(message.task) if message else None
        if task is not None and task.ignore_result:
            raise ResultNotKept(
                f"{task.name} keeps no result: set ignore_result=False on it, or read `.state`"
            )

    def _row(self) -> OutboxMessage | None:
        # Celery makes this class with the application, before Django's models can be imported.
        from outbox.models import OutboxMessage

        return (
            OutboxMessage.objects.filter(message_id=self.id)
            .only("task", "status", "started_at", "done_at", "attempts", "errors")
            .first()
        )

    def _get_task_meta(self) -> Any:
        if self._cache is not None:
            return self._cache
        message = self._row()
        disabled = isinstance(self.backend, DisabledBackend)
        if message is None:
            return {"status": states.PENDING, "result": None} if disabled else super()._get_task_meta()
        state = _state(message)
        meta: Any = {
            "task_id": self.id,
            "status": state,
            "result": _error(message, state),
            "date_done": message.done_at,
        }
        if not disabled and state in (states.SUCCESS, states.FAILURE):
            stored = self.backend.get_task_meta(self.id)
            if stored["status"] == state:
                meta = stored
        return self._maybe_set_cache(meta)


def _state(message: OutboxMessage) -> str:
    if message.status in _ENDED:
        return _ENDED[Status(message.status)]
    if message.status == Status.PUBLISHED and message.started_at:
        return states.STARTED
    return states.RETRY if message.attempts else states.PENDING


def _error(message: OutboxMessage, state: str) -> Exception | None:
    said = str(message.errors[-1].get("error", "")) if message.errors else ""
    if state == states.FAILURE:
        return RuntimeError(said)
    return TaskRevokedError(said) if state == states.REVOKED else None
