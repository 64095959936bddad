"""Who is told what, when an alert starts and ends; against a real mail server and a real web server."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection
from django.db.models import F
from django.test import Client

from monitoring import notices
from monitoring.models import FiringAlert
from monitoring.notices import Notifier
from monitoring.room.state import state
from tests.monitoring import figures
from tests.support.database import another_session

pytestmark = pytest.mark.django_db


@pytest.fixture
def posted() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server's address, and what was posted to it."""
    bodies: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", bodies
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def channels(settings: LazySettings) -> None:
    settings.MONITORING_SERIES = {}
    settings.MONITORING_ALERT_EMAILS = ["oncall@example.com"]
    settings.MONITORING_ALERT_WEBHOOK_URL = ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(notices.time, "monotonic", lambda: now[0])
    return now


def fire(count: int = 101) -> None:
    figures.DLQ["open"] = count


def later(**ago: int) -> None:
    """As if so much time had passed since the last evaluation."""
    FiringAlert.objects.update(seen_at=F("seen_at") - timedelta(**ago), since=F("since") - timedelta(**ago))
    for row in FiringAlert.objects.all():
        for told in row.told.values():
            told["at"] -= timedelta(**ago).total_seconds()
        row.save()


def test_an_alert_is_announced_at_its_start_and_end(
    mailoutbox: list[Any], settings: LazySettings, posted: tuple[str, list[dict[str, Any]]]
) -> None:
    """And again after hours in between."""
    settings.MONITORING_ALERT_WEBHOOK_URL, bodies = posted
    notifier = Notifier()
    assert notifier.run_once() == 0
    fire()
    assert notifier.run_once() == 2
    assert [mail.subject for mail in mailoutbox] == ["[alert] firing: dead_letters"]
    assert mailoutbox[0].to == ["oncall@example.com"]
    assert "DLQ has 101 entries" in mailoutbox[0].body
    assert "docs/operations.md#dead_letters" in mailoutbox[0].body
    assert [body["subject"] for body in bodies] == ["firing: dead_letters"]
    assert "DLQ has 101 entries" in bodies[0]["text"]
    since = Client().get("/alerts.json").json()["alerts"][0]["since"]
    assert since == FiringAlert.objects.get().since.isoformat()
    assert state()["alerts"][0]["since"] == since, "on the control room, too"
    fire(102)
    later(minutes=1)
    assert notifier.run_once() == Notifier().run_once() == 0, "it has been told, also by another process"
    later(hours=4)
    assert notifier.run_once() == 2, "it fires still"
    fire(0)
    assert notifier.run_once() == 0, "it may fire again at once"
    later(seconds=91)
    assert notifier.run_once() == 2
    assert mailoutbox[-1].subject == "[alert] resolved: dead_letters"
    assert bodies[-1]["subject"] == "resolved: dead_letters"
    assert not FiringAlert.objects.exists()
    assert notifier.run_once() == 0


def break_queues(outbox_figures: dict[str, Any], *names: str) -> None:
    outbox_figures["queues"] = {
        name: queue | {"unusable": "WRONGTYPE" if name in names else ""}
        for name, queue in outbox_figures["queues"].items()
    }


def test_another_queue_in_place_of_the_first_is_news(
    mailoutbox: list[Any], outbox_figures: dict[str, Any]
) -> None:
    break_queues(outbox_figures, "critical")
    Notifier().run_once()
    later(minutes=1)
    first = FiringAlert.objects.get().since
    break_queues(outbox_figures, "low")
    alert = Client().get("/alerts.json").json()["alerts"][0]
    assert (alert["about"], alert["since"]) == (["low"], None), "beat has not seen it yet"
    assert Notifier().run_once() == 1
    assert "low for" in mailoutbox[1].body
    assert FiringAlert.objects.get().since > first
    assert (
        Client().get("/alerts.json").json()["alerts"][0]["since"]
        == FiringAlert.objects.get().since.isoformat()
    )


def test_each_queue_that_joins_an_alert_is_told_once(
    mailoutbox: list[Any], outbox_figures: dict[str, Any]
) -> None:
    """Also one that comes and goes: the alert has not ended meanwhile."""
    break_queues(outbox_figures, "critical")
    Notifier().run_once()
    since = FiringAlert.objects.get().since
    for _ in range(3):
        break_queues(outbox_figures, "critical", "low")
        Notifier().run_once()
        break_queues(outbox_figures, "critical")
        Notifier().run_once()
    assert len(mailoutbox) == 2
    assert "low for" in mailoutbox[1].body
    assert FiringAlert.objects.get().since == since


def test_however_much_fires_it_is_one_message(mailoutbox: list[Any]) -> None:
    fire()
    figures.OUTBOX["relays"] = {"expected": True, "count": 0, "lately": 1}
    Notifier().run_once()
    assert [mail.subject for mail in mailoutbox] == ["[alert] firing: dead_letters, relay_lost"]


def test_while_email_is_down_the_webhook_does_not_wait(
    settings: LazySettings,
    posted: tuple[str, list[dict[str, Any]]],
    clock: list[float],
    mailoutbox: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There are few attempts to send the email."""
    settings.MONITORING_ALERT_WEBHOOK_URL, bodies = posted
    working = settings.EMAIL_BACKEND
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    fire()
    notifier, attempts = Notifier(), []
    tell = notices._email

    def counted(*message: str) -> None:
        attempts.append(clock[0])
        tell(*message)

    monkeypatch.setattr(notices, "_email", counted)
    for _ in range(240):
        notifier.run_once()
        clock[0] += 30
    assert len(bodies) == 1
    assert len(attempts) <= 8, "in two hours"
    fire(0)
    later(seconds=91)
    notifier.run_once()
    assert len(bodies) == 2
    settings.EMAIL_BACKEND = working
    clock[0] += 3_600
    assert notifier.run_once() == 1
    assert [mail.subject for mail in mailoutbox] == ["[alert] resolved: dead_letters"], (
        "what was missed is told"
    )
    assert not FiringAlert.objects.exists()


def test_what_cannot_be_judged_has_not_ended(settings: LazySettings, mailoutbox: list[Any]) -> None:
    fire()
    notifier = Notifier()
    notifier.run_once()
    settings.MONITORING_SOURCES = settings.MONITORING_SOURCES | {
        "dlq": "tests.monitoring.figures.unavailable"
    }
    later(seconds=91)
    notifier.run_once()
    assert [mail.subject for mail in mailoutbox] == [
        "[alert] firing: dead_letters",
        "[alert] firing: source_unreadable",
    ]
    assert set(FiringAlert.objects.filter(resolved_at=None).values_list("name", flat=True)) == {
        "dead_letters",
        "source_unreadable",
    }


@pytest.mark.django_db(transaction=True)
def test_of_two_processes_that_evaluate_at_the_same_time_one_tells(mailoutbox: list[Any]) -> None:
    fire()
    with another_session() as other:
        other.cursor().execute("SELECT pg_advisory_xact_lock(hashtext('monitoring.notices'))")
        assert Notifier().run_once() == 0
        other.rollback()
    assert Notifier().run_once() == 1
    FiringAlert.objects.all().delete()


def test_without_a_channel_only_the_time_is_kept(settings: LazySettings) -> None:
    settings.MONITORING_ALERT_EMAILS = []
    fire()
    assert Notifier().run_once() == 0
    assert FiringAlert.objects.get().since
    fire(0)
    later(seconds=91)
    Notifier().run_once()
    assert not FiringAlert.objects.exists()
    assert not connection.needs_rollback
