"""django-celery-outbox 0.4: `python -m lab.bench.peers.celery_outbox ROWS BATCH` prints its relay's rate as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import time

ROWS = """
INSERT INTO celery_outbox (created_at, retries, task_id, task_name, args, kwargs, options, schema_version)
SELECT now(), 0, gen_random_uuid()::text, 'lab.bench.tasks.noop', jsonb_build_array(n), '{}', '{"queue": "default"}', 1
FROM generate_series(1, %s) n
"""


def main(rows: int, batch: int) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "lab.bench.peers.celery_outbox_settings"
    import django
    import structlog
    from celery import Celery

    django.setup()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    from django.core.management import call_command
    from django.db import connection
    from django_celery_outbox.models import CeleryOutbox
    from django_celery_outbox.relay import Relay, RelayConfig

    from lab.bench import cpu

    call_command("migrate", "django_celery_outbox", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE celery_outbox")
        cursor.execute(ROWS, [batch + rows])
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    app = Celery("peer", broker=os.environ["BROKER_URL"])
    relay = Relay(app, RelayConfig.init(batch_size=batch, idle_time=0.0))
    # One step of its loop, so that the clock starts when it has its connections.
    relay._processing()
    began, cpu_began = time.perf_counter(), cpu.with_session_us()
    while CeleryOutbox.objects.exists():
        relay._processing()
    taken, computed_us = time.perf_counter() - began, cpu.with_session_us() - cpu_began
    print(json.dumps({"rate": rows / taken, "cpu_us": computed_us / rows}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
