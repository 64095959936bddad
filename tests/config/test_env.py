"""A value that cannot be used ends the process at its start, with one line that names the variable."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

import pytest

from config.env import Env
from config.queues import QUORUM
from lab.stack.stack import ROOT

SETTINGS = ROOT / "config" / "settings.py"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "garbage"),
        ("DATABASE_URL", "sqlite:///orders.db"),
        ("DATABASE_URL", "postgres://user:secret@host:port/holdfast"),
        ("DATABASE_URL", "postgres://user:sec#ret@host:5432/holdfast"),
        ("BROKER_URL", "garbage"),
        ("BROKER_URL", "sentinel://host:26379/0;http://host"),
        ("REDIS_URL", "amqp://host"),
        ("EMAIL_URL", "foo://"),
        ("EMAIL_URL", "smtp://user:secret@host:port"),
        ("EMAIL_URL", "smtp://host?timeout=soon"),
        ("CRM_URL", "crm.example"),
        ("RETRY_SCALE", "0"),
        ("RETRY_SCALE", "-1"),
        ("OUTBOX_BATCH", "nan"),
        ("OUTBOX_BATCH", "inf"),
        ("OUTBOX_DEPTH_LIMIT", "1.5"),
        ("RETRY_MINIMUM", "-1"),
        ("ORDERS_PER_SECOND", "0"),
        ("ORDERS_PER_SECOND", "many"),
        ("DEBUG", "maybe"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_it_and_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as refused:
        runpy.run_path(str(SETTINGS))
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{name} must be ")
    assert "secret" not in line
    assert "sec#ret" not in line


def test_the_process_ends_with_that_line_and_nothing_else() -> None:
    ended = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={**os.environ, "RETRY_SCALE": "0", "DJANGO_SETTINGS_MODULE": "config.settings"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line == (
        "RETRY_SCALE must be a number above 0, not '0' (factor on every retry delay; the demo uses a small one)."
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER_URL", "sentinel://one:26379/0;sentinel://two:26379/0"),
        ("REDIS_URL", "redis://:pass;word@host:6379/0"),
        ("BROKER_URL", "amqp://guest:guest@host:5672//"),
        ("EMAIL_URL", "submission://user:secret@mail.example:587"),
        ("EMAIL_URL", "console:"),
        ("ORDERS_MAX_BACKLOG", "0"),
        ("OUTBOX_RETENTION", "0"),
        ("ORDERS_PER_SECOND", "0.5"),
    ],
)
def test_a_value_at_the_edge_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert runpy.run_path(str(SETTINGS))["SECRET_KEY"]


def test_a_scheme_in_capitals_is_the_same_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else RabbitMQ would be published to as if it were Redis: without confirms, to queues that are not replicated."""
    monkeypatch.setenv("DATABASE_URL", "Postgres://user:Secret@host/Holdfast")
    monkeypatch.setenv("REDIS_URL", "REDIS://host:6379/0")
    monkeypatch.setenv("BROKER_URL", " AMQP://Guest:Guest@one//;Amqp://two//")
    monkeypatch.setenv("EMAIL_URL", "SUBMISSION://user:Secret@host:587")
    monkeypatch.setenv("STRIPE_API_BASE", "HTTPS://gateway.example/Path")
    read = runpy.run_path(str(SETTINGS))
    assert read["CELERY_BROKER_URL"] == "amqp://Guest:Guest@one//;amqp://two//"
    assert read["CELERY_BROKER_TRANSPORT_OPTIONS"]["confirm_publish"]
    assert all(queue.queue_arguments == QUORUM for queue in read["CELERY_TASK_QUEUES"])
    assert read["REDIS_URL"] == "redis://host:6379/0"
    assert read["DATABASES"]["default"]["PASSWORD"] == "Secret"
    assert read["EMAIL_USE_TLS"]
    assert read["STRIPE_API_BASE"] == "https://gateway.example/Path"


def test_a_url_whose_default_is_empty_may_be_empty() -> None:
    assert Env({}).url("CRM_URL", "https") == ""
