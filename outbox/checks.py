"""System checks: a setting that would break a promise is found at start."""

from __future__ import annotations

import logging
from typing import Any

from celery import current_app, signals
from celery.utils.imports import symbol_by_name
from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from outbox import conf, dead_letters, session

log = logging.getLogger(__name__)


#: What Celery must be set to, and what goes wrong otherwise. `outbox.Celery` has these values as defaults.
_PROMISED = {
    "task_acks_late": (True, "a killed worker would lose work"),
    "task_reject_on_worker_lost": (
        True,
        "a message whose process was killed would be acknowledged, and not run again",
    ),
    "task_acks_on_failure_or_timeout": (True, "a message that failed would be dropped by the broker"),
    "worker_cancel_long_running_tasks_on_connection_loss": (
        False,
        "a task that runs when the connection to Redis is lost would be acknowledged before it ends",
    ),
}
_JSON = {"json", "application/json"}


@register(Tags.compatibility)
def check_settings(**_: Any) -> list[CheckMessage]:
    """The outbox's own settings have values that it can use, and Celery's break no promise."""
    problems: list[CheckMessage] = []
    for read in conf.ALL:
        try:
            read()
        except ImproperlyConfigured as error:
            problems.append(Error(str(error), id="outbox.E001"))
    if problems:
        return problems
    if not getattr(current_app, "sends_by_outbox", False):
        # What is asked of Celery's settings below, an outbox.Celery has for defaults.
        return [Error(_no_application_of_ours(), id="outbox.E010")]
    problems += _overrunning(conf.name_of("task_time_limit"), conf.time_limit_s())
    given = current_app.conf
    for name, (needed, consequence) in _PROMISED.items():
        if bool(given[name]) is not needed:
            text = f"{conf.name_of(name)} must be {'on' if needed else 'off'}: {consequence}"
            problems.append(Error(text, id="outbox.E003"))
    formats = {given.task_serializer, *given.accept_content}
    if not formats <= _JSON:
        problems.append(
            Error(
                f"{conf.name_of('task_serializer')} and {conf.name_of('accept_content')} must be json, not"
                f" {', '.join(sorted(map(str, formats - _JSON)))}: the outbox sends JSON, and reading pickle runs whatever"
                " code somebody wrote into the broker",
                id="outbox.E003",
            )
        )
    if given.task_routes:
        problems.append(
            Error(
                f"{conf.name_of('task_routes')} is ignored: a task names its queue, as `queue=`",
                id="outbox.E005",
            )
        )
    return problems


def _no_application_of_ours() -> str:
    name = current_app.main
    if name == "default":  # The one that Celery makes where there is none.
        return (
            "There is no Celery application: import yours, an outbox.Celery, in the __init__.py of the package that has your"
            " settings (from .celery import app as celery_app)"
        )
    return (
        f"The Celery application {name!r} is not an outbox.Celery: its tasks would bypass the outbox. Make it"
        f" one: app = outbox.Celery({name!r})"
    )


@register(Tags.compatibility)
def check_dead_letters(**_: Any) -> list[CheckMessage]:
    """The dead-letter app can be used, and has the outbox for its journal: a wiring of one side alone is an error."""
    try:
        name = conf.dead_letters()
    except ImproperlyConfigured:
        return []  # `check_settings` says so.
    if name is None:
        return []
    setting = f"OUTBOX_DEAD_LETTERS = {name!r}"
    if not apps.is_installed(name):
        return [Error(f"{setting} is not in INSTALLED_APPS", id="outbox.E008")]
    try:
        hooks = dead_letters.hooks()
        missing = [each for each in dead_letters.NEEDED if not hasattr(hooks, each)]
        journal = None if missing else hooks.journal()
    except Exception as error:  # Importing it may raise anything.
        problem = f"{type(error).__name__}: {error}"
        return [Error(f"{setting} cannot be used, {name}.outbox_hooks: {problem}", id="outbox.E009")]
    if missing:
        return [
            Error(
                f"{setting} cannot be used, {name}.outbox_hooks has no {', '.join(missing)}", id="outbox.E009"
            )
        ]
    if journal != "outbox":
        return [
            Error(
                f"{setting}, but its journal is {journal!r} and not 'outbox' (DLQ_JOURNAL): it would take the messages of"
                " the outbox for those of other producers, and a replay would not run. Set both, or neither",
                id="outbox.E008",
            )
        ]
    return []


@register(Tags.compatibility, deploy=True)
def check_time_limits(**_: Any) -> list[CheckMessage]:
    """No task may run longer than the broker waits for its acknowledgement."""
    current_app.loader.import_default_modules()
    tasks = sorted(current_app.tasks.items())
    return [
        problem for name, task in tasks if task.time_limit for problem in _overrunning(name, task.time_limit)
    ]


@register(Tags.compatibility, deploy=True)
def check_worker(**_: Any) -> list[CheckMessage]:
    """The worker's classes are those that write to a row how its run ended."""
    if check_dead_letters():
        return []  # Their classes cannot be imported.
    from outbox.worker.consumer import Consumer
    from outbox.worker.request import Request

    current_app.loader.import_default_modules()
    classes = [(conf.name_of("worker_consumer"), current_app.conf.worker_consumer, Consumer)]
    classes += [
        (f"Request of {name}", task.Request, Request) for name, task in sorted(current_app.tasks.items())
    ]
    return [
        Error(
            f"{what} must be {needed.__module__}:{needed.__qualname__} or a subclass of it, not {given}: a killed process and a"
            " hard time limit would be noticed only when the lease of the run ends",
            id="outbox.E011",
        )
        for what, given, needed in classes
        if not issubclass(symbol_by_name(given), needed)
    ]


