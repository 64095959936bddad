"""The settings that dlq/ reads: all it needs from outside itself, as dotted paths. All are optional.

`DLQ_JOURNAL`: f(*, message_id, generation, exception, error, traceback, lost, pid), asked first when a message ends badly
    in a worker's parent; `pid` is the child that had it, or None. Returns "settled", "scheduled" or "dead" when a journal
    has dealt with it, None when it has no such message.
`DLQ_GENERATION_HEADER`: the message header that tells the runs of one journalled message apart ("generation"); "a.b" is
    key b of header a. A message without it has no journal.
`DLQ_PUBLISHER`: f(letter, *, retries), runs the journalled message of a dead letter again, with at most so many retries
    (None: as its task says); called in the transaction that claims the dead letter. Returns its id, or None when there is
    no dead message of this id.
`DLQ_ADOPTER`: f(letter, *, args, kwargs, retries), makes the message of a dead letter without a journal one of the journal,
    when it is sent again; called in the transaction that claims the dead letter. Returns its id, or None when the message is
    to be published as it was.
`DLQ_DISCARDER`: f(letter), tells the journal that the message will never run; called in the transaction that closes the
    dead letter.
`DLQ_HANDLERS`: queue -> callable that replays a dead letter which was added without a task.
`DLQ_MAX_LOST_RUNS`: runs of a message without a journal that may take their process down before it is dead (3).
`DLQ_NOT_NOW`: f(exception), whether an error of the database says nothing about what was to be written, so that writing
    it is right later; by default every OperationalError and InterfaceError.
`DLQ_MAX_MESSAGE_BYTES`: the largest body that a worker takes, as received and decompressed (1,048,576). A larger one is a
    dead letter with its size, its digest and its first bytes.
`DLQ_UNDELIVERABLE`: the queue to which RabbitMQ's dead-letter exchange sends what it gives up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.utils.module_loading import import_string


def hook(name: str) -> Callable[..., Any] | None:
    """The callable that the setting names, or None when it is not set."""
    path = getattr(settings, name, None)
    return resolve(path) if path else None


def handler(queue: str) -> Callable[..., Any] | None:
    """The callable that replays letters of `queue` that have no task, or None."""
    path = getattr(settings, "DLQ_HANDLERS", {}).get(queue)
    return resolve(path) if path else None


def is_not_now(error: BaseException) -> bool:
    """Whether the database could not write now, whatever was to be written."""
    judge = hook("DLQ_NOT_NOW")
    return bool(judge(error)) if judge else isinstance(error, (OperationalError, InterfaceError))


def max_lost_runs() -> int:
    return int(getattr(settings, "DLQ_MAX_LOST_RUNS", 3))


def max_message_bytes() -> int:
    return int(getattr(settings, "DLQ_MAX_MESSAGE_BYTES", 1024 * 1024))


def generation_path() -> list[str]:
    """The header that says which run of a journalled message this is, and the keys within it."""
    return str(getattr(settings, "DLQ_GENERATION_HEADER", "generation")).split(".")


def generation(headers: dict[str, Any]) -> int | None:
    """Which run of a journalled message this is; None for a message that has none (or a broken one)."""
    value: Any = headers
    for key in generation_path():
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def resolve(path: str) -> Callable[..., Any]:
    """Import `package.module.name` or `package.module.Class.method`.

    Looked up on every call, so that a test which patches the target at its own place is obeyed.
    """
    try:
        found = import_string(path)
    except ImportError:
        owner, _, attribute = path.rpartition(".")
        found = getattr(import_string(owner), attribute)
    if not callable(found):
        raise TypeError(f"{path} is not callable")
    return found
