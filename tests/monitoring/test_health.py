import socket
import threading
import time

import pytest
import requests
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder

from monitoring import health
from tests.support.processes import await_, web


@pytest.fixture
def silent_port():
    """A port that takes the connection and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_liveness_asks_no_dependency(client, settings, closed_port) -> None:
    settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{closed_port}/0"
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


@pytest.mark.django_db(transaction=True)
def test_ready_when_database_migrations_and_broker_are_there(client) -> None:
    response = client.get("/readyz")
    assert response.json() == {"status": "ready", "checks": ["broker", "database", "migrations"]}
    assert response.status_code == 200


@pytest.mark.promise("P8", "the broker is down", "`/readyz` 503 that names it")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_down_is_named(client, settings, closed_port, scheme) -> None:
    settings.CELERY_BROKER_URL = f"{scheme}://127.0.0.1:{closed_port}/0"
    response = client.get("/readyz")
    assert response.status_code == 503
    assert list(response.json()["missing"]) == ["broker"]
    assert "refused" in response.json()["missing"]["broker"]


@pytest.mark.promise(
    "P8",
    "the broker is frozen",
    "`/readyz` 503 that names it, within the deadline, without piling up threads",
)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_never_answers_is_named_within_the_deadline(
    client, settings, silent_port, scheme
) -> None:
    settings.CELERY_BROKER_URL = f"{scheme}://127.0.0.1:{silent_port}/0"

    began = time.monotonic()
    response = client.get("/readyz")

    assert time.monotonic() - began < health.DEADLINE_S + 1
    assert response.status_code == 503
    assert "broker" in response.json()["missing"]
    assert "database" not in response.json()["missing"]


@pytest.mark.promise("P8", "a deployment lacks its migrations", "`/readyz` 503 that names the first")
@pytest.mark.django_db(transaction=True)
def test_a_migration_that_is_not_applied_is_named(client) -> None:
    recorder = MigrationRecorder(connections["default"])
    recorder.record_unapplied("contenttypes", "0002_remove_content_type_name")

    try:
        response = client.get("/readyz")
    finally:
        recorder.record_applied("contenttypes", "0002_remove_content_type_name")

    assert response.status_code == 503
    assert "contenttypes" in response.json()["missing"]["migrations"]


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_down_is_named(mocker, closed_port) -> None:
    mocker.patch.dict(connections.settings["default"], {"HOST": "127.0.0.1", "PORT": str(closed_port)})
    missing = health.run_checks({"database": health.check_database})
    assert "OperationalError" in missing["database"]


def test_a_check_that_hangs_is_reported_and_not_started_a_second_time() -> None:
    release, begun = threading.Event(), []

    def hang() -> None:
        begun.append(1)
        release.wait(10)

    for _ in range(3):
        assert health.run_checks({"frozen": hang}, deadline_s=0.05) == {"frozen": "no answer within 0.05 s"}
    assert len(begun) == 1
    release.set()


def test_a_check_that_has_come_back_is_started_again() -> None:
    release = threading.Event()
    assert health.run_checks({"slow": lambda: release.wait(10)}, deadline_s=0.05)
    release.set()
    await_(lambda: health.run_checks({"slow": lambda: None}) == {}, "the check is started again")


def test_probes_that_come_together_share_one_check_and_all_get_its_answer() -> None:
    release, begun, answers = threading.Event(), [], []

    def check() -> None:
        begun.append(1)
        release.wait(10)

    probes = [
        threading.Thread(target=lambda: answers.append(health.run_checks({"shared": check})))
        for _ in range(4)
    ]
    for probe in probes:
        probe.start()
    release.set()
    for probe in probes:
        probe.join(10)
    assert answers == [{}] * 4


def test_the_reason_is_one_line() -> None:
    def fail() -> None:
        raise ConnectionError("refused\nand a long explanation")

    assert health.run_checks({"broker": fail}) == {"broker": "ConnectionError: refused"}


@pytest.mark.django_db(transaction=True)
def test_an_installation_can_choose_what_it_needs_to_be_ready(client, settings, closed_port) -> None:
    settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{closed_port}/0"
    settings.MONITORING_READY_CHECKS = {"database": "monitoring.health.check_database"}
    assert client.get("/readyz").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_probe_over_plain_http_is_answered_without_a_redirect() -> None:
    """All else is redirected to https."""
    with web(env={"SECURE": "1"}) as (_, url):
        status = {
            path: requests.get(f"{url}{path}", allow_redirects=False, timeout=30).status_code
            for path in ("/healthz", "/readyz", "/metrics", "/api/orders", "/healthz/x")
        }
    assert status == {"/healthz": 200, "/readyz": 200, "/metrics": 200, "/api/orders": 301, "/healthz/x": 301}
