"""Every setting that the outbox reads. Each has a default, so that none is required.

They are Django settings, read at each use. What Celery is told (queues, broker, time limits) comes from the configuration
of the current Celery application, whatever namespace that has. Nothing else in this folder reads settings or the
environment. A value of the wrong kind raises `ImproperlyConfigured`, and is an error of `manage.py check`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

from celery import current_app
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

Read = TypeVar("Read", bound=Callable[[], Any])

#: Seconds after which kombu's Redis transport redelivers an unacknowledged message, where nothing else is set.
KOMBU_VISIBILITY_TIMEOUT_S = 3600.0

#: One function for each setting; the system check calls all of them.
ALL: list[Callable[[], Any]] = []


def _setting(read: Read) -> Read:
    ALL.append(read)
    return read


@_setting
def queues() -> tuple[str, ...]:
    """`OUTBOX_QUEUES`: names of the queues that messages may be enqueued to, and that the relay publishes to.

    Default: those of Celery's `task_queues`, or `task_default_queue` alone where that is not set.
    """
    given = getattr(settings, "OUTBOX_QUEUES", None)
    if given is None:
        declared = current_app.conf.task_queues
        return tuple(getattr(queue, "name", queue) for queue in declared or [default_queue()])
    return _names("OUTBOX_QUEUES", given)


@_setting
def events() -> Mapping[str, Sequence[str]]:
    """`OUTBOX_EVENTS`: event -> names of the tasks that `outbox.emit` enqueues for it. Default: {}."""
    given = getattr(settings, "OUTBOX_EVENTS", {})
    if not isinstance(given, Mapping):
        raise _wrong("OUTBOX_EVENTS", "a dict of an event's name and a list of task names", given)
    for event, tasks in given.items():
        _names(f"OUTBOX_EVENTS[{event!r}]", tasks)
    return given


@_setting
def foreign_tasks() -> tuple[str, ...]:
    """`OUTBOX_FOREIGN_TASKS`: names of the tasks that a message without a row may run. Default: ().

    Such a message comes from a producer that knows no outbox. Every client that may write to the broker can send one.
    """
    return _names("OUTBOX_FOREIGN_TASKS", getattr(settings, "OUTBOX_FOREIGN_TASKS", ()))


@_setting
def dead_letters() -> str | None:
    """`OUTBOX_DEAD_LETTERS`: the app that keeps dead letters, see `outbox.dead_letters`.

    Default: "dlq" where that is installed, else None: a dead message is a row here, and nothing more.
    """
    name = getattr(settings, "OUTBOX_DEAD_LETTERS", "dlq" if apps.is_installed("dlq") else None)
    if name is not None and not isinstance(name, str):
        raise _wrong("OUTBOX_DEAD_LETTERS", "the name of an app, or None", name)
    return name or None


@_setting
def links() -> Mapping[str, str]:
    """`OUTBOX_LINKS`: what a correlation id leads to in the admin: its beginning -> address, `{}` for the rest. Default: {}."""
    given = getattr(settings, "OUTBOX_LINKS", {})
    if not isinstance(given, Mapping) or not all(
        isinstance(each, str) and "{}" in each for each in given.values()
    ):
        raise _wrong("OUTBOX_LINKS", "a dict of a beginning and an address with {}", given)
    return given


@_setting
def depth_limit() -> int:
    """`OUTBOX_DEPTH_LIMIT`: messages that the relay keeps in one broker queue at the most. Default: 2000."""
    return _whole("OUTBOX_DEPTH_LIMIT", 2_000, least=1)


@_setting
def batch() -> int:
    """`OUTBOX_BATCH`: messages that the relay marks and publishes at once. Default: 500."""
    return _whole("OUTBOX_BATCH", 500, least=1)


@_setting
def retention_s() -> float:
    """`OUTBOX_RETENTION`: seconds that settled messages are kept. Default: 604800, a week."""
    return _number("OUTBOX_RETENTION", 604_800.0)


@_setting
def margin_s() -> float:
    """`OUTBOX_MARGIN`: seconds after which a published message that no worker began may count as lost. Default: 5."""
    return _number("OUTBOX_MARGIN", 5.0)


@_setting
def worker_timeout_s() -> float:
    """`OUTBOX_WORKER_TIMEOUT`: seconds without a heartbeat after which a worker counts as dead. Default: 6."""
    return _number("OUTBOX_WORKER_TIMEOUT", 6.0)


@_setting
def skew_grace_s() -> float:
    """`OUTBOX_SKEW_GRACE`: seconds for which workers of another version may refuse a message. Default: 3600.

    A worker refuses a message whose task it does not know, or not with these arguments. After that time it is dead.
    """
    return _number("OUTBOX_SKEW_GRACE", 3_600.0)


@_setting
def consumer_timeout_s() -> float:
    """`OUTBOX_CONSUMER_TIMEOUT`: RabbitMQ's `consumer_timeout`, in seconds. Default: 1800, which is also RabbitMQ's.

    RabbitMQ does not tell what it is set to; time limits of tasks are checked against it.
    """
    return _number("OUTBOX_CONSUMER_TIMEOUT", 1_800.0)


@_setting
def database_connections() -> int | None:
    """`DATABASE_CONNECTIONS`: connections that all processes may need together. Default: None, which checks nothing.

    Compared at the start of each process with what the server gives.
    """
    given = getattr(settings, "DATABASE_CONNECTIONS", None)
    return None if given is None else _whole("DATABASE_CONNECTIONS", given, least=1)


@_setting
def retry_scale() -> float:
    """`RETRY_SCALE`: factor on every delay of a retry, for tests and demos. Default: 1."""
    return _number("RETRY_SCALE", 1.0)


@_setting
def retry_minimum() -> int:
    """`RETRY_MINIMUM`: least number of retries of every task that has any, for demos. Default: 0."""
    return _whole("RETRY_MINIMUM", 0)


@_setting
def tracing() -> bool:
    """`OUTBOX_TRACING`: whether each attempt is a span of OpenTelemetry, below the one in which its message was enqueued.

    Default: False. It needs the package `opentelemetry-api`.
    """
    given = getattr(settings, "OUTBOX_TRACING", False)
    if not isinstance(given, bool):
        raise _wrong("OUTBOX_TRACING", "True or False", given)
    if given and find_spec("opentelemetry") is None:
        raise ImproperlyConfigured("OUTBOX_TRACING needs the package opentelemetry-api")
    return given


def default_queue() -> str:
    """Celery's `task_default_queue`."""
    return str(current_app.conf.task_default_queue)


