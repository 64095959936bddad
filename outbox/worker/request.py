"""The worker's request, as `Task.Request` names it: Celery's with the ends that only it sees, or that of the dead-letter app.

`Task.on_failure` and the signals are no foundation: a hard time limit fires them twice, a lost process only half.
Only a worker imports this, when the apps are ready.
"""

from __future__ import annotations

import logging
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import Ignore, Reject, Retry, Terminated, TimeLimitExceeded, WorkerLostError
from celery.utils.imports import symbol_by_name
from celery.worker import request as celery_request

from outbox import dead_letters
from outbox.dlq_hooks import generation
from outbox.worker import endings

log = logging.getLogger(__name__)


class Revoked(Exception):
    """The message was revoked, or its run terminated, by remote control."""


class OutOfMemory(Exception):
    """The task raised MemoryError. Celery would raise it again in the parent and end the worker with it."""


class RowRequest(celery_request.Request):
    """Writes how a run ended to its row; all else, and a message without a row, is Celery's."""

    _recorded = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Celery would hold the message until its time comes, unacknowledged. The task's own class defers it.
        self._eta = None
        if generation(self.request_dict) is None:
            return
        # The row has neither: a client that adds them to a copy would end the message itself.
        self._expires = None
        hard, soft = self.task.hard_limit_s(), self.task.soft_time_limit
        # The pool starts the clock of the hard limit when the soft one has passed.
        self.time_limits = (hard, min(soft, hard) if soft else None)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The run raised, or its process died."""
        if isinstance(_unwrapped(exc_info), MemoryError):
            exc_info = _info(OutOfMemory(str(_unwrapped(exc_info)) or "MemoryError"), exc_info.traceback)
        exception = _unwrapped(exc_info)
        if isinstance(exception, (SystemExit, KeyboardInterrupt)):
            exception = WorkerLostError(f"its process ended with {exception!r}")
        told = self._already_cancelled or self._already_revoked
        if not told and not isinstance(exception, (Ignore, Reject, Retry, Terminated)):
            self._end(exception, traceback=exc_info.traceback or "")
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A time limit. The pool reports a hard one twice, and Celery would fire the hooks of a failure each time."""
        if soft or generation(self.request_dict) is None:
            super().on_timeout(soft, timeout)
        elif not self._recorded:
            log.error("Hard time limit (%ss) exceeded for %s[%s]", timeout, self.name, self.id)
            self.on_failure(_info(TimeLimitExceeded(timeout)))

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Celery acknowledges it. Without this its row would be published again for ever."""
        if not self._already_revoked:
            self._end(Revoked(reason))
        super()._announce_revoked(reason, terminated, signum, expired)  # type: ignore[misc]

    def _end(self, exception: BaseException, *, traceback: str = "") -> None:
        if self._recorded:
            return
        lost = isinstance(exception, WorkerLostError)
        pid: Any = self.worker_pid
        self._recorded = endings.record(self.request_dict, exception, traceback=traceback, lost=lost, pid=pid)
        if self._recorded:
            # It runs again as its row says; a copy that the broker redelivers would only be skipped.
            self.acknowledge()


def _unwrapped(exc_info: Any) -> Any:
    exception = exc_info.exception
    return exception.exc if isinstance(exception, ExceptionWithTraceback) else exception


def _info(exception: Exception, traceback: str = "") -> ExceptionInfo:
    try:
        raise exception
    except Exception:
        info = ExceptionInfo()
    info.traceback = traceback or info.traceback
    return info


_hooks = dead_letters.hooks()
Request: Any = symbol_by_name(_hooks.REQUEST) if _hooks else RowRequest
