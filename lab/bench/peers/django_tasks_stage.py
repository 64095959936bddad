"""`python -m lab.bench.peers.django_tasks_stage COUNT`: migrates, empties the queue, and enqueues that many."""

from __future__ import annotations

import sys

import django


def main(count: int) -> None:
    django.setup()
    from django.core.management import call_command
    from django.db import transaction
    from django_tasks_db.models import DBTaskResult

    from lab.bench.peers.django_tasks_tasks import write

    call_command("migrate", "django_tasks_database", verbosity=0)
    DBTaskResult.objects.all().delete()
    with transaction.atomic():
        for number in range(count):
            write.enqueue(number)


if __name__ == "__main__":
    main(int(sys.argv[1]))