def is_rabbitmq() -> bool:
    """Whether Celery's `broker_url` is RabbitMQ's, and not that of Redis."""
    return str(current_app.conf.broker_url).startswith(("amqp", "pyamqp"))


def time_limit_s() -> float:
    """Celery's `task_time_limit`: seconds after which the pool kills the process of a run. Default: 360.

    Without one a run could outlive its lease, and the same message run beside it.
    """
    return float(current_app.conf.task_time_limit or 360.0)


def visibility_timeout_s() -> float:
    """Seconds after which Redis redelivers an unacknowledged message, of Celery's `broker_transport_options`."""
    options = current_app.conf.broker_transport_options or {}
    return float(options.get("visibility_timeout", KOMBU_VISIBILITY_TIMEOUT_S))


def name_of(celery_setting: str) -> str:
    """What the reader calls this setting of Celery's: `CELERY_TASK_ACKS_LATE` in the namespace CELERY, else as it is."""
    app: Any = current_app  # celery-types does not know the attribute
    return f"{app.namespace}_{celery_setting.upper()}" if app.namespace else celery_setting


def _names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(
        isinstance(each, str) for each in value
    ):
        raise _wrong(name, "a list of names", value)
    return tuple(value)


def _whole(name: str, default: int, *, least: int = 0) -> int:
    value = getattr(settings, name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _wrong(name, f"a whole number of at least {least}", value)
    return value


def _number(name: str, default: float) -> float:
    value = getattr(settings, name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise _wrong(name, "a number of at least 0", value)
    return float(value)


def _wrong(name: str, expected: str, value: Any) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name} must be {expected}, not {value!r}")
