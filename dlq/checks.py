"""System checks: a dead letter whose journal is half wired looks resolved or discarded although nothing ran or moved on."""

from __future__ import annotations

from typing import Any

from celery import current_app, signals
from celery.utils.imports import symbol_by_name
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

from dlq import conf
from dlq.message import REPLAY_HEADER

#: What is one wiring: the setting, what goes wrong without it, and what it is to be.
_WIRING = {
    "DLQ_JOURNAL": (
        "the journal would not hear of what ended badly in a worker's parent, and skip a replay of it",
        "the dotted path of f(*, message_id, generation, exception, error, traceback, lost, pid)",
    ),
    "DLQ_PUBLISHER": (
        "no dead letter of the journal could be replayed",
        "the dotted path of f(letter, *, retries)",
    ),
    "DLQ_DISCARDER": (
        "a discarded message would hold its group for ever",
        "the dotted path of f(letter)",
    ),
    "DLQ_GENERATION_HEADER": (
        "a message of the journal would be taken for one that has none",
        "the header with the message's generation, such as 'outbox.generation'",
    ),
}
_HOOKS = ("DLQ_JOURNAL", "DLQ_PUBLISHER", "DLQ_DISCARDER", "DLQ_NOT_NOW")


@register(Tags.compatibility)
def check_wiring(**_: Any) -> list[CheckMessage]:
    """All that ties dead letters to a journal, or nothing of it; with the outbox installed, all."""
    given = {name for name in _WIRING if getattr(settings, name, None)}
    together = "outbox" in apps.app_configs
    problems: list[CheckMessage] = []
    if given or together:
        because = "outbox is installed" if together else f"{min(given)} is"
        problems += [
            Error(f"{name} is not set, but {because}: {consequence}. Set it to {what}", id="dlq.E001")
            for name, (consequence, what) in _WIRING.items()
            if name not in given
        ]
    replay_header = getattr(settings, "OUTBOX_REPLAY_HEADER", None)
    if together and replay_header not in (None, "", REPLAY_HEADER):
        problems.append(
            Error(
                f"OUTBOX_REPLAY_HEADER must be {REPLAY_HEADER!r}, not {replay_header!r}: the outbox would not know a"
                " replay, and its dead letter stay under replay",
                id="dlq.E002",
            )
        )
    return problems


@register(Tags.compatibility)
def check_paths(**_: Any) -> list[CheckMessage]:
    """Each dotted path leads to something that can be called."""
    paths = {name: getattr(settings, name, None) for name in _HOOKS}
    for queue, path in getattr(settings, "DLQ_HANDLERS", {}).items():
        paths[f"DLQ_HANDLERS[{queue!r}]"] = path
    problems: list[CheckMessage] = []
    for name, path in paths.items():
        try:
            if path:
                conf.resolve(path)
        except Exception as error:  # Importing it may raise anything.
            problems.append(
                Error(f"{name} = {path!r} cannot be used: {type(error).__name__}: {error}", id="dlq.E003")
            )
    return problems


@register(Tags.compatibility, deploy=True)
def check_worker(**_: Any) -> list[CheckMessage]:
    """Both classes that see a message end badly, or none of them (a desk that only shows what `add` was given)."""
    from dlq.worker.consumer import Consumer
    from dlq.worker.request import Request

    request = issubclass(symbol_by_name(current_app.Task.Request), Request)
    consumer = issubclass(symbol_by_name(current_app.conf.worker_consumer), Consumer)
    if request == consumer:
        return []
    missing, what, given = (
        ("Task.Request", "dlq.worker.request:Request", "worker_consumer")
        if consumer
        else ("worker_consumer", "dlq.worker.consumer:Consumer", "Task.Request")
    )
    return [
        Error(
            f"Celery's {missing} is not {what}, but {given} is dlq's: some messages that end badly would be no dead letter",
            id="dlq.E004",
        )
    ]


def serious(*, runs_tasks: bool = False) -> list[str]:
    """What must stop a process at its start, one line each."""
    problems = [*check_wiring(), *check_paths(), *(check_worker() if runs_tasks else ())]
    return [f"{problem.id}: {problem.msg}" for problem in problems]


@signals.worker_init.connect
@signals.beat_init.connect
def _refuse_to_start(**_: Any) -> None:
    """Celery runs Django's checks and ignores their errors."""
    if lines := serious(runs_tasks=True):
        # After any other exception in here Celery would go on.
        raise SystemExit("\n".join(lines))
