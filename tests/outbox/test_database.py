"""Which database errors say nothing about the work, so that the work is run again instead of dead-lettered."""

from __future__ import annotations

import threading

import pytest
from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError, connection

from config.celery import app
from outbox.database import DatabaseUnavailable, is_not_now, patiently
from outbox.deadline import within_hard_limit
from outbox.relay.loop import Relay
from outbox.scheduler import Scheduler


def caused(error: Exception, cause: Exception | None) -> Exception:
    error.__cause__ = cause
    return error


driver = connection.Database
LOST = "server closed the connection unexpectedly"


@pytest.mark.parametrize(
    "error",
    [
        caused(OperationalError(LOST), driver.OperationalError(LOST)),
        caused(
            InterfaceError("connection already closed"), driver.InterfaceError("connection already closed")
        ),
        # What psycopg 2 raises for a connection that was reset while it was idle.
        caused(DatabaseError(LOST), driver.DatabaseError(LOST)),
    ],
    ids=["broken", "closed", "reset while idle"],
)
def test_a_lost_connection_says_nothing_about_the_work(error: Exception) -> None:
    assert is_not_now(error)


@pytest.mark.parametrize(
    "error",
    [
        caused(IntegrityError("duplicate key"), driver.IntegrityError("duplicate key")),
        # Django's own, for example of save(update_fields=...) that found no row.
        DatabaseError("Save with update_fields did not affect any rows."),
        ValueError("no error of the database at all"),
    ],
    ids=["integrity", "Django's own", "another"],
)
def test_an_error_of_the_statement_is_not_waited_out(error: Exception) -> None:
    assert not is_not_now(error)


@pytest.mark.django_db(transaction=True)
def test_a_step_whose_idle_connection_was_reset_is_run_again() -> None:
    failures = [caused(DatabaseError(LOST), driver.DatabaseError(LOST))]

    def step() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert patiently(step) == "done"


@pytest.mark.django_db(transaction=True)
def test_a_step_that_is_given_up_at_the_time_limit_says_why() -> None:
    def step() -> None:
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE 'no such luck' USING ERRCODE = '55P03'; END $$")

    with pytest.raises(DatabaseUnavailable, match="hard time limit: no such luck"), within_hard_limit(0.1):
        patiently(step)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "error", [caused(DatabaseError(LOST), driver.DatabaseError(LOST))], ids=["reset while idle"]
)
class TestADaemonWhoseIdleConnectionWasReset:
    def test_the_relay_goes_on(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        stop, passes = threading.Event(), iter([error, None])

        def run_once(self: Relay) -> int:
            if failure := next(passes):
                raise failure
            stop.set()
            return 1

        monkeypatch.setattr(Relay, "run_once", run_once)
        Relay(app).run(stop)
        assert next(passes, "none left") == "none left"

    def test_beat_goes_on(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        def run_once(self: Scheduler) -> int:
            raise error

        monkeypatch.setattr(Scheduler, "run_once", run_once)
        assert Scheduler(app, lazy=True).tick() > 0


@pytest.mark.django_db(transaction=True)
def test_a_daemon_does_not_wait_out_an_error_of_its_own_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_once(self: Relay) -> int:
        raise caused(IntegrityError("duplicate key"), driver.IntegrityError("duplicate key"))

    monkeypatch.setattr(Relay, "run_once", run_once)
    with pytest.raises(IntegrityError):
        Relay(app).run(threading.Event())
