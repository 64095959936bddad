"""`manage.py` with a database that is down: one line and exit status 1, whichever command it is."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from dlq.models import DeadLetter
from tests.support.processes import ROOT, environment

SERVER_DOWN = (
    'CommandError: database unavailable (connection to server at "127.0.0.1", port 1 failed: Connection refused):'
    " look at the server of DATABASE_URL\n"
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
def test_a_command_whose_database_is_down_says_so_in_one_line(command: str) -> None:
    ended = manage(*command.split())
    assert (ended.returncode, ended.stderr) == (1, SERVER_DOWN)


def test_with_traceback_it_shows_where() -> None:
    ended = manage("outbox_status", "--traceback")
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("dead_letters", [1, 3_000])
def test_an_export_whose_reader_has_seen_enough_ends_without_a_word(dead_letters: int) -> None:
    DeadLetter.objects.bulk_create(
        DeadLetter(message_id=f"m-{number}", cause="failed", error="x" * 100)
        for number in range(dead_letters)
    )
    with subprocess.Popen(
        [sys.executable, "manage.py", "dlq", "export"],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as exporting:  # fmt: skip
        assert exporting.stdout is not None
        assert exporting.stderr is not None
        if dead_letters > 1:
            exporting.stdout.readline()
        exporting.stdout.close()
        assert exporting.stderr.read() == b""
        assert exporting.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.django_db(transaction=True)
def test_a_command_whose_output_is_closed_ends_without_a_word() -> None:
    with subprocess.Popen(
        [sys.executable, "manage.py", "dlq", "show", "unknown"],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as showing:  # fmt: skip
        assert showing.stdout is not None
        assert showing.stderr is not None
        showing.stderr.close()
        assert showing.stdout.read() == b""
        assert showing.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("redirection", "reason", "unbuffered", "commands"),
    [
        (">/dev/full", "No space left on device", "", ("dlq export", "outbox_status", "dlq --help")),
        (">/dev/full", "No space left on device", "1", ("dlq list", "dlq discard m-2 --reason r", "dlq --help")),
        (">&-", "Bad file descriptor", "", ("dlq show m-1", "outbox_status")),
    ],
    ids=["full", "full, unbuffered", "closed"],
)  # fmt: skip
def test_a_command_that_cannot_write_its_output_says_so_in_one_line(
    redirection: str, reason: str, unbuffered: str, commands: tuple[str, ...]
) -> None:
    for number in range(200):  # more than is buffered
        DeadLetter.objects.create(message_id=f"m-{number}", cause="failed", error="x" * 100)
    for command in commands:
        ended = subprocess.run(
            f"exec {sys.executable} manage.py {command} {redirection}",
            shell=True, cwd=ROOT, env=environment({"PYTHONUNBUFFERED": unbuffered}), stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (
            1,
            f"CommandError: standard output cannot be written: {reason}\n",
        ), command
    discarded = DeadLetter.objects.get(message_id="m-2").state == "discarded"
    assert discarded is any("discard" in command for command in commands), "it was done, and only not said"


@pytest.mark.django_db(transaction=True)
def test_a_command_whose_messages_are_not_wanted_writes_its_output() -> None:
    DeadLetter.objects.create(message_id="m-1", cause="failed")
    listing = subprocess.run(
        f"{sys.executable} manage.py dlq list <&- 2>&-",
        shell=True, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "m-1" in listing.stdout


def test_a_broken_connection_is_not_taken_for_a_closed_output_pipe() -> None:
    """A reader that has seen enough, such as `head`, closes the pipe; that is no error, and this is one."""
    breaks = (
        "import manage, django.core.management as m\n"
        "def broken(argv): raise BrokenPipeError('the broker hung up')\n"
        "m.execute_from_command_line = broken\n"
        "manage.main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", breaks],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.endswith("BrokenPipeError: the broker hung up\n")


def test_a_command_that_is_interrupted_ends_without_a_traceback() -> None:
    with socket.socket() as silent:
        # A database that takes the connection and never answers.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgres://u:p@127.0.0.1:{silent.getsockname()[1]}/holdfast"
        with subprocess.Popen(
            [sys.executable, "manage.py", "outbox_status"],
            cwd=ROOT, env=environment({"DATABASE_URL": url}), stderr=subprocess.PIPE, start_new_session=True,
        ) as waiting:  # fmt: skip
            asked, _ = silent.accept()
            with asked:
                waiting.send_signal(signal.SIGINT)
                assert waiting.stderr is not None
                assert waiting.stderr.read() == b""
                assert waiting.wait(60) == 128 + signal.SIGINT
