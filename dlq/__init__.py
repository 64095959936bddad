"""Dead letters: every message that failed for good, once each, with what it takes to understand and replay it."""

from typing import Any


def connect(app: Any) -> None:
    """Let the workers of this Celery application record what ends badly in them. Called after `config_from_object`.

    It sets `worker_consumer`, and the Request class of the application's Task. A task with a base class that is not derived
    from `app.Task` needs `Request = "dlq.worker.request:Request"` itself.

    An `outbox.Celery` stays as it is: its own classes build on those of dlq/.
    """
    if getattr(app, "sends_by_outbox", False):
        return
    app.conf.worker_consumer = "dlq.worker.consumer:Consumer"
    app.Task.Request = "dlq.worker.request:Request"
