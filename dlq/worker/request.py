"""The choke point that every ending of a running task passes: Celery's Request, in the worker's parent.

`Task.on_failure` and the `task_failure` signal are no foundation: a hard time limit fires them twice, a lost
worker only half, a hook that raises loses the entry, because the message is acknowledged before. Here the
ending is recorded first and acknowledged after, and what cannot be recorded is not acknowledged.
"""

from __future__ import annotations

import logging
import time
from typing import Any, cast

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import signals
from celery.exceptions import Ignore, Reject, Retry, Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker import request as celery_request
from celery.worker import state
from kombu.utils.encoding import safe_repr

from dlq import journal
from dlq.message import REPLAY_HEADER, RawMessage, text
from dlq.models import Cause
from dlq.worker.failure import Ending

logger = logging.getLogger(__name__)

#: By class and not by name: whatever a task itself raises, and however that is called, it failed.
_CAUSES: dict[type[BaseException], Cause] = {
    TimeLimitExceeded: Cause.TIMEOUT,
    WorkerLostError: Cause.LOST,
}


class Expired(Exception):
    """The message came after the time in its `expires` header."""


class Revoked(Exception):
    """The message was revoked or its run terminated by remote control."""


class OutOfMemory(Exception):
    """The task raised MemoryError. Celery would raise it again in the parent and end the worker with it."""


class Request(celery_request.Request):
    """Set as `Task.Request`. Endings that are no failure (Ignore, Retry, requeued) stay Celery's."""

    _ended = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        app: Any = self.app
        longest = self.task.time_limit or app.conf.task_time_limit
        asked = self.time_limits
        if journal.generation(self.request_dict) is not None:
            # A journalled message carries neither: who adds them to a copy would end the message itself.
            asked, self._expires = (None, None), None
        hard, soft = asked[0] or longest, asked[1] or self.task.soft_time_limit
        if longest:
            # A producer may ask for less time, not for more: a message whose run outlasts the broker's timeout is
            # redelivered, and runs twice at once.
            hard = min(hard, longest)
        if hard and soft:
            # The pool starts the clock of the hard limit when the soft one has passed: a soft limit above the hard
            # one would put it off.
            soft = min(soft, hard)
        self.time_limits = (hard, soft)
        if getattr(self.task, "keeps_delays", False):
            # Celery would hold the message until its time comes, unacknowledged, for longer than the broker waits. The
            # task's own class defers it when it is run too early.
            self._eta = None
        if REPLAY_HEADER in self.request_dict:
            # An operator sent it again after it was revoked or had expired (Celery remembers the ids of both as
            # revoked): the later decision counts.
            celery_request.revoked_tasks.discard(self.id)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The task raised, or its process died; called by the pool, and from `on_success` for what it
        returned.
        """
        exception = _unwrapped(exc_info.exception)
        interrupted = isinstance(exception, (Terminated, WorkerLostError, SystemExit, KeyboardInterrupt))
        if interrupted and (self._already_cancelled or self._already_revoked):
            # Its process ended because the worker told it to. Cancelled (cold shutdown, lost broker connection): it
            # stays unacknowledged and the broker redelivers it. Revoked: that was recorded when it was.
            celery_request.task_ready(self)
            return
        given_back = isinstance(exception, Reject) and exception.requeue
        if isinstance(exception, (Ignore, Retry, Terminated)) or given_back:
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
            return
        celery_request.task_ready(self)
        if isinstance(exception, (SystemExit, KeyboardInterrupt)):
            exc_info = self._worker_lost_info(exception)
        elif isinstance(exception, MemoryError):
            exc_info = _info(OutOfMemory(text(exception) or "MemoryError"), traceback=exc_info.traceback)
        exception = _unwrapped(exc_info.exception)
        lost = isinstance(exception, WorkerLostError)
        self._end(exception, traceback=exc_info.traceback, lost=lost, told=return_ok)
        self._report(exc_info, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A time limit. The pool reports a hard one twice: as a failure and here, where Celery would fire
        hooks again.
        """
        if soft:
            super().on_timeout(soft, timeout)
            return
        logger.error("Hard time limit (%ss) exceeded for %s[%s]", timeout, self.name, self.id)
        if not self._ended:
            self.on_failure(_info(TimeLimitExceeded(timeout)))

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Celery acknowledges an expired or revoked message and tells only the receivers of its signal."""
        if self._already_revoked:
            return
        self._already_revoked = True
        exception: Exception = Expired(f"expired at {self.expires}") if expired else Revoked(reason)
        cause = Cause.EXPIRED if expired else Cause.REVOKED
        self._end(exception, traceback="", lost=False, cause=cause)
        celery_request.task_ready(self)
        self.send_event("task-revoked", terminated=terminated, signum=signum, expired=expired)
        celery_request.send_revoked(
            self.task, request=self._context, terminated=terminated, signum=signum, expired=expired
        )

    def _end(
        self,
        exception: BaseException,
        *,
        traceback: str,
        lost: bool,
        cause: Cause | None = None,
        told: bool = False,
    ) -> None:
        """`told`: the child has reported the end, and its journal, if it has one, wrote the line of the log."""
        if self._ended:
            return
        self._ended = True
        ending = Ending(
            raw=RawMessage.of(self.message),
            fields=self.request_dict,
            exception=exception,
            error=text(exception),
            cause=cause
            or next((c for kind, c in _CAUSES.items() if isinstance(exception, kind)), Cause.FAILED),
            traceback=traceback or "",
            task=self.type,
            args=self.args,
            kwargs=self.kwargs,
            worker=self.hostname,
            # What was acknowledged before it ran cannot run again: no count, the dead letter at once.
            lost=lost and not self.acknowledged,
            stopped=_is_stopping(),
            pid=cast("int | None", self.worker_pid),  # celery-types takes it for text
            ran_s=round(time.time() - self.time_start, 3) if self.time_start else None,
        )
        if not (told and ending.generation is not None):
            logger.error("%s", ending, extra=ending.log_fields())
        ending.conclude(acknowledge=self.acknowledge, requeue=lambda: self.reject(requeue=True))

    def _report(self, exc_info: Any, *, return_ok: bool) -> None:
        """Send the signal and the event of a failure that the child could not report."""
        if return_ok:
            return
        exception = _unwrapped(exc_info.exception)
        signals.task_failure.send(
            sender=self.task, task_id=self.id, exception=exception, args=self.args, kwargs=self.kwargs,
            traceback=exc_info.tb, einfo=exc_info,
        )  # fmt: skip
        self.send_event("task-failed", exception=safe_repr(exception), traceback=exc_info.traceback)


def _is_stopping() -> bool:
    """Whether this worker was told to stop: None or False while it was not, else the exit status, 0 most often."""
    return any(told is not None and told is not False for told in (state.should_stop, state.should_terminate))


def _unwrapped(exception: Any) -> Any:
    return exception.exc if isinstance(exception, ExceptionWithTraceback) else exception


def _info(exception: Exception, traceback: str = "") -> ExceptionInfo:
    try:
        raise exception
    except Exception:
        info = ExceptionInfo()
    info.traceback = traceback or info.traceback
    return info
