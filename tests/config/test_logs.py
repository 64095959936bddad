"""The log of the application: one line for each attempt of a task, and JSON where the environment says so."""

from __future__ import annotations

import json
import logging
import logging.config
import socket
import sys
from typing import Any

import pytest
import requests
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

import outbox
from config.logs import JsonLines
from dlq.masking import MASK, Formatter
from outbox.testing import wait_until_settled
from tests.support import rawpublish, tasks
from tests.support.processes import await_, relay, started, web

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_json_line_has_the_known_fields_and_no_secret() -> None:
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        record = logging.LogRecord(
            "some.logger", logging.ERROR, "", 0, "failed\nfor %s", ("token=hunter2",), sys.exc_info()
        )
    record.__dict__ |= {
        "task": "t",
        "correlation_id": "order-17",
        "attempt": 2,
        "request_id": "",
        "again_in_s": None,
    }
    record.__dict__["data"] = {"args": "a secret of Celery's record"}
    (line,) = JsonLines().format(record).splitlines()
    said = json.loads(line)
    assert "hunter2" not in said["traceback"]
    assert said.pop("traceback").startswith("Traceback (most recent call last)")
    assert said.pop("time").endswith("+00:00")
    assert said == {
        "level": "ERROR",
        "logger": "some.logger",
        "message": f"failed\nfor token={MASK}",
        "task": "t",
        "attempt": 2,
        "correlation_id": "order-17",
        "order_id": "17",
    }


@pytest.mark.slow
def test_a_worker_as_it_is_deployed_writes_one_line_for_each_attempt(clean: None) -> None:
    secret = "Qx7hunter2hunter2"
    with outbox.in_request("req-1", TRACE):
        done = outbox.enqueue(tasks.note.s("done").set(correlation_id="order-17"))
        refused = outbox.enqueue(tasks.is_refused.s(999, secret, note="x").set(correlation_id="c-2"))
        killed = outbox.enqueue(tasks.over_the_hard_limit.s("over").set(correlation_id="c-3"))
    # As in the Procfile, without a --loglevel.
    command = [
        *("-m", "celery", "-A", "config", "worker", "--queues", "default", "--concurrency", "1"),
        *("--hostname", "logs@test", "--without-gossip", "--without-mingle"),
    ]

    def attempts() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in process.output().splitlines() if line.startswith('{"time"')]
        return [line for line in lines if "outcome" in line]

    with relay(), started(command, env={"LOG_FORMAT": "json"}, ready="concurrency: 1") as process:
        # Its name could be a line of the log.
        unknown = rawpublish.send("evil\nERROR", 17, _headers={"correlation_id": "order-18\nERROR"})
        wait_until_settled(60)
        await_(lambda: len(attempts()) >= 5, "a line for each of four attempts and for what is none")
        await_(lambda: "exited with 'signal 9" in process.output(), "billiard's line for the killed process")
        lines, log = attempts(), process.output()

    def of(message_id: Any) -> list[dict[str, Any]]:
        return [line for line in lines if line["message_id"] == str(message_id)]

    assert len(lines) == 5
    (line,) = of(unknown)
    assert (line["logger"], line["task"], line["outcome"], line["correlation_id"], line["level"]) == (
        "dlq.worker.consumer",
        "evil\nERROR",
        "failed for good",
        "order-18\nERROR",
        "ERROR",
    )
    (line,) = [line for line in log.splitlines() if "exited with 'signal 9" in line]
    assert json.loads(line)["logger"] == "multiprocessing"
    (line,) = of(done)
    assert line["duration_s"] >= 0
    known = {
        name: line[name] for name in ("task", "outcome", "attempt", "order_id", "request_id", "trace_id")
    }
    assert known == {
        "task": "tests.support.tasks.note",
        "outcome": "done",
        "attempt": 1,
        "order_id": "17",
        "request_id": "req-1",
        "trace_id": TRACE[3:35],
    }
    assert log.count(str(done)) == json.dumps(line).count(str(done)), "Celery has no line of its own"
    assert [(line["outcome"], line["attempt"], line["level"]) for line in of(refused)] == [
        ("failed", 1, "WARNING"),
        ("failed for good", 2, "ERROR"),
    ]
    assert {line["arguments"] for line in of(refused)} == {f"order_id=999, pass_phrase_of={MASK}, note='x'"}
    (line,) = of(killed)
    assert (line["outcome"], line["correlation_id"], line["request_id"]) == ("failed", "c-3", "req-1")
    assert line["error"].startswith("TimeLimitExceeded")
    assert line["duration_s"] >= 1
    assert secret not in log


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    """Else the name of a task, which anybody who can write to the broker chooses, could be a line of its own."""
    forged = "2026-11-29 00:00:00,000 ERROR fake: broker line"
    formatter = Formatter("%(levelname)s: %(message)s")

    def shown(message: str, exc_info: Any = None) -> list[str]:
        record = logging.LogRecord("some.logger", logging.ERROR, "", 0, "lost %s", (message,), exc_info)
        return formatter.format(record).splitlines()

    controls = "\x1b[31m\r\x7f\x85\x9b\u2028\u2029\t"
    (line,) = shown(f"evil\n{forged}{controls}Größe\\n, token=hunter2\n")
    assert line == (
        f"ERROR: lost evil\\n{forged}\\u001b[31m\\r\\u007f\\u0085\\u009b\\u2028\\u2029\\tGröße\\n, token={MASK}\\n"
    )
    try:
        raise ValueError("\x1b[31mpassword=hunter2")
    except ValueError:
        first, begin, *_, last = shown("x\ny", sys.exc_info())
    assert first == "ERROR: lost x\\ny"
    assert begin == "    Traceback (most recent call last):"
    assert last == f"    ValueError: \\u001b[31mpassword={MASK}"