@register(Tags.compatibility, deploy=True)
def check_queues(**_: Any) -> list[CheckMessage]:
    """Each task that names a queue names one that messages may be enqueued to."""
    try:
        known = conf.queues()
    except ImproperlyConfigured:
        return []  # `check_settings` says so.
    current_app.loader.import_default_modules()
    tasks: dict[str, Any] = current_app.tasks
    return [
        Warning(
            f"{name} cannot be enqueued: its queue {str(queue)!r} is not in OUTBOX_QUEUES ({', '.join(known)})",
            id="outbox.W002",
        )
        for name, task in sorted(tasks.items())
        if (queue := getattr(task.queue, "name", task.queue)) and queue not in known
    ]


def serious(*, runs_tasks: bool = False) -> list[str]:
    """What must stop a process at its start, one line each; what cannot be known now is logged as a warning.

    It may leave a connection open. A process that forks closes it first.
    """
    problems = [
        *check_settings(),
        *check_dead_letters(),
        *((*check_time_limits(), *check_worker(), *check_queues()) if runs_tasks else ()),
        *(check_connections() or _missing_tables()),
    ]
    for problem in problems:
        if not problem.is_serious():
            log.warning("%s", problem.msg)
    return [f"{problem.id}: {problem.msg}" for problem in problems if problem.is_serious()]


@signals.worker_init.connect
@signals.beat_init.connect
def _refuse_to_start(**_: Any) -> None:
    """A process with a setting that breaks a promise must not start. Celery runs the checks and ignores their errors."""
    try:
        lines = serious(runs_tasks=True)
    finally:
        # The pool's processes must not inherit it.
        connection.close()
    if lines:
        # After any other exception in here Celery would go on.
        raise SystemExit("\n".join(lines))


def _overrunning(what: str, time_limit_s: float) -> list[CheckMessage]:
    """Errors if a run of `time_limit_s` outlasts the time for which the broker waits for an acknowledgement."""
    if conf.is_rabbitmq():
        # RabbitMQ does not tell what it is set to. It closes the channel, and everything on it runs again.
        setting, patience_s = "OUTBOX_CONSUMER_TIMEOUT", conf.consumer_timeout_s()
        consequence = "RabbitMQ (consumer_timeout) would cut off a worker that is still running"
    else:
        setting = f"{conf.name_of('broker_transport_options')}['visibility_timeout']"
        patience_s = conf.visibility_timeout_s()
        consequence = "Redis would hand out messages that are still running"
    # A message waits in the worker for the runs before it, and is unacknowledged meanwhile. 0 is no limit for Celery.
    prefetch = current_app.conf.worker_prefetch_multiplier or float("inf")
    if prefetch * time_limit_s < patience_s:
        return []
    text = (
        f"{setting} ({patience_s:g} s) must be longer than the hard time limit of {what} ({time_limit_s:g} s)"
    )
    if prefetch > 1:
        text += f" times {conf.name_of('worker_prefetch_multiplier')} ({prefetch:g})"
    return [Error(f"{text}: {consequence}", id="outbox.E002")]


@register(Tags.database, deploy=True)
def check_connections(**_: Any) -> list[CheckMessage]:
    """Worker processes, their parents, web threads, relays and beat must fit into `max_connections`, and each connection
    must have the timeouts that it asks for.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int"
            )
            limit, reserved = cursor.fetchone()
        found = session.look()
    except Exception as error:  # The check is about settings; a database that is down is reported elsewhere.
        if "unsupported startup parameter" in str(error):
            return [Error(_POOLER_REFUSES, id="outbox.E007")]
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return [Warning(f"max_connections could not be read: {reason}", id="outbox.W001")]
    problems: list[CheckMessage] = []
    if found.missing:
        problems.append(Error(found.missing, id="outbox.E006"))
    needed = conf.database_connections()
    # Clients of a pooler are more than the sessions that it opens: that is what it is for.
    if needed is not None and needed > limit - reserved and not found.shared:
        problems.append(
            Error(
                f"The processes may need {needed} database connections, and PostgreSQL gives"
                f" {limit - reserved} (max_connections {limit} less {reserved} reserved). Raise max_connections,"
                " or run fewer worker processes or web threads (the number is DATABASE_CONNECTIONS)",
                id="outbox.E004",
            )
        )
    return problems


def _missing_tables() -> list[CheckMessage]:
    """No registered check: one may run before the migrations do."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('outbox_outboxmessage')")
            if cursor.fetchone()[0]:
                return []
    except Exception:  # `check_connections` says it.
        return []
    return [
        Error("The database has no tables of the outbox: run `python manage.py migrate`", id="outbox.E013")
    ]


_POOLER_REFUSES = (
    "The pooler refuses connections with options: add `options` to ignore_startup_parameters of PgBouncer"
    " (docs/operations.md: Poolers)"
)
