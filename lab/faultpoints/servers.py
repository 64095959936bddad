"""The servers of the explorers: one PostgreSQL and one Redis, and for each explorer a database, two Redis databases
and a sandbox of its own.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import requests

from lab.stack import Stack
from lab.stack.processes import die_with_parent
from lab.stack.stack import ROOT

#: Redis has 16 databases; the first are the test run's own.
FIRST_REDIS_DATABASE = 4


@contextmanager
def environments(explorers: int) -> Iterator[list[dict[str, str]]]:
    """The whole environment of each explorer; everything is stopped and dropped at the end."""
    with ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-crashpoints-")))
        directory.chmod(0o711)  # as root, PostgreSQL runs as another user and must be able to pass
        stack = Stack(directory / "stack", title="crashpoints", env_file=None, durable=False)
        closing.enter_context(stack)
        names = [f"crashpoints_{os.getpid()}_{number}" for number in range(explorers)]
        role, password = f"crashpoints_{os.getpid()}", secrets.token_hex(8)
        closing.callback(_drop, stack.environment["DATABASE_URL"], names, role)
        _create_role(stack.environment["DATABASE_URL"], role, password)
        servers = stack.environment | {"DATABASE_URL": _as(stack.environment["DATABASE_URL"], role, password)}
        found = [
            _environment(servers, name, number, closing, directory / name)
            for number, name in enumerate(names)
        ]
        _create(stack.environment["DATABASE_URL"], names[0])
        _migrate(found[0])
        for name in names[1:]:
            _create(stack.environment["DATABASE_URL"], name, template=names[0])
        yield found


def _environment(
    servers: dict[str, str], name: str, number: int, closing: ExitStack, directory: Path
) -> dict[str, str]:
    secret = f"whsec_{secrets.token_hex(8)}"
    sandbox, smtp = closing.enter_context(_sandbox(directory, secret))
    redis_database = FIRST_REDIS_DATABASE + 2 * number
    return {
        **servers,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": _named(servers["DATABASE_URL"], name),
        "BROKER_URL": _named(servers["REDIS_URL"], str(redis_database)),
        "REDIS_URL": _named(servers["REDIS_URL"], str(redis_database + 1)),
        "STRIPE_API_BASE": sandbox,
        "STRIPE_API_KEY": "sk_test_crashpoints",
        "STRIPE_WEBHOOK_SECRET": secret,
        "WAREHOUSE_URL": f"{sandbox}/warehouse",
        "CRM_URL": f"{sandbox}/crm",
        "EMAIL_URL": f"smtp://{smtp}",
        "WEBHOOKS_ALLOW_PRIVATE": "1",
        "ALLOWED_HOSTS": "testserver",
        "LOG_LEVEL": "CRITICAL",
        "PYTHONWARNINGS": "ignore",
    }


def _as(url: str, role: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


def _named(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@contextmanager
def _sandbox(directory: Path, secret: str) -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "lab.sandbox", "--data", str(directory)]
    environment = os.environ | {"STRIPE_WEBHOOK_SECRET": secret}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        preexec_fn=die_with_parent(signal.SIGTERM),
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()  # ends without a line if the process could not start
            if not line.startswith("sandbox at "):
                raise RuntimeError(f"the sandbox did not start: {line!r}")
            url = line.split()[2].rstrip("/")
            smtp = requests.get(f"{url}/healthz", timeout=10).json()["smtp"]
            yield url, f"{smtp['host']}:{smtp['port']}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _create(server_url: str, name: str, template: str = "template0") -> None:
    _administrate(server_url, [f"CREATE DATABASE {name} TEMPLATE {template}"])


def _create_role(server_url: str, role: str, password: str) -> None:
    """A role whose password is cheap to prove: every child connects, and 4,096 rounds of hashing take longer than that."""
    _administrate(
        server_url,
        [
            "SELECT set_config(name, '1', false) FROM pg_settings WHERE name = 'scram_iterations'",
            f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'",
        ],
    )


def _drop(server_url: str, names: list[str], role: str) -> None:
    _administrate(
        server_url,
        [
            *(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in names),
            f"DROP ROLE IF EXISTS {role}",
        ],
    )


def _administrate(server_url: str, statements: list[str]) -> None:
    connection = psycopg2.connect(server_url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


def _migrate(environment: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--no-input", "--verbosity", "0"],
        cwd=ROOT,
        env=os.environ | environment,
        check=True,
    )