def test_no_line_of_a_traceback_begins_where_a_record_begins() -> None:
    """The text of its exception, of one that caused it, a note and a line of the stack may each have line breaks."""
    forged = "2026-11-29 00:00:00,000 ERROR outbox.report: task forged"
    options = dict(settings.LOGGING["formatters"]["human"])
    formatter = logging.config.DictConfigurator({}).configure_formatter(options)
    try:
        try:
            raise ValueError(f"cause\n{forged} 1\r\n{forged} 2\n\n")
        except ValueError as cause:
            error = KeyError("x")
            error.add_note(f"a note\n{forged} 3")
            raise ExceptionGroup(f"several\n{forged} 4", [error, OSError(f"one\n{forged} 5")]) from cause
    except ExceptionGroup:
        record = logging.LogRecord(
            "some.logger", logging.ERROR, "", 0, "lost", (), sys.exc_info(), sinfo=f"Stack:\n{forged} 6"
        )
    first, *others = formatter.format(record).split("\n")
    assert first.endswith(" ERROR some.logger: lost")
    assert [line for line in others if not line.startswith("    ")] == []
    assert sum(forged in line for line in others) >= 6


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_requests_that_gunicorn_cannot_read_are_logged_like_the_rest() -> None:
    secrets = ("hunter2query", "sk_live_4eC39HqLyjWDarjtT1zdp7dc")
    garbage = (
        f"GET  /?api_key={secrets[1]}&password={secrets[0]} HTTP/1.1\r\n\r\n".encode(),
        b"GET /\xff?api_key=%s&password=%s HTTP/1.1\r\nHost: x\r\n\r\n"
        % (secrets[1].encode(), secrets[0].encode()),
        f"GET / HTTP/1.1\r\nHost: x\r\npassword={secrets[0]} {secrets[1]}\r\n\r\n".encode(),
    )
    with web(env={"LOG_FORMAT": "json"}) as (process, address):
        host, port = address.removeprefix("http://").split(":")
        for request in garbage:
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                connection.sendall(request)
                connection.recv(4096)

        def lines() -> list[str]:
            return [line for line in process.output().splitlines() if "Invalid" in line]

        await_(lambda: len(lines()) >= len(garbage), "a line for each request")
        output = process.output()
        for line in lines():
            assert json.loads(line)["logger"] == "gunicorn.error"
    assert not [secret for secret in secrets if secret in output]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("debug", ["0", "1"])
def test_the_mistake_of_a_client_is_a_warning_without_a_traceback(debug: str) -> None:
    """Once: with DEBUG=1 Django has a handler of its own, whose lines are neither masked nor JSON."""
    staff = Client()
    staff.force_login(User.objects.create_superuser("root", password="x"))
    session = {settings.SESSION_COOKIE_NAME: staff.cookies[settings.SESSION_COOKIE_NAME].value}
    messages = "/admin/outbox/outboxmessage/"
    too_many = {f"field{n}": "x" for n in range(settings.DATA_UPLOAD_MAX_NUMBER_FIELDS + 1)}
    with web(env={"DEBUG": debug}) as (process, address):

        def status(path: str, method: str = "GET", **more: Any) -> int:
            asked = requests.request(
                method, address + path, cookies=session, timeout=30, allow_redirects=False, **more
            )
            return asked.status_code

        assert status(f"{messages}?status__exact=zzz") == 200
        assert status(f"{messages}?status__gte=zzz") == 400
        assert status(f"{messages}?nothing=x") == 400
        for query in ("e=1", "p=zzz", "p=99999", "o=zzz", "o=99", "_facets=x"):
            assert status(f"{messages}?{query}") in (200, 302), query
        assert status("/admin/login/", headers={"Host": "elsewhere.example"}) == 400
        assert status("/admin/login/", "POST", data=too_many) in (400, 403)
        for path in ("/api/orders", "/webhooks/gateway"):
            assert status(path, "POST", data=b"{no json") in (400, 401)
        await_(lambda: "POST /webhooks/gateway" in process.output(), "the line of the last request")
        lines = process.output().splitlines()
    assert [line for line in lines if "Traceback" in line or " ERROR " in line] == []
    for said in ("This list is not filtered by status__gte", "Invalid HTTP_HOST header: 'elsewhere.example'"):
        (line,) = (line for line in lines if said in line)
        assert " WARNING django.security." in line
