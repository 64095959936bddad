"""When to try again: exponential back-off with full jitter, fixed schedules, and the Retry-After header.

Pure functions: nothing here sleeps. The delay belongs into a row or a queue, not into a worker that waits.
Full jitter is from "Exponential Backoff And Jitter" (AWS Architecture Blog): of the variants compared there
it finishes with the least work, because the callers that failed together do not come back together.
"""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: 2 ** 30 seconds is 34 years: beyond it the exponent only risks an overflow of float.
_MAX_EXPONENT = 30
#: The least wait that a foreign header can ask for. "0", or a date in the past, would otherwise let the other side
#: choose a loop without a pause for us; and HTTP counts these times in whole seconds.
RETRY_AFTER_MINIMUM_S = 1.0


def backoff(
    retries: int,
    *,
    base: float = 1.0,
    cap: float = 300.0,
    jitter: Callable[[float, float], float] = random.uniform,
) -> float:
    """Seconds to wait before the next try: uniform between 0 and min(cap, base * 2 ** retries).

    `retries` counts the retries made so far: 0 before the first one. `cap` bounds the result whatever the
    count. Raises ValueError for a negative count, base or cap.
    """
    if retries < 0 or base < 0 or cap < 0:
        raise ValueError(f"retries, base and cap must not be negative: {retries}, {base}, {cap}")
    return jitter(0.0, min(cap, base * 2 ** min(retries, _MAX_EXPONENT)))


def scheduled_delay(retries: int, schedule: Sequence[float]) -> float | None:
    """Seconds before the next try by a fixed schedule such as (60, 300, 1800); None once it is used up.

    `retries` counts the retries made so far: 0 gives the first entry.
    """
    if retries < 0:
        raise ValueError(f"retries must not be negative: {retries}")
    return float(schedule[retries]) if retries < len(schedule) else None


def parse_retry_after(
    value: str | None, *, date: str | None = None, default: float = 60.0, cap: float = 3600.0
) -> float:
    """Seconds that an answer's Retry-After header asks for, in both forms of RFC 9110 (10.2.3).

    `value` is the header: "120", or an HTTP date. `date` is the same answer's Date header; with it a wrong
    clock on either side does no harm, since the difference of two times of one clock is what counts. What
    is missing or malformed gives `default`, what says "now" or lies in the past `RETRY_AFTER_MINIMUM_S`, and
    `cap` bounds a server that says "in a year".
    """
    if value is None:
        return default
    text = value.strip()
    if text.isascii() and text.isdigit():
        # int() refuses very long digit strings; they are beyond any cap anyway.
        return cap if len(text) > 9 else _within(float(text), cap)
    then = _http_date(text)
    if then is None:
        return default
    now = _http_date(date) if date else None
    return _within((then - (now or datetime.now(UTC))).total_seconds(), cap)


def _within(seconds: float, cap: float) -> float:
    return min(cap, max(RETRY_AFTER_MINIMUM_S, seconds))


def _http_date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
