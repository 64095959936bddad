"""A process that has just started: its first requests come at once, before it has imported every task."""

import subprocess
import sys

from outbox.testing import staged
from tests.support.processes import ROOT, environment

ANNOUNCE_AT_ONCE = """
import threading
import django
django.setup()
from django.db import connection, transaction
from orders import events
together = threading.Barrier(8)
def announce(order_id):
    connection.ensure_connection()
    together.wait(30)
    with transaction.atomic():
        events.announce("order.completed", order_id, customer_id=1)
threads = [threading.Thread(target=announce, args=(order_id,)) for order_id in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join(60)
"""


def test_first_requests_at_once_all_find_the_tasks_that_they_enqueue(transactional_db: None) -> None:
    run = subprocess.run(
        [sys.executable, "-c", ANNOUNCE_AT_ONCE],
        # The tests' own settings import more modules, whose locks would keep the threads apart.
        env=environment({"DJANGO_SETTINGS_MODULE": "config.settings"}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert len(staged("payments.tasks.create_invoice")) == 8, run.stderr
