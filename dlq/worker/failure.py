"""How one message ended badly, and what is to become of it: ask the journal, else write the dead letter.

Both ways into here, Request and Consumer, run in the worker's parent and go through the shelf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from dlq import call, conf, journal, record
from dlq.masking import masked_prefix, masked_text
from dlq.message import REPLAY_HEADER, RawMessage, message_key, text
from dlq.models import Cause
from dlq.worker.pending_acks import shelf

#: Tries after which a record that the database refuses, although it is there, is made without what it refuses;
#: a minute and a half on the shelf.
MAX_REFUSALS = 10
#: Characters of an error in the log; the dead letter has more of it.
MAX_LOGGED = 300


@dataclass
class Ending:
    """What the parent knows about a message that ended badly. `lost`: its worker process died under it; `stopped`: while
    the whole worker was stopped, which says nothing about the message.

    `pid`: that process; None when the message never came to one. `ran_s`: seconds since it took the message.
    """

    raw: RawMessage
    fields: dict[str, Any]
    exception: BaseException
    error: str
    cause: Cause
    traceback: str = ""
    task: str = ""
    args: Any = None
    kwargs: Any = None
    worker: str = ""
    lost: bool = False
    stopped: bool = False
    pid: int | None = None
    ran_s: float | None = None
    requeue: bool = False
    refusals: int = 0

    def conclude(self, *, acknowledge: Callable[[], None], requeue: Callable[[], None]) -> None:
        """Record it, then acknowledge; or wait on the shelf, unacknowledged, until it can be recorded.

        `requeue` is called instead where the message is to run again and no journal will see to that.
        """
        shelf.put(self.record, lambda: requeue() if self.requeue else acknowledge())

    def record(self, *, last_try: bool = False) -> None:
        """Idempotent, because what follows it (the acknowledgement) may fail and the message come again.

        Raises while it cannot be recorded. A record that is refused for what is in it is reduced in the end: held
        for ever, it would keep a slot of the worker for ever.
        """
        try:
            self._record()
        except Exception as exc:
            # A database that is down or busy says nothing about the record, however often.
            if journal.is_not_now(exc):
                raise
            self.refusals += 1
            if self.refusals < MAX_REFUSALS and not last_try:
                raise
            self._record_reduced(exc)

    def _record_reduced(self, refused: Exception) -> None:
        """First without what was read out of the message; then without the message, of which size and digest remain."""
        what = f"{len(self.raw.body)} bytes, sha256 {self.raw.digest}"
        error = f"{text(self.error)[:1_000]} (not recorded in full: {what}; {text(refused)[:1_000]})"
        reduced = replace(
            self, error=error, exception=Unrecordable(error), traceback="", args=None, kwargs=None
        )
        try:
            reduced._record()
        except Exception as exc:
            if journal.is_not_now(exc):
                raise
            reduced._record(keep_raw=False)
        self.requeue = reduced.requeue

    def _record(self, *, keep_raw: bool = True) -> None:
        if getattr(self.exception, "unsolicited", False):
            # It was not sent again, whatever its headers say: the dead letter of another message must not change.
            self.fields = {name: value for name, value in self.fields.items() if name != REPLAY_HEADER}
        key, own_id = message_key(self.fields, self.raw.digest)
        # One transaction: a dead letter of the journal's that lacked its cause would never get it.
        with transaction.atomic():
            verdict = self._ask_journal(key) if own_id else None
            if verdict == "dead":
                record.complete(key, cause=self.cause, raw=self.raw if keep_raw else None)
        if verdict is not None:
            return
        if self.lost and (self.stopped or record.lost_runs(key) + 1 < conf.max_lost_runs()):
            # Counted when the broker redelivers it, as are the runs that took this parent with them.
            if self.stopped:
                record.uncount_lost_run(key)
            self.requeue = True
            return
        record.record_raw(
            message_key=key,
            raw=self.raw,
            keep_raw=keep_raw,
            cause=self.cause,
            error=self.error,
            exception=self.exception,
            traceback=self.traceback,
            task=self.task,
            args=self.args,
            kwargs=self.kwargs,
            attempts=self._attempts(),
            worker=self.worker,
            replayed=self.fields.get(REPLAY_HEADER) == key,
        )
        record.forget_lost_runs(key)

    @property
    def generation(self) -> int | None:
        """Which run of a journalled message ended; None where it has no journal."""
        return journal.generation(self.raw.headers)

    def __str__(self) -> str:
        """For the log: `task(order_id=999) <message id> attempt 3 of 4: Error: text (correlation c-1)`.

        Bounded and masked: an error of decoding quotes the whole body.
        """
        key, _ = message_key(self.fields, self.raw.digest)
        limit = getattr(call.registered(self.task), "max_retries", None)
        attempt = f"attempt {self._attempts()}" + ("" if limit is None else f" of {limit + 1}")
        return (
            f"{masked_text(self.task) or 'message'}({call.arguments(self.task, self.args, self.kwargs)}) {key}"
            f" {attempt if self.generation is None else f'generation {self.generation}'}:"
            f" {type(self.exception).__name__}: {masked_prefix(text(self.error), MAX_LOGGED)}"
            f" (correlation {masked_prefix(record.correlation_of(self.raw.headers), MAX_LOGGED) or 'none'})"
        )

    def log_fields(self) -> dict[str, Any]:
        """The same for a formatter that writes JSON, under the names and words that the outbox has for them.

        A message with a journal may run again: the journal's own line says that it failed for good.
        """
        key, _ = message_key(self.fields, self.raw.digest)
        return {
            "task": masked_text(self.task),
            "outcome": "lost" if self.lost else "failed for good" if self.generation is None else "failed",
            "duration_s": self.ran_s,
            "attempt": self._attempts() if self.generation is None else None,
            "message_id": key,
            "correlation_id": masked_text(record.correlation_of(self.raw.headers)),
            "request_id": text(self.raw.headers.get("request_id") or "")[:128],
            "trace_id": text(self.raw.headers.get("traceparent") or "")[3:35],
            "arguments": call.arguments(self.task, self.args, self.kwargs),
            "error": masked_prefix(text(self.error), MAX_LOGGED),
        }

    def _ask_journal(self, key: str) -> str | None:
        hooks, generation = journal.hooks(), self.generation
        if hooks is None or generation is None:
            return None
        verdict: str | None = hooks.worker_failure(
            # Not the dead letter's, whose id a replay carries: what it became is a row under an id of its own.
            message_id=self.fields.get("id") or key,
            generation=generation,
            exception=self.exception,
            error=self.error,
            traceback=self.traceback,
            lost=self.lost,
            pid=self.pid,
        )
        return verdict

    def _attempts(self) -> int:
        retries = self.fields.get("retries")
        return (retries if isinstance(retries, int) and 0 <= retries < 2**31 - 1 else 0) + 1


class Unrecordable(Exception):
    """The database would not take the record of how this message ended, so that it is a shorter one."""
