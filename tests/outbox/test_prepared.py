"""A prepared statement: planned for the table as it is, and never in the way of the next execution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_mock import MockerFixture

from lab.stack.pgbouncer import PgBouncer
from outbox import prepared
from outbox.database import is_not_now
from outbox.prepared import Prepared
from tests.support.pooler_fixture import through

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def clock(mocker: MockerFixture) -> Any:
    return mocker.patch("outbox.prepared.time.monotonic", return_value=1000.0)


@pytest.fixture(autouse=True)
def a_session_of_its_own() -> Iterator[None]:
    connection.close()
    yield
    connection.close()


@pytest.fixture
def half() -> Prepared:
    return Prepared("SELECT 100 / %(by)s, %(text)s || '%%', 0", by="int", text="text")


def plans() -> list[tuple[str, int]]:
    """The session's prepared statements, and how often each was executed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, generic_plans + custom_plans FROM pg_prepared_statements ORDER BY name")
        return cursor.fetchall()


def test_a_session_plans_it_once(half: Prepared, clock: Any) -> None:
    answers = {half.one(by=by, text="it's") for by in (1, 2, 4)}
    assert answers == {(100, "it's%"), (50, "it's%"), (25, "it's%")}
    assert [times for _, times in plans()] == [3]


def test_with_parameters_that_the_server_binds_nothing_is_prepared(
    half: Prepared, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EXECUTE takes none of them, as psycopg 3 sends them then; psycopg 2 knows no such option."""
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "server_side_binding", True)
    assert {half.one(by=by, text="it's") for by in (1, 2)} == {(100, "it's%"), (50, "it's%")}
    assert plans() == []


def test_another_session_has_a_plan_of_its_own(half: Prepared, clock: Any) -> None:
    half.one(by=1, text="")
    connection.close()
    assert half.one(by=2, text="") == (50, "%")
    assert [times for _, times in plans()] == [1]


def test_a_plan_is_given_up_for_another_after_its_time(half: Prepared, clock: Any) -> None:
    half.one(by=1, text="")
    [(before, _)] = plans()
    clock.return_value += prepared.PLAN_LASTS_S
    half.one(by=2, text="")
    [(after, times)] = plans()
    assert (after != before, times) == (True, 1)


def test_a_plan_is_given_up_for_another_when_the_table_has_doubled(clock: Any) -> None:
    sized = Prepared("SELECT 1, %(bytes)s", bytes="bigint")
    kib, names = 1024, []
    for size in (0, 128, 129, 129, 200, 256, 100, 200, 201, 201):
        assert sized.one(bytes=size * kib) == (1,)
        names.append(plans()[0][0])
    first, second, third = sorted(set(names), key=names.index)
    assert names == [first] * 3 + [second] * 6 + [third]


def test_a_statement_without_parameters_is_prepared_too(clock: Any) -> None:
    both = Prepared("SELECT n, 0 FROM generate_series(1, 2) n")
    assert both.all() == both.all() == [(1,), (2,)]
    assert [times for _, times in plans()] == [2]


def test_two_statements_do_not_meet(half: Prepared, clock: Any) -> None:
    other = Prepared("SELECT %(by)s, 0", by="int")
    assert [(half.one(by=by, text=""), other.one(by=by)) for by in (1, 2)] == [
        ((100, "%"), (1,)),
        ((50, "%"), (2,)),
    ]


@pytest.mark.parametrize("planned_before", [True, False])
def test_an_execution_that_fails_is_not_in_the_way_of_the_next(
    half: Prepared, clock: Any, planned_before: bool
) -> None:
    if planned_before:
        half.one(by=1, text="")
    for wait_s in (0, 0, prepared.PLAN_LASTS_S, 0):
        clock.return_value += wait_s
        with pytest.raises(Exception, match="division by zero"):
            half.one(by=0, text="")
    assert half.one(by=2, text="") == (50, "%")


def test_a_plan_outlives_the_transaction_that_made_it_and_was_rolled_back(half: Prepared, clock: Any) -> None:
    with transaction.atomic():
        half.one(by=1, text="")
        transaction.set_rollback(True)
    assert half.one(by=2, text="") == (50, "%")
    assert [times for _, times in plans()] == [2]


def test_a_signal_between_answer_and_note_does_no_harm(
    half: Prepared, clock: Any, mocker: MockerFixture
) -> None:
    """A soft time limit may ring anywhere: also when the database knows a name and this process does not yet."""
    half.one(by=1, text="")
    clock.return_value += prepared.PLAN_LASTS_S
    noted = mocker.patch.object(half, "_plans", wraps=half._plans)
    noted.__setitem__ = mocker.Mock(side_effect=TimeoutError)
    with pytest.raises(TimeoutError):
        half.one(by=2, text="")
    mocker.stopall()
    assert half.one(by=4, text="") == (25, "%")


def test_nothing_is_prepared_where_sessions_are_shared(half: Prepared, pooler: PgBouncer) -> None:
    """Two clients that execute in turn: each meets the sessions of the other."""
    other = Prepared("SELECT 200 / %(by)s, %(text)s, 0", by="int", text="text")
    with through(pooler):
        for by in (1, 2, 4, 5):
            assert half.one(by=by, text="a") == (100 // by, "a%")
            assert other.one(by=by, text="b") == (200 // by, "b")
            assert plans() == []


def test_whether_sessions_are_shared_is_asked_once_for_each_connection(half: Prepared, clock: Any) -> None:
    with CaptureQueriesContext(connection) as first:
        half.one(by=1, text="")
    assert ["pg_backend_pid" in query["sql"] for query in first] == [True, False]
    with CaptureQueriesContext(connection) as later:
        clock.return_value += prepared.PLAN_LASTS_S
        half.one(by=1, text="")
        half.one(by=1, text="")
    assert len(later) == 2


def test_a_plan_discarded_by_others_costs_one_retried_failure(half: Prepared, clock: Any) -> None:
    half.one(by=1, text="")
    with connection.cursor() as cursor:
        cursor.execute("DISCARD ALL")
    # OperationalError of psycopg 2, ProgrammingError of psycopg 3: it is told by its code.
    with pytest.raises(DatabaseError, match="does not exist") as caught:
        half.one(by=2, text="")
    assert is_not_now(caught.value)
    assert half.one(by=2, text="") == (50, "%")
