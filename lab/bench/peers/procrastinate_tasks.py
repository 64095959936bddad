"""procrastinate in Django: `python -m lab.bench.peers.procrastinate_tasks COUNT` migrates and enqueues.

Its workers are `python -m django procrastinate worker`, one process each, with its own defaults.
"""

from __future__ import annotations

import sys

from procrastinate.contrib.django import app

from lab.bench import effects


@app.task(name="write")  # type: ignore[untyped-decorator]
def write(number: int) -> None:
    """One row."""
    effects.write(number)


def main(count: int) -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection, transaction

    call_command("migrate", "procrastinate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE procrastinate_jobs CASCADE")
    with transaction.atomic():
        app.configure_task("write").batch_defer(*({"number": number} for number in range(count)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
