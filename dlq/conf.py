"""Every setting that dead letters read. Each has a default, so that none is required.

They are Django settings, read at each use; nothing else in this folder reads settings or the environment. A value of the
wrong kind raises `ImproperlyConfigured`, and is an error of `manage.py check`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

Read = TypeVar("Read", bound=Callable[[], Any])

#: A hundred years: what lies further back is soon out of the range of dates.
MAX_RETENTION_S = 36_500 * 86_400.0
#: One function for each setting; the system check calls all of them.
ALL: list[Callable[[], Any]] = []


def _setting(read: Read) -> Read:
    ALL.append(read)
    return read


@_setting
def journal() -> str | None:
    """`DLQ_JOURNAL`: the app that keeps messages in a journal, see `dlq.journal`.

    Default: "outbox" where that is installed, else None: every message is the broker's, and is kept whole.
    """
    name = getattr(settings, "DLQ_JOURNAL", "outbox" if apps.is_installed("outbox") else None)
    if name is not None and not isinstance(name, str):
        raise _wrong("DLQ_JOURNAL", "the name of an app, or None", name)
    return name or None


@_setting
def handlers() -> Mapping[str, str]:
    """`DLQ_HANDLERS`: queue -> dotted path of what replays a dead letter that was added without a task. Default: {}."""
    given = getattr(settings, "DLQ_HANDLERS", {})
    if not isinstance(given, Mapping) or not all(isinstance(path, str) for path in given.values()):
        raise _wrong("DLQ_HANDLERS", "a dict of a queue's name and a dotted path", given)
    return given


@_setting
def max_lost_runs() -> int:
    """`DLQ_MAX_LOST_RUNS`: runs that may take their process down before a message without a journal is dead. Default: 3."""
    return _whole("DLQ_MAX_LOST_RUNS", 3)


@_setting
def max_message_bytes() -> int:
    """`DLQ_MAX_MESSAGE_BYTES`: the largest body that a worker takes, as received and decompressed. Default: 1048576.

    A larger one is a dead letter with its size, its digest and its first bytes.
    """
    return _whole("DLQ_MAX_MESSAGE_BYTES", 1024 * 1024)


@_setting
def operations_retention_s() -> float:
    """`DLQ_OPERATIONS_RETENTION`: seconds that an operation is kept after its end, with what came of each dead letter: the
    record of replays, edits, discards, exports and notes. Default: 31536000, a year.
    """
    value = getattr(settings, "DLQ_OPERATIONS_RETENTION", 31_536_000.0)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= MAX_RETENTION_S:
        raise _wrong(
            "DLQ_OPERATIONS_RETENTION", f"a number of seconds from 0 to {MAX_RETENTION_S:.0f}", value
        )
    return float(value)


@_setting
def undeliverable() -> str:
    """`DLQ_UNDELIVERABLE`: the queue to which RabbitMQ dead-letters what it gives up. Default: "undeliverable"."""
    name = getattr(settings, "DLQ_UNDELIVERABLE", "undeliverable")
    if not isinstance(name, str) or not name:
        raise _wrong("DLQ_UNDELIVERABLE", "the name of a queue", name)
    return name


@_setting
def circuits() -> str | None:
    """`DLQ_CIRCUITS`: dotted path of a callable that is given a task's name and returns the name of the open circuit which
    its next run would meet, or "". Default: None, no circuit is known.
    """
    path = getattr(settings, "DLQ_CIRCUITS", None)
    if path is not None and not isinstance(path, str):
        raise _wrong("DLQ_CIRCUITS", "a dotted path, or None", path)
    return path or None


@_setting
def links() -> Mapping[str, str]:
    """`DLQ_LINKS`: what a dead letter's page links to: name of an argument -> address with `{}` for its value. Default: {}.

    `message_id`, `causation_id` and `correlation_id` are names too: its message, the one that caused it, and all of one request.
    With the beginning of a value, such as `correlation_id=order-`, only those values are meant, and `{}` is what follows it; for
    such a correlation id a search for that rest finds the dead letter, too.
    """
    given = getattr(settings, "DLQ_LINKS", {})
    if not isinstance(given, Mapping) or not all(
        isinstance(each, str) and "{}" in each for each in given.values()
    ):
        raise _wrong("DLQ_LINKS", "a dict of a name and an address with {}", given)
    return {name if "=" in name else f"{name}=": address for name, address in given.items()}


def open_circuit(task: str) -> str:
    """The open circuit that this task would meet, or ''."""
    path = circuits()
    return str(resolve(path)(task) or "") if path else ""


def handler(queue: str) -> Callable[..., Any] | None:
    """The callable that replays dead letters of `queue` that have no task, or None."""
    path = handlers().get(queue)
    return resolve(path) if path else None


def resolve(path: str) -> Callable[..., Any]:
    """Import `package.module.name` or `package.module.Class.method`.

    Looked up on every call, so that a test can patch the target at its own place.
    """
    try:
        found = import_string(path)
    except ImportError:
        owner, _, attribute = path.rpartition(".")
        found = getattr(import_string(owner), attribute)
    if not callable(found):
        raise TypeError(f"{path} is not callable")
    return found


def _whole(name: str, default: int) -> int:
    value = getattr(settings, name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(name, "a whole number of at least 1", value)
    return value


def _wrong(name: str, expected: str, value: Any) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name} must be {expected}, not {value!r}")
