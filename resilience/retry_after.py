"""The Retry-After header as seconds: how long a server that is overloaded asks its clients to wait.

    wait_s = parse_retry_after(response.headers.get("Retry-After"), date=response.headers.get("Date"), default=60.0)

Stands alone, needs only the standard library, never sleeps: the wait belongs in a row or a queue. Source: RFC 9110,
section 10.2.3 (the header), 5.6.7 (its dates).
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: The shortest wait, in seconds, that a header can ask for. "0", or a date in the past, would otherwise let the other side
#: have its clients retry in a loop without a pause; and HTTP counts these times in whole seconds.
RETRY_AFTER_MINIMUM_S = 1.0


def parse_retry_after(
    value: str | None, *, date: str | None = None, default: float | None = None, cap: float = 3600.0
) -> float | None:
    """Seconds to wait, between `RETRY_AFTER_MINIMUM_S` and `cap`; `default` where the header is missing or malformed.

    `value`: the header, "120" or an HTTP date.
    `date`: the same answer's Date header. With it a wrong clock on either side does no harm, since both times are then
    the server's (default: this machine's clock).
    `default`: returned as it is (default None: the caller has its own back-off).
    `cap`: seconds (default 3600), against a server that says "in a year".
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # int() refuses very long digit strings; they are beyond any cap anyway.
        return cap if len(text) > 9 else _within(float(text), cap)
    then = _http_date(text)
    if then is None:
        return default
    now = _http_date(date or "")
    return _within((then - (now or datetime.now(UTC))).total_seconds(), cap)


def _within(seconds: float, cap: float) -> float:
    return min(cap, max(RETRY_AFTER_MINIMUM_S, seconds))


def _http_date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
