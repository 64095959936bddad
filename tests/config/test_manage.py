"""`manage.py` with a database that is away: one line and exit status 1, whichever command it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.processes import ROOT, environment

AWAY = (
    'CommandError: database away (connection to server at "127.0.0.1", port 1 failed: Connection refused)\n'
)


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env=environment({"DATABASE_URL": "postgres://u:p@127.0.0.1:1/holdfast"}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command", ["dlq list", "dlq export", "dlq purge --reason r", "outbox_status", "reconcile", "migrate"]
)
def test_a_command_whose_database_is_away_says_so_in_one_line(command: str) -> None:
    ended = manage(*command.split())
    assert (ended.returncode, ended.stderr) == (1, AWAY)


def test_with_traceback_it_shows_where() -> None:
    ended = manage("outbox_status", "--traceback")
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")
