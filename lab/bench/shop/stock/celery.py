"""The application of stock Celery, and the outbox's calls as `apply_async` on commit."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import celery
from celery import signals
from celery.canvas import Signature
from django.conf import settings
from django.db import transaction

import outbox
from outbox import heartbeat
from outbox.app import DEFAULTS

#: Not what belongs to the outbox's own worker and scheduler.
_OURS = ("worker_consumer", "beat_scheduler")


class Task(celery.Task):
    """Celery's Task. A body that the domain declares `transactional` is one transaction; what defers is retried."""

    abstract = True
    transactional = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            with transaction.atomic() if self.transactional else nullcontext():
                return super().__call__(*args, **kwargs)
        except outbox.Defer as error:
            raise self.retry(exc=error, countdown=error.seconds, max_retries=None) from error


def enqueue_many(
    signatures: Iterable[Signature], *, queue: str | None = None, delay: float = 0.0, **_: Any
) -> list[uuid.UUID]:
    """Send each when the caller's transaction has committed; keys of order, of duplicates and of correlation are ignored."""
    ids = []
    for signature in signatures:
        ids.append(uuid.uuid4())
        options = {"queue": queue or signature.options.get("queue"), "countdown": delay or None}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        task = app.tasks[str(signature.task)]
        send = partial(task.apply_async, signature.args, signature.kwargs, task_id=str(ids[-1]), **given)
        transaction.on_commit(send)
    return ids


def enqueue(signature: Signature, **options: Any) -> uuid.UUID:
    """One of them."""
    return enqueue_many([signature], **options)[0]


def emit(event: str, /, *, ordering_key: str = "", correlation_id: str | None = None, **kwargs: Any) -> Any:
    """One message for each task that the settings name for the event."""
    return enqueue_many(app.signature(name, kwargs=kwargs) for name in settings.OUTBOX_EVENTS[event])


# The module that has the Task class starts a heartbeat in each worker.
for _signal, _receiver in (
    (signals.worker_init, heartbeat._born),
    (signals.worker_ready, heartbeat._start),
    (signals.worker_shutdown, heartbeat._end),
    (signals.task_received, heartbeat._note),
):
    _signal.disconnect(_receiver)

for _send in (enqueue, enqueue_many, emit):
    setattr(outbox, _send.__name__, _send)

app = celery.Celery("stock", task_cls=Task)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update({name: value for name, value in DEFAULTS.items() if name not in _OURS})
app.autodiscover_tasks()
# Threads have no current application; the default is the first one made, which is that of config.
app.set_default()
