"""The dead-letter app, if there is one: the outbox calls its module `outbox_hooks`.

That module imports only its own app, as this folder does. It offers

- `on_dead(*, message_id, generation, task, args, kwargs, queue, headers, exception, error, traceback, attempts, worker)`,
  `on_resolved(message_id=, headers=)` and `on_cancelled(message_id=, headers=, reason=)`: a message is dead, its replay
  ended well, or was cancelled. Called in the transaction of that change.
- `masked(value)` and `arguments(task, args, kwargs, limit)`: what may be shown of values and of a call, for log and admin.
- `REPLAY_HEADER`: the header of a message that it sent again, with the id of the dead letter.
- `journal()`: the name of the app that keeps its messages, which is to be this one.
- `REQUEST` and `CONSUMER`: its classes for Celery's worker, as "module:Class".
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from outbox import conf

#: What the module must have.
NEEDED = (
    *("on_dead", "on_resolved", "on_cancelled", "masked", "arguments"),
    *("REPLAY_HEADER", "journal", "REQUEST", "CONSUMER"),
)


def hooks() -> Any:
    """The module, looked up on each call; None where a dead message is only a row of the outbox."""
    app = conf.dead_letters()
    return import_module(f"{app}.outbox_hooks") if app else None


def tell(event: str, **kwargs: Any) -> None:
    """Call the dead-letter app, if there is one, in this transaction."""
    if app := hooks():
        getattr(app, event)(**kwargs)
