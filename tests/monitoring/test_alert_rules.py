"""Every alert rule is fired and resolved by its condition: real rows, the real Redis, as this project wires its sources."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.conf import settings as configured
from django.core.management import call_command
from django.db.models import F
from django.test import Client
from django.utils import timezone

import outbox
from dlq import replay
from dlq.models import DeadLetter
from monitoring.models import Sample
from monitoring.rules import RULES
from orders.models import Order
from orders.services import OrderService
from outbox.heartbeat import SignOfLife
from outbox.models import OutboxMessage, Schedule, Worker
from outbox.status import Role
from outbox.testing import clear, drain
from resilience import breaker, circuits
from resilience.connection import get_redis
from tests.lab.sandbox_fixture import RunningSandbox
from tests.orders.conftest import place, shop
from tests.support.tasks import always_unavailable, note, permanently_wrong

__all__ = ["shop"]

SOURCES = configured.MONITORING_SOURCES

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def sources(settings: LazySettings) -> Iterator[None]:
    settings.MONITORING_SOURCES = SOURCES
    settings.MONITORING_THRESHOLDS = {"max_depth": 2, "max_dead_letters": 2, "max_dead_letter_growth": 2}
    get_redis().delete(circuits.KEY)
    breaker.reset_all()
    yield
    get_redis().delete(circuits.KEY)
    breaker.reset_all()


def firing() -> dict[str, dict[str, Any]]:
    """What /alerts.json says, by name."""
    answer = Client().get("/alerts.json")
    assert answer.status_code == 200
    assert answer.json()["unjudged"] == []
    return {alert["name"]: alert for alert in answer.json()["alerts"]}


def alive(role: Role) -> None:
    SignOfLife(role).give()


def worker_row() -> None:
    Worker.objects.create(incarnation=uuid.uuid4(), hostname="h", pid=1)


def test_messages_that_wait() -> None:
    worker_row()
    alive(Role.RELAY)
    outbox.enqueue_many([note.s(name) for name in "abc"])
    alert = firing()["queue_depth"]
    assert (alert["value"], alert["threshold"]) == (3, 2)
    assert alert["link"] == "docs/operations.md#queue_depth"
    assert list(firing()) == ["queue_depth"]
    drain()
    assert firing() == {}


def test_messages_that_die() -> None:
    outbox.enqueue(permanently_wrong.s("a"))
    drain()
    assert list(firing()) == ["error_rate"]
    OutboxMessage.objects.update(done_at=F("done_at") - timedelta(minutes=2))
    assert firing() == {}


@pytest.mark.described("alerts: workers die, dead letters grow")
def test_many_dead_letters_growing_ones_and_old_ones_raise_alerts() -> None:
    for name in "abc":
        outbox.enqueue(permanently_wrong.s(name))
    drain()
    OutboxMessage.objects.update(done_at=F("done_at") - timedelta(minutes=2))
    assert list(firing()) == ["dead_letters", "dead_letters_growing"]
    DeadLetter.objects.update(failed_first_at=F("failed_first_at") - timedelta(days=2))
    assert list(firing()) == ["dead_letters", "dead_letter_age"]
    for dead_letter in DeadLetter.objects.all():
        replay.discard(dead_letter.pk, reason="a test")
    assert firing() == {}


@pytest.mark.described("alerts: workers die, dead letters grow")
def test_work_without_a_worker() -> None:
    alive(Role.RELAY)
    outbox.enqueue(note.s("a"))
    assert list(firing()) == ["workers_gone"]
    worker_row()
    assert firing() == {}


def test_less_is_done_than_in_the_last_hours() -> None:
    worker_row()
    alive(Role.RELAY)
    outbox.enqueue(note.s("a"))
    placed = timezone.now() - timedelta(minutes=2)
    OutboxMessage.objects.update(deliver_at=placed, created_at=placed)
    now = int(time.time())
    Sample.objects.create(tick=now - 7_200, figures={"messages_done_total": 5_000})
    assert firing() == {}, "one sample says nothing"
    Sample.objects.create(tick=now - 60, figures={"messages_done_total": 5_000 + 120 * 30})
    alert = firing()["processing_rate"]
    assert alert["text"] == "Processing rate dropped: 0 a minute of 30 expected, waiting messages: 1"
    assert (alert["value"], round(alert["threshold"])) == (0, 15)
    drain()
    assert firing() == {}, "a quiet night"


def test_a_task_that_fails_while_others_do_not() -> None:
    worker_row()
    alive(Role.RELAY)
    outbox.enqueue_many([always_unavailable.s(str(n)) for n in range(5)] + [note.s("a")])
    OutboxMessage.objects.filter(task__endswith="always_unavailable").update(
        attempts=1, status="scheduled", deliver_at=timezone.now() + timedelta(minutes=1), generation=2,
        errors=[{"at": timezone.now().isoformat(), "error": "ConnectionError: x", "worker": ""}],
    )  # fmt: skip
    assert "tests.support.tasks.always_unavailable fails: 5 of 5 messages" in firing()["retry_share"]["text"]
    page = Client().get("/metrics").text
    assert 'holdfast_jobs_retrying{task="tests.support.tasks.always_unavailable"} 5.0' in page
    drain()
    assert "retry_share" not in firing()
    assert "holdfast_jobs_retrying{" not in Client().get("/metrics").text


def test_a_task_name_that_somebody_invents_is_no_label() -> None:
    outbox.enqueue(note.s("a"))
    OutboxMessage.objects.update(
        task="invented.by.somebody", attempts=1, errors=[{"at": timezone.now().isoformat()}]
    )
    page = Client().get("/metrics").text
    assert 'holdfast_jobs_retrying{task="unknown"} 1.0' in page
    assert "invented" not in page


@pytest.mark.promise(
    "P8",
    "the gateway is down",
    "the alert `circuit_open` within its first failures; `retry_share` and `order_age` later",
)
@pytest.mark.usefixtures("shop")
def test_an_outage_of_the_gateway_fires_at_once(
    sandbox_settings: RunningSandbox, settings: LazySettings
) -> None:
    """It resolves when the gateway is back."""
    sandbox_settings.faults(gateway={"error_rate": 1})
    orders = [place() for _ in range(6)]
    clear()

    for order in orders:
        with pytest.raises(Exception):  # noqa: B017  (an outage, then the open circuit)
            OrderService.process(order_id=order.id)

    alert = firing()["circuit_open"]
    assert alert["text"] == (
        "Open circuit: calls to payment-gateway (in 1 processes) fail, and most are not made any more"
    )
    assert 'holdfast_circuit_open{circuit="payment-gateway"} 1.0' in Client().get("/metrics").text
    Order.objects.update(created_at=timezone.now() - timedelta(minutes=11))
    assert firing()["order_age"]["text"].startswith(
        f"Orders are stuck: order {orders[0].id} was placed 11 min ago"
    )

    sandbox_settings.faults()
    breaker.states()
    for circuit in breaker.CircuitBreakerMonitor.get_circuits():
        circuit._opened -= 60  # as if its time were over: the next call is its probe
    for order in orders:
        Order.objects.filter(pk=order.id).update(lease_until=None)
        OrderService.process(order_id=order.id)
    clear()

    assert firing() == {}
    assert 'holdfast_circuit_open{circuit="payment-gateway"} 0.0' in Client().get("/metrics").text


@pytest.mark.parametrize("role", [Role.RELAY, Role.BEAT])
def test_a_relay_or_a_beat_that_gives_no_sign_of_life(role: Role) -> None:
    """That a frozen process gives none: tests/outbox/test_signs_of_life.py."""
    alive(role)
    assert firing() == {}
    Worker.objects.update(beat_at=timezone.now() - timedelta(seconds=31))
    assert list(firing()) == [f"{role}_lost"]
    Worker.objects.update(beat_at=timezone.now())
    assert firing() == {}


def test_work_without_a_relay_and_a_schedule_without_a_beat() -> None:
    worker_row()
    outbox.enqueue(note.s("a"))
    Schedule.objects.create(name="a", next_at=timezone.now())
    assert firing()["relay_lost"]["text"] == "No relay gives a sign of life: no accepted work starts"
    assert set(firing()) == {"relay_lost", "beat_lost"}
    alive(Role.RELAY)
    alive(Role.BEAT)
    assert firing() == {}


def test_figures_that_cannot_be_read(settings: LazySettings) -> None:
    settings.MONITORING_SOURCES = SOURCES | {"circuits": "tests.monitoring.figures.unavailable"}
    answer = Client().get("/alerts.json").json()
    assert [alert["name"] for alert in answer["alerts"]] == ["source_unreadable"]
    assert "circuits (ConnectionError: the database is unavailable)" in answer["alerts"][0]["text"]
    assert answer["unjudged"] == ["circuit_open"]
    settings.MONITORING_SOURCES = SOURCES
    assert firing() == {}


def test_the_command_prints_what_fires_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("alerts")
    assert capsys.readouterr().out == "No alert fires.\n"
    alive(Role.RELAY)
    outbox.enqueue(note.s("a"))
    with pytest.raises(SystemExit) as ended:
        call_command("alerts")
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "workers_gone: No worker has a heartbeat, waiting messages: 1",
        "    0, threshold 1; see docs/operations.md#workers_gone",
    ]
    with pytest.raises(SystemExit):
        call_command("alerts", "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed == Client().get("/alerts.json").json()


#: Rules whose condition another file causes.
ELSEWHERE = {
    "findings": "tests/monitoring/test_wiring.py",
    "pending_age": "tests/monitoring/test_wiring.py",
    "repeated_age": "tests/monitoring/test_wiring.py",
    "workers_lost": "tests/monitoring/test_wiring.py",
    "queue_unusable": "tests/outbox/test_unusable_queue.py",
    "task_paused": "tests/outbox/test_paused_task.py",
}


def test_every_rule_is_fired_by_a_test() -> None:
    here = Path(__file__).read_text()
    for name in RULES:
        text = (configured.BASE_DIR / ELSEWHERE[name]).read_text() if name in ELSEWHERE else here
        assert f'"{name}"' in text or name.endswith("_lost"), name
