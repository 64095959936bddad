"""A value that cannot be used ends the process at its start, with one line that names the variable."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from django.db.backends.postgresql.base import DatabaseWrapper

from config.queues import QUORUM
from lab.stack.stack import ROOT


def read_settings() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "config" / "settings.py"))


def read_settings_with(name: str, value: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        return read_settings()


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
        ("DATABASE_URL", "postgres://user:secret@host"),
        ("DATABASE_URL", "postgres://user:secret@host/" + "n" * 64),
        ("DATABASE_URL", "postgres://user:secret@host/holdfast?bogus=1"),
        ("DATABASE_URL", "postgres://user:secret@host/holdfast?pool=true"),
        ("DATABASE_URL", "postgres://user:secret@one/holdfast;postgres://user:secret@two/holdfast"),
        ("DATABASE_URL", "postgres://user:secret@one:5432,two:port/holdfast"),
        ("DATABASE_URL", "postgres://user:secret@one:5432,,two:5432/holdfast"),
        ("DATABASE_URL", "postgres://user:secret@one:5432,two:5432/holdfast?bogus=1"),
        ("BROKER_URL", "redis://:secret@host/abc"),
        ("BROKER_URL", "redis://:secret@host/-1"),
        ("BROKER_URL", "sentinel://one/0;sentinel://:secret@two/abc"),
        ("BROKER_URL", "redis+socket:///run/redis.sock?virtual_host=abc"),
        ("BROKER_URL", "redis://:secret@host/0?bogus=1"),
        ("BROKER_URL", "rediss://:secret@host/0?ssl_cert_reqs=perhaps"),
        ("BROKER_URL", "amqp://user:secret@host//?heartbeat=soon"),
        ("REDIS_URL", "redis://:secret@host/abc"),
        ("REDIS_URL", "redis://:secret@host/0?socket_timeout=soon"),
        ("REDIS_URL", "redis://:secret@host/0?bogus=1"),
        ("REDIS_URL", "rediss://:secret@host/0?ssl_cert_reqs=perhaps"),
        ("REDIS_URL", "redis://:secret@one/0;redis://:secret@two/0"),
        ("REDIS_URL", "redis://one;two"),
        ("REDIS_URL", "sentinel://:secret@one/0;redis://:secret@two/0"),
        ("REDIS_URL", "sentinel://:secret@one/abc"),
        ("REDIS_URL", "sentinel://one/0;sentinel:two"),
        ("REDIS_URL", "sentinel://:secret@one/0?bogus=1"),
        ("REDIS_URL", "sentinel://:secret@one:port/0;sentinel://two"),
        ("STRIPE_API_BASE", "https://one.example:443,two.example:443"),
        ("STRIPE_API_BASE", "https://"),
        ("STRIPE_API_BASE", "http:///v1"),
        ("STRIPE_API_BASE", "https:gateway.example"),
        ("EMAIL_URL", "smtp://user:secret@host?ssl=perhaps"),
        ("EMAIL_URL", "smtp://user:secret@host?tsl=1"),
        ("BROKER_URL", "amqp://user:secret@one;redis://two"),
        ("BROKER_URL", "redis://one/0;sentinel://two"),
        ("BROKER_URL", "redis+socket:///"),
        ("REDIS_URL", "unix://"),
        ("DATABASE_URL", "postgres://user:secret@host/holdfast?sslmode=perhaps"),
        ("CRM_URL", "https://crm.example?key=secret"),
        ("CSRF_TRUSTED_ORIGINS", "https://shop.example:port"),
        ("CSRF_TRUSTED_ORIGINS", "example.com"),
        ("CSRF_TRUSTED_ORIGINS", "https://shop.example,example.com"),
        ("CSRF_TRUSTED_ORIGINS", "https://shop.example/"),
        ("PASSWORD_RESET_URL", "https://shop.example/{uid}/{token}/{nope}"),
        ("PASSWORD_RESET_URL", "https://shop.example/{uid}/{token}/{}"),
        ("PASSWORD_RESET_URL", "https://shop.example/{uid}/{token"),
        ("PASSWORD_RESET_URL", "https://shop.example/{uid}/"),
        ("RETRY_SCALE", "0"),
        ("RETRY_SCALE", "-1"),
        ("OUTBOX_BATCH", "nan"),
        ("OUTBOX_BATCH", "inf"),
        ("OUTBOX_DEPTH_LIMIT", "1.5"),
        ("OUTBOX_BATCH", "1e30"),
        ("OUTBOX_MARGIN", "1e12"),
        ("OUTBOX_RETENTION", "1e13"),
        ("VISIBILITY_TIMEOUT", "1e12"),
        ("RETRY_SCALE", "1e9"),
        ("RETRY_MINIMUM", "-1"),
        ("ORDERS_PER_SECOND", "0"),
        ("ORDERS_PER_SECOND", "many"),
        ("DEBUG", "maybe"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_without_passwords(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The line names the variable."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as refused:
        read_settings()
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{name} must be ")
    assert "secret" not in line
    assert "sec#ret" not in line


PORT = "a port from 1 to 65535"
HOST = ":// and a host"
NAME = "host is a name or an address"
ENCODED = "in whose password %23 stands for #"


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("{}://host:0", PORT),
        ("{}://user:secret@host:99999", PORT),
        ("{}://user:secret@host:port/0", PORT),
        ("{}://::1/0", PORT),
        ("{}://[::1/0", PORT),
        ("{}://user:secret@host/0#1", PORT),
        ("{}://user:se#ret@host:25/0", ENCODED),
        ("{}://user:se/ret@host:25/0", ENCODED),
        ("{}://user:se?ret@host:25/0", ENCODED),
        ("{}://user:se[ret@host:25/0", ENCODED),
        ("{}:", HOST),
        ("{}:host", HOST),
        ("{}://", HOST),
        ("{}://:25/0", HOST),
        ("{}://user:secret@", HOST),
        ("{}://ho st/0", NAME),
        ("{}://one;two", NAME),
        ("{}://" + "a" * 64, NAME),
        ("x{}://host", "begins with "),
    ],
)
@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        *(("BROKER_URL", scheme) for scheme in ("redis", "amqp", "sentinel")),
        *(("REDIS_URL", scheme) for scheme in ("redis", "sentinel")),
        ("STRIPE_API_BASE", "https"),
        ("EMAIL_URL", "smtp"),
    ],
)
def test_the_line_says_what_is_wrong_with_the_url(name: str, scheme: str, value: str, wrong: str) -> None:
    first = value.format(scheme)
    several = [f"sentinel://first:26379/0;{first}"] if first.startswith("sentinel://") else []
    for url in (first, *several):
        with pytest.raises(SystemExit) as refused:
            read_settings_with(name, url)
        (line,) = str(refused.value).splitlines()
        assert line.startswith(f"{name} must be a URL ")
        assert wrong in line
        assert "secret" not in line
        assert "ret@" not in line


@pytest.mark.parametrize("blank", ["", "   ", "\t"])
def test_a_required_value_that_is_blank_is_not_set(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("SECRET_KEY", blank)
    with pytest.raises(SystemExit, match=r"^SECRET_KEY is not set .*$"):
        read_settings()


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
        ("DATABASE_URL", "postgres:///?service=holdfast"),
        ("DATABASE_URL", "postgres://%2Frun%2Fpostgresql/holdfast?sslmode=require&application_name=x"),
        (
            "DATABASE_URL",
            "postgres://user:secret@one:5432,[::1],%2Frun%2Fpostgresql:5433/holdfast?sslmode=require",
        ),
        ("REDIS_URL", "sentinel://:pass;word@one:26379/1;sentinel://two:26379;sentinel://three"),
        ("BROKER_URL", "amqps://user:secret@host/vhost?heartbeat=30"),
        ("BROKER_URL", "redis+socket:///run/redis.sock?virtual_host=1"),
        ("BROKER_URL", "rediss://:secret@host:6379/?ssl_cert_reqs=required"),
        ("REDIS_URL", "unix:///run/redis.sock?db=1"),
        ("REDIS_URL", "rediss://user:secret@host/3?socket_timeout=0.5"),
        ("CSRF_TRUSTED_ORIGINS", "https://shop.example, https://*.shop.example:8443, http://[::1]:80"),
        ("PASSWORD_RESET_URL", "shop://reset?uid={uid}&token={token}"),
        ("OUTBOX_RETENTION", "315360000"),
        ("ORDERS_MAX_BACKLOG", "0"),
        ("OUTBOX_RETENTION", "0"),
        ("ORDERS_PER_SECOND", "0.5"),
    ],
)
def test_a_value_at_the_edge_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert read_settings()["SECRET_KEY"]


def test_a_scheme_in_capitals_is_the_same_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else RabbitMQ would be published to as if it were Redis: without confirms, to queues that are not replicated."""
    monkeypatch.setenv("DATABASE_URL", "Postgres://user:Secret@host/Holdfast")
    monkeypatch.setenv("REDIS_URL", "REDIS://host:6379/0")
    monkeypatch.setenv("BROKER_URL", " AMQP://Guest:Guest@one//;Amqp://two//")
    monkeypatch.setenv("EMAIL_URL", "SUBMISSION://user:Secret@host:587")
    monkeypatch.setenv("STRIPE_API_BASE", "HTTPS://gateway.example/Path")
    read = read_settings()
    assert read["CELERY_BROKER_URL"] == "amqp://Guest:Guest@one//;amqp://two//"
    assert read["CELERY_BROKER_TRANSPORT_OPTIONS"]["confirm_publish"]
    assert all(queue.queue_arguments == QUORUM for queue in read["CELERY_TASK_QUEUES"])
    assert read["REDIS_URL"] == "redis://host:6379/0"
    assert read["DATABASES"]["default"]["PASSWORD"] == "Secret"
    assert read["EMAIL_USE_TLS"]
    assert read["STRIPE_API_BASE"] == "https://gateway.example/Path"


