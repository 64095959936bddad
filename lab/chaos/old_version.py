"""What a worker of the previous release does not know; imported by a worker that shall be one (`CHAOS_OLD_VERSION=1`).

One task that does not exist there yet, and one whose arguments were fewer: in a rolling deployment both arrive at old
workers, from web processes that are new already.
"""

from __future__ import annotations

from typing import Any

from celery import signals

NOT_YET = "orders.tasks.notify_warehouse"
FEWER_ARGUMENTS = "webhooks.tasks.publish_event"


@signals.worker_init.connect
def forget(sender: Any, **_: Any) -> None:
    tasks = sender.app.tasks
    tasks.unregister(NOT_YET)
    tasks[FEWER_ARGUMENTS].run = lambda order_id: None
