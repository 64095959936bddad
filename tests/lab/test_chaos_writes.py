"""The faults of a database that cannot write bite, are counted, and end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import Error, connection

from lab.chaos.faults import KINDS, writes
from lab.chaos.system import Database
from outbox.database import sqlstate
from tests.support.messages import elsewhere
from tests.support.processes import await_, environment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def database() -> Iterator[Database]:
    found = Database(environment()["DATABASE_URL"])
    writes.install(found)
    yield found
    found.rows("DROP FUNCTION chaos_disk_full CASCADE")
    found.rows("DROP SEQUENCE chaos_refused")
    found.close()


def struck(name: str, database: Database) -> Any:
    system: Any = SimpleNamespace(held=set(), database=database, transactions=lambda: [1])
    hit = KINDS[name].strike(system, random.Random(1))
    assert hit is not None
    return hit


def write() -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO outbox_test_effect (name) VALUES ('a')")


def refused() -> str | None:
    """The SQLSTATE with which a session of the application is refused, None when it writes."""
    connection.close()
    try:
        write()
    except Error as error:
        return sqlstate(error)
    return None


def test_a_full_disk_refuses_what_is_inserted_and_counts_it(database: Database) -> None:
    assert refused() is None
    hit = struck("disk of the database full", database)
    assert not hit.met()
    assert refused() == "53100"
    assert hit.met()
    assert hit.heal() == 1
    assert refused() is None


def test_a_read_only_server_refuses_every_session(database: Database) -> None:
    hit = struck("database read-only", database)
    try:
        assert refused() == "25006"
    finally:
        hit.heal()
    assert refused() is None


def test_a_missing_standby_holds_every_commit(database: Database) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    hit = struck("synchronous standby gone", database)
    try:
        with elsewhere(write):
            await_(lambda: database.number(waiting), "it waits in its COMMIT")
            hit.heal()
    finally:
        hit.heal()
    assert not database.number(waiting)
