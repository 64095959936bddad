"""`python -m lab.bench.peers.procrastinate_stage COUNT`: migrates, empties the queue, and enqueues that many.

With 0 it forgets the workers of earlier turns, too.
"""

from __future__ import annotations

import sys

import django


def main(count: int) -> None:
    django.setup()
    from django.core.management import call_command
    from django.db import connection, transaction
    from procrastinate.contrib.django import app

    call_command("migrate", "procrastinate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE procrastinate_jobs CASCADE")
        if not count:
            cursor.execute("DELETE FROM procrastinate_workers")
    if count:
        with transaction.atomic():
            app.configure_task("write").batch_defer(*({"number": number} for number in range(count)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
