"""`make up`: the whole system on this machine until Ctrl-C."""

from __future__ import annotations

import errno
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from uuid import UUID

from django.db import DatabaseError, connection

from lab.collect import Sandbox
from lab.fleet import Fleet, both, console, files
from lab.prepare import DEMO_KEY, introduce_merchants, prepare
from lab.signals import Stopped, raise_on_stop
from lab.stack import Stack, StackError
from lab.stack.processes import why_not_listen
from lab.stack.stack import VAR

READY_SECONDS = 90.0

#: The processes of the Procfile that write a heartbeat: all but these.
WITHOUT_HEARTBEAT = {"web", "sandbox"}

DEAD_LETTER = """\
dead   to see a dead letter, enqueue an email whose template does not exist, in a second terminal:
       .venv/bin/python manage.py shell -v 0 -c 'from notifications.tasks import send_notification; \
send_notification.delay(1, "goodbye")'
       .venv/bin/python manage.py dlq list
       then `manage.py dlq show ID` for its traceback, and `manage.py dlq replay ID` to run it again"""


def main() -> int:
    """Run everything. Returns the exit code: 0 after Ctrl-C, 1 with one line when it cannot run."""
    raise_on_stop()
    try:
        return _run(_port())
    except Stopped:
        return 0
    except (StackError, DatabaseError) as problem:
        print(f"up: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1


def _run(port: int) -> int:
    stack = Stack(title="make up")
    fleet: Fleet | None = None
    try:
        stack.start()
        _refuse_unless_free(os.environ.get("WEB_HOST") or "127.0.0.1", port)
        stack.update_environment(PORT=str(port), SANDBOX_DATA=str(VAR / "sandbox"))
        prepared = prepare(stack.environment, log=stack.directory / "log" / "prepare.log")
        logs = stack.directory / "log"
        fleet = Fleet(stack.process_environment(), both(console(), files(logs)))
        for name in fleet.names:
            (logs / f"{name}.log").write_text("")
        earlier = _heartbeats()
        fleet.start()
        wait_until_ready(port, watch=lambda: _watch(fleet, stack))
        late = _await_heartbeats(fleet, stack, earlier)
        introduce_merchants(Sandbox(stack.environment["STRIPE_API_BASE"]))
        print(f"logs   {logs}/: {', '.join(f'{name}.log' for name in fleet.names)}", flush=True)
        if late:
            print(f"late   no heartbeat yet: {', '.join(late)}", flush=True)
        print(DEAD_LETTER, flush=True)
        if prepared.admin_password is not None:
            print(
                f"admin  user `admin`, password {prepared.admin_password} (shown only this once)", flush=True
            )
        print(f"key    {DEMO_KEY} holds the Bearer key of the API", flush=True)
        print(f"ready http://127.0.0.1:{port}/", flush=True)
        while True:
            _watch(fleet, stack)
            time.sleep(0.2)
    finally:
        if fleet is not None:
            fleet.stop()
        stack.stop()
        (VAR / "sandbox-url").unlink(missing_ok=True)


def _refuse_unless_free(host: str, port: int) -> None:
    error = why_not_listen(host, port)
    if error is None:
        return
    if error.errno == errno.EADDRINUSE:
        raise StackError(
            f"port {port} is busy: stop what listens there, or choose another one: make up PORT={port + 1}"
        )
    if error.errno == errno.EACCES:
        raise StackError(
            f"listening on port {port} is not permitted: choose one from 1024 on, such as make up PORT=8000"
        )
    raise StackError(f"cannot listen on {host}:{port} (WEB_HOST, PORT): {error.strerror}")


def _watch(fleet: Fleet, stack: Stack) -> None:
    stack.watch()
    fleet.watch()


def _heartbeats() -> dict[UUID, int]:
    """The pid of each incarnation that has a heartbeat row."""
    from outbox.models import Worker

    return dict(Worker.objects.values_list("incarnation", "pid"))


def _await_heartbeats(fleet: Fleet, stack: Stack, earlier: Collection[UUID]) -> list[str]:
    """Wait until every process that writes a heartbeat has written one: what they print while they start would push the
    password out of sight. Returns the names of those that have none after ``READY_SECONDS``.

    ``earlier``: the incarnations of an earlier run, whose pids may be in use again.
    """
    give_up_at = time.monotonic() + READY_SECONDS
    while True:
        _watch(fleet, stack)
        pids = {pid for incarnation, pid in _heartbeats().items() if incarnation not in earlier}
        late = [name for name in fleet.names if name not in WITHOUT_HEARTBEAT and fleet.pid(name) not in pids]
        if not late or time.monotonic() > give_up_at:
            connection.close()
            return late
        time.sleep(0.1)


def wait_until_ready(port: int, *, watch: Callable[[], object]) -> None:
    """Wait until the web process says that it and what it needs are there; ``watch`` is called while waiting."""
    give_up_at = time.monotonic() + READY_SECONDS
    last = ""
    while time.monotonic() < give_up_at:
        watch()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except urllib.error.HTTPError as answer:
            # It names the server that is missing.
            last = answer.read().decode(errors="replace")
        except (http.client.HTTPException, OSError) as problem:
            last = str(problem)
        time.sleep(0.1)
    raise StackError(f"/readyz did not answer 200 within {READY_SECONDS:.0f} s: {last}")


def _port() -> int:
    text = os.environ.get("PORT") or "8000"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise StackError(f"PORT must be a port number, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
