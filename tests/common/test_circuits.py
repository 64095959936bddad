"""The circuit in a task's way is known to the dead-letter desk of the shipped application before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from common.circuits import open_for
from config.celery import app
from dlq.models import DeadLetter
from dlq.operations import selection
from dlq.operations.models import Kind
from payments.gateway.calls import breaker as gateway
from payments.gateway.errors import GatewayUnavailable
from resilience import breaker, circuits
from resilience.connection import get_redis
from tests.dlq.test_record import die


def down() -> None:
    raise GatewayUnavailable("down")


@pytest.fixture
def open_circuit() -> Iterator[None]:
    """The gateway's circuit, opened by an outage of the gateway."""
    for _ in range(5):
        with pytest.raises(GatewayUnavailable):
            gateway.call(down)
    yield
    breaker.reset_all()
    get_redis().delete(circuits.KEY)


@pytest.mark.django_db
def test_the_preflight_names_the_open_circuit_of_the_gateway(open_circuit: None) -> None:
    die("m-1")
    die("m-2", task="orders.tasks.send_receipt")
    operation = selection.draft(Kind.REPLAY, DeadLetter.objects.all(), actor="alice")
    assert selection.preflight(operation) == {selection.READY: 1, "circuit open: payment-gateway": 1}


def test_without_redis_no_circuit_is_known(open_circuit: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_for("orders.tasks.process_order") == "payment-gateway"
    monkeypatch.setattr(circuits, "get_redis", lambda: redis.Redis(port=1, socket_connect_timeout=0.2))
    assert open_for("orders.tasks.process_order") == ""


def test_every_circuit_that_a_task_names_is_one_of_the_application() -> None:
    app.loader.import_default_modules()
    named = {task.circuit for task in app.tasks.values() if getattr(task, "circuit", "")}
    assert named == {"payment-gateway", "warehouse"} <= {state.name for state in breaker.states()}
