"""`make up`: the whole system on this machine until Ctrl-C."""

from __future__ import annotations

import errno
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from django.db import DatabaseError

from lab.collect import Sandbox
from lab.fleet import Fleet, both, console, files
from lab.prepare import DEMO_KEY, introduce_merchants, prepare
from lab.signals import Stopped, raise_on_stop
from lab.stack import Stack, StackError
from lab.stack.processes import why_not_listen
from lab.stack.stack import VAR

READY_SECONDS = 90.0


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
        fleet.start()
        wait_until_ready(port, watch=lambda: _watch(fleet, stack))
        introduce_merchants(Sandbox(stack.environment["STRIPE_API_BASE"]))
        print(f"logs   {logs}/: {', '.join(f'{name}.log' for name in fleet.names)}", flush=True)
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
