"""What the log says of a run that failed: which call, which attempt, what went wrong and what comes next.

Arguments and errors may hold secrets. The dead-letter app knows how to mask them; without one no arguments are shown.
"""

from __future__ import annotations

import logging
from typing import Any

from outbox import dead_letters
from outbox.claims import Claimed

log = logging.getLogger(__name__)

#: Characters of an error in the log; it is masked with what follows them, so that no secret is cut to what looks like none.
MAX_ERROR, MARGIN = 300, 4
MAX_ARGUMENTS = 200


def ended(
    task: str, claimed: Claimed, *, limit: int | None, error: str, outcome: str, level: int = logging.WARNING
) -> None:
    """One line: `task(order_id=999) <message id> attempt 2 of 6 failed, again in 4.2 s: Error: text (correlation c-1)`, with
    `, request r-1` where it comes from an HTTP request.

    `limit`: retries that the message may have, None for any number.
    """
    log.log(
        level,
        "%s(%s) %s attempt %d of %s %s: %s (correlation %s%s)",
        *(task, arguments(task, claimed.args, claimed.kwargs), claimed.message_id),
        *(claimed.attempts + 1, "any number" if limit is None else limit + 1, outcome),
        *(masked(error[: MAX_ERROR * MARGIN])[:MAX_ERROR], claimed.correlation_id or "none"),
        f", request {claimed.request_id}" if claimed.request_id else "",
    )


def arguments(task: str, args: Any, kwargs: Any, limit: int | None = MAX_ARGUMENTS) -> str:
    """The arguments as text of at most `limit` characters, without secrets; `...` without a dead-letter app."""
    hooks = dead_letters.hooks()
    return str(hooks.arguments(task, args, kwargs, limit)) if hooks else "..."


def masked(value: Any) -> Any:
    """`value` as it may be shown."""
    hooks = dead_letters.hooks()
    return hooks.masked(value) if hooks else value
