"""The call that a message stands for: which argument is which, by the signature of its task.

A position says nothing to an operator, and hides that what stands there is a password. Where this process has no such
task, positions stay what they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any

from celery import current_app

from dlq.masking import MASK, is_secret, masked, masked_prefix

#: Characters of one argument in a line, items of a list or mapping, and levels of them; the page of the message has more.
MAX_VALUE, MAX_ITEMS, MAX_DEPTH = 60, 8, 3
MAX_LINE = 200
#: Arguments by which a dead letter is found, and the longest of their values: ids, and no texts.
MAX_SUBJECTS, MAX_SUBJECT = 8, 64


@cache
def import_tasks() -> None:
    """Import the task modules, as a worker does at its start: a web process has those that it happened to import.

    Once: Celery would set up Django anew each time, with its logging and its checks.
    """
    current_app.loader.import_default_modules()


def registered(task: str) -> Any:
    """The task of this name, or None when this deployment has none."""
    if task and task not in current_app.tasks:
        import_tasks()
    return current_app.tasks.get(task)


def argument_names() -> set[str]:
    """The names of the arguments of every task of this deployment."""
    import_tasks()
    return {name for task in list(current_app.tasks) for name in _signature(task)[0]}


def masked_call(task: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Copies of `args` and `kwargs` without secrets: those that masking knows, and the task's `secret_arguments`."""
    names, secret = _signature(task)
    hidden = {name for name in names if name in secret or is_secret(name)}
    shown_args, shown_kwargs = masked(args), masked(kwargs)
    if isinstance(shown_args, list):
        known = [*names, *[""] * len(shown_args)]
        shown_args = [
            MASK if name in hidden else value for name, value in zip(known, shown_args, strict=False)
        ]
    if isinstance(shown_kwargs, dict):
        shown_kwargs = {name: MASK if name in secret else value for name, value in shown_kwargs.items()}
    return shown_args, shown_kwargs


def arguments(task: str, args: Any, kwargs: Any, limit: int | None = MAX_LINE) -> str:
    """`order_id=999, note='x'`: the arguments on one line, without secrets.

    `limit`: characters at most, and then its price does not depend on their size; None: everything.
    """
    if limit is not None:
        args, kwargs = _bounded(args), _bounded(kwargs)
    parts = []
    for name, value in _named(task, *masked_call(task, args, kwargs)):
        shown = repr(value) if value != MASK else MASK
        parts.append(f"{name}={shown}" if name else shown)
    line = ", ".join(parts)
    return line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…"


def subjects(task: str, args: Any, kwargs: Any) -> list[str]:
    """What a dead letter is found by: `order_id=999` and `999` of each short argument that is no secret."""
    positions = [_subject(value) for value in args[:MAX_SUBJECTS]] if isinstance(args, (list, tuple)) else []
    named = kwargs if isinstance(kwargs, dict) else {}
    named = {str(name): _subject(value) for name, value in list(named.items())[:MAX_SUBJECTS]}
    shown, shown_by_name = masked_call(task, positions, named)
    names, _ = _signature(task)
    found: list[str] = []
    for name, value, seen in (
        *zip([*names, *[""] * MAX_SUBJECTS], positions, shown, strict=False),
        *((name, value, shown_by_name.get(name)) for name, value in named.items()),
    ):
        if value and value == seen:
            found += [f"{name}={value}", value] if name else [value]
    return list(dict.fromkeys(found))


def _subject(value: Any) -> str:
    """The value as text, '' where it is no id of anything."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, str))
        or (isinstance(value, int) and value >= 10**MAX_SUBJECT)
    ):
        return ""
    shown = str(value)
    return shown if len(shown) <= MAX_SUBJECT else ""


def _named(task: str, args: Any, kwargs: Any) -> Iterator[tuple[str, Any]]:
    """Each argument with its name, '' for a position that has none."""
    names, _ = _signature(task)
    positions = args if isinstance(args, (list, tuple)) else []
    yield from zip([*names, *[""] * len(positions)], positions, strict=False)
    if isinstance(kwargs, dict):
        yield from ((str(name), value) for name, value in kwargs.items())


def _signature(task: str) -> tuple[list[str], tuple[str, ...]]:
    """The names of the positions, and those of the arguments that the task says are secret."""
    found = registered(task)
    if found is None:
        return [], ()
    try:
        parameters = inspect.signature(found.run).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in positional]
    return names, tuple(getattr(found, "secret_arguments", ()))


def _bounded(value: Any, depth: int = 0) -> Any:
    """A copy of bounded size. Texts are masked first, with what follows the cut."""
    if isinstance(value, str):
        return value if len(value) <= MAX_VALUE else f"{masked_prefix(value, MAX_VALUE)}…"
    if depth >= MAX_DEPTH and isinstance(value, (dict, list, tuple)):
        return "…"
    if isinstance(value, dict):
        some = {_bounded(key): _bounded(item, depth + 1) for key, item in list(value.items())[:MAX_ITEMS]}
        return some if len(value) <= MAX_ITEMS else {**some, "…": len(value) - MAX_ITEMS}
    if isinstance(value, (list, tuple)):
        some_items = [_bounded(item, depth + 1) for item in value[:MAX_ITEMS]]
        return some_items if len(value) <= MAX_ITEMS else [*some_items, "…"]
    return value
