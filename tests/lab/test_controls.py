"""The controls of the lab in the control room: who has them, and that each bites."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from kombu.simple import SimpleQueue

from config.celery import app
from config.queues import DEFAULT_QUEUE, UNDELIVERABLE, is_rabbitmq
from lab.controls import actions
from lab.stack.processes import OWNER
from orders.models import ApiKey, Order
from orders.seed import seed_demo
from outbox.models import Worker
from tests.lab.sandbox_fixture import RunningSandbox
from tests.support.brokers import on_both_brokers, using
from tests.support.processes import Process, await_, relay, web, worker

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(OWNER, str(tmp_path))


def logged_in(*permissions: str, **options: Any) -> Client:
    user = User.objects.create_user(f"user-{uuid.uuid4()}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("view_control_room", *permissions)))
    client = Client(**options)
    client.force_login(user)
    return client


@pytest.fixture
def breaker(sandbox_settings: RunningSandbox) -> Iterator[Client]:
    yield logged_in("use_controls")
    sandbox_settings.faults()


def press(client: Client, action: str, **form: str) -> str:
    answer = client.post(f"/lab/controls/{action}", form, follow=True)
    assert answer.redirect_chain == [("/", 302)]
    return answer.content.decode()


def test_outside_of_a_stack_there_are_none(breaker: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "break it" in breaker.get("/").content.decode()
    monkeypatch.delenv(OWNER)
    assert "break it" not in breaker.get("/").content.decode()
    assert breaker.post("/lab/controls/heal").status_code == 404


def test_they_need_their_permission_a_post_and_a_token() -> None:
    client = logged_in()
    assert "break it" not in client.get("/").content.decode()
    refused = client.post("/lab/controls/heal")
    assert (refused.status_code, "lab.use_controls" in refused.content.decode()) == (403, True)
    assert logged_in("use_controls").get("/lab/controls/heal").status_code == 405
    assert logged_in("use_controls", enforce_csrf_checks=True).post("/lab/controls/heal").status_code == 403
    assert logged_in("use_controls").post("/lab/controls/nothing").status_code == 404


def test_the_gateway_is_broken_and_healed_and_dials_are_turned(
    breaker: Client, sandbox_settings: RunningSandbox
) -> None:
    def faults() -> Any:
        return actions.Sandbox(sandbox_settings.url)._get("/faults")

    assert "fails every call" in press(breaker, "break-the-gateway")
    assert faults()["gateway"]["error_rate"] == 1
    page = press(breaker, "dials", **{"crm.error_rate": "30", "mail.latency_ms": "250"})
    assert (faults()["crm"]["error_rate"], faults()["mail"]["latency_ms"]) == (0.3, 250)
    assert faults()["gateway"]["error_rate"] == 0, "what the form shows is the whole setting"
    assert 'name="crm.error_rate" value="30"' in page
    press(breaker, "heal")
    assert faults()["crm"]["error_rate"] == 0
    assert "could not convert" in press(breaker, "dials", **{"crm.error_rate": "a third"})
    assert "400" in press(breaker, "dials", **{"crm.error_rate": "300"})


def test_a_sandbox_that_does_not_answer_is_named(settings: Any) -> None:
    settings.STRIPE_API_BASE = "http://127.0.0.1:1"
    client = logged_in("use_controls")
    assert "The sandbox does not answer" in client.get("/").content.decode()
    assert "Break the gateway: " in press(client, "break-the-gateway")


def state_of(process: Process) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_processes_of_this_stack_are_frozen_thawed_and_killed_and_no_others(
    clean: None, breaker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relay() as publisher, worker(concurrency=1) as consumer:
        await_(
            lambda: {"relay", "worker"} <= set(Worker.objects.values_list("role", flat=True)),
            "both have a row",
        )
        queues = Worker.objects.get(role="worker").received
        assert queues == {"default": 0}, "a worker names its queues before it has received anything"
        assert "Frozen: 1 relay." in press(breaker, "freeze-the-relay")
        await_(lambda: state_of(publisher) == "T", "the relay is frozen")
        assert "Thawed: 1 relay." in press(breaker, "thaw-the-relay")
        await_(lambda: state_of(publisher) != "T", "the relay is thawed")
        monkeypatch.setenv(OWNER, "/another")
        assert "Frozen: 0 relays." in press(breaker, "freeze-the-relay")
        assert "No worker of this stack runs." in press(breaker, "kill-a-worker")
        monkeypatch.undo()
        monkeypatch.setenv(OWNER, mark_of(consumer))
        assert f"Killed the worker with pid {consumer.pid}" in press(breaker, "kill-a-worker")
        assert consumer.popen.wait(30) == -signal.SIGKILL


def mark_of(process: Process) -> str:
    environ = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    (mark,) = (each for each in environ if each.startswith(f"{OWNER}=".encode()))
    return mark.decode().partition("=")[2]


@on_both_brokers
def test_the_broker_is_wiped(broker: str, clean: None, breaker: Client) -> None:
    """Also where a queue has not been declared yet."""
    assert "empty" in press(breaker, "wipe-the-broker")
    held = (DEFAULT_QUEUE, *([UNDELIVERABLE] if is_rabbitmq(broker) else []))
    with app.connection_for_write() as connection:
        queues = [SimpleQueue(connection, name) for name in held]
        for queue in queues:
            queue.put("a message")
        assert [queue.qsize() for queue in queues] == [1] * len(held)
        assert "empty" in press(breaker, "wipe-the-broker")
        for queue in queues:
            with pytest.raises(SimpleQueue.Empty):
                queue.get_nowait()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
def test_a_broker_that_is_down_is_named(breaker: Client, url: str) -> None:
    with using(url):
        assert "the broker does not answer" in press(breaker, "wipe-the-broker")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_orders_are_placed_over_http(
    clean: None, breaker: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seed_demo()
    key = tmp_path / "key"
    key.write_text(ApiKey.issue("test")[1])
    monkeypatch.setattr(actions, "DEMO_KEY", key)
    monkeypatch.setattr(actions, "ORDERS", 3)
    with web() as (_, url):
        monkeypatch.setenv("PORT", url.rpartition(":")[2])
        assert "3 orders are being placed." in press(breaker, "place-100-orders")
        await_(lambda: Order.objects.count() == 3, "all are placed")
