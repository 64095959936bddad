"""How one message ended badly, and what is to become of it: ask the journal, else write the letter.

Both ways into here, Request and Consumer, run in the worker's parent and go through the shelf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dlq import capture, conf
from dlq.models import Cause
from dlq.rawmessage import RawMessage, message_key
from dlq.shelf import shelf


@dataclass
class Ending:
    """What the parent knows about a message that ended badly. `lost`: its worker process died under it.

    `pid`: that process; None when the message never came to one.
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
    pid: int | None = None
    requeue: bool = False

    def conclude(self, *, acknowledge: Callable[[], None], requeue: Callable[[], None]) -> None:
        """Record it, then acknowledge; or wait on the shelf, unacknowledged, until it can be recorded.

        `requeue` is called instead where the message is to run again and no journal will see to that.
        """
        shelf.put(self.record, lambda: requeue() if self.requeue else acknowledge())

    def record(self) -> None:
        """Idempotent, because what follows it (the acknowledgement) may fail and the message come again."""
        key, own_id = message_key(self.fields, self.raw.digest)
        verdict = self._ask_journal(key) if own_id else None
        if verdict == "dead":
            capture.keep_raw(key, self.raw)
        if verdict is not None:
            return
        if self.lost and capture.lost_runs(key) + 1 < conf.max_lost_runs():
            # Counted when the broker gives it out again, as the runs are that took this parent with them.
            self.requeue = True
            return
        capture.record_raw(
            message_key=key,
            raw=self.raw,
            cause=self.cause,
            error=self.error,
            exception=self.exception,
            traceback=self.traceback,
            task=self.task,
            args=self.args,
            kwargs=self.kwargs,
            attempts=self._attempts(),
            worker=self.worker,
        )
        capture.forget_lost_runs(key)

    def _ask_journal(self, key: str) -> str | None:
        journal = conf.hook("DLQ_JOURNAL")
        generation = conf.generation(self.raw.headers)
        if journal is None or generation is None:
            return None
        verdict: str | None = journal(
            message_id=key,
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