@pytest.mark.parametrize(
    ("query", "timeouts"),
    [
        ("", ("30s", "10s")),
        ("options=-c%20search_path%3Dpublic", ("30s", "10s")),
        ("currentSchema=public", ("30s", "10s")),
        ("options=-c%20lock_timeout%3D2s", ("30s", "2s")),
    ],
)
def test_options_of_the_databases_url_are_added_to_the_timeouts_of_ours(
    monkeypatch: pytest.MonkeyPatch, query: str, timeouts: tuple[str, str]
) -> None:
    url = os.environ["DATABASE_URL"]
    monkeypatch.setenv("DATABASE_URL", f"{url}{'&' if '?' in url else '?'}{query}")
    database = DatabaseWrapper(read_settings()["DATABASES"]["default"])
    with closing(psycopg2.connect(**database.get_connection_params())) as session, session.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('lock_timeout'),"
            " current_setting('search_path')"
        )
        *found, search_path = cursor.fetchone()
    assert tuple(found) == timeouts
    assert (search_path == "public") is ("public" in query)


@pytest.mark.parametrize("name", ["STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "WAREHOUSE_URL", "CRM_URL"])
def test_what_no_process_can_work_without_ends_it_at_its_start(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "")
    with pytest.raises(SystemExit) as end:
        read_settings()
    assert str(end.value).startswith(f"{name} is not set")
