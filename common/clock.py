"""Time: deadlines by the database's clock, delays by one scale."""

from datetime import datetime

from django.conf import settings
from django.db import connection
from django.db.models import DateTimeField, Func


class ClockTimestamp(Func):
    """PostgreSQL's `clock_timestamp()`: the time of this very statement.

    Leases are compared with it and never with a worker's own clock (one worker two hours ahead would take every lease) nor
    with `now()`, which stands still for as long as a transaction is open.
    """

    function = "clock_timestamp"
    arity = 0
    output_field = DateTimeField()


def now() -> datetime:
    """The database's time now, also inside a long transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment


def scaled(seconds: float) -> float:
    """`seconds` times `settings.RETRY_SCALE`: 1.0 in production, a fraction where a demo or a test must not wait.

    Only delays that we chose are scaled. A `Retry-After` that a server sent is obeyed as it is.
    """
    return seconds * settings.RETRY_SCALE
