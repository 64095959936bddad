"""The shelf's own rules, with a database that refuses on command and the timer that workers have."""

from __future__ import annotations

import os
import threading
import time
from itertools import pairwise

import pytest
from django.db import InterfaceError, OperationalError, connection
from kombu.asynchronous.timer import Timer

from dlq.worker import pending_acks as shelf_module
from dlq.worker.pending_acks import CONNECT_TIMEOUT_S, FIRST_DELAY_S, MAX_DELAY_S, Shelf, impatient_connection
from tests.support.proxy import proxied

pytestmark = pytest.mark.django_db(transaction=True)


class Record:
    """Counts how often it is asked to record, and fails with `error` while it has one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked = 0
        self.acknowledged = 0

    def __call__(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error

    def acknowledge(self) -> None:
        assert self.error is None, "acknowledged although it is not recorded"
        self.acknowledged += 1


@pytest.fixture
def shelf() -> Shelf:
    shelf = Shelf()
    shelf.use_timer(Timer())
    return shelf


def test_what_can_be_recorded_is_recorded_and_acknowledged_at_once(shelf: Shelf) -> None:
    record = Record()
    shelf.put(record, record.acknowledge)
    assert (record.asked, record.acknowledged, len(shelf)) == (1, 1, 0)


def test_while_one_waits_the_next_is_not_tried(shelf: Shelf) -> None:
    """Each try may hold up the event loop for the connect timeout; the outage must not cost one per message."""
    first, second = Record(OperationalError("down")), Record()
    shelf.put(first, first.acknowledge)
    shelf.put(second, second.acknowledge)
    assert (first.asked, second.asked, len(shelf)) == (1, 0, 2)
    shelf.retry()
    assert (first.asked, second.asked) == (2, 0)
    first.error = None
    shelf.retry()
    shelf.retry()
    assert (first.acknowledged, second.acknowledged, len(shelf)) == (1, 1, 0)


def test_while_only_a_refused_record_waits_the_next_is_tried_at_once(shelf: Shelf) -> None:
    refused, fine = Record(ValueError("cannot be stored")), Record()
    shelf.put(refused, refused.acknowledge)
    shelf.put(fine, fine.acknowledge)
    assert (fine.acknowledged, len(shelf)) == (1, 1)


def test_a_record_refused_for_ever_does_not_hold_up_others(shelf: Shelf) -> None:
    refused, fine = Record(ValueError("cannot be stored")), Record()
    shelf.put(refused, refused.acknowledge)
    shelf.put(fine, fine.acknowledge)
    for _ in range(3):
        shelf.retry()
    assert (fine.acknowledged, refused.acknowledged, len(shelf)) == (1, 0, 1)


def test_an_acknowledgement_that_raises_leaves_the_timer_set() -> None:
    """For those that still wait."""
    timer = Timer()
    shelf = Shelf()
    shelf.use_timer(timer)
    first, second = Record(OperationalError("down")), Record()

    def acknowledge() -> None:
        raise ConnectionError("the broker is down")

    shelf.put(first, acknowledge)
    shelf.put(second, second.acknowledge)
    timer.clear()
    first.error = None
    with pytest.raises(ConnectionError):
        shelf.retry()
    assert (len(shelf), len(timer)) == (1, 1)
    shelf.retry()
    assert (second.acknowledged, len(shelf)) == (1, 0)


def test_the_delay_grows_to_its_limit_and_resets_after_the_outage(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    monkeypatch.setattr(shelf, "_call_after", lambda delay, action: delays.append(delay))
    record = Record(OperationalError("down"))
    shelf.put(record, record.acknowledge)
    for _ in range(10):
        shelf.retry()
    assert all(later > earlier for earlier, later in pairwise(delays[:5]))
    assert max(delays) <= MAX_DELAY_S * 1.2
    record.error = None
    shelf.retry()
    again = Record(OperationalError("down again"))
    shelf.put(again, again.acknowledge)
    assert delays[-1] <= FIRST_DELAY_S * 1.2


def test_the_shelf_records_with_a_connection_that_gives_up(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "STATEMENT_TIMEOUT_MS", 50)
    shelf.put(lambda: connection.cursor().execute("SELECT pg_sleep(20)"), lambda: pytest.fail("acknowledged"))
    assert len(shelf) == 1


def test_a_database_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = connection.settings_dict["HOST"], int(connection.settings_dict["PORT"])
    with proxied(host, port) as proxy:
        proxy.freeze()
        monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        monkeypatch.setitem(connection.settings_dict, "PORT", proxy.port)
        began = time.monotonic()
        with pytest.raises(OperationalError), impatient_connection():
            connection.cursor()
        assert time.monotonic() - began < CONNECT_TIMEOUT_S + 1


def test_a_database_that_shakes_hands_and_then_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its kernel acknowledges what is sent, so that no timeout of the connection or of the server applies."""
    monkeypatch.setattr(shelf_module, "DEADLINE_S", 0.5)
    host, port = connection.settings_dict["HOST"], int(connection.settings_dict["PORT"])
    with proxied(host, port) as proxy:
        proxy.mute()
        monkeypatch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        monkeypatch.setitem(connection.settings_dict, "PORT", proxy.port)
        began = time.monotonic()
        with pytest.raises((OperationalError, InterfaceError)), impatient_connection():
            connection.cursor().execute("SELECT 1")
        assert 0.5 <= time.monotonic() - began < 2


def test_a_record_in_time_leaves_neither_thread_nor_descriptor_behind() -> None:
    def held() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    before = held()
    for _ in range(3):
        with impatient_connection():
            connection.cursor().execute("SELECT 1")
    assert held() == before


def test_a_statement_without_an_answer_in_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shelf_module, "STATEMENT_TIMEOUT_MS", 50)
    with pytest.raises(OperationalError, match="statement timeout"), impatient_connection():
        connection.cursor().execute("SELECT pg_sleep(20)")


def test_a_lock_that_somebody_else_holds_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "LOCK_TIMEOUT_MS", 50)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(4711)")
        with pytest.raises(OperationalError, match="lock timeout"), impatient_connection():
            connection.cursor().execute("SELECT pg_advisory_lock(4711)")
        cursor.execute("SELECT pg_advisory_unlock(4711)")


def test_the_ordinary_connection_is_put_back_with_its_own_limits() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), current_setting('statement_timeout')")
        before = cursor.fetchone()
    with impatient_connection(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), current_setting('statement_timeout')")
        assert cursor.fetchone()[0] != before[0]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), current_setting('statement_timeout')")
        assert cursor.fetchone() == before
