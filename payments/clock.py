"""What time it is for everybody: the database's, since a worker's own clock may be hours off."""

from datetime import datetime

from django.db import connection


def now() -> datetime:
    """The database's time now, also inside a long transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment
