"""System checks: a dead letter whose journal is half wired looks resolved or discarded although nothing ran or moved on."""

from __future__ import annotations

from typing import Any

from celery import current_app, signals
from celery.utils.imports import symbol_by_name
from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

from dlq import conf, journal


@register(Tags.compatibility)
def check_settings(**_: Any) -> list[CheckMessage]:
    """Each setting has a value that can be used."""
    problems: list[CheckMessage] = []
    for read in conf.ALL:
        try:
            read()
        except ImproperlyConfigured as error:
            problems.append(Error(str(error), id="dlq.E005"))
    if problems:
        return problems
    for queue, path in conf.handlers().items():
        try:
            conf.resolve(path)
        except Exception as error:  # Importing it may raise anything.
            problem = f"{type(error).__name__}: {error}"
            problems.append(
                Error(f"DLQ_HANDLERS[{queue!r}] = {path!r} cannot be used: {problem}", id="dlq.E003")
            )
    return problems


@register(Tags.compatibility)
def check_journal(**_: Any) -> list[CheckMessage]:
    """The journal can be used, and keeps its dead letters here: a wiring of one side alone is an error."""
    try:
        name = conf.journal()
    except ImproperlyConfigured:
        return []  # `check_settings` says so.
    if name is None:
        return []
    setting = f"DLQ_JOURNAL = {name!r}"
    if not apps.is_installed(name):
        return [Error(f"{setting} is not in INSTALLED_APPS", id="dlq.E001")]
    try:
        hooks = journal.hooks()
        missing = [each for each in journal.NEEDED if not hasattr(hooks, each)]
        dead_letters = None if missing else hooks.dead_letters()
    except Exception as error:  # Importing it may raise anything.
        problem = f"{type(error).__name__}: {error}"
        return [Error(f"{setting} cannot be used, {name}.dlq_hooks: {problem}", id="dlq.E002")]
    if missing:
        return [
            Error(f"{setting} cannot be used, {name}.dlq_hooks has no {', '.join(missing)}", id="dlq.E002")
        ]
    if dead_letters != "dlq":
        return [
            Error(
                f"{setting}, but it keeps its dead letters in {dead_letters!r} and not in 'dlq' (OUTBOX_DEAD_LETTERS): a"
                " message that is dead there would have no dead letter, and one whose replay succeeded would stay open. Set"
                " both, or neither",
                id="dlq.E001",
            )
        ]
    return []


@register(Tags.compatibility)
def check_connected(**_: Any) -> list[CheckMessage]:
    """At least one worker class is not Celery's own. Silence it where dlq/ shows only what `add` was given."""
    try:
        journal_has_ours = conf.journal() is not None
    except ImproperlyConfigured:
        return []  # `check_settings` says so.
    if journal_has_ours or current_app.conf.worker_consumer != "celery.worker.consumer:Consumer":
        return []
    return [
        Warning(
            "No worker records failed messages: call dlq.connect(app) where your Celery application is made, after"
            " config_from_object",
            id="dlq.W001",
        )
    ]


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
            f"Celery's {missing} is not {what}, but {given} is dlq's: some failed messages would have no dead letter",
            id="dlq.E004",
        )
    ]


def serious(*, runs_tasks: bool = False) -> list[str]:
    """What must stop a process at its start, one line each."""
    problems = [*check_settings(), *check_journal(), *(check_worker() if runs_tasks else ())]
    return [f"{problem.id}: {problem.msg}" for problem in problems]


@signals.worker_init.connect
@signals.beat_init.connect
def _refuse_to_start(**_: Any) -> None:
    """Celery runs Django's checks and ignores their errors."""
    if lines := serious(runs_tasks=True):
        # After any other exception in here Celery would go on.
        raise SystemExit("\n".join(lines))
