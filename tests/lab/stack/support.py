"""A private stack in a directory of a test's own."""

from __future__ import annotations

import pwd
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest

from lab.stack import Stack
from lab.stack.postgres import _can_reach
from lab.stack.stack import ROOT

SERVER_URLS = ("DATABASE_URL", "BROKER_URL", "REDIS_URL")

# A program that holds a stack open until it is killed, as `make up` does.
HOLD = """
import sys, time
from pathlib import Path
from lab.stack import Stack
directory = Path(sys.argv[1])
stack = Stack(directory, title="test", env_file=directory / "stack.env", durable=False)
stack.start()
print("ready", flush=True)
time.sleep(600)
"""

# The same of a pooler; it prints the pooler's pid.
HOLD_A_POOLER = """
import os, sys, time
from pathlib import Path
from lab.stack.pgbouncer import PgBouncer
directory = Path(sys.argv[1])
log = directory.parent / "pgbouncer.log"
pooler = PgBouncer(directory, database_url=os.environ["DATABASE_URL"], log=log, env=dict(os.environ))
pooler.start()
print(pooler._process.pid, flush=True)
time.sleep(600)
"""


def open_stack(directory: Path) -> Stack:
    return Stack(directory, title="test", env_file=directory / "stack.env", durable=False)


def query(url: str, sql: str) -> object:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def another_user(packages: Path) -> tuple[pwd.struct_passwd, str]:
    """Somebody who is not root, and an interpreter of our version whose `packages` he may read; skips without one."""
    nobody = pwd.getpwnam("nobody")
    if _can_reach(packages, nobody.pw_uid):
        for candidate in (Path(sys.executable), Path(f"/usr/bin/python3.{sys.version_info.minor}")):
            if candidate.exists() and _can_reach(candidate.resolve(), nobody.pw_uid):
                return nobody, str(candidate)
    pytest.skip("the interpreter or its packages are where other users cannot go (under /root?)")


def hold_a_stack(directory: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    return holder
