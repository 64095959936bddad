"""A setting that would break a promise is found at start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from celery import Celery
from django.conf import settings as configured
from django.core.checks import CheckMessage
from django.db import connection
from pytest_django import Settings
from pytest_mock import MockerFixture

import outbox.app
from config.celery import app
from outbox import checks
from outbox.checks import (
    check_connections,
    check_queues,
    check_settings,
    check_time_limits,
    check_worker,
)
from tests.support import tasks
from tests.support.celery_settings import celery_settings
from tests.support.processes import ROOT, environment, worker


def texts(messages: list[CheckMessage]) -> list[str]:
    return [str(message.msg) for message in messages]


def test_the_settings_as_they_are_pass_on_both_brokers(settings: Settings) -> None:
    for url in ("redis://127.0.0.1/0", "amqp://127.0.0.1//"):
        settings.CELERY_BROKER_URL = url
        assert check_settings() == check_time_limits() == []


@pytest.mark.parametrize(
    ("name", "says"), [("shop", "Make it one: app = outbox.Celery('shop')"), ("default", "import yours")]
)
def test_an_application_of_another_class_is_one_error(mocker: MockerFixture, name: str, says: str) -> None:
    """There is none for its settings beside it."""
    mocker.patch.object(checks, "current_app", Celery(name, set_as_current=False))
    (text,) = texts(check_settings())
    assert says in text


def test_an_application_of_the_outboxs_without_its_app_is_an_error(mocker: MockerFixture) -> None:
    assert outbox.app.check_installed() == []
    mocker.patch.object(outbox.app.apps, "is_installed", return_value=False)
    (text,) = texts(outbox.app.check_installed())
    assert '"outbox" is not in INSTALLED_APPS' in text


def test_a_task_whose_queue_is_not_known_is_named(mocker: MockerFixture) -> None:
    assert check_queues() == []
    mocker.patch.object(tasks.note, "queue", "emails")
    (text,) = texts(check_queues())
    assert text.startswith(
        "tests.support.tasks.note cannot be enqueued: its queue 'emails' is not in OUTBOX_QUEUES"
    )


@pytest.mark.django_db
def test_a_database_that_was_not_migrated_is_refused() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE outbox_outboxmessage RENAME TO elsewhere")
    assert checks.serious() == [
        "outbox.E013: The database has no tables of the outbox: run `python manage.py migrate`"
    ]


def test_on_redis_the_visibility_timeout_must_outlast_every_task(settings: Settings) -> None:
    settings.CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 360}
    assert texts(check_settings()) == [
        "CELERY_BROKER_TRANSPORT_OPTIONS['visibility_timeout'] (360 s) must be longer"
        " than the hard time limit of CELERY_TASK_TIME_LIMIT (360 s):"
        " Redis would hand out messages that are still running"
    ]
    assert any("outbox.retention.prune (600 s)" in text for text in texts(check_time_limits()))


def test_on_rabbitmq_the_consumer_timeout_must_outlast_every_task(settings: Settings) -> None:
    settings.CELERY_BROKER_URL = "amqp://127.0.0.1//"
    settings.OUTBOX_CONSUMER_TIMEOUT = 300
    assert texts(check_settings()) == [
        "OUTBOX_CONSUMER_TIMEOUT (300 s) must be longer than the hard time limit of CELERY_TASK_TIME_LIMIT (360 s):"
        " RabbitMQ (consumer_timeout) would cut off a worker that is still running"
    ]
    assert any("outbox.retention.prune (600 s)" in text for text in texts(check_time_limits()))


def test_acknowledging_before_the_run_is_refused(settings: Settings) -> None:
    settings.CELERY_TASK_ACKS_LATE = False
    assert texts(check_settings()) == ["CELERY_TASK_ACKS_LATE must be on: a killed worker would lose work"]


def test_a_killed_process_must_not_acknowledge_its_message(settings: Settings) -> None:
    settings.CELERY_TASK_REJECT_ON_WORKER_LOST = False
    assert texts(check_settings()) == [
        "CELERY_TASK_REJECT_ON_WORKER_LOST must be on: a message whose process was killed would be acknowledged, and not run"
        " again"
    ]


def test_a_consumer_that_is_not_the_outboxs_is_refused() -> None:
    assert check_worker() == []
    with celery_settings(app, worker_consumer="dlq.worker.consumer:Consumer"):
        (text,) = texts(check_worker())
    assert text.startswith(
        "CELERY_WORKER_CONSUMER must be outbox.worker.consumer:Consumer or a subclass of it, not dlq.worker.consumer:Consumer"
    )


def test_a_task_with_a_foreign_request_class_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks.note, "Request", "celery.worker.request:Request", raising=False)
    (text,) = texts(check_worker())
    assert text.startswith(
        "Request of tests.support.tasks.note must be dlq.worker.request:Request or a subclass of it"
    )


def test_routes_are_refused_because_the_outbox_would_not_look_at_them() -> None:
    with celery_settings(app, task_routes={"a.task": {"queue": "low"}}):
        assert texts(check_settings()) == [
            "CELERY_TASK_ROUTES is ignored: a task names its queue, as `queue=`"
        ]


@pytest.mark.described("the connections of all processes must fit into the database")
@pytest.mark.django_db
def test_the_connections_of_all_processes_must_fit_into_the_server(settings: Settings) -> None:
    assert configured.DATABASE_CONNECTIONS == 9 + 4 * 2 + 8 + 2
    assert check_connections() == []
    settings.DATABASE_CONNECTIONS = 1000
    assert texts(check_connections())[0].startswith("The processes may need 1000 database connections")


WORKER = ("-m", "celery", "-A", "config", "worker", "--queues", "low", "--concurrency", "1")
RELAY = ("manage.py", "outbox_relay")
BEAT = ("-m", "celery", "-A", "config", "beat")
WEB = ("-m", "gunicorn", "config.wsgi", "--bind", "127.0.0.1:0")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (WORKER, {"VISIBILITY_TIMEOUT": "600"}, "['visibility_timeout'] (600 s) must be longer"),
        (
            WORKER,
            {"WORKER_PREFETCH": "3"},
            "CELERY_TASK_TIME_LIMIT (360 s) times CELERY_WORKER_PREFETCH_MULTIPLIER (3): Redis",
        ),
        (WORKER, {"OUTBOX_BATCH": "0"}, "OUTBOX_BATCH must be a number of at least 1"),
        (WORKER, {"LOW_CONCURRENCY": "400"}, "outbox.E004: The processes may need 426 database connections"),
        (RELAY, {"LOW_CONCURRENCY": "400"}, "outbox.E004: The processes may need 426 database connections"),
        (BEAT, {"LOW_CONCURRENCY": "400"}, "outbox.E004: The processes may need 426 database connections"),
        (WEB, {"LOW_CONCURRENCY": "400"}, "outbox.E004: The processes may need 426 database connections"),
    ],
    ids=["time limit", "prefetch", "batch", "connections", "relay", "beat", "web"],
)
def test_a_process_with_a_dangerous_setting_ends_with_one_line(
    arguments: Sequence[str], env: dict[str, str], says: str
) -> None:
    """The setting would break a promise, and the line says so."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=environment({**env, "BROKER_URL": "redis://127.0.0.1:1/0"}),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    output = ended.stdout + ended.stderr
    assert ended.returncode not in (0, None), output
    assert len([line for line in output.splitlines() if says in line]) == 1, output
    assert "Traceback" not in output


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_a_worker_started_during_a_database_outage_waits_for_it() -> None:
    """It logs a warning."""
    with worker(env={"DATABASE_URL": "postgres://nobody@127.0.0.1:1/nowhere"}, concurrency=1) as process:
        assert "max_connections could not be read" in process.output()
