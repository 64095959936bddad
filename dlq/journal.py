"""The app that keeps messages in a journal, if there is one: dlq/ calls its module `dlq_hooks`.

That module imports only its own app, as this folder does. It offers

- `worker_failure(*, message_id, generation, exception, error, traceback, lost, pid)`: asked first when a message ends badly
  in a worker's parent; `pid` is the child that had it, or None. Returns None when there is no such message, anything else
  when the journal has dealt with it, and "dead" when it is a dead letter now.
- `republish(message_id, *, retries)`: runs the message of a dead letter again, with at most so many retries (None: as its
  task says). Returns its id, or None when there is no dead message of this id.
- `adopt(message_id, *, task, queue, args, kwargs, retries, copy_id)`: makes a message without a journal one of the journal's,
  when it is sent again; under this id, where it is an edited copy. Returns its id, or None when it is to be published.
- `replace(message_id, *, copy_id, args, kwargs, retries)`: a message of this id with other arguments takes the place of the
  one of a dead letter, which will never run. Returns whether there was a dead message of this id.
- `discard(message_id)`: the message will never run.
- `Refused`: what these four raise for a message that cannot be sent again, or discarded, now.
- `HEADER` and `generation(headers)`: the header of its messages, and which run of one they tell; None for all others.
- `is_not_now(exception)`: whether an error of the database says nothing about what was to be written.
- `held_back()`: reads once what an operator has paused; returns a function of a queue, a task and whether the message has a row,
  which names the queue or task for whose resume such a message would wait when it is sent again, or "".
- `dead_letters()`: the name of the app that keeps its dead letters, which is to be this one.

Those that change anything are called in the transaction that changes the dead letter.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from django.db import InterfaceError, OperationalError

from dlq import conf

#: What the module must have.
NEEDED = (
    *("worker_failure", "republish", "adopt", "replace", "discard", "Refused"),
    *("HEADER", "generation", "is_not_now", "dead_letters", "held_back"),
)


def hooks() -> Any:
    """The module, looked up on each call; None where no message has a journal."""
    app = conf.journal()
    return import_module(f"{app}.dlq_hooks") if app else None


def generation(headers: dict[str, Any]) -> int | None:
    """Which run of a journalled message this is; None for a message without a journal."""
    journal = hooks()
    found: int | None = journal.generation(headers) if journal else None
    return found


def is_not_now(error: BaseException) -> bool:
    """Whether the database could not write now, whatever was to be written."""
    journal = hooks()
    return (
        bool(journal.is_not_now(error)) if journal else isinstance(error, (OperationalError, InterfaceError))
    )


def held_back() -> Callable[[str, str, bool], str]:
    """What would hold back a message that is sent again, see above; nothing without a journal."""
    journal = hooks()
    found: Callable[[str, str, bool], str] = journal.held_back() if journal else lambda *_: ""
    return found
