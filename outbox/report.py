"""What the log says of an attempt when it has ended: which task, which attempt, how it ended, how long it took, what comes next.

Arguments and errors may hold secrets. The dead-letter app knows how to mask them; without one no arguments are shown.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from outbox import dead_letters
from outbox.claims import Claimed

log = logging.getLogger(__name__)

#: Characters of an error in the log; it is masked with what follows them, so that no secret is cut to what looks like none.
MAX_ERROR, MARGIN = 300, 4
MAX_ARGUMENTS = 200
#: An attempt whose effect is settled.
DONE = "done"


@dataclass(frozen=True)
class Attempt:
    """One run of a message, for its line in the log.

    `number`: from 1. `limit`: retries that the message may have, None for any number. `began`: by `time.monotonic()`.
    """

    task: str
    message_id: Any
    number: int
    limit: int | None
    args: Any
    kwargs: Any
    correlation_id: str = ""
    request_id: str = ""
    traceparent: str = ""
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, claimed: Claimed, task: str, *, limit: int | None) -> Attempt:
        return cls(
            task=task,
            message_id=claimed.message_id,
            number=claimed.attempts + 1,
            limit=limit,
            args=claimed.args,
            kwargs=claimed.kwargs,
            correlation_id=claimed.correlation_id,
            request_id=claimed.request_id,
            traceparent=claimed.traceparent,
            began=claimed.began,
        )

    def ended(
        self,
        outcome: str,
        *,
        error: str = "",
        again_s: float | None = None,
        is_last: bool = False,
        level: int = logging.INFO,
    ) -> None:
        """Log `task <message id> attempt 1 of 6 (0.012 s) done (correlation c-1)`, and with an error
        `task(order_id=999) <message id> attempt 2 of 6 (0.120 s) failed, again in 4.2 s: Error: text (correlation c-1)`;
        `, request r-1` at the end where it comes from an HTTP request.

        `again_s`: seconds until the next attempt. `is_last`: no attempt follows, whatever the limit; then the limit is left out
        unless it is reached. The same is in the record under names of its own, for a formatter that
        writes JSON: task, outcome, duration_s, attempt, message_id, correlation_id, request_id, trace_id, and as they apply
        again_in_s, arguments, error.
        """
        if not log.isEnabledFor(level):
            return
        took_s = time.monotonic() - self.began
        fields: dict[str, Any] = {
            "task": self.task,
            "outcome": outcome,
            "duration_s": round(took_s, 6),
            "attempt": self.number,
            "message_id": str(self.message_id),
            "correlation_id": self.correlation_id,
            "request_id": self.request_id,
            "trace_id": trace_id(self.traceparent),
        }
        call, end = self.task, outcome
        if again_s is not None:
            fields["again_in_s"] = again_s
            end = f"{end}, again in {again_s:.1f} s"
        if error:
            fields["arguments"] = arguments(self.task, self.args, self.kwargs)
            fields["error"] = masked(error[: MAX_ERROR * MARGIN])[:MAX_ERROR]
            call, end = f"{call}({fields['arguments']})", f"{end}: {fields['error']}"
        of = f" of {'any number' if self.limit is None else self.limit + 1}"
        if is_last and (self.limit is None or self.number <= self.limit):
            of = ""
        log.log(
            level,
            "%s %s attempt %d%s (%.3f s) %s (correlation %s%s)",
            *(call, self.message_id, self.number, of),
            *(took_s, end, self.correlation_id or "none"),
            f", request {self.request_id}" if self.request_id else "",
            extra=fields,
        )


def trace_id(traceparent: str) -> str:
    """The id of the trace that a W3C `traceparent` names; '' without one."""
    return traceparent[3:35]


def arguments(task: str, args: Any, kwargs: Any, limit: int | None = MAX_ARGUMENTS) -> str:
    """The arguments as text of at most `limit` characters, without secrets; `...` without a dead-letter app."""
    hooks = dead_letters.hooks()
    return str(hooks.arguments(task, args, kwargs, limit)) if hooks else "..."


def masked(value: Any) -> Any:
    """`value` as it may be shown."""
    hooks = dead_letters.hooks()
    return hooks.masked(value) if hooks else value
