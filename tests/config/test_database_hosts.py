"""Several servers in DATABASE_URL: the one that can be written to is used, and after a failover the other one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg2
import pytest
from django.db import ConnectionHandler, OperationalError

from config import addresses
from lab.stack.postgres import NAME, Postgres
from tests.support.brokers import private_directory

OURS = urlsplit(os.environ["DATABASE_URL"])


@pytest.fixture
def other() -> Iterator[Postgres]:
    """A second server, with the user, password and database of the run's own."""
    with private_directory() as directory:
        directory.chmod(0o711)  # as root, the server runs as another user and must be able to pass
        server = Postgres(
            directory / "postgres",
            password=str(OURS.password),
            log=directory / "log",
            env=dict(os.environ),
            durable=False,
        )
        server.start()
        yield server
        server.stop()
        server.erase()


def set_read_only(server: Postgres, value: str) -> None:
    """As a standby is, and a primary that was demoted."""
    session = psycopg2.connect(server.url, options="-c default_transaction_read_only=off")
    session.autocommit = True
    session.cursor().execute(f"ALTER DATABASE {NAME} SET default_transaction_read_only = {value}")
    session.close()


@pytest.mark.django_db(transaction=True)
def test_the_writable_server_is_used_also_after_a_failover(
    other: Postgres,
) -> None:
    """After the failover it is the other server."""
    login = OURS.netloc.rpartition("@")[0]
    url = f"postgres://{login}@127.0.0.1:{other.port},{OURS.hostname}:{OURS.port}/{NAME}"
    database = ConnectionHandler({"default": addresses.database(url)})["default"]

    def port() -> int:
        with database.cursor() as cursor:
            cursor.execute("SELECT inet_server_port()")
            return int(cursor.fetchone()[0])

    set_read_only(other, "on")
    assert port() == OURS.port, "it stands second"
    database.close()
    set_read_only(other, "off")
    assert port() == other.port
    other.stop()
    with pytest.raises(OperationalError):
        port()
    database.close()
    assert port() == OURS.port
    database.close()


@pytest.mark.parametrize(
    ("hosts", "host", "port"),
    [
        ("one:5432,two:5433", "one,two", "5432,5433"),
        ("one,two:5433", "one,two", ",5433"),
        ("[::1]:5432,%2Frun%2Fpostgresql", "::1,/run/postgresql", "5432,"),
    ],
)
def test_each_server_has_a_port_of_its_own(hosts: str, host: str, port: str) -> None:
    config = addresses.database(f"postgres://user:p%2Cw@{hosts}/holdfast?target_session_attrs=any")
    found = {name: config[name] for name in ("HOST", "PORT", "USER", "PASSWORD", "NAME")}
    assert found == {"HOST": host, "PORT": port, "USER": "user", "PASSWORD": "p,w", "NAME": "holdfast"}
    assert config["OPTIONS"] == {"target_session_attrs": "any"}
