"""The Celery application as the hook: whatever sends a task through it writes a row in the caller's transaction.

Celery's own calls all end in two places of the application. `send_task` is where a message leaves, whichever idiom
began it; the task registry is where a task enters, whichever base class it has. So nothing bypasses the outbox by
mistake: to publish directly on purpose, use a plain `celery.Celery`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import celery
from celery import Task, signals
from celery.app.registry import TaskRegistry
from celery.canvas import Signature
from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, register

from outbox.enqueue import enqueue, new_message, run_eagerly
from outbox.task import OutboxTask

#: Celery's settings without which a promise does not hold. The project's own come before them; the system checks say which
#: of those are wrong.
DEFAULTS = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_acks_on_failure_or_timeout": True,
    # A run ends before its lease does, and before the broker redelivers its message.
    "task_time_limit": 360,
    # One more would wait in a worker that may be busy for long.
    "worker_prefetch_multiplier": 1,
    "worker_consumer": "outbox.worker.consumer:Consumer",
    # An outage longer than Celery's default of 100 tries must not end the worker.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # A channel that the broker closed (RabbitMQ: a message held longer than its consumer_timeout, a deleted queue;
    # Redis: out of memory) must not end the worker either.
    "broker_channel_error_retry": True,
    # On Redis, cancelling tasks on a lost connection acknowledges them: the work would be lost.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Keeps the database connection between tasks; Celery's Django fixup closes it twice a task otherwise.
    "CELERY_DB_REUSE_MAX": 10_000,  # by this name alone, whatever the namespace
    "beat_scheduler": "outbox.scheduler:Scheduler",
}


class Registry(TaskRegistry):
    """The tasks of an application. Each one that comes in is an OutboxTask, or becomes one."""

    def __setitem__(self, name: str, task: Task) -> None:
        if not isinstance(task, OutboxTask):
            _mix_in(task)
        if not _is_outermost(type(task)):
            _put_delivery_around(task)
        super().__setitem__(name, task)


class Celery(celery.Celery):
    """A `celery.Celery` whose every task is a row before it is a message.

    Tasks keep the base class that they have (`@shared_task(base=...)`, `task_cls=`, class-based tasks); outbox.task.OutboxTask
    comes behind it in the order of methods, so that what the base overrides is called first. Celery's settings have the
    defaults of DEFAULTS.
    """

    task_cls = "outbox.task:OutboxTask"
    registry_cls = Registry  # type: ignore[assignment]
    #: For OutboxTask: the tasks of another application would be published past the outbox.
    sends_by_outbox = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_after_configure.connect(_add_defaults, weak=False)

    @cached_property
    def AsyncResult(self) -> Any:
        """The class of what sending a task returns: Celery's, with the state of the journal."""
        return self.subclass_with_self("outbox.result:AsyncResult")  # type: ignore[arg-type]

    def send_task(  # type: ignore[override]
        self, name: str, args: Any = None, kwargs: Any = None, **options: Any
    ) -> celery.result.AsyncResult[Any]:
        """Enqueue the task of this name in the caller's transaction; `outbox.options` says what becomes of the options.

        In eager mode run it here, and return its value as Celery's `delay` does.

        Raises EnqueueError for what the outbox cannot keep.
        """
        # As Celery says it; a text would become a list of characters.
        if args is not None and not isinstance(args, (list, tuple)):
            raise TypeError("task args must be a list or tuple")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError("task keyword arguments must be a mapping")
        signature = Signature(
            name, args=tuple(args or ()), kwargs=dict(kwargs or {}), options=options, app=self
        )
        if self.conf.task_always_eager:
            return run_eagerly(new_message(signature, {}))
        result_cls: Any = options.get("result_cls") or self.AsyncResult
        result: celery.result.AsyncResult[Any] = result_cls(str(enqueue(signature)))
        return result


def _add_defaults(source: Any, **_: Any) -> None:
    # Just before Celery's own. Its own add_defaults would put them before the project's settings.
    source.maps.insert(-1, DEFAULTS)


@register(Tags.compatibility)
def check_installed(**_: Any) -> list[CheckMessage]:
    """The app of the tables is installed; `outbox.checks`, which has the other checks, is only then imported."""
    if apps.is_installed("outbox") or not getattr(celery.current_app, "sends_by_outbox", False):
        return []
    return [
        Error(
            'The Celery application is an outbox.Celery, and "outbox" is not in INSTALLED_APPS: no task could be enqueued',
            id="outbox.E012",
        )
    ]


@signals.worker_init.connect
def _leave_soft_limits_to_the_tasks(sender: Any, **_: Any) -> None:
    """Each task has its own from `task_soft_time_limit`; the pool's would defer every hard limit that is shorter."""
    if not getattr(sender.app, "sends_by_outbox", False):
        return
    if sender.soft_time_limit != sender.app.conf.task_soft_time_limit:
        raise SystemExit("--soft-time-limit is read after the tasks are bound: set task_soft_time_limit")
    sender.soft_time_limit = None


def _mix_in(task: Task) -> None:
    """Make a task of another base class an OutboxTask, too."""
    task.__class__ = _derived(type(task), OutboxTask)
    OutboxTask.__init__(task)  # type: ignore[arg-type]


def _is_outermost(cls: type[Task]) -> bool:
    return cls.__call__ in (OutboxTask.__call__, _deliver)


def _put_delivery_around(task: Task) -> None:
    """A base class with a `__call__` of its own is called inside of the delivery.

    Called around it, one that calls `self.run` would run the body without a claim.
    """
    cls: Any = type(task)
    inner: Callable[..., Any] = cls.__call__

    def run_body(self: Any, *args: Any, **kwargs: Any) -> Any:
        return inner(self, *args, **kwargs)

    task.__class__ = _derived(cls, __call__=_deliver, run_body=run_body)


def _deliver(self: Any, *args: Any, **kwargs: Any) -> Any:
    if self.is_plain_call():
        return self.run_body(*args, **kwargs)
    return OutboxTask.__call__(self, *args, **kwargs)


def _derived(cls: type, *more: type, **namespace: Any) -> Any:
    named = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(cls.__name__, (cls, *more), {**named, **namespace})
